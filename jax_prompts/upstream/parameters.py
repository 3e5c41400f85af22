"""The parameters of a prompt method as T5X declares its own: bare arrays, the names of their axes beside them.

A method of the project boxes its parameters with the names of their axes, and T5X wants these in a collection of
their own, `params_axes`. Axes are called `prompt_` and the method's name, since T5X splits `embed` and `mlp` over
devices, which a bottleneck of one unit does not divide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

from jax_prompts.prompts import Method
from jax_prompts.upstream.start import Start

AXES = tuple(f"prompt_{name}" for name in ("prompt", "embed", "rank", "mlp"))


def is_prompt(path: str) -> bool:
    """Whether a parameter is a prompt's, by its path: here, or in the original prompt tuning code's encoder."""
    return "/prompt/" in f"/{path}"


def prompt_of(module: nn.Module, method: Method, start: Start | None, embed_dim: int) -> Float[Array, "P D"]:
    """What a method makes of parameters that a module declares under the method's own names.

    Args:
      module: within its `__call__`.
      method: one with a prompt in front of the encoder's input.
      start: where the table starts; None: as the method's paper says.
      embed_dim: D.
    """
    method = method.clone(parent=None)  # of no module, so that its parameters are values here
    key, table_init = jax.random.key(0), None  # what is made of them is not looked at
    if module.is_initializing():
        key = module.make_rng("params")
        table_init = None if start is None else start.table_init(embed_dim)
    boxes = method.init(key, embed_dim, table_init).get("params", {})
    return method.apply({"params": _declared(module, boxes)}, embed_dim)


def _declared(module: nn.Module, boxes: Mapping[str, Any]) -> dict[str, Any]:
    def declare(name: str, box: Any) -> Any:
        if isinstance(box, Mapping):
            return _Parameters(name=name, parent=module)(box)
        axes = tuple(f"prompt_{axis}" for axis in box.names)
        return param_with_axes(name, lambda _: box.value, axes=axes, module=module)

    return {name: declare(name, box) for name, box in boxes.items()}


class _Parameters(nn.Module):
    """Parameters of a part of a method, under its name."""

    @nn.compact
    def __call__(self, boxes: Mapping[str, Any]) -> dict[str, Any]:
        return _declared(self, boxes)


class Prompt(nn.Module):
    """The prompt, its parameters those of the method.

    Attributes:
      method, start: as `prompt_of` takes them.
    """

    method: Any
    start: Start | None = None

    @nn.compact
    def __call__(self, embed_dim: int) -> Float[Array, "P D"]:
        return prompt_of(self, self.method, self.start, embed_dim)
