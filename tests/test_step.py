"""The training step: two trees, the work it costs, members."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import meta
from whole_steps import make_train_step

from jax_prompts import optim
from jax_prompts.base_models.weights import random_weights
from jax_prompts.config import Optimizer
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import Base, PromptTuning, Residual, Uniform, init_members
from jax_prompts.step import dropout_keys, loss_sums

CONFIG = T5Config(128, 64, 4, 1, 1, 16, 128, ("gelu", "linear"), logits_via_embedding=False, dropout_rate=0.1)
P = 6


@functools.cache
def frozen_weights(model):
    return jax.jit(lambda key: meta.unbox(random_weights(model, key)))(jax.random.key(3))


def batch(members, rows, seed=0, text=24, targets=5):
    draw = np.random.default_rng(seed)
    tokens = draw.integers(2, 128, (members, rows, text), dtype=np.int32)
    tokens[..., -4:] = 0
    virtual = np.broadcast_to(np.arange(128, 128 + P, dtype=np.int32), (members, rows, P))
    answers = draw.integers(2, 128, (members, rows, targets), dtype=np.int32)
    answers[:, ::2, -2:] = 0
    arrays = {
        "encoder_input_tokens": np.concatenate([virtual, tokens], axis=-1),
        "decoder_input_tokens": np.pad(answers, ((0, 0), (0, 0), (1, 0)))[..., :-1],
        "decoder_target_tokens": answers,
        "decoder_loss_weights": (answers > 0).astype(np.float32),
    }
    return jax.tree.map(jnp.asarray, arrays)


def members_state(method, optimizer, seeds):
    @jax.jit
    def begin(seeds_E):
        keys_E = jax.vmap(jax.random.key)(seeds_E)
        tuned = {
            "prompt": init_members(
                method, keys_E, CONFIG.emb_dim, Uniform().table_init(Base(jnp.zeros((1, 1))))
            )
        }
        return tuned, jax.vmap(optimizer.init)(tuned)

    return begin(np.asarray(seeds))


def adamw(rate=0.05):
    return optim.make_optimizer(
        Optimizer(name="adamw", learning_rate=rate, weight_decay=0.01, gradient_clip_norm=1.0), 10
    )


@pytest.mark.parametrize("method", [PromptTuning(P), Residual(P, hidden=8)], ids=["direct", "residual"])
def test_only_the_tuned_tree_changes(method):
    model, optimizer = T5(CONFIG), adamw()
    frozen = frozen_weights(model)
    before = jax.tree.map(np.asarray, frozen)
    tuned, opt_state = members_state(method, optimizer, [0])
    start = jax.tree.map(np.asarray, tuned)
    step = jax.jit(make_train_step(model, method, optimizer, z_loss=1e-4, normalization="sum"))
    losses = []
    for s in range(5):
        tuned, opt_state, metrics = step(
            tuned, opt_state, frozen, [batch(1, 4)], dropout_keys(np.array([0]), s)
        )
        losses.append(float(metrics["loss_sum"][0]))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), before, frozen))
    assert jax.tree.all(jax.tree.map(lambda a, b: not np.array_equal(a, b), start, tuned))
    assert losses[-1] < losses[0]
    assert step._cache_size() == 1  # compiled once


def test_work_is_forward_and_activation_backward():
    """No weight gradient is computed, with the gradient norm among the outputs (within 5 %)."""
    model, method, optimizer = T5(CONFIG), PromptTuning(P), optax.sgd(0.1)
    frozen = frozen_weights(model)
    tuned, opt_state = members_state(method, optimizer, [0])
    data = batch(1, 16, text=122, targets=32)
    one = jax.tree.map(lambda x: x[0], data)
    prompt_PD = tuned["prompt"]["prompt"][0]

    def flops(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    def loss(prompt_PD, frozen):
        return loss_sums(model, frozen, prompt_PD, one, jax.random.key(0))["loss_sum"]

    forward = flops(loss, prompt_PD, frozen)
    everything = flops(jax.grad(loss, argnums=(0, 1)), prompt_PD, frozen)
    step = make_train_step(model, method, optimizer, z_loss=0.0, normalization="sum")
    ours = flops(step, tuned, opt_state, frozen, [data], dropout_keys(np.array([0]), 0))
    # The products of activations with weights cost as much backward as forward; so do their gradients with
    # respect to weights, which `everything` has on top. Attention's products of activations double backward.
    activation_backward = flops(lambda p, f: jax.vjp(lambda p: loss(p, f), p)[1](1.0), prompt_PD, frozen)
    assert abs(ours / activation_backward - 1) < 0.05
    assert 1.9 < ours / forward < 2.4
    assert everything > 1.2 * ours


@pytest.mark.slow
def test_members_are_separate_runs():
    """E = 3 side by side equal three runs of one, dropout, clipping and optimiser included."""
    model, method, optimizer = T5(CONFIG), Residual(P, hidden=8), adamw()
    frozen = frozen_weights(model)
    step = jax.jit(make_train_step(model, method, optimizer, z_loss=1e-4, normalization="sum"))
    data = batch(3, 4)

    def run(seeds, data):
        tuned, opt_state = members_state(method, optimizer, seeds)
        for s in range(4):
            tuned, opt_state, metrics = step(
                tuned, opt_state, frozen, [data], dropout_keys(np.asarray(seeds), s)
            )
        return tuned, metrics

    together, metrics = run([0, 1, 2], data)
    for e in range(3):
        alone, metrics_alone = run([e], jax.tree.map(lambda x, e=e: x[e : e + 1], data))
        jax.tree.map(
            lambda a, b, e=e: np.testing.assert_allclose(a[e], b[0], rtol=2e-4, atol=2e-5), together, alone
        )
        np.testing.assert_allclose(metrics["loss_sum"][e], metrics_alone["loss_sum"][0], rtol=1e-5)
    assert not np.allclose(together["prompt"]["prompt"][0], together["prompt"]["prompt"][1])


def test_logits_of_all_positions_and_members_never_exist_whole():
    """By the compiled memory of a training step of 8 members, and of the evaluation of as many rows."""
    E, B, U, V = 8, 4, 128, 32768
    model = T5(dataclasses.replace(CONFIG, vocab_size=V))
    method, optimizer = PromptTuning(P), adamw()
    frozen = jax.eval_shape(lambda: meta.unbox(random_weights(model, jax.random.key(3))))
    state = jax.eval_shape(lambda: members_state(method, optimizer, range(E)))
    data = batch(E, B, text=4, targets=U)
    step = make_train_step(model, method, optimizer, z_loss=1e-4, normalization="sum")
    rows = {name: x.reshape(E * B, -1) for name, x in data.items()}
    programs = {
        "train": (step, (*state, frozen, [data], dropout_keys(np.arange(E), 0))),
        "eval": (functools.partial(loss_sums, model), (frozen, jnp.zeros((E * P, CONFIG.emb_dim)), rows)),
    }
    for name, (function, arguments) in programs.items():
        temporary = jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
        assert temporary < 0.75 * E * B * U * V * 4, name


def test_model_tuning_moves_every_weight():
    model, optimizer = T5(CONFIG), adamw(1e-3)
    tuned = {"model": jax.tree.map(lambda x: x[None], frozen_weights(model))}
    before = jax.tree.map(np.asarray, tuned)
    step = jax.jit(make_train_step(model, None, optimizer, z_loss=0.0, normalization="mean"))
    data = batch(1, 4)
    data["encoder_input_tokens"] = data["encoder_input_tokens"][..., P:]
    tuned, _, _ = step(tuned, jax.vmap(optimizer.init)(tuned), {}, [data], dropout_keys(np.array([0]), 0))
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, jax.tree.map(np.asarray, tuned))
    assert jax.tree.all(moved)


def test_mean_loss_has_the_gradient_of_the_sum_over_the_tokens():
    model, method = T5(CONFIG), PromptTuning(P)
    frozen, optimizer = frozen_weights(model), optax.sgd(1.0)
    data = batch(1, 4)
    moves = {}
    for normalization in ("sum", "mean"):
        tuned, opt_state = members_state(method, optimizer, [0])
        step = jax.jit(make_train_step(model, method, optimizer, z_loss=0.0, normalization=normalization))
        after, _, metrics = step(tuned, opt_state, frozen, [data], dropout_keys(np.array([0]), 0))
        moves[normalization] = after["prompt"]["prompt"] - tuned["prompt"]["prompt"]
    scaled = moves["mean"] * float(metrics["tokens"][0])
    assert float(jnp.abs(moves["sum"]).max()) > 0
    np.testing.assert_allclose(scaled, moves["sum"], rtol=1e-3, atol=1e-4)


def test_rows_are_answered_where_every_target_is_the_likeliest():
    model, frozen = T5(CONFIG), frozen_weights(T5(CONFIG))
    data = jax.tree.map(lambda x: x[0], batch(1, 4))
    tokens_BL = data["encoder_input_tokens"][:, P:]  # no prompt
    likeliest_BU = np.zeros(data["decoder_target_tokens"].shape, np.int32)
    for u in range(likeliest_BU.shape[1]):  # what greedy decoding says
        inputs_BU = jnp.asarray(np.pad(likeliest_BU, ((0, 0), (1, 0)))[:, :-1])
        logits_BUV = model.apply({"params": frozen}, tokens_BL, inputs_BU)
        likeliest_BU[:, u] = np.argmax(logits_BUV[:, u, 1:], axis=-1) + 1
    weights_BU = np.ones_like(likeliest_BU)
    weights_BU[3] = 0  # a row that only fills the batch
    targets_BU = likeliest_BU.copy()
    targets_BU[1, -1] += 1
    rows = {
        "encoder_input_tokens": tokens_BL,
        "decoder_input_tokens": np.pad(likeliest_BU, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets_BU,
        "decoder_loss_weights": weights_BU,
    }
    found = loss_sums(model, frozen, None, jax.tree.map(jnp.asarray, rows))
    assert (float(found["rows"]), float(found["answered"])) == (3, 2)
    assert (float(found["tokens"]), float(found["correct"])) == (15, 14)


def test_microbatches_are_the_step_of_the_whole_batch():
    """By the mean, though microbatches differ in tokens; members and their metrics as well. Without dropout."""
    model, method = T5(dataclasses.replace(CONFIG, dropout_rate=0.0)), Residual(P, hidden=8)
    frozen, optimizer = frozen_weights(model), optax.sgd(0.1)
    data, tuned_and_state, results = batch(2, 4), members_state(method, optimizer, [0, 1]), []
    assert len(set(np.ravel(data["decoder_loss_weights"].sum(-1)).tolist())) > 1
    for microbatches in (1, 2):
        step = make_train_step(
            model, method, optimizer, z_loss=1e-4, normalization="mean", microbatches=microbatches
        )
        results.append(jax.jit(step)(*tuned_and_state, frozen, [data], dropout_keys(np.array([0, 1]), 0)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), *results)
