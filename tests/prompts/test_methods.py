"""Prompt methods: values of other systems, parameter counts, members, wrong settings."""

import functools
import warnings
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods import TABLE
from safetensors.numpy import load_file

from jax_prompts import partition
from jax_prompts.errors import ConfigError, SettingWarning
from jax_prompts.prompts import (
    METHODS,
    MPT,
    Base,
    Decomposed,
    Explosive,
    LSTMPrompt,
    PerLayer,
    PromptTuning,
    PTuningLSTM,
    PTuningMLP,
    RankProbe,
    Residual,
    SuperPos,
    Uniform,
    fold,
    init_members,
)

GOLDENS = Path(__file__).parents[1] / "goldens"
GOLDEN = GOLDENS / "residual_prompt" / "golden.safetensors"
PEFT = GOLDENS / "peft_prompt_encoder" / "golden.safetensors"

NO_BASE = Base(jnp.zeros((1, 1)))

each_method = pytest.mark.parametrize("method", TABLE.values(), ids=TABLE)


def takes_embeddings(method):
    if isinstance(method, LSTMPrompt):
        return method.embedding is None
    return not isinstance(method, PerLayer) or method.hidden is not None or method.kind == "deep"


@functools.cache  # compiling is what takes the time here
def compiled_init(method, embed_dim):
    start = Uniform(2.0, 3.0).table_init(NO_BASE) if takes_embeddings(method) else None
    return jax.jit(lambda keys_E: init_members(method, keys_E, embed_dim, start))


def members(method, keys_E, embed_dim):
    return compiled_init(method, embed_dim)(keys_E)


def test_every_method_is_in_the_table():
    assert {type(method) for method in TABLE.values()} == set(METHODS)


def residual_params(tensors, prefix=""):
    def take(name):
        return jnp.asarray(tensors[prefix + name])

    network = {
        "down": {"kernel": take("W_down").T, "bias": take("b_down")},
        "up": {"kernel": take("W_up").T, "bias": take("b_up")},
        "norm": {"scale": take("ln_gamma"), "bias": take("ln_beta")},
    }
    return {"prompt": take("prompt"), "network": network}


def test_residual_equals_torch():
    golden = load_file(GOLDEN)
    params = residual_params(golden)
    method = Residual(length=10, hidden=12)

    prompt_PD = method.apply({"params": params}, 32)
    np.testing.assert_allclose(prompt_PD, golden["output"], rtol=0, atol=1e-5)

    plain = Residual(length=10, hidden=12, norm=False, skip=False)
    before_norm_PD = plain.apply({"params": params}, 32)
    np.testing.assert_allclose(before_norm_PD, golden["mlp_output_before_norm"], rtol=0, atol=1e-5)

    grads = jax.grad(lambda p: jnp.sum(method.apply({"params": p}, 32) * golden["upstream_grad"]))(params)
    wanted = residual_params(golden, "grad.")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), grads, wanted)


def lstm_params(tensors, prefix, layers):
    network = {}
    for layer in range(layers):
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            for part, short in (("input", "ih"), ("recurrent", "hh")):
                name = f"{direction}_{layer}_{part}"
                network[f"{name}_kernel"] = tensors[f"{prefix}lstm_head.weight_{short}_l{layer}{suffix}"].T
                network[f"{name}_bias"] = tensors[f"{prefix}lstm_head.bias_{short}_l{layer}{suffix}"]
    return network


