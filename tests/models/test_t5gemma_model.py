"""T5Gemma: decoding with a cache is the full pass, stacked layers are single ones, prompts are tokens of a row."""

import dataclasses
import functools

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts import partition
from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError
from jax_prompts.models.sizes import SIZES
from jax_prompts.models.t5gemma import T5Gemma
from jax_prompts.models.t5gemma_config import GemmaStack, T5GemmaConfig
from jax_prompts.models.t5gemma_layers import capped, rotated
from jax_prompts.tuned.leaves import by_path, lay_in

V, P = 40, 3
ENCODER = GemmaStack(16, 3, 4, 2, 8, 24, query_scalar=8.0, sliding_window=4)
DECODER = GemmaStack(12, 2, 2, 1, 8, 20, query_scalar=8.0, sliding_window=3)
CONFIG = T5GemmaConfig(V, ENCODER, DECODER)
TOKENS_BS = np.array([[5, 9, 3, 17, 22, 8, 1], [7, 4, 1, 0, 0, 0, 0]], np.int32)
TARGETS_BU = np.array([[0, 6, 11, 29, 3, 7], [0, 8, 1, 0, 0, 0]], np.int32)


def drawn(model):
    """Parameters of which none is what it starts with."""
    shapes = nn.meta.unbox(abstract_weights(model))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(tree, [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in pairs])


@functools.cache
def single():
    return drawn(T5Gemma(CONFIG))


def stacked(params):
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    layers = {}
    for name, leaf in flat.items():
        stack, *inside = name.split("/", 2)
        if inside and inside[0].startswith("layers_"):
            layers.setdefault(f"{stack}/layers/{inside[1]}", {})[int(inside[0][7:])] = leaf
        else:
            layers[name] = leaf
    scanned = {
        name: jnp.stack([leaf[i] for i in range(len(leaf))]) if isinstance(leaf, dict) else leaf
        for name, leaf in layers.items()
    }
    return flax.traverse_util.unflatten_dict(scanned, sep="/")


def applied(config, *args, method="__call__", params=None):
    params = params or (stacked(single()) if config.scan_layers else single())
    return jax.jit(functools.partial(T5Gemma(config).apply, method=method))({"params": params}, *args)


def prompted(ids_BS):
    virtual_BP = np.tile(np.arange(V, V + P, dtype=np.int32), (len(ids_BS), 1))
    return np.concatenate([virtual_BP, ids_BS], axis=1)


@functools.cache
def prompt_and_logits():
    prompt_PD = jax.random.normal(jax.random.key(2), (P, ENCODER.emb_dim))
    return prompt_PD, applied(CONFIG, prompted(TOKENS_BS), TARGETS_BU, prompt_PD)


@pytest.mark.slow
def test_stacked_layers_are_single_ones():
    prompt_PD, logits_BUV = prompt_and_logits()
    config = dataclasses.replace(CONFIG, scan_layers=True)
    scanned_BUV = applied(config, prompted(TOKENS_BS), TARGETS_BU, prompt_PD)
    np.testing.assert_allclose(scanned_BUV, logits_BUV, atol=1e-5)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_decoding_with_a_cache_is_the_full_pass(scan_layers):
    """Beyond the window, too."""
    prompt_PD, logits_BUV = prompt_and_logits()
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    model, params = T5Gemma(config), stacked(single()) if scan_layers else single()
    tokens_BL = prompted(TOKENS_BS)
    encoded = applied(config, tokens_BL, prompt_PD, method="encode")
    cache = model.apply({"params": params}, encoded, jnp.asarray(tokens_BL), 6, method="start_decoding")
    assert {x.shape[-4] for x in jax.tree.leaves(cache)} == {len(tokens_BL)}
    step = jax.jit(functools.partial(model.apply, method="decode_step"))
    for u in range(TARGETS_BU.shape[1]):
        logits_BV, cache = step({"params": params}, TARGETS_BU[:, u], cache, jnp.asarray(u))
        np.testing.assert_allclose(logits_BV[0], logits_BUV[0, u], atol=1e-5)


