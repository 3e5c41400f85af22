"""T5 against numbers produced by Hugging Face T5 and by the original prompt tuning on T5X."""

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

from jax_prompts import losses
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.config import Decoding
from jax_prompts.inference.predict import make_predict
from jax_prompts.models.sizes import SIZES, size
from jax_prompts.models.t5 import CACHE_BATCH_AXIS, T5, T5Config
from jax_prompts.step import loss_sums

GOLDENS = pathlib.Path(__file__).parent.parent / "goldens"

V1_1 = T5Config(96, 32, 4, 2, 3, 8, 64, ("gelu", "linear"), logits_via_embedding=False)
V1_0 = T5Config(88, 32, 4, 2, 3, 8, 80, ("relu",), logits_via_embedding=True)
FLAXFORMER = T5Config(96, 32, 4, 2, 2, 8, 64, ("gelu", "linear"), logits_via_embedding=False)


def nested(arrays):
    return flax.traverse_util.unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/")


def applied(model, *args, method="__call__"):
    """What a model says, compiled whole: operations one by one take longer to compile than to compute."""
    return jax.jit(functools.partial(model.apply, method=method))(*args)


def hugging_face(folder, config):
    found = open_model(str(GOLDENS / folder))
    assert found.config == config
    params = nested({name: array[...] for name, array in found.arrays.items()})
    return params, load_file(GOLDENS / folder / "golden.safetensors")


@pytest.mark.parametrize(("folder", "config"), [("t5_v1_1_hf", V1_1), ("t5_v1_0_hf", V1_0)])
@pytest.mark.parametrize("case", ["a", "b"])
def test_hugging_face_parity(folder, config, case):
    params, golden = hugging_face(folder, config)
    model = T5(config)
    ids_BL, decoder_BU = golden[f"{case}.input_ids"], golden[f"{case}.decoder_input_ids"]
    real_BL = golden[f"{case}.attention_mask"] == 1
    # The golden attends by its mask; here padding is id 0, so both must say the same.
    assert np.array_equal(real_BL, ids_BL > 0)

    encoded_BLD, *_ = applied(model, {"params": params}, ids_BL, method="encode")
    difference = np.abs(encoded_BLD - golden[f"{case}.encoder_last_hidden_state"])[real_BL]
    assert difference.max() < 1e-4

    logits_BUV = applied(model, {"params": params}, ids_BL, decoder_BU)
    np.testing.assert_allclose(logits_BUV, golden[f"{case}.logits"], atol=1e-4, rtol=1e-4)

    labels_BU = golden[f"{case}.labels"]
    weights_BU = (labels_BU != -100).astype(np.float32)
    loss_B = losses.cross_entropy(logits_BUV, jnp.maximum(labels_BU, 0), weights_BU, 0.0)
    np.testing.assert_allclose(loss_B.sum() / weights_BU.sum(), golden[f"{case}.loss"][0], rtol=1e-5)

    greedy_BU = make_predict(model, Decoding(), 12)(params, None, ids_BL, jax.random.key(0))
    assert np.array_equal(greedy_BU, golden[f"{case}.greedy_ids"][:, 1:])


@pytest.fixture(scope="module")
def flaxformer():
    """(params, prompt_PD, golden) of the original prompt encoder."""
    golden = load_file(GOLDENS / "prompt_tuning_flaxformer" / "golden.safetensors")
    params = {name.removeprefix("params/"): a for name, a in golden.items() if name.startswith("params/")}
    prompt_PD = jnp.asarray(params.pop("encoder/prompt/prompt/prompt"))
    return nested(params), prompt_PD, golden


def prompted_batch(golden, length):
    rows = golden["encoder_input_tokens"].shape[0]
    virtual = jnp.tile(jnp.arange(96, 96 + length), (rows, 1))
    names = ("decoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights")
    return {
        "encoder_input_tokens": jnp.concatenate([virtual, golden["encoder_input_tokens"]], axis=1),
        **{name: golden[name] for name in names},
    }


