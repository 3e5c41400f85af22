"""Prompts in the decoder: a prefix is as good as the tokens whose keys, values or states it holds."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.base_models.weights import random_weights
from jax_prompts.config import Decoding
from jax_prompts.inference.predict import make_predict
from jax_prompts.models.bert import BertConfig
from jax_prompts.models.layer_prompts import PLACES
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts.prompt_file import PROMPT_KINDS

CONFIG = T5Config(64, 16, 2, 1, 3, 8, 24, ("gelu", "linear"), logits_via_embedding=False)
KINDS = ("decoder_deep", "decoder_prefix", "full_deep", "full_prefix")
V, L, U, P = 64, 9, 7, 3
WAYS = {"greedy": Decoding(), "beam": Decoding(name="beam", num_decodes=3)}


@pytest.fixture(scope="module")
def params():
    return nn.meta.unbox(random_weights(T5(CONFIG), jax.random.key(0)))


def stacked(params, config):
    """The same parameters for scanned layers."""
    if not config.scan_layers:
        return params
    of_stacks = {}
    for stack, layers in (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers)):
        single = [params[stack][f"layers_{i}"] for i in range(layers)]
        rest = {name: part for name, part in params[stack].items() if not name.startswith("layers_")}
        of_stacks[stack] = rest | {"layers": jax.tree.map(lambda *x: jnp.stack(x), *single)}
    return params | of_stacks


def texts(*prompt_ids, seed=0):
    """Rows of words with these virtual tokens in front of them, and target tokens."""
    draw = np.random.default_rng(seed)
    width = L + max(map(len, prompt_ids))
    tokens_BL = np.zeros((len(prompt_ids), width), np.int32)
    for row, ids in zip(tokens_BL, prompt_ids, strict=True):
        row[: len(ids) + L] = [*ids, *draw.integers(2, V, L)]
    decoder_BU = draw.integers(2, V, (len(prompt_ids), U)).astype(np.int32)
    decoder_BU[:, 0] = 0
    return jnp.asarray(tokens_BL), jnp.asarray(decoder_BU)


def random_prompts(kind, rows=P, config=CONFIG):
    return jax.random.normal(jax.random.key(1), (rows, config.prompt_width(kind)))


def test_kinds_are_the_same_everywhere():
    assert set(PROMPT_KINDS) == set(PLACES)


@pytest.mark.parametrize(
    ("kind", "width"),
    [("deep", 16), ("prefix", 4 * 2 * 16), ("decoder_deep", 3 * 16), ("decoder_prefix", 3 * 2 * 16),
     ("full_deep", 4 * 16), ("full_prefix", 7 * 2 * 16)],
)  # fmt: skip
def test_numbers_of_a_virtual_token(kind, width):
    assert CONFIG.prompt_width(kind) == width


@pytest.mark.parametrize("kind", KINDS)
def test_a_bert_has_no_decoder(kind):
    with pytest.raises(ValueError, match=f"no decoder for prompts of kind '{kind}'"):
        BertConfig(64, 16, 2, 2, 24, 40).prompt_width(kind)


@pytest.mark.parametrize("kind", [pytest.param("decoder_deep", marks=pytest.mark.slow), "decoder_prefix"])
@pytest.mark.parametrize("scan_layers", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_prefix_that_holds_earlier_target_tokens_is_these_tokens(params, kind, scan_layers):
    """Their keys and values, or their states, written down; positions and masks included."""
    tokens_BL, decoder_BU = texts(())
    wanted_BUV, seen = T5(CONFIG).apply({"params": params}, tokens_BL, decoder_BU, capture_intermediates=True)
    layers = [seen["intermediates"]["decoder"][f"layers_{i}"] for i in range(CONFIG.num_decoder_layers)]
    if kind == "decoder_deep":
        first_PD = params["token_embedder"]["embedding"][decoder_BU[0, :P]]
        written = [first_PD, *(layer["__call__"][0][0][0, :P] for layer in layers[:-1])]
    else:
        attention = [layer["self_attention"] for layer in layers]
        written = [a[name]["__call__"][0][0, :P] for a in attention for name in ("key", "value")]
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    prompted_BL, _ = texts(range(V, V + P))
    found_BUV = T5(config, kind).apply(
        {"params": stacked(params, config)}, prompted_BL, decoder_BU[:, P:], jnp.concatenate(written, axis=1)
    )
    np.testing.assert_allclose(found_BUV, wanted_BUV[:, P:], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_is_the_bare_model_unless_prompted_itself(params, kind):
    bare_BL, _ = texts(())
    tokens_BL, _ = texts(range(V, V + P))
    bare_BLD = T5(CONFIG).apply({"params": params}, bare_BL, method="encode")[0]
    found_BLD = T5(CONFIG, kind).apply({"params": params}, tokens_BL, random_prompts(kind), method="encode")[
        0
    ]
    difference = np.abs(found_BLD[:, P:] - bare_BLD).max()
    assert difference < 1e-5 if kind.startswith("decoder") else difference > 0.01


IDS = [range(V, V + P), [V + P, V + P + 1], []]  # prompts of unequal lengths, and none


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_batch_have_each_its_own_prefix(params, kind):
    tokens_BL, decoder_BU = texts(*IDS)
    prompts_QW, variables = random_prompts(kind, 8), {"params": params}  # more rows than anybody uses
    mixed_BUV = T5(CONFIG, kind).apply(variables, tokens_BL, decoder_BU, prompts_QW)
    for row, ids in enumerate(IDS):
        first, own = (ids[0], prompts_QW[np.asarray(ids) - V]) if ids else (V, prompts_QW[:1])
        alone_BL = jnp.where(tokens_BL >= V, tokens_BL - first + V, tokens_BL)[row : row + 1]
        alone_BUV = T5(CONFIG, kind).apply(variables, alone_BL, decoder_BU[row : row + 1], own)
        np.testing.assert_allclose(mixed_BUV[row], alone_BUV[0], atol=1e-5)
    bare_BL = jnp.where(tokens_BL < V, tokens_BL, 0)
    bare_BUV = T5(CONFIG).apply(variables, bare_BL, decoder_BU)
    np.testing.assert_allclose(mixed_BUV[2], bare_BUV[2], atol=1e-5)
    assert np.abs(mixed_BUV[:2] - bare_BUV[:2]).max(axis=(1, 2)).min() > 0.1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["decoder_prefix", "full_deep"])
def test_answers_of_a_mixed_batch_are_those_of_its_rows(params, kind, way):
    tokens_BL, _ = texts(*IDS)
    config = dataclasses.replace(CONFIG, scan_layers=kind == "full_deep")
    predict = make_predict(T5(config, kind), WAYS[way], U)
    variables, prompts_QW = stacked(params, config), random_prompts(kind, 8)
    answers_BU = predict(variables, prompts_QW, tokens_BL, jax.random.key(0))
    for row in range(len(IDS)):
        alone_BU = predict(variables, prompts_QW, tokens_BL[row : row + 1], jax.random.key(0))
        np.testing.assert_array_equal(alone_BU[0], answers_BU[row])
    bare_BU = make_predict(T5(config), WAYS[way], U)(variables, None, tokens_BL[2:], jax.random.key(0))
    np.testing.assert_array_equal(answers_BU[2], bare_BU[0])
    assert not np.array_equal(answers_BU[0], answers_BU[2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full_prefix", "decoder_deep"])
def test_gradients_whatever_is_kept_scanned_or_rounded(params, kind):
    tokens_BL, decoder_BU = texts(range(V, V + P), range(V, V + P))

    def gradient(**numerics):
        config = dataclasses.replace(CONFIG, **numerics)
        model, variables = T5(config, kind), {"params": stacked(params, config)}
        loss = lambda rows: jnp.sum(jnp.sin(model.apply(variables, tokens_BL, decoder_BU, rows)))  # noqa: E731
        return jax.jit(jax.grad(loss))(random_prompts(kind))

    whole_PW = gradient()
    assert np.abs(whole_PW).min() > 0  # every number is read
    np.testing.assert_allclose(gradient(scan_layers=True, remat="full"), whole_PW, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gradient(remat="minimal"), whole_PW, rtol=1e-3, atol=1e-4)
    narrow_PW = gradient(dtype=jnp.bfloat16)
    assert narrow_PW.dtype == np.float32
    cosine = np.vdot(narrow_PW, whole_PW) / np.linalg.norm(narrow_PW) / np.linalg.norm(whole_PW)
    assert cosine > 0.98


def test_models_without_prompts_in_the_decoder_have_no_prefix(params):
    """Not one position more in their caches."""
    for kind, prompts_QW in (
        ("prefix", random_prompts("prefix")),
        ("input", random_prompts("input")),
        ("deep", None),
    ):
        tokens_BL, _ = texts(range(V, V + P) if prompts_QW is not None else ())
        model, variables = T5(CONFIG, kind), {"params": params}
        encoded = model.apply(variables, tokens_BL, prompts_QW, method="encode")
        cache = model.apply(variables, encoded, tokens_BL, U, method="start_decoding")
        assert cache["prefix_bias"] is None
        assert {leaf.shape[1] for leaf in jax.tree.leaves(cache["layers"]["self"])} == {U}