def test_a_prompt_of_words_is_the_words():
    """Scaled as they are, at their positions, within their window."""
    words_P = TOKENS_BS[0, :P]
    prompt_PD = single()["token_embedder"]["embedding"][words_P]
    behind_BS = TOKENS_BS[:1, P:]
    logits_BUV = applied(CONFIG, prompted(behind_BS), TARGETS_BU[:1], prompt_PD)
    np.testing.assert_allclose(logits_BUV, applied(CONFIG, TOKENS_BS[:1], TARGETS_BU[:1]), atol=1e-5)


def test_padding_changes_nothing():
    """Behind a row, or behind the window."""
    longer_BS = np.pad(TOKENS_BS, ((0, 0), (0, 5)))
    logits_BUV = applied(CONFIG, TOKENS_BS, TARGETS_BU)
    np.testing.assert_allclose(applied(CONFIG, longer_BS, TARGETS_BU), logits_BUV, atol=1e-5)


def test_the_decoder_starts_with_bos_in_place_of_0():
    logits_BUV = applied(CONFIG, TOKENS_BS, TARGETS_BU)
    started_BU = np.where(np.arange(6) == 0, CONFIG.start_id, TARGETS_BU)
    np.testing.assert_array_equal(applied(CONFIG, TOKENS_BS, started_BU), logits_BUV)
    other_BUV = applied(dataclasses.replace(CONFIG, start_id=3), TOKENS_BS, TARGETS_BU)
    assert np.abs(other_BUV - logits_BUV).max() > 1e-2


def test_the_window_is_in_every_other_layer():
    """A change within it reaches as far as the layers carry it; of one local layer alone, no farther than it is."""
    one = dataclasses.replace(CONFIG, encoder=dataclasses.replace(ENCODER, num_layers=1))
    params = {**single(), "encoder": {k: v for k, v in single()["encoder"].items() if k[-1] not in "12"}}
    changed_BS = TOKENS_BS[:1].copy()
    changed_BS[0, 0] = 30
    encode = functools.partial(applied, one, method="encode", params=params)
    reached_L = np.abs(encode(TOKENS_BS[:1]) - encode(changed_BS)).max(axis=(0, 2)) > 1e-6
    np.testing.assert_array_equal(reached_L, np.arange(7) < ENCODER.sliding_window)
    both = functools.partial(applied, CONFIG, method="encode")
    assert (np.abs(both(TOKENS_BS[:1]) - both(changed_BS)).max(axis=(0, 2)) > 1e-6).all()


def test_rotary_positions_turn_each_plane():
    x_BLHK = np.zeros((1, 3, 1, 4), np.float32)
    x_BLHK[..., 0], x_BLHK[..., 1] = 1.0, 1.0  # first sides of both planes
    turned_LK = rotated(jnp.asarray(x_BLHK), jnp.arange(3), 100.0)[0, :, 0]
    expected = [[np.cos(p), np.cos(p / 10), np.sin(p), np.sin(p / 10)] for p in range(3)]
    np.testing.assert_allclose(turned_LK, expected, rtol=1e-6)


def test_caps():
    np.testing.assert_allclose(
        capped(jnp.array([0.0, 1e6, -1e6, 3.0]), 2.0), [0, 2, -2, 2 * np.tanh(1.5)], rtol=1e-6
    )
    assert capped(jnp.array(1e6), 0.0) == 1e6
    assert np.abs(applied(dataclasses.replace(CONFIG, logits_cap=0.5), TOKENS_BS, TARGETS_BU)).max() <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["minimal", "full"])
