"""What is tuned inside the frozen model, one kind a file: leaves that its layers read beside their own weights.

The model's third seam, as small as the other two: a kind of leaf is a frozen dataclass that makes fresh leaves for a
model's weights and folds tuned ones to what the model reads (`models/tuned_leaves.py`). A leaf lies under the model's
own path; nothing else of the model has a gradient.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
from jaxtyping import Array

from jax_prompts.errors import ConfigError, SettingWarning
from jax_prompts.prompts.per_layer import prompt_kind_of
from jax_prompts.tuned.adapter import Adapter
from jax_prompts.tuned.adept import ADePT
from jax_prompts.tuned.attempt import ATTEMPT
from jax_prompts.tuned.bitfit import BitFit
from jax_prompts.tuned.dept import DePT
from jax_prompts.tuned.ia3 import IA3
from jax_prompts.tuned.leaves import Boxed, Leaves, Weights, by_path, nested
from jax_prompts.tuned.lora import LoRA
from jax_prompts.tuned.smop import SMoP
from jax_prompts.tuned.verbalizer import Verbalizer, for_task, reads_mask

KINDS = (Adapter, BitFit, LoRA, IA3, DePT, ADePT, ATTEMPT, SMoP, Verbalizer)

__all__ = [
    "KINDS",
    "TunedLeaves",
    "adapter_activation",
    "check_beside_prompt",
    "check_files",
    "constants_of",
    "fold_leaves",
    "for_task",
    "fresh_leaves",
    "init_leaves",
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


def init_leaves(kinds: Sequence[TunedLeaves], boxed: Any, keys_E: Array) -> Any:
    """The tree of fresh leaves of E members, each `[E, ...]`; `boxed` are the model's weights with their axes."""
    weights = by_path(boxed)
    return jax.vmap(lambda key: nn.meta.unbox(nested(fresh_leaves(kinds, weights, key))))(keys_E)


def fold_leaves(kinds: Sequence[TunedLeaves], leaves: Leaves, *, training: bool) -> Leaves:
    """What the model reads, of leaves of all kinds; with `training` also what only tuning has, such as dropout."""
    return functools.reduce(lambda folded, kind: kind.fold(folded, training=training), kinds, leaves)


def adapter_activation(kinds: Sequence[TunedLeaves]) -> str:
    """The activation of adapters among these kinds; "" without any."""
    return next((kind.activation for kind in kinds if isinstance(kind, Adapter)), "")


def constants_of(kinds: Sequence[TunedLeaves]) -> dict[str, Boxed]:
    """What the model reads beside leaves of these kinds and none of them tunes, by path; it is frozen, and in files."""
    return {
        path: box for kind in kinds if isinstance(kind, ATTEMPT) for path, box in kind.constants().items()
    }


def check_files(kinds: Sequence[TunedLeaves], model_fingerprint: str = "") -> None:
    """Raises ConfigError, RunError unless files that kinds name can be read, and are the base model's, once known."""
    for kind in kinds:
        if isinstance(kind, ATTEMPT):
            kind.check_sources(model_fingerprint)


def check_beside_prompt(kinds: Sequence[TunedLeaves], method: Any) -> None:
    """Raises ConfigError where kinds that make a prompt of each row's own do not go with the prompt that is tuned.

    Args:
      kinds: of the run.
      method: of its prompt; None: there is none.
    """
    of_rows = [kind for kind in kinds if isinstance(kind, ATTEMPT | SMoP)]
    if len(of_rows) > 1:
        raise ConfigError("TUNED has two kinds that make a row's prompt: leave one out")
    for kind in of_rows:
        name = type(kind).__name__
        if method is None or prompt_kind_of(method) != "input":
            raise ConfigError(
                f"{name} makes prompts of tuned embeddings: set PROMPT = @PromptTuning(), or one like it"
            )
        if isinstance(kind, ATTEMPT) and not kind.is_here:
            told = "ATTEMPT.sources names files that are not there: tune those prompts before this run"
            warnings.warn(told, SettingWarning, stacklevel=2)
            continue
        if kind.prompt_length != method.length:
            raise ConfigError(
                f"{name} has prompts of {kind.prompt_length} tokens and PROMPT_LENGTH is {method.length}: "
                f"set PROMPT_LENGTH to {kind.prompt_length}"
            )
