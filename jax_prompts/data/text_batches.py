"""Batches texts in few shapes, since every shape is compiled.

They are sorted by length, and lengths and short batches rounded up to powers of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Int32

from jax_prompts.data.layout import ROUNDING, RaggedTokens, SpecialTokens, encoder_tokens


def text_batches(
    texts: Sequence[Sequence[int]],
    prompts: Sequence[Int[np.ndarray, " _"]],
    *,
    batch_size: int,
    limit: int,
    special_tokens: SpecialTokens,
    parts: int = 1,
) -> Iterator[tuple[list[int], Int32[np.ndarray, "B L"]]]:
    """The numbers of a batch's texts, and their tokens, each behind its prompt; rows after those are copies.

    Args:
      texts: tokens of each, `limit` at most.
      prompts: virtual token ids of each, of any lengths.
      batch_size: texts of one batch at most.
      limit: tokens of the longest rows.
      special_tokens: of the vocabulary.
      parts: divides the rows of every batch.
    """
    longest = max(map(len, prompts), default=0)
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        filled = -(-power_of_two(len(numbers), batch_size) // parts) * parts
        rows = numbers + numbers[-1:] * (filled - len(numbers))
        length = longest + power_of_two(max(ROUNDING, len(texts[numbers[-1]])), limit)
        texts_B, prompts_B = (
            RaggedTokens.of(texts[row] for row in rows),
            RaggedTokens.of(prompts[row] for row in rows),
        )
        yield numbers, encoder_tokens(texts_B, prompts_B, length, special_tokens)


def power_of_two(count: int, limit: int | None = None) -> int:
    """The least that is not below `count`, or `limit` where that is less."""
    power = 1 << (count - 1).bit_length()
    return power if limit is None else min(power, limit)
