"""The programs of a training run with their arguments as shapes: what it would compile, on a mesh of any devices."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_prompts import optim, partition
from jax_prompts.base_models.build import make_model
from jax_prompts.config import TrainRun
from jax_prompts.data.layout import text_length
from jax_prompts.inference.predict import make_loss_step, make_predict
from jax_prompts.prompts import for_model, prompt_kind_of
from jax_prompts.state import UNKNOWN_STEPS, check, check_model, length_of, sharded_trees
from jax_prompts.step import dropout_keys, jit_train_step

PROGRAMS = ("train", "eval", "decode")


def programs_of(run: TrainRun, mesh: Mesh) -> dict[str, tuple[Any, tuple, int]]:
    """(jitted function, abstract arguments, examples) of each of `PROGRAMS`, as a training run has them.

    Rows are as long as the settings allow. A run's evaluation has the parameters and prompts of all its members.

    Raises:
      ConfigError: settings that cannot work on this mesh.
    """
    # A prompt on BERT comes with a classifier; only its data know the classes, two stand for them.
    model = make_model(
        run.model, prompt_kind=prompt_kind_of(run.method), classes=0 if run.method is None else 2
    )
    run = dataclasses.replace(run, method=for_model(run.method, model.config.prompt_width))
    check(run, mesh)
    check_model(run, model)
    data, members, method = run.data, run.training.members, run.method
    optimizer = optim.make_optimizer(run.optimizer, run.training.steps or UNKNOWN_STEPS)
    tuned, frozen = sharded_trees(run, model, mesh)
    opt_state = partition.state_shapes(optimizer, tuned)
    shardings = partition.shardings((tuned, opt_state))
    targets_length = data.task_feature_lengths["targets"]

    def everywhere(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=partition.replicated(mesh))

    def batch(*rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        sharding = partition.batch_sharding(mesh, members=len(rows) > 1)
        inputs_length = text_length(data, length_of(method)) + length_of(method)
        inputs, targets, weights = (
            jax.ShapeDtypeStruct((*rows, length), dtype, sharding=sharding)
            for length, dtype in (
                (inputs_length, jnp.int32),
                (targets_length, jnp.int32),
                (targets_length, jnp.float32),
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
    prompts_QW = None
    if method is None:
        params = jax.tree.map(first_member, tuned["model"])
    else:
        params = {**frozen, **jax.tree.map(first_member, tuned.get("head", {}))}
        width = model.config.prompt_width(prompt_kind_of(method))
        prompts_QW = everywhere((members * method.length, width), jnp.float32)
    train_batch, eval_batch = batch(members, data.batch_size), batch(data.eval_batch_size)
    eval_inputs = eval_batch["encoder_input_tokens"]
    return {
        "train": (
            jit_train_step(run, model, optimizer, mesh, shardings),
            (tuned, opt_state, frozen, train_batch, everywhere(keys_E.shape, keys_E.dtype)),
            members * data.batch_size,
        ),
        "eval": (make_loss_step(model, mesh), (params, prompts_QW, eval_batch), data.eval_batch_size),
        "decode": (
            make_predict(model, run.decoding, targets_length, mesh),
            (params, prompts_QW, eval_inputs, everywhere((), keys_E.dtype)),
            data.eval_batch_size,
        ),
    }