def peft_params(tensors, prefix, dense_layers, lstm_layers):
    network = {
        f"dense_{number}": {
            "kernel": tensors[f"{prefix}mlp_head.{2 * number}.weight"].T,
            "bias": tensors[f"{prefix}mlp_head.{2 * number}.bias"],
        }
        for number in range(dense_layers)
    }
    params = {"prompt": tensors[f"{prefix}embedding.weight"], "network": network}
    params |= {"lstm": lstm_params(tensors, prefix, lstm_layers)} if lstm_layers else {}
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize(
    ("name", "method", "dense_layers", "lstm_layers"),
    [
        ("mlp", PTuningMLP(length=6, hidden=24), 3, 0),
        ("lstm2", PTuningLSTM(length=6, hidden=16), 2, 2),
        ("lstm1", PTuningLSTM(length=6, hidden=12, layers=1), 2, 1),
    ],
)
def test_p_tuning_equals_peft(name, method, dense_layers, lstm_layers):
    golden = load_file(PEFT)
    params = peft_params(golden, f"{name}.w.", dense_layers, lstm_layers)
    prompt_PD = method.apply({"params": params}, 32)
    np.testing.assert_allclose(prompt_PD, golden[f"{name}.output"], rtol=0, atol=1e-5)

    upstream_PD = golden[f"{name}.upstream_grad"]
    grads = jax.grad(lambda p: jnp.sum(method.apply({"params": p}, 32) * upstream_PD))(params)
    wanted = peft_params(golden, f"{name}.grad.", dense_layers, lstm_layers)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), grads, wanted)
    shapes = jax.eval_shape(lambda key: nn.meta.unbox(method.init(key, 32)["params"]), jax.random.key(0))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)


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
        (Residual(length=10, skip=False), (416_656, 624_784, 832_912)),
        (PTuningMLP(length=10), (793_088, 1_779_456, 3_159_040)),
        (Decomposed(length=100), (6_120, 8_680, 11_240)),
        (Explosive(), (1_536, 2_304, 3_072)),
        (Explosive(length=10), (1_536, 2_304, 3_072)),
        (Explosive(passes=2), (1_536, 2_304, 3_072)),
        (MPT(length=100), (51_812, 77_668, 103_524)),
    ],
)
def test_parameter_counts_of_the_papers(method, counts):
    assert tuple(count(method, embed_dim) for embed_dim in (512, 768, 1024)) == counts


