"""Results do not depend on the mesh: eight virtual devices, divided in every way, against one."""

import dataclasses
import functools
import math
import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from whole_steps import make_train_step

from jax_prompts import optim, partition
from jax_prompts.base_models.weights import abstract_weights, random_weights
from jax_prompts.config import Decoding, Optimizer
from jax_prompts.inference.predict import make_predict
from jax_prompts.inference.ranking import make_rank
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import (
    Decomposed,
    Explosive,
    PerLayer,
    PromptTuning,
    Residual,
    for_model,
    prompt_kind_of,
)
from jax_prompts.step import dropout_keys

CONFIG = T5Config(64, 16, 8, 1, 1, 4, 24, ("gelu", "linear"), logits_via_embedding=False, dropout_rate=0.1)
MESHES = {
    "data": {"data": 8},
    "fsdp": {"fsdp": 8},
    "model": {"model": 8},
    "data_model": {"data": 2, "model": 4},
    "fsdp_model": {"fsdp": 4, "model": 2},
    "all": {"data": 2, "fsdp": 2, "model": 2},
}
METHODS = {
    "prompt_tuning": PromptTuning(5),
    "residual": Residual(5, hidden=8),
    "residual_separate": Residual(5, hidden=4, shared=False),
    "decomposed": Decomposed(5, rank=3),
    "explosive": Explosive(5),
    "prefix": PerLayer(5),
    "full_prefix": PerLayer(5, kind="full_prefix"),
    "decoder_deep": PerLayer(5, kind="decoder_deep"),
}
V, D, B, STEPS = CONFIG.vocab_size, CONFIG.emb_dim, 8, 20


def batch(length, members):
    draw = np.random.default_rng(1)
    virtual = np.broadcast_to(np.arange(V, V + length, dtype=np.int32), (members, B, length))
    targets = draw.integers(2, V, (members, B, 3), dtype=np.int32)
    targets[:, ::3, -1] = 0
    return {
        "encoder_input_tokens": np.concatenate(
            [virtual, draw.integers(2, V, (members, B, 10), dtype=np.int32)], axis=-1
        ),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (0, 0), (1, 0)))[..., :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.float32),
    }


@functools.cache
def tuned_on(mesh, method, *, members=1, microbatches=1):
    """Losses of every step, the tuned parameters at the end, and the compiled step as text."""
    mesh = partition.make_mesh(*(({}, jax.devices()[:1]) if mesh is None else (MESHES[mesh],)))
    method = for_model(METHODS[method], CONFIG.prompt_width)
    model, seeds_E = T5(CONFIG, prompt_kind_of(method)), np.arange(members)
    # With a smaller epsilon, the first steps would be signs of gradients, also of those that are but rounding.
    optimizer = optim.make_optimizer(Optimizer(name="adamw", learning_rate=0.01, epsilon=1e-5), STEPS)
    shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), D, None)["params"])
    tuned_placed = {"prompt": partition.sharded_shapes(shapes, mesh, members=members)}
    shardings = partition.shardings((tuned_placed, partition.state_shapes(optimizer, tuned_placed)))
    start = jax.jit(jax.vmap(lambda key: nn.meta.unbox(method.init(key, D, None)["params"])))
    tuned = jax.device_put({"prompt": start(jax.vmap(jax.random.key)(seeds_E))}, shardings[0])
    opt_state = jax.jit(jax.vmap(optimizer.init), out_shardings=shardings[1])(tuned)
    frozen = weights_on(model, mesh)
    data = jax.device_put(batch(method.length, members), partition.batch_sharding(mesh, members=True))
    step = make_train_step(
        model, method, optimizer, z_loss=1e-4, normalization="mean", microbatches=microbatches
    )
    step = jax.jit(partition.on(mesh, step), out_shardings=(*shardings, partition.replicated(mesh)))
    # Compiled once for these shardings, with which every step must leave what it was given.
    step = step.lower(tuned, opt_state, frozen, [data], dropout_keys(seeds_E, 0)).compile()
    losses = []
    for s in range(STEPS):
        tuned, opt_state, metrics = step(tuned, opt_state, frozen, [data], dropout_keys(seeds_E, s))
        losses.append(metrics["loss_sum"] / metrics["tokens"])
    return np.stack(losses), jax.tree.map(np.asarray, tuned), step.as_text()


def weights_on(model, mesh):
    shardings = partition.parameter_shardings(abstract_weights(model), mesh)
    return jax.device_put(
        nn.meta.unbox(jax.jit(lambda: random_weights(model, jax.random.key(0)))()), shardings
    )


def check_same(mesh, method, **settings):
    losses, tuned, _ = tuned_on(mesh, method, **settings)
    losses_alone, tuned_alone, _ = tuned_on(None, method, **settings)
    assert losses_alone[-1].mean() < losses_alone[0].mean()
    np.testing.assert_allclose(losses, losses_alone, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), tuned, tuned_alone)


EVERYWHERE = ("prompt_tuning", "residual")  # the others on what divides every axis, and weights in two ways


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "mesh"),
    [(method, mesh) for method in METHODS for mesh in MESHES if method in EVERYWHERE or mesh == "all"],
)
def test_no_method_depends_on_any_mesh(method, mesh):
    check_same(mesh, method)
    if method == "residual":
        check_same(mesh, method, members=2)
    if method == "explosive" and mesh == "all":  # elsewhere half a batch does not divide
        check_same(mesh, method, microbatches=2)


@pytest.mark.slow
def test_with_fsdp_weights_travel_and_activations_do_not():
    """No float array as large as the encoder's activations passes between devices; all weights are smaller."""
    text = tuned_on("fsdp", "residual")[2]
    shapes = re.findall(r"= \(?f32\[([\d,]+)\]\S* (?:all-\w+|reduce-scatter|collective-permute)", text)
    sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
    assert sizes and max(sizes) <= V * D < B * (5 + 10) * D


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scan_layers", "decoding"), [(False, Decoding()), (True, Decoding("beam", num_decodes=3))]
)
def test_answers_do_not_depend_on_the_mesh(scan_layers, decoding):
    """Generated tokens, and log-probabilities of labels."""
    model = T5(dataclasses.replace(CONFIG, scan_layers=scan_layers))
    data = jax.tree.map(lambda x: x[0], batch(5, 1))
    prompts_QD = jax.random.normal(jax.random.key(1), (5, D))
    labels = {name: x[:2] for name, x in data.items() if name.startswith("decoder")}
    found = []
    for mesh in (partition.make_mesh({}, jax.devices()[:1]), partition.make_mesh(MESHES["all"])):
        tokens_BL = jax.device_put(
            data["encoder_input_tokens"], partition.batch_sharding(mesh, members=False)
        )
        asked = weights_on(model, mesh), prompts_QD, tokens_BL
        predict = make_predict(model, decoding, 6, mesh)
        found.append((predict(*asked, jax.random.key(0)), make_rank(model, mesh)(*asked, labels)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)
