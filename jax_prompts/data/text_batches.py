"""Batches texts in few shapes, since every shape is compiled: sorted by length, and short batches rounded up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, Int32

from jax_prompts.data.layout import RaggedTokens, SpecialTokens, encoder_tokens
from jax_prompts.data.length_groups import planned


def text_batches(
    texts: Sequence[Sequence[int]],
    prompts: Sequence[Int[np.ndarray, " _"]],
    *,
    batch_size: int,
    plan: Callable[[list[int], list[int]], Sequence[int]],
    special_tokens: SpecialTokens,
    parts: int = 1,
) -> Iterator[tuple[list[int], Int32[np.ndarray, "B L"]]]:
    """The numbers of a batch's texts, and their tokens, each behind its prompt; rows after those are copies.

    Args:
      texts: tokens of each.
      prompts: virtual token ids of each, of any lengths.
      batch_size: texts of one batch at most.
      plan: `plan(needed_K, rows_K) -> lengths`, given the longest text of each batch and its rows: what texts are
        padded to, in rising order.
      special_tokens: of the vocabulary.
      parts: divides the rows of every batch.
    """
    if not texts:
        return
    longest = max(map(len, prompts), default=0)
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rows_K = [-(-power_of_two(len(numbers), batch_size) // parts) * parts for numbers in batches]
    lengths = plan([len(texts[numbers[-1]]) for numbers in batches], rows_K)
    for numbers, filled in zip(batches, rows_K, strict=True):
        rows = numbers + numbers[-1:] * (filled - len(numbers))
        length = longest + planned(lengths, len(texts[numbers[-1]]))
        texts_B, prompts_B = (
            RaggedTokens.of(texts[row] for row in rows),
            RaggedTokens.of(prompts[row] for row in rows),
        )
        yield numbers, encoder_tokens(texts_B, prompts_B, length, special_tokens)


def power_of_two(count: int, limit: int | None = None) -> int:
    """The least that is not below `count`, or `limit` where that is less."""
    power = 1 << (count - 1).bit_length()
    return power if limit is None else min(power, limit)
