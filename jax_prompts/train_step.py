"""The step of a run, compiled in parts: a program for each planned length, and one that updates.

So that all lengths of a run are few programs, whatever a batch is made of: groups of a batch pass one after another
through the program of their length, which adds their gradient to what was there.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jax_prompts import partition
from jax_prompts.cpu import compiler_options
from jax_prompts.length_plan import LengthPlan
from jax_prompts.setup import Setup
from jax_prompts.step import Batch, Metrics, group_keys, parts_of, step_of
from jax_prompts.sweep import Numbers

Tree = Any
_COMPILERS = 4  # at once: one of a large model takes gigabytes


def whole_step(setup: Setup) -> Any:
    """The jitted step of a run in one piece, `step_of`'s: what a compiler is asked about."""
    tuned_at, state_at = partition.shardings((setup.tuned, setup.opt_state))
    return jax.jit(
        partition.on(setup.mesh, step_of(parts_of(setup))),
        donate_argnums=(0, 1),
        out_shardings=(tuned_at, state_at, partition.replicated(setup.mesh)),
        compiler_options=compiler_options(setup.mesh),
    )


@dataclasses.dataclass(frozen=True)
class _Programs:
    """What is compiled for a number of members."""

    begin: Any
    add: dict[int, Any]  # by encoder length
    update: Any


class TrainStep:
    """`step(tuned, opt_state, frozen, groups, dropout_key_E, numbers_E) -> (tuned, opt_state, metrics)`.

    The tuned tree and the optimiser's state are returned where they lay. All programs for a number of members are
    compiled when it is first seen, so that nothing is compiled in between.
    """

    def __init__(self, setup: Setup, plan: LengthPlan) -> None:
        """Args: the run; how its batches are divided and padded."""
        self._setup, self._groups = setup, plan.groups
        self._lengths = [setup.prompt_length + length for length in plan.lengths]  # of encoder rows
        self._programs: dict[int, _Programs] = {}

    def __call__(
        self,
        tuned: Tree,
        opt_state: Tree,
        frozen: Tree,
        groups: Sequence[Batch],
        dropout_key_E: Array,
        numbers_E: Mapping[str, np.ndarray],
    ) -> tuple[Tree, Tree, Metrics]:
        numbers = jax.tree.map(jnp.asarray, dict(numbers_E))
        members = len(dropout_key_E)
        if members not in self._programs:
            self._programs[members] = self._compiled(
                tuned, opt_state, frozen, groups[0], dropout_key_E, numbers
            )
        programs = self._programs[members]
        so_far = programs.begin(tuned)
        for number, batch in enumerate(groups):
            add = programs.add[batch["encoder_input_tokens"].shape[-1]]
            so_far = add(so_far, tuned, frozen, batch, dropout_key_E, number, numbers)
        return programs.update(so_far, tuned, opt_state, numbers)

    def _compiled(
        self, tuned: Tree, opt_state: Tree, frozen: Tree, batch: Batch, keys_E: Array, numbers_E: Numbers
    ) -> _Programs:
        mesh, parts = self._setup.mesh, parts_of(self._setup)
        tuned_at, state_at = partition.shardings((self._setup.tuned, self._setup.opt_state))
        everywhere = partition.replicated(mesh)
        options = compiler_options(mesh)

        def add_gradients(
            so_far: Any,
            tuned: Tree,
            frozen: Tree,
            batch: Batch,
            keys_E: Array,
            number: Array,
            numbers_E: Numbers,
        ) -> Any:
            keys_E = group_keys(keys_E, number, self._groups)
            return parts.add(so_far, tuned, frozen, batch, keys_E, numbers_E)

        begin = jax.jit(parts.begin, out_shardings=(tuned_at, everywhere))
        adding = jax.jit(
            partition.on(mesh, add_gradients),
            donate_argnums=0,
            out_shardings=(tuned_at, everywhere),
            compiler_options=options,
        )
        update = jax.jit(
            partition.on(mesh, parts.update),
            donate_argnums=(1, 2),
            out_shardings=(tuned_at, state_at, everywhere),
            compiler_options=options,
        )
        so_far = begin(tuned)

        def of_length(length: int) -> Any:
            tokens = batch["encoder_input_tokens"]
            like = jax.ShapeDtypeStruct((*tokens.shape[:-1], length), tokens.dtype, sharding=tokens.sharding)
            rows = {**batch, "encoder_input_tokens": like}
            return adding.lower(so_far, tuned, frozen, rows, keys_E, 0, numbers_E).compile()

        with concurrent.futures.ThreadPoolExecutor(min(_COMPILERS, os.cpu_count() or 1)) as compilers:
            updating = compilers.submit(lambda: update.lower(so_far, tuned, opt_state, numbers_E).compile())
            added = dict(zip(self._lengths, compilers.map(of_length, self._lengths), strict=True))
            return _Programs(begin, added, updating.result())