def test_gradients_do_not_depend_on_what_is_kept(remat):
    def gradient(scan_layers, remat):
        config = dataclasses.replace(CONFIG, scan_layers=scan_layers, remat=remat)
        params = stacked(single()) if scan_layers else single()

        def total(prompt_PD):
            args = {"params": params}, jnp.asarray(prompted(TOKENS_BS)), jnp.asarray(TARGETS_BU), prompt_PD
            return T5Gemma(config).apply(*args)[..., 5].sum()

        return jax.jit(jax.grad(total))(prompt_and_logits()[0])

    expected_PD = gradient(False, "none")
    assert np.abs(expected_PD).max() > 1e-3
    np.testing.assert_allclose(gradient(True, remat), expected_PD, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_near():
    prompt_PD, logits_BUV = prompt_and_logits()
    config = dataclasses.replace(CONFIG, dtype=jnp.bfloat16)
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), single())
    found_BUV = applied(config, prompted(TOKENS_BS), TARGETS_BU, prompt_PD, params=narrow)
    assert found_BUV.dtype == jnp.float32
    assert np.abs(found_BUV - logits_BUV).max() < 0.15 * np.abs(logits_BUV).max()


def test_devices_share_it():
    prompt_PD, logits_BUV = prompt_and_logits()
    model = T5Gemma(CONFIG)
    mesh = partition.make_mesh({"data": 2, "model": 2, "fsdp": 2})
    shardings = partition.parameter_shardings(abstract_weights(model), mesh)
    params = jax.device_put(single(), shardings)
    assert not params["decoder"]["layers_0"]["self_attention"]["key"]["kernel"].sharding.is_fully_replicated
    with jax.set_mesh(mesh):
        found_BUV = jax.jit(model.apply)({"params": params}, prompted(TOKENS_BS), TARGETS_BU, prompt_PD)
    np.testing.assert_allclose(found_BUV, logits_BUV, atol=1e-4)


@pytest.mark.slow
def test_leaves_inside_it_do_something():
    """LoRA's of any projection, a norm's bias, an adapter, a bias of logits."""
    weights = by_path(abstract_weights(T5Gemma(CONFIG)))
    plain_BUV = applied(CONFIG, TOKENS_BS, TARGETS_BU)
    inside = "decoder/layers_1/encoder_decoder_attention"
    fan_in, fan_out = weights[f"{inside}/value/kernel"].value.shape
    assert (fan_in, fan_out) == (16, 8)  # of the encoder's states, and one head of keys
    for leaves in (
        {f"{inside}/value/lora_a": jnp.ones((fan_in, 1)), f"{inside}/value/lora_b": jnp.ones((1, fan_out))},
        {"encoder/layers_0/post_mlp_layer_norm/bias": jnp.ones(16)},
        {
            f"{inside}/adapter/down/kernel": jnp.ones((12, 2)), f"{inside}/adapter/down/bias": jnp.ones(2),
            f"{inside}/adapter/up/kernel": jnp.full((2, 12), 0.3) * jnp.arange(12.0)[None],
            f"{inside}/adapter/up/bias": jnp.ones(12),
        },
        {"decoder/logits_bias": jnp.arange(float(V))},
    ):  # fmt: skip
        changed_BUV = applied(CONFIG, TOKENS_BS, TARGETS_BU, params=lay_in(single(), leaves))
        assert np.abs(changed_BUV - plain_BUV).max() > 1e-3, leaves.keys()


def test_prompts_at_every_layer_are_refused():
    with pytest.raises(ConfigError, match="T5Gemma has no place for prompts of kind 'deep'"):
        CONFIG.prompt_width("deep")


# Numbers in the safetensors that were released.
PUBLISHED = {
    "t5gemma_small": 312_517_632, "t5gemma_base": 591_490_560, "t5gemma_ml": 2_200_345_344,
    "t5gemma_xl": 3_766_980_608, "t5gemma_9b_2b": 12_292_375_296, "t5gemma_9b_9b": 20_333_401_088,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_released_ones(name):
    model = make_model(BaseModel(size=name, checkpoint=None, vocabulary=None, scan_layers=True))
    shapes = nn.meta.unbox(abstract_weights(model))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == PUBLISHED[name]


def test_gemma_2b_is_the_decoder_of_two_sizes():
    assert SIZES["t5gemma_9b_2b"].decoder == SIZES["t5gemma_2b_2b"].encoder
