"""Prompt methods, one a file. Each is a small Linen module whose output is the prompt `[P, D]`.

A method's parameters are tuned, its settings are fields. Members (prompts trained side by side) are the
same module under `vmap`: every leaf of the parameters has a leading axis E, and E = 1 is the ordinary case.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jax_prompts.prompts.decomposed import Decomposed, RankProbe
from jax_prompts.prompts.explosive import Explosive
from jax_prompts.prompts.from_files import FromFiles
from jax_prompts.prompts.init import Base, ClassLabels, FromFile, SampledVocabulary, Text, Uniform
from jax_prompts.prompts.layers import TableInit, TableInits
from jax_prompts.prompts.lstm import LSTMPrompt
from jax_prompts.prompts.mpt import MPT
from jax_prompts.prompts.p_tuning import PTuningLSTM, PTuningMLP
from jax_prompts.prompts.per_layer import PerLayer, for_model, prompt_kind_of
from jax_prompts.prompts.prompt_file import PromptMetadata, load_prompt, save_prompt
from jax_prompts.prompts.prompt_tuning import PromptTuning
from jax_prompts.prompts.residual import Residual
from jax_prompts.prompts.superpos import SuperPos
from jax_prompts.prompts.task_prompts import TaskPrompts

METHODS = (
    PromptTuning, Residual, LSTMPrompt, PTuningMLP, PTuningLSTM, Decomposed, RankProbe, Explosive, SuperPos, MPT,
    PerLayer,
)  # fmt: skip
INITIALIZERS = (Uniform, SampledVocabulary, ClassLabels, Text, FromFile, FromFiles)

__all__ = [
    "INITIALIZERS",
    "METHODS",
    "Base",
    "Initializer",
    "Method",
    "PromptMetadata",
    "TaskPrompts",
    "fold",
    "for_model",
    "init_members",
    "load_prompt",
    "prompt_kind_of",
    "save_prompt",
    *(made.__name__ for made in (*METHODS, *INITIALIZERS)),
]


@runtime_checkable
class Method(Protocol):
    """A Linen module that makes a prompt `[P, D]`, or `TaskPrompts`.

    Parameters are float32; `table_init` fills the table among them. Without one the method starts as its paper says. A
    per-layer method has W numbers a virtual token in place of D, here and wherever prompts are passed on
    (`prompts/per_layer.py`).
    """

    @property
    def length(self) -> int: ...

    def init(self, rngs: Array, embed_dim: int, table_init: TableInits) -> Any: ...

    def apply(self, variables: Any, embed_dim: int) -> Any: ...


@runtime_checkable
class Initializer(Protocol):
    """A setting that says where a prompt table starts."""

    def table_init(self, base: Base) -> TableInit: ...


def init_members(method: Method, keys_E: Array, embed_dim: int, table_init: TableInits = None) -> Any:
    """Fresh parameters of E members, each leaf `[E, ...]`, without axis names.

    Member e depends on keys_E[e] alone. To keep a large embedding out of the compiled program, or to learn
    the shapes without one, make `table_init` inside a function that takes the embedding as its argument, and
    hand that function to `jax.jit` or `jax.eval_shape`.
    """
    return jax.vmap(lambda key: nn.meta.unbox(method.init(key, embed_dim, table_init)["params"]))(keys_E)


def fold(method: Method, params: Any, embed_dim: int) -> Float[Array, "E P D"]:
    """The prompts of E members: each method evaluated once, after which its parameters are not needed."""
    return jax.vmap(lambda member: method.apply({"params": member}, embed_dim))(params)
