"""Features of a SeqIO task for BERT: WordPiece inputs, and a class in place of the target's text."""

from __future__ import annotations

from collections.abc import Sequence

import seqio

from jax_prompts.data.numpy_vocabulary import NumPyVocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError
from tasks.classification import label_classes

MASKED_LM = "masked_lm"  # the one task without labels that a BERT can be trained on


def bert_features(task: seqio.Task, vocabulary: WordPiece) -> dict[str, seqio.Feature]:
    """`inputs` as [CLS] text [SEP]; `targets` as the number of the label, or token ids as the task makes them.

    Raises:
      ConfigError: the task answers with text that is no label.
    """
    labels = label_classes(task)
    if labels is None and task.name != MASKED_LM:
        raise ConfigError(
            f"{task.name} answers with text, and a BERT with a class: choose a task with labels, such as "
            "bert_super_glue_rte_v102"
        )
    inputs = seqio.Feature(vocabulary=WordPieceVocabulary(vocabulary), add_eos=True)
    targets = seqio.Feature(vocabulary=Labels(labels or ()), add_eos=False)
    return {**task.output_features, "inputs": inputs, "targets": targets}


class WordPieceVocabulary(NumPyVocabulary):
    """WordPiece for SeqIO: [CLS] and the pieces of a text; SeqIO appends [SEP] after it has cut the row.

    Attributes:
      wordpiece: what it wraps.
      mask_id: of [MASK].
    """

    def __init__(self, wordpiece: WordPiece) -> None:
        self.wordpiece = wordpiece
        self.mask_id = wordpiece.mask_id
        super().__init__(extra_ids=0)

    eos_id = property(lambda self: self.wordpiece.eos_id)
    unk_id = property(lambda self: self.wordpiece.unk_id)
    bos_id = property(lambda self: self.wordpiece.begin_ids[0])
    _base_vocab_size = property(lambda self: self.wordpiece.size)

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """The pieces of many texts, without [CLS]."""
        return self.wordpiece.encode_all(texts)

    def encode_rows(self, texts: list[str]) -> list[list[int]]:
        return [[*self.wordpiece.begin_ids, *ids] for ids in self.encode_all(texts)]

    def _encode(self, s: str) -> list[int]:
        return [*self.wordpiece.begin_ids, *self.wordpiece.encode(s)]

    def _decode(self, ids: Sequence[int]) -> str:
        return self.wordpiece.decode(ids)


class Labels(NumPyVocabulary):
    """Vocabulary of labels: each has its number; a text that is none, such as that of a hidden label, has none."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        super().__init__(extra_ids=0)

    eos_id = property(lambda self: None)
    unk_id = property(lambda self: None)
    bos_id = property(lambda self: None)
    _base_vocab_size = property(lambda self: len(self.labels))

    def _encode(self, s: str) -> list[int]:
        return [self.labels.index(s)] if s in self.labels else []

    def _decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.labels[token] for token in ids)
