"""WARP: a vector for each class, by which a BERT's masked-LM head is read at [MASK] (Hambardzumyan et al. 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import jax.numpy as jnp
from jaxtyping import Array

from jax_prompts.errors import ConfigError
from jax_prompts.models.answers import VERBALIZER
from jax_prompts.prompts.layers import fan_in_uniform
from jax_prompts.tuned.leaves import Boxed, Leaves, Weights, drawn


class Vocabulary(Protocol):
    """Vocabulary as label words need it."""

    unk_id: int

    def encode(self, text: str) -> list[int]: ...


@dataclasses.dataclass(frozen=True)
class Verbalizer:
    """h V + b at [MASK], where h is what the masked-LM head's dense layer, gelu and norm make of the last state.

    In place of a classifier of [CLS] (section 3 and figure 3, "the Masked Language Modeling Head is applied without the
    decoder"). It brings [MASK] into every row, and a prompt that is tuned with it stands around: a quarter of its
    vectors in front of the text, a quarter before and a quarter behind [MASK], which follows the first segment, and a
    quarter at the end; what is left over stands nearest to [MASK], the first before it. The released code has the same
    four groups (5 vectors each), and as here, with `as_one_segment` off, [SEP] between two texts behind [MASK]'s group.

    Tuned parameters: D * C, and C with `bias`.

    Attributes:
      start: `random`, U(-1/sqrt(D), 1/sqrt(D)) as in the released code, or `labels`: the embedding of each label, which
        has to be one piece of the vocabulary, and the masked-LM head's bias of it; VERBALIZER puts words in the place
        of a task's labels.
      bias: whether classes have one; the released code has.
      classes: C; the run sets it.
      pieces: the labels' token ids, for `labels`; the run sets them.

    Raises:
      ConfigError: a model without a masked-LM head.
    """

    start: Literal["random", "labels"] = "random"
    bias: bool = True
    classes: int = 0
    pieces: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.start not in ("random", "labels"):
            raise ConfigError(f"Verbalizer.start is {self.start!r}: set it to 'random' or 'labels'")

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """Fresh vectors of a BERT with these weights, `[D, C]`, and biases."""
        if "mlm_bias" not in weights:
            raise ConfigError(
                "Verbalizer (WARP) is tuned beside a BERT's masked-LM head, and a T5 has none: use a BERT, such as "
                "gin_configs/models/bert_base.gin, or another TUNED"
            )
        embedding_VD, bias_V = weights["token_embedder/embedding"].value, weights["mlm_bias"].value
        D, uniform = embedding_VD.shape[1], fan_in_uniform(embedding_VD.shape[1])
        kernel, bias = f"{VERBALIZER}/kernel", f"{VERBALIZER}/bias"
        leaves = {kernel: drawn(uniform, key, kernel, (D, self.classes), ("embed", "classes"))}
        if self.bias:
            leaves[bias] = drawn(uniform, key, bias, (self.classes,), ("classes",))
        if self.pieces:
            ids_C = jnp.asarray(self.pieces)
            words = {kernel: embedding_VD[ids_C].T, bias: bias_V[ids_C]}
            leaves = {path: Boxed(words[path].astype(jnp.float32), box.names) for path, box in leaves.items()}
        return leaves

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: the leaves as they are."""
        return leaves


def reads_mask(kinds: Sequence[Any]) -> bool:
    """Whether a verbaliser is among these kinds of leaves."""
    return any(isinstance(kind, Verbalizer) for kind in kinds)


def for_task(
    kinds: Sequence[Any],
    task: str,
    classes: int,
    labels: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
) -> tuple[Any, ...]:
    """The kinds, of which a verbaliser knows the task's classes and, where it starts from them, their pieces.

    Args:
      kinds: of leaves.
      task: its name.
      classes: how many it has; 0: it has no labels.
      labels: of the task; none where they are not known yet, and nothing starts from them.
      vocabulary: of the model.

    Raises:
      ConfigError: a task without labels; a label that is not one piece of the vocabulary.
    """
    if not reads_mask(kinds):
        return tuple(kinds)
    if not classes:
        raise ConfigError(
            f"{task} has no labels, and a verbaliser has a vector for each: choose another task"
        )
    return tuple(_for_task(kind, task, classes, labels, vocabulary) for kind in kinds)


def _for_task(
    kind: Any, task: str, classes: int, labels: Sequence[str], vocabulary: Vocabulary | None
) -> Any:
    if not isinstance(kind, Verbalizer):
        return kind
    pieces = _pieces(task, labels, vocabulary) if kind.start == "labels" and vocabulary is not None else ()
    return dataclasses.replace(kind, classes=classes, pieces=pieces)


def _pieces(task: str, labels: Sequence[str], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The token id of each label."""
    ids = [vocabulary.encode(label) for label in labels]
    for label, found in zip(labels, ids, strict=True):
        if len(found) != 1 or found[0] == vocabulary.unk_id:
            pieces = f"cuts it into {len(found)} pieces" if len(found) > 1 else "does not have it"
            raise ConfigError(
                f"Verbalizer.start is 'labels' and {label!r} of {task} is no word of the vocabulary, which {pieces}: "
                "set VERBALIZER to words that are one piece each, or Verbalizer.start = 'random'"
            )
    return tuple(found[0] for found in ids)