def test_parameter_count_formulas():
    assert count(PromptTuning(length=5), 4096) == 20_480
    assert count(Residual(length=100, hidden=250, bias=False), 768) == 462_336
    P, D, M, R = 7, 24, 5, 3
    assert count(Residual(length=P, hidden=M), D) == P * D + 2 * D * M + M + D + 2 * D
    assert count(Residual(length=P, hidden=M, norm=False), D) == P * D + 2 * D * M + M + D
    assert count(Residual(length=P, hidden=M, shared=False), D) == P * D + P * (2 * D * M + 3 * D + M)
    assert count(Residual(length=P, hidden=M, passes=3), D) == count(Residual(length=P, hidden=M), D)
    assert count(LSTMPrompt(length=P), D) == P * D + 8 * (D // 2) * (D + D // 2 + 2)
    assert count(LSTMPrompt(length=P, hidden=M), D) == P * D + 8 * M * (D + M + 2) + 2 * M * D + D
    I = 11
    assert count(LSTMPrompt(length=P, embedding=I), D) == P * I + 8 * (D // 2) * (I + D // 2 + 2)
    assert count(PTuningMLP(length=P, hidden=M), D) == P * D + 2 * D * M + M * M + 2 * M + D
    lstm = 8 * M * (D + M + 2) + 8 * M * (2 * M + M + 2)
    assert count(PTuningLSTM(length=P, hidden=M), D) == P * D + lstm + (2 * M + D) * (2 * M + 1)
    assert count(Decomposed(length=P, rank=R), D) == R * (P + D)
    assert count(RankProbe(length=P), D) == P * P + P + P * D
    S = 6
    assert count(SuperPos(length=P, rows=S), D) == P * S * (D + 1)
    assert count(SuperPos(length=P, rows=S, shared=True), D) == S * D + P * S
    assert count(MPT(length=P, rank=R), D) == P * D + R * (P + D)
    assert count(Explosive(length=P, vectors=P, hidden=M), D) == P * D + 2 * D * M
    assert count(Explosive(hidden=M, norm=True, bias=True, passes=2, tied=False), D) == D + 2 * (
        2 * D * M + M + D + 2 * D
    )


@each_method
def test_members_are_separate_runs(method):
    keys_E = jax.random.split(jax.random.key(3), 3)
    params = members(method, keys_E, 16)
    assert all(leaf.shape[0] == 3 and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    if "prompt" in params and takes_embeddings(method):
        assert params["prompt"].min() >= 2 and params["prompt"].max() < 3
    prompts_EPD = fold(method, params, 16)
    assert (
        prompts_EPD.shape == (3, method.length, getattr(method, "width", 16))
        and prompts_EPD.dtype == jnp.float32
    )
    assert (prompts_EPD[0] != prompts_EPD[1]).any()

    for e in (0, 2):
        alone = members(method, keys_E[e : e + 1], 16)
        jax.tree.map(
            lambda a, b, e=e: np.testing.assert_allclose(a[0], b[e], rtol=0, atol=1e-5), alone, params
        )
        np.testing.assert_allclose(fold(method, alone, 16)[0], prompts_EPD[e], rtol=0, atol=1e-5)


@each_method
def test_every_parameter_has_a_gradient(method):
    params = members(method, jax.random.split(jax.random.key(0), 1), 16)
    shape = jax.eval_shape(lambda p: fold(method, p, 16)[0], params).shape
    weights_PD = jax.random.normal(jax.random.key(1), shape)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(fold(method, p, 16)[0] * weights_PD)))(params)
    used = [g for path, g in jax.tree.leaves_with_path(grads) if not _unused(method, path)]
    assert all(jnp.isfinite(g).all() and jnp.any(g != 0) for g in used)


def _unused(method, path):
    """The recurrent weights of an LSTM see only zeros where there is one position."""
    return method.length == 1 and "recurrent" in str(path)


def test_separate_networks_are_one_for_each_row():
    method = Residual(length=3, hidden=5, shared=False)
    params = method.init(jax.random.key(0), 8)["params"]
    params = nn.meta.unbox(params)
    one = Residual(length=1, hidden=5)
    rows = [
        one.apply(
            {"params": {"prompt": params["prompt"][p : p + 1],
                        "network": jax.tree.map(lambda leaf, p=p: leaf[p], params["network"])}}, 8
        )[0]
        for p in range(3)
    ]  # fmt: skip
    np.testing.assert_allclose(method.apply({"params": params}, 8), rows, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [2, 4])
def test_decomposed_starts_at_the_best_approximation_of_an_initialiser(rank):
    table_PD = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    method = Decomposed(length=4, rank=rank)
    params = method.init(jax.random.key(0), 9, lambda key, shape, dtype: jnp.asarray(table_PD))
    prompt_PD = method.apply(nn.meta.unbox(params), 9)
    u, s, v = np.linalg.svd(table_PD, full_matrices=False)
    np.testing.assert_allclose(prompt_PD, (u[:, :rank] * s[:rank]) @ v[:rank], rtol=0, atol=1e-5)


def test_rank_above_the_highest_is_said():
    with pytest.warns(SettingWarning, match=r"rank 9 .* min\(P, D\) = 4"):
        Decomposed(length=4, rank=9).init(jax.random.key(0), 16)
    with pytest.raises(ConfigError, match="at most 4, or INITIALIZER"):
        Decomposed(length=4, rank=9).init(jax.random.key(0), 16, Uniform().table_init(NO_BASE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Decomposed(length=4, rank=4).init(jax.random.key(0), 16)


def test_rank_probe_starts_at_full_rank_and_loses_what_is_negative():
    method = RankProbe(length=5)
    params = nn.meta.unbox(method.init(jax.random.key(0), 12))["params"]
    assert np.linalg.matrix_rank(method.apply({"params": params}, 12)) == 5
    params["s"] = jnp.array([1.0, -0.5, 2.0, 0.0, 3.0])
    assert np.linalg.matrix_rank(method.apply({"params": params}, 12), tol=1e-5) == 3


def test_explosive_is_linear_in_one_vector_and_repeats_it():
    method = Explosive(length=3)
    params = nn.meta.unbox(method.init(jax.random.key(0), 8))["params"]
    prompt_PD = method.apply({"params": params}, 8)
    down_DM, up_MD = params["network"]["down"]["kernel"], params["network"]["up"]["kernel"]
    np.testing.assert_allclose(prompt_PD, np.tile(params["prompt"] @ down_DM @ up_MD, (3, 1)), rtol=1e-5)
    doubled = method.apply({"params": {**params, "prompt": 2 * params["prompt"]}}, 8)
    np.testing.assert_allclose(doubled, 2 * prompt_PD, rtol=1e-5)


def test_superpos_sums_up_rows_of_each_position():
    method = SuperPos(length=2, rows=3)
    rows_PSD = np.arange(24.0).reshape(2, 3, 4).astype(np.float32)
    params = {"prompt": jnp.asarray(rows_PSD), "weights": jnp.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]])}
    wanted_PD = [rows_PSD[0, 0] - rows_PSD[0, 2], rows_PSD[1, 0] / 2 + 2 * rows_PSD[1, 1]]
    np.testing.assert_allclose(method.apply({"params": params}, 4), wanted_PD, rtol=1e-6)

    method = SuperPos(length=2, rows=3, shared=True, softmax=True)
    params = {
        "prompt": params["prompt"][0],
        "weights": jnp.log(jnp.array([[1.0, 2.0, 1.0], [5.0, 0.0, 5.0]])),
    }
    wanted_PD = [
        (rows_PSD[0, 0] + 2 * rows_PSD[0, 1] + rows_PSD[0, 2]) / 4,
        (rows_PSD[0, 0] + rows_PSD[0, 2]) / 2,
    ]
    np.testing.assert_allclose(method.apply({"params": params}, 4), wanted_PD, rtol=1e-5)


