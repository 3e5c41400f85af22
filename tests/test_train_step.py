"""Batches in groups of like length: the step of the unpadded batch, whatever is tuned and however it is divided."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from whole_steps import make_train_step

from jax_prompts import partition
from jax_prompts.base_models.weights import random_weights
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import (
    Explosive,
    PerLayer,
    PromptTuning,
    Residual,
    for_model,
    init_members,
    prompt_kind_of,
)
from jax_prompts.step import dropout_keys

CONFIG = T5Config(64, 16, 2, 1, 1, 8, 24, ("gelu", "linear"), logits_via_embedding=False, dropout_rate=0.0)
V, P, B, E = CONFIG.vocab_size, 4, 8, 2
LENGTHS = np.array([[3, 14, 7, 5, 16, 4, 9, 2], [16, 2, 2, 11, 3, 8, 13, 6]])  # by member


def rows(lengths_EK, width, targets_seed=1):
    """Members' rows of these lengths behind prompts, padded to a width."""
    made = {"encoder_input_tokens": np.zeros((E, lengths_EK.shape[1], P + width), np.int32)}
    for e, lengths in enumerate(lengths_EK):
        for k, length in enumerate(lengths):
            text = np.random.default_rng([e, length]).integers(2, V, length)
            made["encoder_input_tokens"][e, k, :P] = np.arange(V, V + P)
            made["encoder_input_tokens"][e, k, P : P + length] = text
    targets = np.stack([[np.arange(2, 5) + length for length in lengths] for lengths in lengths_EK]).astype(
        np.int32
    )
    weights = np.ones(targets.shape, np.float32)
    weights[..., 2] = lengths_EK % 2  # rows differ in tokens
    return made | {
        "decoder_input_tokens": np.pad(targets, ((0, 0), (0, 0), (1, 0)))[..., :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": weights,
    }


def groups_of(count, widths):
    """The batch in so many groups, each as wide as the first of `widths` that holds it."""
    sorted_EB = np.sort(LENGTHS, axis=1)
    parts = np.split(sorted_EB, count, axis=1)
    return [rows(part, next(width for width in widths if width >= part.max())) for part in parts]


@functools.cache
def frozen_weights(config):
    return jax.jit(lambda key: nn.meta.unbox(random_weights(T5(config), key)))(jax.random.key(0))


def stepped(method, groups, *, config=CONFIG, mesh=None, **settings):
    """A step's tuned tree and metrics."""
    method = for_model(method, config.prompt_width)
    model = T5(config, prompt_kind_of(method))
    frozen, optimizer = frozen_weights(config), optax.sgd(0.1)
    keys_E = jax.vmap(jax.random.key)(np.arange(E))
    tuned = {"prompt": jax.jit(lambda keys_E: init_members(method, keys_E, config.emb_dim))(keys_E)}
    step = make_train_step(model, method, optimizer, z_loss=1e-4, **{"normalization": "mean", **settings})
    state = jax.vmap(optimizer.init)(tuned)
    if mesh is not None:
        tuned, frozen = jax.device_put((tuned, frozen), partition.replicated(mesh))
        groups = jax.device_put(groups, partition.batch_sharding(mesh, members=True))
    step = jax.jit(partition.on(mesh, step))
    tuned, _, metrics = step(tuned, state, frozen, groups, dropout_keys(np.arange(E), 3))
    return jax.tree.map(np.asarray, (tuned, metrics))


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, expected)


METHODS = {
    "prompt_tuning": PromptTuning(P),
    "residual": Residual(P, hidden=8),
    "explosive": Explosive(length=P),
    "prefix": PerLayer(length=P, width=48),
    "full_prefix": PerLayer(length=P, kind="full_prefix"),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_groups_are_the_step_of_the_unpadded_batch(method):
    whole = stepped(METHODS[method], [rows(np.sort(LENGTHS, axis=1), 16)])
    assert float(whole[1]["tokens"][0]) != float(whole[1]["tokens"][1])
    close(stepped(METHODS[method], groups_of(4, (5, 8, 16))), whole)
    close(stepped(METHODS[method], groups_of(2, (8, 32)), microbatches=2), whole)


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["sum", "mean"])
def test_groups_on_eight_devices(normalization):
    method = METHODS["residual"]
    whole = stepped(method, [rows(np.sort(LENGTHS, axis=1), 16)], normalization=normalization)
    mesh = partition.make_mesh({"data": 2, "fsdp": 2, "model": 2})
    close(stepped(method, groups_of(2, (8, 16)), mesh=mesh, normalization=normalization), whole)


@pytest.mark.slow
@pytest.mark.parametrize("scanned", [False, True])
def test_padding_changes_no_draw_of_dropout(scanned):
    """So that members, whose longest rows are padded for, stay separate runs."""
    config = dataclasses.replace(
        CONFIG, num_encoder_layers=2, num_decoder_layers=2, dropout_rate=0.3, scan_layers=scanned
    )
    one, other = (
        stepped(METHODS["residual"], groups_of(4, widths), config=config) for widths in ((5, 16), (32,))
    )
    close(one, other)
    still = dataclasses.replace(config, dropout_rate=0.0)
    without = stepped(METHODS["residual"], groups_of(4, (16,)), config=still)
    assert np.abs(one[1]["loss_sum"] - without[1]["loss_sum"]).max() > 1e-3


def test_padding_changes_no_draw_of_a_berts_dropout():
    config = BertConfig(V, 16, 2, 1, 24, 40, dropout_rate=0.3)
    model = Bert(config, classes=3)
    tokens = rows(LENGTHS, 32)["encoder_input_tokens"][0]
    params = model.init(jax.random.key(0), method="initialize")["params"]
    prompts_PD = jax.random.normal(jax.random.key(1), (P, 16))

    @jax.jit
    def logits(tokens):
        key = {"dropout": jax.random.key(2)}
        return model.apply({"params": params}, tokens, None, prompts_PD, deterministic=False, rngs=key)

    np.testing.assert_allclose(
        logits(jnp.asarray(tokens)), logits(jnp.asarray(tokens[:, : P + 16])), rtol=1e-5, atol=1e-6
    )
    still = jax.jit(model.apply)({"params": params}, jnp.asarray(tokens), None, prompts_PD)
    assert jnp.abs(still - logits(jnp.asarray(tokens))).max() > 1e-3
