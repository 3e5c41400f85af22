"""Members of a run: those that go on, in arrays of their own whose rows the step takes, and all of them again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jax_prompts import partition
from jax_prompts.data.sampler import Mixture
from jax_prompts.setup import Setup

Tree = Any


class ActiveMembers:
    """The members that go on, side by side; the others' parameters and optimiser state stay as they ended.

    Attributes:
      members: their numbers.
    """

    def __init__(self, setup: Setup, mixtures_E: Sequence[Mixture]) -> None:
        """All members of a run, with what each trains on."""
        self.members = list(range(len(mixtures_E)))
        self._count, self._mixtures_E = len(mixtures_E), mixtures_E
        self._seeds_E, self._numbers_E = setup.seeds_E, setup.numbers_E
        self._shardings = partition.shardings((setup.tuned, setup.opt_state))
        self._whole: tuple[Tree, Tree] | None = None

    @property
    def seeds(self) -> Int[np.ndarray, " E"]:
        return self._seeds_E[self.members]

    @property
    def numbers(self) -> dict[str, Float[np.ndarray, " E"]]:
        return {name: values_E[self.members] for name, values_E in self._numbers_E.items()}

    @property
    def mixtures(self) -> list[Mixture]:
        return [self._mixtures_E[member] for member in self.members]

    def only(self, members: list[int], tuned: Tree, opt_state: Tree) -> tuple[Tree, Tree]:
        """`tuned` and `opt_state` of these among the members that went on until now."""
        if members == self.members:
            return tuned, opt_state
        self._whole = self.whole(tuned, opt_state)
        self.members = members
        if not members:
            return tuned, opt_state
        take = jax.jit(
            lambda tree, index: jax.tree.map(lambda x: x[index], tree), out_shardings=self._shardings
        )
        return take(self._whole, np.array(members))

    def whole(self, tuned: Tree, opt_state: Tree) -> tuple[Tree, Tree]:
        """`tuned` and `opt_state` of all members, [E, ...], from those of the members that go on."""
        if self._whole is None or len(self.members) == self._count:
            return tuned, opt_state
        return put(self._whole, (tuned, opt_state), self.members, self.members, self._shardings)


def put(whole_E: Tree, part: Tree, members: Sequence[int], which: Collection[int], shardings: Tree) -> Tree:
    """All members' arrays with new ones for some, in buffers of their own.

    Args:
      whole_E: of all members, [E, ...].
      part: of `members`, [len(members), ...].
      members: those in `part`, by number.
      which: of these, those that are put.
      shardings: of the result.
    """
    count = jax.tree.leaves(whole_E)[0].shape[0]
    put_E = np.isin(np.arange(count), list(which))
    index_E = np.array([members.index(member) if member in members else 0 for member in range(count)])
    return jax.jit(_put, out_shardings=shardings)(put_E, index_E, part, whole_E)


def _put(put_E: Bool[Array, " E"], index_E: Int[Array, " E"], part: Tree, whole_E: Tree) -> Tree:
    def chosen(new: Array, old: Array) -> Array:
        return jnp.where(put_E.reshape(-1, *(1,) * (new.ndim - 1)), new[index_E], old)

    return jax.tree.map(chosen, part, whole_E)
