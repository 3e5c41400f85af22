"""Adds up a training step as it is traced, before any compiler: products, and what is kept for the backward pass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from jax_prompts import step
from jax_prompts.partition import byte_count
from jax_prompts.precompile.programs import programs_of
from jax_prompts.setup import Setup


def matrix_flops(jaxpr: Any, times: int = 1) -> int:
    """FLOPs of all products in a traced program; a multiply-add counts as two.

    Those in a scan count as often as it runs, and of branches, which differ by platform, the one with most.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            sides = [equation.invars[0].aval.shape[axis] for axis in contracted]
            total += 2 * times * equation.outvars[0].aval.size * math.prod(sides)
        if equation.primitive.name == "cond":
            total += max(matrix_flops(branch.jaxpr, times) for branch in equation.params["branches"])
            continue
        runs = times * equation.params["length"] if equation.primitive.name == "scan" else times
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            total += matrix_flops(inner, runs) if hasattr(inner, "eqns") else 0
    return total


def kept_bytes(loss: Callable[..., jax.Array], tuned: Any, *others: Any) -> int:
    """Bytes that the gradient of `loss(tuned, *others)` by `tuned` keeps between the passes, arguments not among it."""

    def forward(tuned: Any, *others: Any) -> list[jax.Array]:
        return jax.tree.leaves(jax.vjp(lambda tuned: loss(tuned, *others), tuned)[1])

    jaxpr: Any = jax.make_jaxpr(forward)(tuned, *others).jaxpr
    made: set[Any] = {variable for equation in jaxpr.eqns for variable in equation.outvars}
    kept = made.intersection(output for output in jaxpr.outvars if isinstance(output, core.Var))
    return byte_count([variable.aval for variable in kept])


@dataclasses.dataclass(frozen=True)
class Account:
    """A training step of one member on one device.

    Attributes:
      weights: bytes of frozen parameters.
      kept: bytes kept for the backward pass whatever the rows are, such as copies of weights.
      kept_a_row: bytes that every row adds.
      flops: of products, of all rows.
      rows: of the batch.
    """

    weights: int
    kept: int
    kept_a_row: int
    flops: int
    rows: int


def account(setup: Setup) -> Account:
    """Adds up the step of a run of one member; bytes by comparing two batch sizes."""
    program, arguments, rows = programs_of(setup)["train"]
    tuned, _, frozen, (batch,), keys_E, _ = arguments
    model = setup.model

    def loss(tuned: Any, frozen: Any, batch: Any, key: jax.Array) -> jax.Array:
        params, prompt_PD = step.assemble(model, setup.method, tuned, frozen, setup.run.leaves, training=True)
        return step.loss_sums(model, params, prompt_PD, batch, key, setup.run.training.z_loss)["loss_sum"]

    def first_member(tree: Any, rows: tuple[int, ...] = ()) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*rows, *x.shape[1 + len(rows) :]), x.dtype), tree)

    tuned, key = first_member(tuned), first_member(keys_E)
    once, twice = (
        kept_bytes(loss, tuned, frozen, first_member(batch, (number,)), key) for number in (rows, 2 * rows)
    )
    return Account(
        weights=byte_count(frozen),
        kept=2 * once - twice,
        kept_a_row=(twice - once) // rows,
        flops=matrix_flops(program.trace(*arguments).jaxpr.jaxpr),
        rows=rows,
    )