def test_superpos_starts_from_the_same_rows_at_every_position_with_sums_as_long_as_a_row():
    method = SuperPos(length=50, rows=128)
    params = members(method, jax.random.split(jax.random.key(0), 2), 64)
    rows_EPSD = params["prompt"]
    np.testing.assert_array_equal(rows_EPSD, jnp.broadcast_to(rows_EPSD[:, :1], rows_EPSD.shape))
    assert (rows_EPSD[0] != rows_EPSD[1]).any()
    np.testing.assert_allclose(params["weights"].std(), 128**-0.5, rtol=0.03)
    unrelated = nn.meta.unbox(method.init(jax.random.key(1), 64))["params"]  # of mean 0
    length = np.linalg.norm(method.apply({"params": unrelated}, 64), axis=-1).mean()
    np.testing.assert_allclose(length, np.linalg.norm(unrelated["prompt"][0], axis=-1).mean(), rtol=0.1)


@pytest.mark.parametrize("rank", [1, 3])
def test_mpt_starts_at_its_shared_prompt_and_is_a_product(rank):
    method = MPT(length=4, rank=rank)
    params = nn.meta.unbox(method.init(jax.random.key(0), 9))["params"]
    np.testing.assert_array_equal(method.apply({"params": params}, 9), params["prompt"])
    draw = np.random.default_rng(0)
    params = {name: jnp.asarray(draw.normal(size=x.shape), jnp.float32) for name, x in params.items()}
    wanted_PD = params["prompt"] * (params["u"] @ params["v"])
    np.testing.assert_allclose(method.apply({"params": params}, 9), wanted_PD, rtol=1e-4, atol=1e-6)


def test_ranks_of_mpt_part():
    """Two columns with the same gradient would stay one."""
    method = MPT(length=4, rank=3)
    params = nn.meta.unbox(method.init(jax.random.key(0), 9))["params"]
    weights_PD = jax.random.normal(jax.random.key(1), (4, 9))
    for _ in range(2):
        grads = jax.grad(lambda p: jnp.sum(method.apply({"params": p}, 9) * weights_PD))(params)
        params = jax.tree.map(lambda x, g: x - 0.1 * g, params, grads)
    assert np.linalg.matrix_rank(params["u"] @ params["v"], tol=1e-3) == 3


def test_mpt_starts_as_peft_does_near_zero():
    method = MPT(length=100, factors="normal")
    params = nn.meta.unbox(method.init(jax.random.key(0), 64))["params"]
    np.testing.assert_allclose(params["prompt"].std(), 1.0, rtol=0.03)
    for name in ("u", "v"):
        np.testing.assert_allclose(params[name].std(), 0.02, rtol=0.25)
    np.testing.assert_allclose(method.apply({"params": params}, 64).std(), 4e-4, rtol=0.4)


def test_p_tuning_starts_from_a_standard_normal_table():
    params = nn.meta.unbox(PTuningMLP(length=100).init(jax.random.key(0), 64))["params"]
    np.testing.assert_allclose(params["prompt"].std(), 1.0, rtol=0.03)


def test_residual_starts_as_torch_linear_does():
    params = members(Residual(length=2, hidden=64), jax.random.split(jax.random.key(0), 1), 256)["network"]
    for layer, fan_in in (("down", 256), ("up", 64)):
        for leaf in params[layer].values():
            assert jnp.abs(leaf).max() <= fan_in**-0.5
            np.testing.assert_allclose(leaf.std(), (3 * fan_in) ** -0.5, rtol=0.15)
    assert (params["norm"]["scale"] == 1).all() and (params["norm"]["bias"] == 0).all()


