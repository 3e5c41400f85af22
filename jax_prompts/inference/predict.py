"""Predicts answers to examples, or how likely the right ones are.

Prompts are rows of one table, so one program serves any number.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts import decoding, losses, partition
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
Answer = Callable[..., tuple[Int[Array, "B U"], Metrics]]
LossStep = Callable[..., Metrics]
Losses = dict[str, float]
SUMS = ("loss_sum", "tokens", "correct")
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
        encoded = apply(encoder_input_tokens, prompts_QD, method="encode")
        return _generate(apply, encoded, encoder_input_tokens, settings, max_length, key)

    return jax.jit(partition.on(mesh, predict), compiler_options=compiler_options(mesh))


def make_answer(
    model: Model, settings: Decoding, max_length: int, mesh: jax.sharding.Mesh | None = None
) -> Answer:
    """A T5's compiled `answer(params, prompts_QD, batch, key) -> (ids_BU, sums)`, for which the encoder runs once.

    Sums of each row [B] over its target tokens, given the tokens before them: `loss_sum` (nats), `tokens`, and
    `correct` ones, which are the likeliest.
    """

    def answer(
        params: Tree, prompts_QD: Float[Array, "Q D"] | None, batch: dict[str, Array], key: Array
    ) -> tuple[Int[Array, "B U"], Metrics]:
        apply: Callable[..., Any] = functools.partial(model.apply, {"params": params})
        inputs_BL, weights_BU = batch["encoder_input_tokens"], batch["decoder_loss_weights"]
        encoded = apply(inputs_BL, prompts_QD, method="encode")
        hidden_BUD = apply(encoded, inputs_BL, batch["decoder_input_tokens"], method="decode")
        logits_fn = functools.partial(apply, method="logits")
        wanted = batch["decoder_target_tokens"], weights_BU
        loss_B, correct_B = losses.token_sums(logits_fn, hidden_BUD, *wanted, z_loss=0.0)
        sums = {"loss_sum": loss_B, "tokens": jnp.sum(weights_BU, axis=1), "correct": correct_B}
        return _generate(apply, encoded, inputs_BL, settings, max_length, key), sums

    return jax.jit(partition.on(mesh, answer), compiler_options=compiler_options(mesh))


def _generate(
    apply: Callable[..., Any],
    encoded: Any,
    encoder_input_tokens: Int[Array, "B L"],
    settings: Decoding,
    max_length: int,
    key: Array,
) -> Int[Array, "B U"]:
    tokens = max_length, settings.num_decodes
    cache = apply(encoded, encoder_input_tokens, *tokens, method="start_decoding")
    logits_fn = functools.partial(apply, method="decode_step")
    batch_size = encoder_input_tokens.shape[0]
    return decoding.decode(
        logits_fn, cache, settings, batch_size, max_length, key, batch_axis=CACHE_BATCH_AXIS
    )


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


def answered_texts(
    answer: Answer,
    params: Tree,
    prompts_QD: Float[Array, "Q D"] | None,
    batches: DeviceBatches,
    read: Callable[[Int[np.ndarray, " U"]], str],
) -> Iterator[list[list[Any]]]:
    """`[text, loss_sum, tokens, correct]` of the rows of one batch after another, as `make_answer` says."""
    for index, batch in batches:
        key = jax.random.fold_in(jax.random.key(0), index[0])
        ids_BU, sums = global_arrays.gathered(answer(params, prompts_QD, batch, key))
        numbers = (sums[name][: len(index)].tolist() for name in SUMS)
        yield [[read(ids), *of_row] for ids, *of_row in zip(ids_BU[: len(index)], *numbers, strict=True)]


def mean_loss(
    loss_step: LossStep, params: Tree, prompts_QD: Float[Array, "Q D"] | None, batches: DeviceBatches
) -> Losses:
    """`losses_of` all rows of some batches."""
    sums: dict[str, float] = collections.defaultdict(float)
    for _, batch in batches:  # rows that fill the last batch have loss weight 0
        for name, value in loss_step(params, prompts_QD, batch).items():
            sums[name] += float(value)
    return losses_of(sums)


def losses_of(sums: Mapping[str, float]) -> Losses:
    """Cross-entropy a target token (nats) and token accuracy in percent, of `SUMS` over rows."""
    return {
        "loss": sums["loss_sum"] / sums["tokens"],
        "token_accuracy": 100 * sums["correct"] / sums["tokens"],
    }
