"""Texts into batches: everything once, each behind its prompt, in few shapes."""

import numpy as np
import pytest

from jax_prompts.data.layout import SpecialTokens
from jax_prompts.data.text_batches import power_of_two, text_batches


@pytest.mark.parametrize(
    ("count", "limit", "power"), [(1, None, 1), (2, None, 2), (3, None, 4), (9, 12, 12), (8, 12, 8)]
)
def test_power_of_two(count, limit, power):
    assert power_of_two(count, limit) == power


@pytest.mark.parametrize("begin", [0, 1])
def test_every_text_stands_once_behind_its_prompt(begin):
    draw = np.random.default_rng(0)
    texts = [[7] * begin + draw.integers(10, 90, draw.integers(1, 60)).tolist() + [1] for _ in range(77)]
    prompts = [np.arange(100, 100 + draw.integers(0, 6), dtype=np.int32) for _ in texts]
    seen, shapes = [], set()
    for numbers, tokens_BL in text_batches(
        texts,
        prompts,
        batch_size=16,
        plan=lambda *_: (8, 16, 32, 62),
        special_tokens=SpecialTokens(begin, eos_id=1),
    ):
        seen += numbers
        shapes.add(tokens_BL.shape)
        for number, row_L in zip(numbers, tokens_BL, strict=False):
            text = texts[number]
            wanted = [*text[:begin], *prompts[number], *text[begin:]]
            assert row_L[: len(wanted)].tolist() == wanted and not row_L[len(wanted) :].any()
    assert sorted(seen) == list(range(len(texts)))
    lengths = {5 + length for length in (8, 16, 32, 62)}
    assert {rows for rows, _ in shapes} == {16} and {length for _, length in shapes} <= lengths


def test_a_short_batch_is_filled_to_a_power_of_two():
    texts, prompts = [[5, 1]] * 7, [np.zeros(0, np.int32)] * 7
    shapes = [
        (len(numbers), tokens_BL.shape)
        for numbers, tokens_BL in text_batches(
            texts, prompts, batch_size=4, plan=lambda *_: (4,), special_tokens=SpecialTokens()
        )
    ]
    assert shapes == [(4, (4, 4)), (3, (4, 4))]
    assert (
        list(text_batches([], [], batch_size=4, plan=lambda *_: (4,), special_tokens=SpecialTokens())) == []
    )