@each_method
def test_every_axis_has_a_name_that_the_table_of_meshes_knows(method):
    shapes = jax.eval_shape(lambda key: {"prompt": method.init(key, 16)["params"]}, jax.random.key(0))
    partition.sharded_shapes(shapes, partition.make_mesh({}), members=2)


@pytest.mark.parametrize("names", [(), ("prompt",), ("taps", "embed")])
def test_an_axis_without_such_a_name_is_refused(names):
    kernel = jax.ShapeDtypeStruct((3, 8), jnp.float32)
    boxed = {"prompt": {"kernel": nn.LogicallyPartitioned(kernel, names) if names else kernel}}
    with pytest.raises(
        ValueError, match=r"prompt/kernel \[3, 8\] has the axes .* nn.with_logical_partitioning"
    ):
        partition.sharded_shapes(boxed, partition.make_mesh({}))


def test_logical_axes():
    method = Residual(length=3, hidden=2)
    specs = nn.get_partition_spec(jax.eval_shape(lambda key: method.init(key, 8), jax.random.key(0)))[
        "params"
    ]
    assert specs["prompt"] == jax.sharding.PartitionSpec("prompt", "embed")
    assert specs["network"]["down"]["kernel"] == jax.sharding.PartitionSpec("embed", "mlp")
    assert specs["network"]["up"]["kernel"] == jax.sharding.PartitionSpec("mlp", "embed")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: PromptTuning(length=0), ["PromptTuning.length", "PROMPT_LENGTH", "0"]),
        (lambda: PromptTuning(length=2.5), ["PromptTuning.length", "2.5"]),
        (lambda: Residual(length=-1), ["Residual.length", "-1"]),
        (lambda: Residual(length=1, hidden=0), ["Residual.hidden", "0"]),
        (lambda: Residual(length=1, activation="rellu"), ["Residual.activation", "rellu", "relu"]),
        (lambda: Residual(length=1, passes=0), ["Residual.passes", "0"]),
        (lambda: LSTMPrompt(length=1, hidden=0), ["LSTMPrompt.hidden", "0"]),
        (lambda: LSTMPrompt(length=1).init(jax.random.key(0), 7), ["7", "LSTMPrompt.hidden"]),
        (lambda: LSTMPrompt(length=1, embedding=0), ["LSTMPrompt.embedding", "0"]),
        (
            lambda: LSTMPrompt(1, embedding=5, skip=True).init(jax.random.key(0), 8),
            ["embedding is 5", "8 wide"],
        ),
        (lambda: PTuningMLP(length=1, hidden=-2), ["PTuningMLP.hidden", "-2"]),
        (lambda: PTuningLSTM(length=1, layers=0), ["PTuningLSTM.layers", "0"]),
        (lambda: Decomposed(length=1, rank=0), ["Decomposed.rank", "0"]),
        (lambda: Decomposed(length=1, factors="gaussian"), ["Decomposed.factors", "normal"]),
        (lambda: RankProbe(length=0), ["RankProbe.length", "0"]),
        (lambda: Explosive(length=10, vectors=3), ["Explosive.length", "10", "Explosive.vectors", "3"]),
        (lambda: Explosive(hidden=0), ["Explosive.hidden", "0"]),
        (lambda: SuperPos(length=0), ["SuperPos.length", "0"]),
        (lambda: SuperPos(length=2, rows=0), ["SuperPos.rows", "0"]),
        (lambda: MPT(length=0), ["MPT.length", "0"]),
        (lambda: MPT(length=2, rank=1.5), ["MPT.rank", "1.5"]),
        (lambda: MPT(length=2, factors="zeros"), ["MPT.factors", "zeros", "ones"]),
        (lambda: MPT(length=2, rank=3).init(jax.random.key(0), 9), ["MPT.rank 3", "min(P, D) = 2"]),
        (lambda: MPT(length=9, rank=5).init(jax.random.key(0), 4), ["MPT.rank 5", "min(P, D) = 4"]),
    ],
)
def test_wrong_settings_are_named(unchecked, make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
