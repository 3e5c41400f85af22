"""What every method keeps: one line of `methods.TABLE` each."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods import KINDS, TABLE
from whole_steps import make_train_step

from jax_prompts import optim, partition
from jax_prompts.base_models.weights import random_weights
from jax_prompts.config import Optimizer
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import (
    PromptMetadata,
    fold,
    for_model,
    init_members,
    load_prompt,
    prompt_kind_of,
    save_prompt,
)
from jax_prompts.step import dropout_keys

CONFIG = T5Config(64, 16, 2, 1, 1, 8, 24, ("gelu", "linear"), logits_via_embedding=False, dropout_rate=0.1)
OPTIMIZER = Optimizer(name="adamw", learning_rate=0.05, weight_decay=0.01, network_learning_rate=0.02)
V, D, B, SEEDS, STEPS = CONFIG.vocab_size, CONFIG.emb_dim, 8, (3, 4, 5), 3


@pytest.fixture(scope="module")
def frozen():
    return jax.jit(lambda key: nn.meta.unbox(random_weights(T5(CONFIG), key)))(jax.random.key(0))


def batch(length, members):
    draw = np.random.default_rng(1)
    text = draw.integers(2, V, (members, B, 10), dtype=np.int32)
    virtual = np.broadcast_to(np.arange(V, V + length, dtype=np.int32), (members, B, length))
    targets = draw.integers(2, V, (members, B, 3), dtype=np.int32)
    return {
        "encoder_input_tokens": np.concatenate([virtual, text], axis=-1),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (0, 0), (1, 0)))[..., :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }


def begun(method, optimizer, frozen, seeds, data, mesh):
    """(tuned, opt_state, frozen, data) of members before their first step, on a mesh where there is one."""
    keys_E = jax.vmap(jax.random.key)(np.asarray(seeds))
    tuned = jax.jit(lambda keys_E: {"prompt": init_members(method, keys_E, D)})(keys_E)
    opt_state = jax.jit(jax.vmap(optimizer.init))(tuned)
    if mesh is not None:
        tuned, opt_state, frozen = jax.device_put((tuned, opt_state, frozen), partition.replicated(mesh))
        data = jax.device_put(data, partition.batch_sharding(mesh, members=True))
    return tuned, opt_state, frozen, data


def tune(method, frozen, seeds, data, config=CONFIG, mesh=None):
    """(start, end, losses [steps, E]) of a few steps, and the compiled step."""
    optimizer = optim.make_optimizer(OPTIMIZER, STEPS)
    tuned, opt_state, frozen, data = begun(method, optimizer, frozen, seeds, data, mesh)
    model = T5(config, prompt_kind_of(method))
    step = jax.jit(make_train_step(model, method, optimizer, z_loss=1e-4, normalization="sum"))
    start, losses = jax.tree.map(np.asarray, tuned), []
    for s in range(STEPS):
        tuned, opt_state, metrics = step(tuned, opt_state, frozen, [data], dropout_keys(np.asarray(seeds), s))
        losses.append(np.asarray(metrics["loss_sum"]))
    assert step._cache_size() == 1
    return start, jax.tree.map(np.asarray, tuned), np.stack(losses)


def member(tree, e):
    return jax.tree.map(lambda x: x[e : e + 1], tree)


def close(a, b, atol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=atol), a, b)


OFTEN = (
    "prompt_tuning",
    "residual",
    "lstm_with_head",
    "decomposed",
    "explosive",
    "superpos",
    "mpt_rank_2",
    "prefix",
)


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in TABLE]
)
def test_contract(name, frozen, tmp_path):
    method = for_model(TABLE[name], CONFIG.prompt_width)
    model = T5(CONFIG, prompt_kind_of(method))
    before = jax.tree.map(np.asarray, frozen)
    data = batch(method.length, len(SEEDS))
    start, end, losses = tune(method, frozen, SEEDS, data)

    # Only the tuned tree changes, all of it, and the loss is that of training.
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, frozen))
    for path, (a, b) in jax.tree.leaves_with_path(
        jax.tree.map(lambda *x: x, start, end), is_leaf=lambda x: isinstance(x, tuple)
    ):
        assert np.isfinite(b).all() and not np.array_equal(a, b), path
    assert np.isfinite(losses).all()

    # The folded prompt, also from its file, is the prompt: loss and logits are equal to the bit.
    prompt_PD = jax.jit(lambda p: fold(method, p, D))(member(end["prompt"], 0))[0]
    metadata = PromptMetadata(base_model="tiny", prompt_kind=model.prompt_kind)
    save_prompt(tmp_path / "prompt.safetensors", np.asarray(prompt_PD), metadata)
    loaded_PD, found = load_prompt(tmp_path / "prompt.safetensors", prompt_width=CONFIG.prompt_width)
    np.testing.assert_array_equal(loaded_PD, prompt_PD)
    assert found == metadata and prompt_PD.shape == (method.length, CONFIG.prompt_width(model.prompt_kind))
    rows = jax.tree.map(lambda x: jnp.asarray(x[0]), data)
    params = jax.tree.map(lambda x: x[0], end["prompt"])
    logits = jax.jit(lambda prompt_PD: model.apply(
        {"params": frozen}, rows["encoder_input_tokens"], rows["decoder_input_tokens"], prompt_PD
    ))  # fmt: skip
    unfolded_PD = jax.jit(lambda p: method.apply({"params": p}, D))(params)
    np.testing.assert_array_equal(logits(unfolded_PD), logits(loaded_PD))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_members_are_separate_runs_whatever_devices_and_activations(name, frozen):
    method = for_model(TABLE[name], CONFIG.prompt_width)
    data = batch(method.length, len(SEEDS))
    _, end, losses = tune(method, frozen, SEEDS, data)

    # Side by side on one device, or each for itself on eight, the optimiser included.
    assert jax.device_count() == 8
    seed, rows = SEEDS[1:2], member(data, 1)
    _, alone, losses_alone = tune(method, frozen, seed, rows, mesh=partition.make_mesh({}))
    close(member(end, 1), alone)
    np.testing.assert_allclose(losses[:, 1:2], losses_alone, rtol=1e-5)

    # bfloat16 activations: parameters stay float32, the loss is near.
    narrow = dataclasses.replace(CONFIG, dtype=jnp.bfloat16)
    _, end_narrow, losses_narrow = tune(method, frozen, seed, rows, config=narrow)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(end_narrow))
    np.testing.assert_allclose(losses_narrow[0], losses_alone[0], rtol=0.02)
