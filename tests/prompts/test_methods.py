"""Prompt tuning and Residual: golden values, parameter counts, members."""

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jax_prompts.config import ConfigError
from jax_prompts.prompts import PromptTuning, Residual, Uniform, fold, init_members

GOLDEN = Path(__file__).parents[1] / "goldens" / "residual_prompt" / "golden.safetensors"

METHODS = {
    "prompt_tuning": PromptTuning(length=4),
    "residual": Residual(length=4, hidden=6),
    "mlp": Residual(length=4, hidden=6, skip=False, norm=False, bias=False, activation="gelu"),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@functools.cache  # compiling is what takes the time here
def compiled_init(method, embed_dim):
    return jax.jit(lambda keys_E: init_members(method, keys_E, embed_dim, Uniform(2.0, 3.0).table_init(None)))


def members(method, keys_E, embed_dim):
    return compiled_init(method, embed_dim)(keys_E)


def residual_params(tensors, prefix=""):
    def take(name):
        return jnp.asarray(tensors[prefix + name])

    return {
        "prompt": take("prompt"),
        "down": {"kernel": take("W_down").T, "bias": take("b_down")},
        "up": {"kernel": take("W_up").T, "bias": take("b_up")},
        "norm": {"scale": take("ln_gamma"), "bias": take("ln_beta")},
    }


def test_residual_equals_torch():
    golden = load_file(GOLDEN)
    params = residual_params(golden)
    method = Residual(length=10, hidden=12)

    prompt_PD = method.apply({"params": params}, 32)
    np.testing.assert_allclose(prompt_PD, golden["output"], rtol=0, atol=1e-5)

    plain = Residual(length=10, hidden=12, norm=False, skip=False)
    before_norm_PD = plain.apply({"params": {k: params[k] for k in ("prompt", "down", "up")}}, 32)
    np.testing.assert_allclose(before_norm_PD, golden["mlp_output_before_norm"], rtol=0, atol=1e-5)

    grads = jax.grad(lambda p: jnp.sum(method.apply({"params": p}, 32) * golden["upstream_grad"]))(params)
    wanted = residual_params(golden, "grad.")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), grads, wanted)


def count(method, embed_dim):
    shapes = jax.eval_shape(lambda key: method.init(key, embed_dim), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(nn.meta.unbox(shapes)))


@pytest.mark.parametrize(
    "method, counts",  # of small, base and large, as the papers print them
    [
        (PromptTuning(length=100), (51_200, 76_800, 102_400)),
        (PromptTuning(length=10), (5_120, 7_680, 10_240)),
        (Residual(length=100), (462_736, 693_904, 925_072)),
        (Residual(length=10), (416_656, 624_784, 832_912)),
    ],
)
def test_parameter_counts_of_the_papers(method, counts):
    assert tuple(count(method, embed_dim) for embed_dim in (512, 768, 1024)) == counts


def test_parameter_count_formula():
    assert count(PromptTuning(length=5), 4096) == 20_480
    assert count(Residual(length=100, hidden=250, bias=False), 768) == 462_336
    P, D, M = 7, 24, 5
    assert count(Residual(length=P, hidden=M), D) == P * D + 2 * D * M + M + D + 2 * D
    assert count(Residual(length=P, hidden=M, norm=False), D) == P * D + 2 * D * M + M + D


@each_method
def test_members_are_separate_runs(method):
    keys_E = jax.random.split(jax.random.key(3), 3)
    params = members(method, keys_E, 16)
    assert all(leaf.shape[0] == 3 and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert params["prompt"].min() >= 2 and params["prompt"].max() < 3
    assert (params["prompt"][0] != params["prompt"][1]).any()
    prompts_EPD = fold(method, params, 16)
    assert prompts_EPD.shape == (3, 4, 16) and prompts_EPD.dtype == jnp.float32

    for e in (0, 2):
        alone = members(method, keys_E[e : e + 1], 16)
        jax.tree.map(lambda a, b, e=e: np.testing.assert_array_equal(a[0], b[e]), alone, params)
        np.testing.assert_allclose(fold(method, alone, 16)[0], prompts_EPD[e], rtol=0, atol=1e-6)


@each_method
def test_every_parameter_has_a_gradient(method):
    params = members(method, jax.random.split(jax.random.key(0), 1), 16)
    weights_PD = jax.random.normal(jax.random.key(1), (4, 16))
    grads = jax.jit(jax.grad(lambda p: jnp.sum(fold(method, p, 16)[0] * weights_PD)))(params)
    assert all(jnp.isfinite(g).all() and jnp.any(g != 0) for g in jax.tree.leaves(grads))


def test_residual_starts_as_torch_linear_does():
    params = members(Residual(length=2, hidden=64), jax.random.split(jax.random.key(0), 1), 256)
    for layer, fan_in in (("down", 256), ("up", 64)):
        for leaf in params[layer].values():
            assert jnp.abs(leaf).max() <= fan_in**-0.5
            np.testing.assert_allclose(leaf.std(), (3 * fan_in) ** -0.5, rtol=0.15)
    assert (params["norm"]["scale"] == 1).all() and (params["norm"]["bias"] == 0).all()


def test_logical_axes():
    method = Residual(length=3, hidden=2)
    specs = nn.get_partition_spec(jax.eval_shape(lambda key: method.init(key, 8), jax.random.key(0)))[
        "params"
    ]
    assert specs["prompt"] == jax.sharding.PartitionSpec("prompt", "embed")
    assert specs["down"]["kernel"] == jax.sharding.PartitionSpec("embed", "mlp")
    assert specs["up"]["kernel"] == jax.sharding.PartitionSpec("mlp", "embed")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: PromptTuning(length=0), ["PromptTuning.length", "PROMPT_LENGTH", "0"]),
        (lambda: PromptTuning(length=2.5), ["PromptTuning.length", "2.5"]),
        (lambda: Residual(length=-1), ["Residual.length", "-1"]),
        (lambda: Residual(length=1, hidden=0), ["Residual.hidden", "0"]),
        (lambda: Residual(length=1, activation="rellu"), ["Residual.activation", "rellu", "relu"]),
    ],
)
def test_wrong_settings_are_named(make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
