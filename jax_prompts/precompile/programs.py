"""The programs of a training run with their arguments as shapes: what it would compile, on a mesh of any devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jax_prompts import partition
from jax_prompts.inference.predict import make_loss_step, make_predict
from jax_prompts.prompts import prompt_kind_of
from jax_prompts.setup import Setup
from jax_prompts.state import fold_tuned, for_evaluation
from jax_prompts.step import dropout_keys
from jax_prompts.train_step import whole_step
from jax_prompts.tuned.leaves import flat, nested

PROGRAMS = ("train", "eval", "decode")


class Program(NamedTuple):
    """A jitted function, its arguments as shapes, and how many examples one run of it takes."""

    function: Any
    arguments: tuple
    examples: int


def programs_of(setup: Setup) -> dict[str, Program]:
    """Each of `PROGRAMS` as a training run has them, which evaluates a task with metrics by `eval` and `decode` in one.

    Rows are as long as the settings allow. A run's evaluation has the parameters and prompts of all its members.
    """
    data, members, mesh = setup.run.data, setup.run.training.members, setup.mesh
    model, tuned, frozen = setup.model, setup.tuned, setup.frozen

    def everywhere(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=partition.replicated(mesh))

    def batch(*rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        sharding = partition.batch_sharding(mesh, members=len(rows) > 1)
        inputs, targets, weights = (
            jax.ShapeDtypeStruct((*rows, length), dtype, sharding=sharding)
            for length, dtype in (
                (setup.encoder_length, jnp.int32),
                (setup.targets_length, jnp.int32),
                (setup.targets_length, jnp.float32),
            )
        )
        return {
            "encoder_input_tokens": inputs,
            "decoder_input_tokens": targets,
            "decoder_target_tokens": targets,
            "decoder_loss_weights": weights,
        }

    def first_member(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, PartitionSpec(*array.sharding.spec[1:]))
        return jax.ShapeDtypeStruct(array.shape[1:], array.dtype, sharding=sharding)

    keys_E = jax.eval_shape(lambda: dropout_keys(np.arange(members), 0))
    numbers_E = {name: everywhere(values.shape, values.dtype) for name, values in setup.numbers_E.items()}
    prompts_QW = None
    if setup.run.tunes_model:
        params = jax.tree.map(first_member, tuned["model"])
    else:
        params = _with_leaves(setup)
        width = model.config.prompt_width(prompt_kind_of(setup.method))
        rows = members * (0 if setup.method is None else setup.method.length)
        prompts_QW = everywhere((rows, width), jnp.float32) if rows else None
    train_batch, eval_batch = batch(members, data.batch_size), batch(data.eval_batch_size)
    eval_inputs = eval_batch["encoder_input_tokens"]
    return {
        "train": Program(
            whole_step(setup),
            (
                tuned,
                setup.opt_state,
                frozen,
                [train_batch],
                everywhere(keys_E.shape, keys_E.dtype),
                numbers_E,
            ),
            setup.rows,
        ),
        "eval": Program(make_loss_step(model, mesh), (params, prompts_QW, eval_batch), data.eval_batch_size),
        "decode": Program(
            make_predict(model, setup.run.decoding, setup.targets_length, mesh),
            (params, prompts_QW, eval_inputs, everywhere((), keys_E.dtype)),
            data.eval_batch_size,
        ),
    }


def _with_leaves(setup: Setup) -> Any:
    """Shapes of the parameters of a model with what one member tuned inside it, which is on every device."""
    everywhere = partition.replicated(setup.mesh)

    def first(tuned: Any, frozen: Any) -> Any:
        return for_evaluation(fold_tuned(setup, tuned), frozen)[0][0]

    frozen = flat(setup.frozen)
    shapes = flat(jax.eval_shape(first, setup.tuned, setup.frozen))
    return nested({
        path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=frozen[path].sharding if path in frozen else everywhere)
        for path, x in shapes.items()
    })  # fmt: skip
