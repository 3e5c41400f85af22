"""What is tuned inside the frozen model, one kind a file: leaves that its layers read beside their own weights.

The model's third seam, as small as the other two: a kind of leaf is a frozen dataclass that makes fresh leaves for a
model's weights and folds tuned ones to what the model reads (`models/tuned_leaves.py`). A leaf lies under the model's
own path; nothing else of the model has a gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Array

from jax_prompts.errors import ConfigError
from jax_prompts.tuned.adapter import Adapter
from jax_prompts.tuned.bitfit import BitFit
from jax_prompts.tuned.ia3 import IA3
from jax_prompts.tuned.leaves import Boxed, Leaves, Weights
from jax_prompts.tuned.lora import LoRA
from jax_prompts.tuned.verbalizer import Verbalizer, for_task, reads_mask

KINDS = (Adapter, BitFit, LoRA, IA3, Verbalizer)

__all__ = [
    "KINDS",
    "TunedLeaves",
    "adapter_activation",
    "fold_leaves",
    "for_task",
    "fresh_leaves",
    "reads_mask",
    *(k.__name__ for k in KINDS),
]


@runtime_checkable
class TunedLeaves(Protocol):
    """A kind of tuned leaf. Parameters are float32, by path."""

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]: ...

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves: ...


def fresh_leaves(kinds: Sequence[TunedLeaves], weights: Weights, key: Array) -> dict[str, Boxed]:
    """Leaves of all kinds as they start, which depends on the key and the weights alone.

    Raises:
      ConfigError: a kind that the model has no place for, or two kinds that tune the same leaf.
    """
    leaves: dict[str, Boxed] = {}
    for kind in kinds:
        own = kind.init(weights, key)
        if twice := sorted(leaves.keys() & own):
            raise ConfigError(f"TUNED has two kinds that tune {twice[0]}: leave one out")
        leaves |= own
    return leaves


def fold_leaves(kinds: Sequence[TunedLeaves], leaves: Leaves, *, training: bool) -> Leaves:
    """What the model reads, of leaves of all kinds; with `training` also what only tuning has, such as dropout."""
    return functools.reduce(lambda folded, kind: kind.fold(folded, training=training), kinds, leaves)


def adapter_activation(kinds: Sequence[TunedLeaves]) -> str:
    """The activation of adapters among these kinds; "" without any."""
    return next((kind.activation for kind in kinds if isinstance(kind, Adapter)), "")
