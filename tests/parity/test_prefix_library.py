"""Prompts in the decoder beside transformers, and prefix tuning beside PEFT.

PEFT's `generate` is no measure: with one transformers it counts positions as if there were no prefix, with another it
leaves the prefix out. Its forward is what an adapter is trained with, and what is compared.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("peft", reason="pip install -e '.[parity]'")

import peft
import torch
from pairs import Pair, for_transformers, random_t5, texts_and_targets
from transformers import DynamicCache, EncoderDecoderCache

from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

P = 5
WIDE = {"vocab_size": 101, "d_model": 20, "d_kv": 7, "num_heads": 3, "d_ff": 33, "feed_forward_proj": "relu"}
EVEN = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "tie_word_embeddings": False,
        "feed_forward_proj": "gated-gelu"}  # fmt: skip
CASES = {
    "1 layer": EVEN | {"num_layers": 1},
    "2 layers": EVEN | {"num_layers": 2},
    "3 layers": EVEN | {"num_layers": 3},
    "joined heads of another width": WIDE | {"num_layers": 2},
    "more layers in the decoder": EVEN | {"num_layers": 1, "num_decoder_layers": 3},
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def pair(request, tmp_path_factory):
    return Pair.of(random_t5(11, **request.param), str(tmp_path_factory.mktemp("model")))


def prompted(pair, kind):
    return dataclasses.replace(pair, model=pair.model.clone(prompt_kind=kind))


def base_of(pair):
    return type(pair.theirs).from_pretrained(pair.folder).eval()


def batch(pair):
    return texts_and_targets(pair.theirs.config.vocab_size, seed=3)[:2]


def random_prompt(pair, kind):
    width = pair.model.config.prompt_width(kind)
    return np.random.default_rng(1).normal(size=(P, width)).astype(np.float32)


def with_cache(model, keys_values_N, ids_BS, decoder_BU):
    """Logits of transformers with these keys and values [P, H, K] in front of each layer's self-attention."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for layer, keys_values in enumerate(keys_values_N):
        rows = (x.permute(1, 0, 2)[None].expand(len(ids_BS), -1, -1, -1) for x in keys_values)
        cache.self_attention_cache.update(*rows, layer)
    return model(**for_transformers(ids_BS, decoder_BU), past_key_values=cache).logits


def keys_values_of(pair, kind, prompt_PW):
    """Keys and values of each layer, in torch, from a prompt of this kind."""
    config, blocks = pair.theirs.config, pair.theirs.decoder.block
    heads = P, config.num_heads, config.d_kv
    rows_NPX = prompt_PW.reshape(P, len(blocks), -1).permute(1, 0, 2)
    if kind == "decoder_prefix":
        return [[x.reshape(heads) for x in rows_PX.chunk(2, dim=1)] for rows_PX in rows_NPX]
    layers = [block.layer[0] for block in blocks]
    normed = [layer.layer_norm(rows_PD) for layer, rows_PD in zip(layers, rows_NPX, strict=True)]
    attention = [layer.SelfAttention for layer in layers]
    return [[a.k(h).reshape(heads), a.v(h).reshape(heads)] for a, h in zip(attention, normed, strict=True)]


def gradient(pair, prompt_PW, ids_BS, decoder_BU):
    """Of sum(sin(logits)), with respect to a prompt."""
    tokens_BL, rows_PW = map(jnp.asarray, pair._prompted(ids_BS, prompt_PW))

    def total(rows_PW):
        logits = pair.model.apply({"params": pair.params}, tokens_BL, jnp.asarray(decoder_BU), rows_PW)
        return jnp.sum(jnp.sin(logits))

    return np.asarray(jax.jit(jax.grad(total))(rows_PW))


@pytest.mark.parametrize("kind", ["decoder_prefix", "decoder_deep"])
def test_a_prefix_is_a_cache_of_transformers(pair, kind):
    prompt_PW, (ids_BS, decoder_BU) = random_prompt(pair, kind), batch(pair)
    theirs_PW = torch.tensor(prompt_PW, requires_grad=True)
    keys_values_N = keys_values_of(pair, kind, theirs_PW)
    logits = with_cache(pair.theirs, keys_values_N, ids_BS, decoder_BU)
    logits.sin().sum().backward()
    ours = prompted(pair, kind)
    np.testing.assert_allclose(ours.logits(ids_BS, decoder_BU, prompt_PW), logits.detach().numpy(), atol=1e-4)
    found_PW = gradient(ours, prompt_PW, ids_BS, decoder_BU)
    np.testing.assert_allclose(found_PW, theirs_PW.grad.numpy(), atol=1e-3, rtol=1e-3)
    assert np.abs(ours.logits(ids_BS, decoder_BU, prompt_PW) - pair.logits(ids_BS, decoder_BU)).max() > 0.1


