"""Rows of tokens into batch arrays under T5X's names, prompts written as virtual tokens.

Plain numpy on whole batches. Letters: B rows, T text tokens, P prompt length, L = P + T, U target tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32

from jax_prompts.config import Data
from jax_prompts.data.vocabularies.sentencepiece import EOS_ID, Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError
from jax_prompts.models.mask_place import MASK_PLACE

Batch = dict[str, np.ndarray]
ROUNDING = 8  # lengths are rounded up to this: compilers tile by it, and near-equal data sets share programs


class SpecialTokens(NamedTuple):
    """Tokens round every text: `begin` of them in front, behind which a prompt stands, and `eos_id`."""

    begin: int = 0
    eos_id: int = EOS_ID

    @classmethod
    def of(cls, vocabulary: Vocabulary | WordPiece) -> SpecialTokens:
        return cls(len(vocabulary.begin_ids), vocabulary.eos_id)


class RaggedTokens(NamedTuple):
    """B rows of unequal length: row b is `values_N[offsets[b] : offsets[b + 1]]`."""

    values_N: Int[np.ndarray, " N"]
    offsets: Int[np.ndarray, " B+1"]

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> RaggedTokens:
        arrays = [np.asarray(row, np.int32) for row in rows]
        values_N = np.concatenate([np.empty(0, np.int32), *arrays])
        return cls(values_N, np.cumsum([0, *map(len, arrays)]))

    @classmethod
    def of_one_length(cls, rows_BP: Int[np.ndarray, "B P"]) -> RaggedTokens:
        return cls(rows_BP.ravel(), np.arange(len(rows_BP) + 1) * rows_BP.shape[1])

    @property
    def lengths_B(self) -> Int[np.ndarray, " B"]:
        return np.diff(self.offsets)


T5_SPECIAL_TOKENS = SpecialTokens()


def check_lengths(task_feature_lengths: Mapping[str, int]) -> None:
    """Raises ConfigError unless both features, and no others, have a length of at least 1."""
    for feature in task_feature_lengths:
        if feature not in ("inputs", "targets"):
            raise ConfigError(
                f"TASK_FEATURE_LENGTHS {task_feature_lengths} has {feature!r}: it takes 'inputs' and 'targets' alone"
            )
    for feature in ("inputs", "targets"):
        if task_feature_lengths.get(feature, 0) < 1:
            raise ConfigError(f"TASK_FEATURE_LENGTHS {task_feature_lengths} needs {feature!r} of at least 1")


def text_length(data: Data, prompt_length: int) -> int:
    """Text tokens a row may have, end of sentence included, with a prompt of `prompt_length` (0: none).

    Raises:
      ConfigError: a length below 1, or a prompt that leaves no room for text.
    """
    check_lengths(data.task_feature_lengths)
    if prompt_length < 0:
        raise ConfigError(f"PROMPT_LENGTH is {prompt_length}: set it to at least 1")
    length = data.task_feature_lengths["inputs"]
    if not data.prompt_inside_length:
        return length
    if prompt_length and length - prompt_length < 2:
        raise ConfigError(
            f"PROMPT_LENGTH {prompt_length} leaves no room for text in TASK_FEATURE_LENGTHS inputs {length}, "
            f"which counts the prompt: set inputs to at least {prompt_length + 2}, or a shorter prompt"
        )
    return length - prompt_length


def static_length(requested: int, longest: int) -> int:
    """The one length of a run's rows: the requested one, or less where no example is that long.

    Columns that would be padding in every row cost time and change no number; a single length for all
    batches means a single compilation.
    """
    return min(requested, -(-longest // ROUNDING) * ROUNDING)


def encoder_tokens(
    text: RaggedTokens,
    prompts: RaggedTokens | Int[np.ndarray, " P"],
    length: int,
    special_tokens: SpecialTokens = T5_SPECIAL_TOKENS,
) -> Int32[np.ndarray, "B L"]:
    """Each row's `begin` tokens, prompt, text and padding; a prompt with the place of [MASK] stands around the text.

    Args:
      text: B rows of text tokens, cut to what the prompt leaves; a cut row keeps its end of sentence.
      prompts: virtual token ids (V + q for row q of prompts_QD): one prompt for all rows, possibly empty,
        or B of them, of any lengths; with `MASK_PLACE` among them (`models/mask_place.py`) of one length.
      length: L.
      special_tokens: of the vocabulary.

    Raises:
      ConfigError: a prompt leaves no room for text.
    """
    if not isinstance(prompts, RaggedTokens):
        prompts = RaggedTokens.of([prompts] * len(text.lengths_B))
    if np.any(prompts.lengths_B >= length):
        raise ConfigError(
            f"a prompt of {prompts.lengths_B.max()} tokens leaves no room for text in {length}: "
            "raise TASK_FEATURE_LENGTHS inputs, or use a shorter prompt"
        )
    if MASK_PLACE in prompts.values_N:
        return _around(text, prompts, length, special_tokens)
    begin_B = np.full_like(prompts.lengths_B, special_tokens.begin)
    prompts_BL = _shifted(prompts, begin_B, length, special_tokens)
    return prompts_BL + _shifted(text, prompts.lengths_B, length, special_tokens, special_tokens.begin)


def decoder_arrays(targets: RaggedTokens, length: int) -> Batch:
    """Targets, the same shifted right behind a 0, and weight 1 for every target token, [B, U] each.

    A target of -1 is no target: its weight is 0. Masked-LM rows have one wherever no word was masked.
    """
    targets_BU = _shifted(targets, np.zeros_like(targets.lengths_B), length, T5_SPECIAL_TOKENS)
    inputs_BU = np.zeros_like(targets_BU)
    inputs_BU[:, 1:] = targets_BU[:, :-1]
    inside_BU = np.arange(length) < targets.lengths_B[:, None]
    weights_BU: Float32[np.ndarray, "B U"] = (inside_BU & (targets_BU >= 0)).astype(np.float32)
    return {
        "decoder_input_tokens": inputs_BU,
        "decoder_target_tokens": targets_BU,
        "decoder_loss_weights": weights_BU,
    }


def _around(
    text: RaggedTokens, prompts: RaggedTokens, length: int, special_tokens: SpecialTokens
) -> Int32[np.ndarray, "B L"]:
    """Rows of text with their prompts in three parts: in front, behind the first segment, and at the end.

    The first is half of what stands before [MASK], the last half of what stands behind it; a segment's [SEP] follows
    them.
    """
    prompts_BP = prompts.values_N.reshape(len(text.lengths_B), -1)
    P, mask = prompts_BP.shape[1], int(np.argmax(prompts_BP[0] == MASK_PLACE))
    first, last = mask // 2, (P - 1 - mask) // 2
    text_BT = _shifted(text, np.zeros_like(text.lengths_B), length - P, special_tokens)
    lengths_B = np.minimum(text.lengths_B, length - P)
    ends_BT = text_BT == special_tokens.eos_id
    end_B = lengths_B - np.any(ends_BT & (np.arange(length - P) == lengths_B[:, None] - 1), axis=1)
    segment_B = np.where(ends_BT.any(axis=1), ends_BT.argmax(axis=1), end_B)
    begin_B = np.full_like(end_B, special_tokens.begin)
    # Text in front of each prompt token, and prompt tokens in front of each of the text.
    before_BP = np.repeat(np.stack([begin_B, segment_B, end_B], 1), [first, P - first - last, last], axis=1)
    moved_BT = np.sum(before_BP[:, None] <= np.arange(length - P)[:, None], axis=2)
    tokens_BL = np.zeros((len(text_BT), length), np.int32)
    np.put_along_axis(tokens_BL, before_BP + np.arange(P), prompts_BP, axis=1)
    np.put_along_axis(tokens_BL, moved_BT + np.arange(length - P), text_BT, axis=1)
    return tokens_BL


def _shifted(
    rows: RaggedTokens,
    shift_B: Int[np.ndarray, " B"],
    length: int,
    special_tokens: SpecialTokens,
    before: int = 0,
) -> Int32[np.ndarray, "B L"]:
    """Rows moved right by `shift_B` except for their first `before` tokens, zeros elsewhere.

    A cut row keeps its end of sentence.
    """
    kept_B = np.minimum(rows.lengths_B, length - shift_B)
    column_L = np.arange(length)
    source_BL = np.where(column_L < before, column_L, column_L - shift_B[:, None])
    inside_BL = (source_BL >= np.where(column_L < before, 0, before)) & (source_BL < kept_B[:, None])
    tokens_BL = np.zeros(inside_BL.shape, np.int32)
    tokens_BL[inside_BL] = rows.values_N[(rows.offsets[:-1, None] + source_BL)[inside_BL]]
    (cut,) = np.nonzero(kept_B < rows.lengths_B)
    ended = cut[rows.values_N[rows.offsets[cut + 1] - 1] == special_tokens.eos_id]
    tokens_BL[ended, length - 1] = special_tokens.eos_id
    return tokens_BL
