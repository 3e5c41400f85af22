"""umT5, whose layers each have a relative position bias: its numbers are transformers', whatever a prompt is."""

import dataclasses
import functools
import pathlib

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file

from jax_prompts import partition
from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import abstract_weights, load_weights
from jax_prompts.config import BaseModel, Decoding
from jax_prompts.inference.predict import make_predict
from jax_prompts.models.sizes import SIZES
from jax_prompts.models.t5 import T5

FOLDER = pathlib.Path(__file__).parents[1] / "goldens" / "umt5_hf"
V, P = 48, 3


@pytest.fixture(scope="module")
def golden():
    return load_file(FOLDER / "golden.safetensors")


@functools.cache
def loaded(scan_layers):
    base = BaseModel(size=None, checkpoint=str(FOLDER), vocabulary="", scan_layers=scan_layers)
    return load_weights(base, make_model(base))[0]


def model_of(scan_layers, prompt_kind="input", **numerics):
    config = open_model(str(FOLDER)).config
    return T5(dataclasses.replace(config, scan_layers=scan_layers, **numerics), prompt_kind)


def applied(model, *args, method="__call__"):
    """What a model says, compiled whole: operations one by one take longer to compile than to compute."""
    return jax.jit(functools.partial(model.apply, method=method))(*args)


def prompted(ids_BS):
    """Behind P virtual tokens."""
    virtual_BP = jnp.tile(jnp.arange(V, V + P, dtype=jnp.int32), (len(ids_BS), 1))
    return jnp.concatenate([virtual_BP, ids_BS], axis=1)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_logits_and_answers_are_those_of_transformers(golden, scan_layers):
    model, params = model_of(scan_layers), loaded(scan_layers)
    logits_BUV = applied(model, {"params": params}, golden["input_ids"], golden["decoder_input_ids"])
    np.testing.assert_allclose(logits_BUV, golden["logits"], atol=1e-4)
    answers_BU = make_predict(model, Decoding(), 8)(params, None, golden["input_ids"], jax.random.key(0))
    np.testing.assert_array_equal(answers_BU, golden["greedy_ids"][:, 1:])


def test_devices_share_the_heads_of_every_layers_bias(golden):
    model = model_of(True)
    base = BaseModel(size=None, checkpoint=str(FOLDER), vocabulary="", scan_layers=True)
    mesh = partition.make_mesh({"data": 4, "model": 2})
    params = load_weights(base, model, 0, mesh)[0]
    with jax.set_mesh(mesh):
        logits_BUV = applied(model, {"params": params}, golden["input_ids"], golden["decoder_input_ids"])
    np.testing.assert_allclose(logits_BUV, golden["logits"], atol=1e-4)


def test_every_layer_has_a_bias_of_its_own():
    shapes = flax.traverse_util.flatten_dict(nn.meta.unbox(abstract_weights(model_of(False))), sep="/")
    biases = {name for name in shapes if "relpos_bias" in name}
    assert biases == {
        f"{stack}/layers_{i}/relpos_bias/rel_embedding" for stack in ("encoder", "decoder") for i in range(2)
    }
    scanned = flax.traverse_util.flatten_dict(nn.meta.unbox(abstract_weights(model_of(True))), sep="/")
    assert scanned["decoder/layers/relpos_bias/rel_embedding"].shape == (2, 2, 32)


@pytest.mark.parametrize(
    ("prompt_kind", "scan_layers"),
    [
        pytest.param("input", False, marks=pytest.mark.slow),
        pytest.param("deep", False, marks=pytest.mark.slow),
        pytest.param("prefix", True, marks=pytest.mark.slow),
        pytest.param("decoder_deep", False, marks=pytest.mark.slow),
        pytest.param("decoder_prefix", True, marks=pytest.mark.slow),
        ("full_prefix", False),
        pytest.param("full_deep", True, marks=pytest.mark.slow),
    ],
)
def test_prompts_of_every_kind_decode_as_they_are_taught(golden, prompt_kind, scan_layers):
    model, variables = model_of(scan_layers, prompt_kind), {"params": loaded(scan_layers)}
    prompts_QW = jax.random.normal(jax.random.key(1), (P, model.config.prompt_width(prompt_kind)))
    ids_BS, decoder_BU = golden["input_ids"], golden["decoder_input_ids"]
    tokens_BL = prompted(ids_BS)
    logits_BUV = applied(model, variables, tokens_BL, decoder_BU, prompts_QW)
    assert np.abs(logits_BUV - golden["logits"]).max() > 0.1  # the prompt is seen
    encoded = applied(model, variables, tokens_BL, prompts_QW, method="encode")
    cache = model.apply(variables, encoded, tokens_BL, decoder_BU.shape[1], method="start_decoding")
    decode_step = jax.jit(functools.partial(model.apply, method="decode_step"))
    for u in range(decoder_BU.shape[1]):
        logits_BV, cache = decode_step(variables, decoder_BU[:, u], cache, jnp.asarray(u))
        np.testing.assert_allclose(logits_BV, logits_BUV[:, u], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["minimal", "full"])
def test_gradients_do_not_depend_on_what_is_kept(golden, remat):
    prompt_PD = jax.random.normal(jax.random.key(1), (P, 16))
    tokens_BL = prompted(golden["input_ids"])

    def gradient(scan_layers, remat):
        model, params = model_of(scan_layers, remat=remat), loaded(scan_layers)

        def total(prompt_PD):
            return model.apply({"params": params}, tokens_BL, golden["decoder_input_ids"], prompt_PD)[
                ..., 5
            ].sum()

        return jax.jit(jax.grad(total))(prompt_PD)

    np.testing.assert_allclose(gradient(True, remat), gradient(False, "none"), rtol=1e-4, atol=1e-5)


# In millions, as the papers count them (Xue et al. 2022, table 1; Tay et al. 2023, section 4.1).
PUBLISHED = {
    "byt5_small": 300, "byt5_base": 582, "byt5_large": 1230, "byt5_xl": 3740, "byt5_xxl": 12900, "ul2": 19500,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name):
    shapes = nn.meta.unbox(abstract_weights(T5(SIZES[name])))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6
    assert count == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("name", ["small", "base", "xl", "xxl"])
def test_a_umt5_is_an_mt5_with_more_biases_and_rows(name):
    ours, mt5 = SIZES[f"umt5_{name}"], SIZES[f"mt5_{name}"]
    assert ours == dataclasses.replace(mt5, vocab_size=256384, relpos_in_layers=True)
    assert dataclasses.replace(SIZES["t5_1_1_small"], vocab_size=250112) == SIZES["mt5_small"]
