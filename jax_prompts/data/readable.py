"""Checks that answers can be right: a model writes tokens, and their text is what is compared."""

from __future__ import annotations

from collections.abc import Sequence

from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError


def reads_back(text: str, vocabulary: Vocabulary) -> bool:
    """Whether the tokens of a text decode to it again: not with spaces round it, or letters no piece has."""
    return vocabulary.decode(vocabulary.encode(text)) == text


def check_labels(task: str, labels: Sequence[str], vocabulary: Vocabulary, length: int) -> None:
    """Raises ConfigError for a label that no answer can equal, and for two that are one to the model.

    Args:
      task: its name.
      labels: as targets spell them.
      vocabulary: of the model.
      length: tokens of a target at most, end of sentence included.
    """
    label_of: dict[tuple[int, ...], str] = {}
    for label in labels:
        ids = tuple(vocabulary.encode(label))
        if (read := vocabulary.decode(ids)) != label:
            raise ConfigError(
                f"{task}: label {label!r} reads {read!r} once it is tokens, so that no answer equals it: "
                "give it another word (OwnTask.labels, VERBALIZER)"
            )
        kept = ids[: length - 1]
        if kept in label_of:
            cut = "" if kept == ids else f", cut to {length} tokens"
            raise ConfigError(
                f"{task}: labels {label_of[kept]!r} and {label!r} are the same tokens{cut}: give each a word of its "
                "own (OwnTask.labels, VERBALIZER), or raise 'targets' of TASK_FEATURE_LENGTHS"
            )
        label_of[kept] = label
