"""Rows to arrays: prompts in front, end of sentence kept, targets shifted."""

from __future__ import annotations

import numpy as np
import pytest

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

NO_PROMPT = np.zeros(0, np.int32)


def settings(inputs: int, inside: bool) -> Data:
    return Data("t", "m", {"inputs": inputs, "targets": 4}, 1, prompt_inside_length=inside)


def test_one_prompt_for_all_rows() -> None:
    tokens_BL = encoder_tokens(RaggedTokens.of([[5, 6, 1], [7, 1], []]), np.array([100, 101]), 6)
    assert tokens_BL.dtype == np.int32
    assert tokens_BL.tolist() == [[100, 101, 5, 6, 1, 0], [100, 101, 7, 1, 0, 0], [100, 101, 0, 0, 0, 0]]


def test_each_row_its_own_prompt_of_any_length() -> None:
    prompts = RaggedTokens.of([[100, 101, 102], [], [110]])
    tokens_BL = encoder_tokens(RaggedTokens.of([[5, 6, 7, 1]] * 3), prompts, 5)
    assert tokens_BL.tolist() == [[100, 101, 102, 5, 1], [5, 6, 7, 1, 0], [110, 5, 6, 7, 1]]


def test_a_cut_row_keeps_its_end_of_sentence_only_if_it_has_one() -> None:
    tokens_BL = encoder_tokens(RaggedTokens.of([[5, 6, 7, 8, 1], [5, 6, 7, 8, 9], [5, 6, 1]]), NO_PROMPT, 3)
    assert tokens_BL.tolist() == [[5, 6, 1], [5, 6, 7], [5, 6, 1]]


def test_a_prompt_stands_behind_cls() -> None:
    special_tokens, prompts = SpecialTokens(begin=1, eos_id=3), RaggedTokens.of([[100, 101], [], [100, 101]])
    tokens_BL = encoder_tokens(
        RaggedTokens.of([[2, 5, 6, 3], [2, 5, 3], [2, 5, 6, 7, 3]]), prompts, 6, special_tokens
    )
    assert tokens_BL.tolist() == [[2, 100, 101, 5, 6, 3], [2, 5, 3, 0, 0, 0], [2, 100, 101, 5, 6, 3]]


def test_no_target_has_no_weight_and_class_0_has_one() -> None:
    arrays = decoder_arrays(RaggedTokens.of([[-1, 7, -1], [0]]), 4)
    assert arrays["decoder_loss_weights"].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


def test_against_a_plain_loop() -> None:
    draw = np.random.default_rng(0)
    texts = [[*draw.integers(2, 90, draw.integers(0, 12)), 1] for _ in range(200)]
    prompts = [100 + np.arange(draw.integers(0, 5)) for _ in range(200)]
    expected = np.zeros((200, 9), np.int32)
    for row, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        room = 9 - len(prompt)
        kept = text if len(text) <= room else [*text[: room - 1], 1]
        line = [*prompt, *kept]
        expected[row, : len(line)] = line
    np.testing.assert_array_equal(
        encoder_tokens(RaggedTokens.of(texts), RaggedTokens.of(prompts), 9), expected
    )


def test_targets_are_shifted_right_and_weighted() -> None:
    arrays = decoder_arrays(RaggedTokens.of([[8, 9, 1], [8, 9, 9, 9, 1]]), 4)
    assert arrays["decoder_target_tokens"].tolist() == [[8, 9, 1, 0], [8, 9, 9, 1]]
    assert arrays["decoder_input_tokens"].tolist() == [[0, 8, 9, 1], [0, 8, 9, 9]]
    assert arrays["decoder_loss_weights"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert arrays["decoder_loss_weights"].dtype == np.float32


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
