"""Predicts answers to examples, or how likely the right ones are.

Prompts are rows of one table, so one program serves any number.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts import decoding, partition
from jax_prompts.base_models.build import Model
from jax_prompts.config import Decoding
from jax_prompts.cpu import compiler_options
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import Batch
from jax_prompts.data.sampler import eval_batches
from jax_prompts.distributed import global_arrays
from jax_prompts.models.bert import Bert
from jax_prompts.models.t5 import CACHE_BATCH_AXIS
from jax_prompts.step import Metrics, loss_sums

Tree = Any
Predict = Callable[..., Int[Array, "B U"]]
LossStep = Callable[..., Metrics]
# Numbers of a batch's rows, but for those that only fill it, and the batch on the devices.
DeviceBatches = Iterator[tuple[Int[np.ndarray, " _"], Batch]]


def make_predict(
    model: Model, settings: Decoding, max_length: int, mesh: jax.sharding.Mesh | None = None
) -> Predict:
    """A compiled `predict(params, prompts_QD, encoder_input_tokens, key) -> ids_BU`: tokens, or a class [B, 1]."""

    def predict(
        params: Tree,
        prompts_QD: Float[Array, "Q D"] | None,
        encoder_input_tokens: Int[Array, "B L"],
        key: Array,
    ) -> Int[Array, "B U"]:
        apply = functools.partial(model.apply, {"params": params})
        if isinstance(model, Bert):
            logits_B1C = jnp.asarray(apply(encoder_input_tokens, None, prompts_QD))
            return jnp.argmax(logits_B1C, axis=-1)
        tokens = max_length, settings.num_decodes
        cache = apply(encoder_input_tokens, prompts_QD, *tokens, method="start_decoding")
        logits_fn = functools.partial(apply, method="decode_step")
        batch_size = encoder_input_tokens.shape[0]
        return decoding.decode(
            logits_fn, cache, settings, batch_size, max_length, key, batch_axis=CACHE_BATCH_AXIS
        )

    return jax.jit(partition.on(mesh, predict), compiler_options=compiler_options(mesh))


def make_loss_step(model: Model, mesh: jax.sharding.Mesh | None = None) -> LossStep:
    """A compiled `loss_sums(params, prompts_QD, batch)` of this model."""
    sums = partition.on(mesh, functools.partial(loss_sums, model))
    return jax.jit(sums, compiler_options=compiler_options(mesh))


def label_of(labels: Sequence[str]) -> Callable[[Int[np.ndarray, " 1"]], str]:
    """Function from a class, as `predict` of a BERT gives it, to its label."""
    return lambda class_1: labels[int(class_1[0])]


def device_batches(
    cache: TokenCache,
    *,
    batch_size: int,
    sharding: jax.sharding.Sharding | None = None,
    **options: Any,
) -> DeviceBatches:
    """The batches of `eval_batches`, with these options; of several processes each makes the rows of its devices."""
    rows_here_K = global_arrays.rows_here(sharding, batch_size)
    for batch in eval_batches(cache, batch_size=batch_size, rows_here_K=rows_here_K, **options):
        index_B = batch.pop("index")
        yield index_B[index_B >= 0], global_arrays.put_batch(batch, sharding, batch_size)


def predict_texts(
    predict: Predict,
    params: Tree,
    prompts_QD: Float[Array, "Q D"] | None,
    batches: DeviceBatches,
    read: Callable[[Int[np.ndarray, " U"]], str],
) -> Iterator[list[str]]:
    """The model's answers to the rows of one batch after another."""
    for index, batch in batches:
        key = jax.random.fold_in(jax.random.key(0), index[0])
        ids_BU = global_arrays.gathered(predict(params, prompts_QD, batch["encoder_input_tokens"], key))
        yield [read(ids) for ids in ids_BU[: len(index)]]


def mean_loss(
    loss_step: LossStep, params: Tree, prompts_QD: Float[Array, "Q D"] | None, batches: DeviceBatches
) -> dict[str, float]:
    """Cross-entropy a target token (nats) and token accuracy in percent: how tasks without metrics are scored."""
    sums: dict[str, float] = collections.defaultdict(float)
    for _, batch in batches:  # rows that fill the last batch have loss weight 0
        for name, value in loss_step(params, prompts_QD, batch).items():
            sums[name] += float(value)
    return {
        "loss": sums["loss_sum"] / sums["tokens"],
        "token_accuracy": 100 * sums["correct"] / sums["tokens"],
    }