def test_parameter_names_are_those_of_the_original(flaxformer):
    params, _, _ = flaxformer
    ours = flax.traverse_util.flatten_dict(nn.meta.unbox(abstract_weights(T5(FLAXFORMER))), sep="/")
    theirs = flax.traverse_util.flatten_dict(params, sep="/")
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_original_prompt_tuning_logits(flaxformer):
    params, prompt_PD, golden = flaxformer
    model, batch = T5(FLAXFORMER), prompted_batch(golden, len(prompt_PD))
    tokens_BL = batch["encoder_input_tokens"]
    encoded_BLD, *_ = applied(model, {"params": params}, tokens_BL, prompt_PD, method="encode")
    assert np.abs(encoded_BLD - golden["prompted/encoder_output"])[tokens_BL > 0].max() < 1e-4
    logits_BUV = applied(model, {"params": params}, tokens_BL, batch["decoder_input_tokens"], prompt_PD)
    real_BU = batch["decoder_target_tokens"] > 0
    assert np.abs(logits_BUV - golden["prompted/logits"])[real_BU].max() < 1e-4
    plain = golden["encoder_input_tokens"], batch["decoder_input_tokens"]
    plain_BUV = applied(model, {"params": params}, *plain)
    assert np.abs(plain_BUV - golden["plain/logits"])[real_BU].max() < 1e-4
    assert np.abs(plain_BUV - logits_BUV)[real_BU].max() > 1  # the prompt is seen


@pytest.mark.parametrize(
    ("name", "z_loss", "scan_layers"),
    [("z1e-4", 1e-4, False), ("z0", 0.0, False), ("z0.1", 0.1, False), ("z1e-4", 1e-4, True)],
)
def test_original_prompt_tuning_loss_and_gradient(flaxformer, name, z_loss, scan_layers):
    params, prompt_PD, golden = flaxformer
    model = T5(dataclasses.replace(FLAXFORMER, scan_layers=scan_layers))
    params = stack_layers(params) if scan_layers else params
    batch = prompted_batch(golden, len(prompt_PD))

    def loss(prompt_PD):
        return loss_sums(model, params, prompt_PD, batch, z_loss=z_loss)["loss_sum"]

    value, gradient_PD = jax.jit(jax.value_and_grad(loss))(prompt_PD)
    np.testing.assert_allclose(value, golden[f"prompted/loss_{name}"][0], rtol=1e-5)
    np.testing.assert_allclose(gradient_PD, golden[f"prompted/grad_prompt_{name}"], atol=1e-4)


def stack_layers(params):
    """Unscanned parameters as scanned ones: layers on axis 0 under `layers`."""

    def stack(tree):
        layers = [tree[f"layers_{i}"] for i in range(sum(k.startswith("layers_") for k in tree))]
        rest = {k: v for k, v in tree.items() if not k.startswith("layers_")}
        return rest | {"layers": jax.tree.map(lambda *xs: jnp.stack(xs), *layers)}

    return params | {stack_name: stack(params[stack_name]) for stack_name in ("encoder", "decoder")}


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize(("room", "crossed"), [(3, "encoder's output"), (99, "keys and values")])
def test_cached_decoding_equals_teacher_forcing(flaxformer, scan_layers, room, crossed):
    """Whether the cross-attention keeps keys and values, for many tokens, or reads what the encoder made."""
    params, prompt_PD, golden = flaxformer
    model = T5(dataclasses.replace(FLAXFORMER, scan_layers=scan_layers))
    variables = {"params": stack_layers(params) if scan_layers else params}
    batch = prompted_batch(golden, len(prompt_PD))
    tokens_BL, decoder_BU = batch["encoder_input_tokens"], batch["decoder_input_tokens"]
    logits_BUV = applied(model, variables, tokens_BL, decoder_BU, prompt_PD)
    encoded = applied(model, variables, tokens_BL, prompt_PD, method="encode")
    cache = model.apply(variables, encoded, tokens_BL, room, method="start_decoding")
    assert ("cross" in cache["layers"]) == (crossed == "keys and values")
    assert all(leaf.shape[CACHE_BATCH_AXIS] == len(tokens_BL) for leaf in jax.tree.leaves(cache))
    decode_step = jax.jit(functools.partial(model.apply, method="decode_step"))
    for u in range(min(room, decoder_BU.shape[1])):
        logits_BV, cache = decode_step(variables, decoder_BU[:, u], cache, jnp.asarray(u))
        np.testing.assert_allclose(logits_BV, logits_BUV[:, u], atol=1e-5)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_step_passes_on_what_it_does_not_change(flaxformer, scan_layers):
    """The cross-attention's keys and values, the bulk of a cache, come back as they went in, through no scan."""
    params, _, golden = flaxformer
    model = T5(dataclasses.replace(FLAXFORMER, scan_layers=scan_layers))
    variables = {"params": stack_layers(params) if scan_layers else params}
    tokens_BL = golden["encoder_input_tokens"]
    encoded = jax.eval_shape(lambda: model.apply(variables, tokens_BL, method="encode"))
    start = functools.partial(model.apply, variables, method="start_decoding")
    cache = jax.eval_shape(lambda encoded: start(encoded, tokens_BL, 4), encoded)

    def step(cache):
        return model.apply(variables, tokens_BL[:, 0], cache, jnp.asarray(0), method="decode_step")[1]

    traced, after = jax.make_jaxpr(step, return_shape=True)(cache)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), cache
    )
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(cache)]
    kept = {
        name: new is old
        for name, old, new in zip(names, traced.jaxpr.invars, traced.jaxpr.outvars, strict=True)
    }
    assert kept == {name: "self" not in name for name in names} and sum(kept.values()) >= 2


