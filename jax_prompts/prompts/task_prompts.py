"""A prompt of each task of a mixture, tuned together: what they share, and what each has of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError
from jax_prompts.prompts.layers import TableInits
from jax_prompts.prompts.per_layer import prompt_kind_of

Tree = Any
_OWN, _SHARED = "own", "shared"


@dataclasses.dataclass(frozen=True)
class TaskPrompts:
    """T prompts of one method, rows of a table [T*P, D], of which the rows of a batch read those of their task.

    Parameters are `own`, those of the method with a leading axis T, and `shared`, those that all tasks have in common:
    the table `prompt` of an `MPT`, which is its first stage without the distillation (Wang et al. 2023, section 3.1),
    or a network. Beside an `ATTEMPT` tasks share its attention (Asai et al. 2022, section 3.3).

    Attributes:
      method: of every prompt.
      tasks: names of the T tasks.
      shared: parameters of the method, or the networks that they belong to, by name.

    Raises:
      ConfigError: when it starts: the method has no parameter of such a name, or none that is not shared.
    """

    method: Any
    tasks: tuple[str, ...]
    shared: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """P, virtual tokens of a row."""
        return self.method.length

    @property
    def kind(self) -> str:
        """The method's prompt kind."""
        return prompt_kind_of(self.method)

    def init(self, key: Array, embed_dim: int, table_init: TableInits) -> dict[str, Tree]:
        """Fresh parameters, boxed; of several `table_init`, one of each task, the first fills what is shared."""
        inits_T = table_init if isinstance(table_init, Sequence) else [table_init] * len(self.tasks)
        keys_T = jax.random.split(key, len(self.tasks))
        fresh_T = [
            self.method.init(key, embed_dim, init)["params"]
            for key, init in zip(keys_T, inits_T, strict=True)
        ]
        own_T, (shared, *_) = zip(*map(self._divided, fresh_T), strict=True)
        stacked = jax.tree.map(lambda *numbers: jnp.stack(numbers), *own_T)
        own = nn.meta.add_axis(stacked, 0, {nn.PARTITION_NAME: None})
        return {"params": {_OWN: own, _SHARED: shared}}

    def apply(self, variables: dict[str, Tree], embed_dim: int) -> Float[Array, "Q D"]:
        """The prompts [T*P, D], one behind the other."""
        own, shared = (flax.traverse_util.flatten_dict(variables["params"][part]) for part in (_OWN, _SHARED))

        def prompt(own: Tree) -> Float[Array, "P D"]:
            params = flax.traverse_util.unflatten_dict({**own, **shared})
            return self.method.apply({"params": params}, embed_dim)

        prompts_TPD = jax.vmap(prompt)(own)
        return prompts_TPD.reshape(-1, prompts_TPD.shape[-1])

    def _divided(self, params: Tree) -> tuple[Tree, Tree]:
        flat = flax.traverse_util.flatten_dict(
            params, is_leaf=lambda _, x: isinstance(x, nn.meta.AxisMetadata)
        )
        names = {"/".join(path[:depth]) for path in flat for depth in range(1, len(path) + 1)}
        if unknown := sorted(set(self.shared) - names):
            raise ConfigError(
                f"SHARED_BY_TASKS {', '.join(unknown)}: {type(self.method).__name__} has {', '.join(sorted(names))}"
            )

        def is_shared(path: tuple[str, ...]) -> bool:
            return any("/".join(path[:depth]) in self.shared for depth in range(1, len(path) + 1))

        own = {path: box for path, box in flat.items() if not is_shared(path)}
        if not own:
            raise ConfigError(
                f"SHARED_BY_TASKS names all of {type(self.method).__name__}'s parameters, so that tasks have one "
                "prompt: set PROMPT_OF_EACH_TASK = False, or share less"
            )
        shared = {path: box for path, box in flat.items() if is_shared(path)}
        return flax.traverse_util.unflatten_dict(own), flax.traverse_util.unflatten_dict(shared)
