"""Rows to arrays: prompts in front, end of sentence kept, targets shifted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_prompts.config import Data
from jax_prompts.data.layout import (
    RaggedTokens,
    SpecialTokens,
    decoder_arrays,
    encoder_tokens,
    static_length,
    text_length,
)
from jax_prompts.errors import ConfigError
from jax_prompts.models.mask_place import MASK_PLACE, with_mask


def settings(inputs: int, inside: bool) -> Data:
    return Data("t", "m", {"inputs": inputs, "targets": 4}, 1, prompt_inside_length=inside)


def by_hand(text: list[int], prompt: list[int], length: int, tokens: SpecialTokens) -> list[int]:
    """One row: its first tokens, its prompt, the rest of what fits with its end of sentence, padding."""
    room = length - len(prompt)
    ended = len(text) > room and text[-1] == tokens.eos_id
    kept = [*text[: room - 1], tokens.eos_id] if ended else text[:room]
    line = [*kept[: tokens.begin], *prompt, *kept[tokens.begin :]]
    return line + [0] * (length - len(line))


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], int, SpecialTokens]:
    """Texts with their special tokens, a prompt of each, and a length that leaves every prompt room for text."""
    special_tokens = draw(st.sampled_from([SpecialTokens(), SpecialTokens(begin=1, eos_id=3)]))
    words = st.lists(st.integers(4, 90), max_size=9)
    ends = st.sampled_from([[special_tokens.eos_id], []])
    texts = draw(
        st.lists(st.builds(lambda a, b: [2] * special_tokens.begin + a + b, words, ends), max_size=6)
    )
    prompt = st.integers(0, 4).map(lambda size: list(range(100, 100 + size)))
    prompts = [draw(prompt) for _ in texts]
    least = max(map(len, prompts), default=0) + special_tokens.begin + 1
    return texts, prompts, draw(st.integers(least, 14)), special_tokens


@given(rows())
def test_rows_are_prompt_text_and_padding(drawn: tuple) -> None:
    texts, prompts, length, special_tokens = drawn
    tokens_BL = encoder_tokens(RaggedTokens.of(texts), RaggedTokens.of(prompts), length, special_tokens)
    assert tokens_BL.dtype == np.int32 and tokens_BL.shape == (len(texts), length)
    assert tokens_BL.tolist() == [
        by_hand(text, prompt, length, special_tokens) for text, prompt in zip(texts, prompts, strict=True)
    ]


@given(rows())
def test_one_prompt_for_all_rows_is_the_same_one_in_each(drawn: tuple) -> None:
    texts, prompts, length, special_tokens = drawn
    prompt_P = np.asarray(max(prompts, key=len, default=[]), np.int32)
    np.testing.assert_array_equal(
        encoder_tokens(RaggedTokens.of(texts), prompt_P, length, special_tokens),
        encoder_tokens(
            RaggedTokens.of(texts), RaggedTokens.of([prompt_P] * len(texts)), length, special_tokens
        ),
    )


@given(st.lists(st.lists(st.integers(-1, 90).filter(bool), max_size=9), max_size=6), st.integers(1, 8))
def test_targets_are_shifted_right_and_weighted(rows: list[list[int]], length: int) -> None:
    arrays = decoder_arrays(RaggedTokens.of(rows), length)
    targets = [by_hand(row, [], length, SpecialTokens()) for row in rows]
    assert arrays["decoder_target_tokens"].tolist() == targets
    assert arrays["decoder_input_tokens"].tolist() == [[0, *row[:-1]] for row in targets]
    assert arrays["decoder_loss_weights"].tolist() == [[float(token > 0) for token in row] for row in targets]
    assert {array.shape for array in arrays.values()} == {(len(rows), length)}
    assert arrays["decoder_loss_weights"].dtype == np.float32


def test_a_long_row_keeps_its_prompt_and_its_end_of_sentence() -> None:
    special_tokens, text = SpecialTokens(begin=1, eos_id=3), RaggedTokens.of([[2, 5, 6, 7, 3]])
    tokens_BL = encoder_tokens(text, np.array([100, 101]), 6, special_tokens)
    assert tokens_BL.tolist() == [[2, 100, 101, 5, 6, 3]]


def test_no_target_has_no_weight_and_class_0_has_one() -> None:
    arrays = decoder_arrays(RaggedTokens.of([[-1, 7, -1], [0]]), 4)
    assert arrays["decoder_loss_weights"].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("requested", "longest", "length"),
    [(512, 50, 56), (512, 56, 56), (512, 600, 512), (50, 49, 50), (4, 1, 4)],
)
def test_static_length(requested: int, longest: int, length: int) -> None:
    assert static_length(requested, longest) == length


def test_text_length_counts_the_prompt_where_the_recipe_does() -> None:
    assert text_length(settings(512, inside=False), 100) == 512
    assert text_length(settings(256, inside=True), 10) == 246
    assert text_length(settings(256, inside=True), 0) == 256


def test_prompts_without_room_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"PROMPT_LENGTH 100 leaves no room .* inputs 100"):
        text_length(settings(100, inside=True), 100)
    with pytest.raises(ConfigError, match="PROMPT_LENGTH is -1"):
        text_length(settings(100, inside=True), -1)
    with pytest.raises(ConfigError, match="no room for text"):
        encoder_tokens(RaggedTokens.of([[5, 1]]), np.arange(8), 8)
    with pytest.raises(ConfigError, match="TASK_FEATURE_LENGTHS"):
        text_length(Data("t", "m", {"inputs": 8}, 1), 1)
    with pytest.raises(ConfigError, match="has 'target': it takes 'inputs' and 'targets' alone"):
        text_length(Data("t", "m", {"inputs": 8, "targets": 4, "target": 16}, 1), 1)


M = MASK_PLACE


@pytest.mark.parametrize(
    ("prompt", "rows"),
    [
        (
            [70, 71, 72, 73],
            [[2, 70, 8, 9, 71, M, 72, 3, 7, 73, 3, 0], [2, 70, 8, 9, 71, M, 72, 73, 3, 0, 0, 0],
             [2, 70, 8, 9, 8, 9, 8, 71, M, 72, 73, 3]],
        ),
        (
            [70],
            [[2, 8, 9, 70, M, 3, 7, 3, 0], [2, 8, 9, 70, M, 3, 0, 0, 0], [2, 8, 9, 8, 9, 8, 70, M, 3]],
        ),
        ([], [[2, 8, 9, M, 3, 7, 3, 0], [2, 8, 9, M, 3, 0, 0, 0], [2, 8, 9, 8, 9, 8, M, 3]]),
    ],
)  # fmt: skip
def test_a_prompt_with_mask_stands_around_the_text(prompt: list[int], rows: list[list[int]]) -> None:
    """Two segments, one, and one that is cut to 7 tokens."""
    texts = RaggedTokens.of([[2, 8, 9, 3, 7, 3], [2, 8, 9, 3], [2, 8, 9, 8, 9, 8, 9, 8, 3, 7, 3]])
    ids_P = with_mask(np.array(prompt, np.int32))
    special_tokens = SpecialTokens(begin=1, eos_id=3)
    assert encoder_tokens(texts, ids_P, len(rows[0]), special_tokens).tolist() == rows
    each = RaggedTokens.of([ids_P] * 3)
    assert encoder_tokens(texts, each, len(rows[0]), special_tokens).tolist() == rows


@pytest.mark.parametrize("length", range(9))
def test_mask_stands_in_the_middle(length: int) -> None:
    ids_EP = np.arange(2 * length, dtype=np.int32).reshape(2, length)
    found_EP = with_mask(ids_EP)
    assert (found_EP[:, (length + 1) // 2] == MASK_PLACE).all()
    np.testing.assert_array_equal(found_EP[found_EP != MASK_PLACE].reshape(2, length), ids_EP)