def test_bfloat16_keeps_logits_and_prompts_in_float32(flaxformer):
    params, prompt_PD, golden = flaxformer
    model = T5(dataclasses.replace(FLAXFORMER, dtype=jnp.bfloat16))
    batch = prompted_batch(golden, len(prompt_PD))
    tokens_BL = batch["encoder_input_tokens"]
    embedded_BLD = model.apply(
        {"params": params}, tokens_BL, prompt_PD, method=lambda module, *args: module.token_embedder(*args)
    )
    assert embedded_BLD.dtype == jnp.float32
    assert np.array_equal(embedded_BLD[0, : len(prompt_PD)], prompt_PD)
    logits_BUV = applied(model, {"params": params}, tokens_BL, batch["decoder_input_tokens"], prompt_PD)
    assert logits_BUV.dtype == jnp.float32
    real_BU = batch["decoder_target_tokens"] > 0
    error = np.abs(logits_BUV - golden["prompted/logits"])[real_BU]
    assert 1e-4 < error.max() < 0.2  # rounded, but close beside a spread of 2.2


@pytest.mark.parametrize("tied", [False, True])
def test_logits_of_bfloat16_need_no_float32_table(tied):
    """Exact products and float32 sums, forwards and backwards, and V x D numbers in bfloat16 alone."""
    config = dataclasses.replace(V1_1, logits_via_embedding=tied, dtype=jnp.bfloat16)
    model = T5(config)
    weights = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape, jnp.bfloat16),
        nn.meta.unbox(abstract_weights(model)),
    )
    y_BUD = jax.random.normal(jax.random.key(1), (2, 3, config.emb_dim), jnp.bfloat16)

    def logits(y_BUD, weights):
        return model.apply({"params": weights}, y_BUD, method="logits")

    wide = jax.tree.map(lambda x: x.astype(jnp.float32), weights)
    expected_BUV = logits(y_BUD, wide)
    assert logits(y_BUD, weights).dtype == expected_BUV.dtype == jnp.float32
    np.testing.assert_allclose(logits(y_BUD, weights), expected_BUV, atol=1e-5)
    both = jax.make_jaxpr(jax.value_and_grad(lambda *given: logits(*given).sum()))(y_BUD, weights)
    made = [variable.aval for equation in both.jaxpr.eqns for variable in equation.outvars]
    assert made and not [
        x for x in made if x.size >= config.vocab_size * config.emb_dim and x.dtype != jnp.bfloat16
    ]


def test_dropout_is_shared_along_the_length_and_keeps_the_mean():
    from jax_prompts.models.layers import Dropout

    x_BLD = jnp.ones((64, 7, 32))
    dropped = Dropout(0.1).apply({}, x_BLD, False, rngs={"dropout": jax.random.key(0)})
    assert np.array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.9)}
    assert abs(float(dropped.mean()) - 1) < 0.03