def forward(adapted, ids_BS, decoder_BU):
    with torch.no_grad():
        return adapted(**for_transformers(ids_BS, decoder_BU)).logits.numpy()


def greedy(adapted, ids_BS, length):
    """By PEFT's forward, a token at a time."""
    ids_BU = np.zeros((len(ids_BS), 1), np.int64)
    for _ in range(length):
        ids_BU = np.append(ids_BU, forward(adapted, ids_BS, ids_BU)[:, -1].argmax(-1)[:, None], axis=1)
    return ids_BU[:, 1:]


def check_answers(pair, adapted, prompt_PW):
    """Greedy answers are those of PEFT's forward, up to the end of each."""
    ids_BS, _ = batch(pair)
    ours_BU, theirs_BU = (
        prompted(pair, "decoder_prefix").greedy(ids_BS, 8, prompt_PW),
        greedy(adapted, ids_BS, 8),
    )
    running_BU = np.cumsum(np.pad(ours_BU == 1, ((0, 0), (1, 0)))[:, :-1], axis=1) == 0
    np.testing.assert_array_equal(np.where(running_BU, theirs_BU, 0), ours_BU)


def test_each_layer_has_its_own_in_peft(pair, tmp_path):
    prompt_PW, (ids_BS, decoder_BU) = random_prompt(pair, "decoder_prefix"), batch(pair)
    file, again = tmp_path / "p.safetensors", tmp_path / "again.safetensors"
    save_prompt(file, prompt_PW, PromptMetadata(method="PerLayer", prompt_kind="decoder_prefix"))
    export_prompt(str(file), str(tmp_path / "out"), to="peft", base_model=pair.folder)
    adapted = peft.AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    ours_BUV = prompted(pair, "decoder_prefix").logits(ids_BS, decoder_BU, prompt_PW)
    np.testing.assert_allclose(forward(adapted, ids_BS, decoder_BU), ours_BUV, atol=1e-4)
    check_answers(pair, adapted, prompt_PW)
    adapted.save_pretrained(tmp_path / "theirs")  # by PEFT, which keeps none of our metadata
    for folder in ("out", "theirs"):
        assert convert_prompt(str(tmp_path / folder), str(again))["unused"] == ()
        np.testing.assert_array_equal(load_prompt(again)[0], prompt_PW)


@pytest.mark.parametrize("projection", [False, True])
def test_what_peft_trains_is_read(pair, tmp_path, projection):
    config = pair.theirs.config
    if config.num_layers != config.num_decoder_layers:
        pytest.skip("PEFT counts the encoder's layers")
    torch.manual_seed(5)
    heads_width = config.num_heads * config.d_kv
    settings = peft.PrefixTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P, token_dim=heads_width, encoder_hidden_size=9,
        prefix_projection=projection,
    )  # fmt: skip
    adapted = peft.get_peft_model(base_of(pair), settings).eval()
    ids_BS, decoder_BU = batch(pair)
    theirs = adapted(**for_transformers(ids_BS, decoder_BU)).logits
    theirs.sin().sum().backward()
    adapted.save_pretrained(tmp_path / "a")
    found = convert_prompt(str(tmp_path / "a"), str(tmp_path / "p.safetensors"))
    assert bool(found["unused"]) == (config.num_layers % 2 == 0)
    prompt_PW, metadata = load_prompt(tmp_path / "p.safetensors")
    assert metadata.settings == {"length": P, "kind": "decoder_prefix"} | (
        {"hidden": 9} if projection else {}
    )
    ours = prompted(pair, metadata.prompt_kind)
    np.testing.assert_allclose(ours.logits(ids_BS, decoder_BU, prompt_PW), theirs.detach().numpy(), atol=1e-4)
    check_answers(pair, adapted, prompt_PW)
    if not projection:
        slots = config.num_layers
        theirs_PSX = adapted.prompt_encoder["default"].embedding.weight.grad.numpy().reshape(P, slots, -1)
        wanted_PSX = np.zeros_like(theirs_PSX)
        found_PNX = gradient(ours, prompt_PW, ids_BS, decoder_BU).reshape(P, slots, -1)
        for layer in range(slots):
            wanted_PSX[:, 2 * layer % slots] += found_PNX[:, layer]
        np.testing.assert_allclose(wanted_PSX, theirs_PSX, atol=1e-3, rtol=1e-3)


def test_pefts_own_settings_fail_where_heads_do_not_make_up_the_width(tmp_path):
    """The trap: it takes D for the width of a key, which a T5's need not be."""
    settings = peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P)
    adapted = peft.get_peft_model(random_t5(11, num_layers=2, **WIDE), settings).eval()
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        adapted(input_ids=torch.arange(3, 11)[None], decoder_input_ids=torch.zeros(1, 2).long())