PUBLISHED = {
    "t5_1_0_small": 60_506_624,
    "t5_1_0_base": 222_903_552,
    "t5_1_0_large": 737_668_096,
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    shapes = nn.meta.unbox(abstract_weights(T5(SIZES[name])))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == PUBLISHED[name]


def test_unknown_size_offers_the_nearest():
    with pytest.raises(ValueError, match="t5_1_1_small"):
        size("t5_1_1_smal")


KINDS = ("deep", "prefix")


def per_layer(prompt_kind, golden, **numerics):
    """A model for prompts at every layer, and two prompts of unequal length in one table."""
    model = T5(dataclasses.replace(FLAXFORMER, **numerics), prompt_kind)
    width = model.config.prompt_width(prompt_kind)
    prompts_QW = np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
    tokens = golden["encoder_input_tokens"]
    first_BL = np.pad(tokens, ((0, 0), (3, 0)))
    first_BL[:, :3] = [96, 97, 98]
    return model, jnp.asarray(prompts_QW), jnp.asarray(first_BL)


@pytest.mark.parametrize("prompt_kind", [*KINDS, "decoder_prefix", "full_deep"])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_per_layer_prompts_decode_as_they_are_taught(flaxformer, prompt_kind, scan_layers):
    params, _, golden = flaxformer
    model, prompts_QW, tokens_BL = per_layer(prompt_kind, golden, scan_layers=scan_layers)
    variables = {"params": stack_layers(params) if scan_layers else params}
    decoder_BU = golden["decoder_input_tokens"]
    logits_BUV = applied(model, variables, tokens_BL, decoder_BU, prompts_QW)
    bare_BUV = applied(model, variables, tokens_BL[:, 3:], decoder_BU)
    assert np.abs(logits_BUV - bare_BUV).max() > 0.1  # the prompt is seen
    if scan_layers:
        listed, *_ = per_layer(prompt_kind, golden)
        expected_BUV = applied(listed, {"params": params}, tokens_BL, decoder_BU, prompts_QW)
        np.testing.assert_allclose(logits_BUV, expected_BUV, atol=1e-5)
    encoded = applied(model, variables, tokens_BL, prompts_QW, method="encode")
    cache = model.apply(variables, encoded, tokens_BL, decoder_BU.shape[1], method="start_decoding")
    decode_step = jax.jit(functools.partial(model.apply, method="decode_step"))
    for u in range(decoder_BU.shape[1]):
        logits_BV, cache = decode_step(variables, decoder_BU[:, u], cache, jnp.asarray(u))
        np.testing.assert_allclose(logits_BV, logits_BUV[:, u], atol=1e-5)


@pytest.mark.parametrize("prompt_kind", KINDS)
def test_rows_of_a_batch_may_use_other_per_layer_prompts(flaxformer, prompt_kind):
    params, _, golden = flaxformer
    model, prompts_QW, tokens_BL = per_layer(prompt_kind, golden)
    other_BL = np.where(np.arange(tokens_BL.shape[1]) < 1, 0, tokens_BL)  # rows 3 and 4 where 1 and 2 were
    other_BL[:, 1:3] = [99, 100]
    decoder_BU = golden["decoder_input_tokens"]

    @jax.jit
    def apply(tokens_BL, prompts_QW):
        return model.apply({"params": params}, jnp.asarray(tokens_BL), decoder_BU, prompts_QW)

    mixed_BL = np.concatenate([tokens_BL[:1], other_BL[1:]])
    mixed_BUV = apply(mixed_BL, prompts_QW)
    np.testing.assert_allclose(mixed_BUV[:1], apply(tokens_BL, prompts_QW[:3])[:1], atol=1e-5)
    np.testing.assert_allclose(mixed_BUV[1:], apply(other_BL, prompts_QW)[1:], atol=1e-5)


@pytest.mark.parametrize("prompt_kind", KINDS)
def test_per_layer_prompts_that_hold_what_the_model_computes_change_nothing(flaxformer, prompt_kind):
    """Prompt tuning, with every state, or every key and value, of its virtual tokens written down."""
    params, prompt_PD, golden = flaxformer
    batch = prompted_batch(golden, len(prompt_PD))
    tokens_BL, decoder_BU = batch["encoder_input_tokens"][:1], batch["decoder_input_tokens"][:1]
    look = jax.jit(functools.partial(T5(FLAXFORMER).apply, capture_intermediates=True))
    _, seen = look({"params": params}, tokens_BL, decoder_BU, prompt_PD)
    seen, P = seen["intermediates"], len(prompt_PD)
    encoder, decoder = FLAXFORMER.num_encoder_layers, FLAXFORMER.num_decoder_layers
    if prompt_kind == "deep":
        after = [seen["encoder"][f"layers_{i}"]["__call__"][0][0] for i in range(encoder - 1)]
        written = [prompt_PD, *(x_BLD[0, :P] for x_BLD in after)]
    else:
        attentions = [seen["encoder"][f"layers_{i}"]["attention"] for i in range(encoder)]
        attentions += [seen["decoder"][f"layers_{i}"]["encoder_decoder_attention"] for i in range(decoder)]
        written = [a[name]["__call__"][0][0, :P] for a in attentions for name in ("key", "value")]
    given = {"params": params}, tokens_BL, decoder_BU
    same_BUV = applied(T5(FLAXFORMER, prompt_kind), *given, jnp.concatenate(written, axis=1))
    expected_BUV = applied(T5(FLAXFORMER), *given, prompt_PD)
    np.testing.assert_allclose(same_BUV, expected_BUV, atol=1e-4)
