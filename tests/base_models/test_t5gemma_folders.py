"""T5Gemma in Hugging Face's form: read, converted, and refused in one line."""

import dataclasses
import functools
import io
import json

import flax.linen as nn
import flax.traverse_util
import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import save_file

from jax_prompts.base_models.build import make_model, make_vocabulary, read_vocabulary
from jax_prompts.base_models.convert import convert_model
from jax_prompts.base_models.hf_t5gemma import our_name
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import abstract_weights, load_weights
from jax_prompts.config import BaseModel
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import RunError
from jax_prompts.models.t5gemma import T5Gemma
from jax_prompts.models.t5gemma_config import GemmaStack, T5GemmaConfig

ENCODER = GemmaStack(16, 3, 4, 2, 8, 24, query_scalar=8.0, sliding_window=4)
DECODER = GemmaStack(12, 2, 2, 1, 8, 20, query_scalar=8.0, sliding_window=3, attention_cap=0.0)
CONFIG = T5GemmaConfig(320, ENCODER, DECODER)
NORMS = ("pre_self_attn_layernorm", "post_self_attn_layernorm", "pre_feedforward_layernorm",
         "post_feedforward_layernorm")  # fmt: skip
CROSS_NORMS = ("pre_cross_attn_layernorm", "post_cross_attn_layernorm")


def their_names():
    for stack, sizes in (("encoder", ENCODER), ("decoder", DECODER)):
        yield from (f"model.{stack}.embed_tokens.weight", f"model.{stack}.norm.weight")
        attentions, norms = ("self_attn",), NORMS
        if stack == "decoder":
            attentions, norms = ("self_attn", "cross_attn"), NORMS + CROSS_NORMS
        for i in range(sizes.num_layers):
            modules = [f"{attention}.{x}_proj" for attention in attentions for x in "qkvo"]
            modules += [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
            yield from (f"model.{stack}.layers.{i}.{module}.weight" for module in [*modules, *norms])


def described(sizes):
    return {
        "vocab_size": 320, "hidden_size": sizes.emb_dim, "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads, "num_key_value_heads": sizes.num_kv_heads,
        "head_dim": sizes.head_dim, "intermediate_size": sizes.mlp_dim, "query_pre_attn_scalar": 8,
        "sliding_window": sizes.sliding_window, "attn_logit_softcapping": sizes.attention_cap or None,
        "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "attention_bias": False, "pad_token_id": 0, "bos_token_id": 2,
        "layer_types": [("sliding_attention", "full_attention")[i % 2] for i in range(sizes.num_layers)],
        "model_type": "t5_gemma_module",
    }  # fmt: skip


@functools.cache
def our_shapes():
    shapes = nn.meta.unbox(abstract_weights(T5Gemma(CONFIG)))
    return flax.traverse_util.flatten_dict(shapes, sep="/")


@pytest.fixture
def make_folder(tmp_path):
    """`make_folder(of_config, of_encoder, arrays)`: a folder as transformers writes it, with these changes."""

    def make(of_config=(), of_encoder=(), change=lambda arrays: None):
        ours = our_shapes()
        draw, arrays = np.random.default_rng(0), {}
        for theirs in their_names():
            shape = ours[our_name(theirs)].shape
            shape = shape[::-1] if our_name(theirs).endswith("kernel") else shape
            arrays[theirs] = draw.normal(size=shape).astype(np.float32)
        assert len(arrays) == len(ours)
        change(arrays)
        save_file(arrays, tmp_path / "model.safetensors")
        config = {
            "model_type": "t5gemma", "eos_token_id": [1, 107], "bos_token_id": 2, "pad_token_id": 0,
            "vocab_size": 320, "encoder": {**described(ENCODER), **dict(of_encoder)},
            "decoder": described(DECODER), **dict(of_config),
        }  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return make


def write_vocabulary(folder, **more):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox"] * 20), model_writer=model, model_type="bpe", vocab_size=300,
        byte_fallback=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3, eos_piece="<eos>", bos_piece="<bos>",
        hard_vocab_limit=False, add_dummy_prefix=False, remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        **more,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_a_folder_and_its_native_form_are_one_model(make_folder, tmp_path):
    folder = make_folder()
    write_vocabulary(folder)
    native = tmp_path / "native"
    convert_model(str(folder), str(native))
    found = []
    for path in (folder, native):
        assert open_model(str(path)).config == CONFIG
        base = BaseModel(size=None, checkpoint=str(path), vocabulary=None)
        vocabulary = make_vocabulary(base)
        assert (vocabulary.begin_ids, vocabulary.extra_ids, vocabulary.unk_id) == ((2,), 0, 3)
        assert vocabulary.decode(vocabulary.encode("the fox é")) == "the fox é"
        for scan_layers in (False, True):
            scanned = dataclasses.replace(base, scan_layers=scan_layers)
            found.append((load_weights(scanned, make_model(scanned))[1], vocabulary.fingerprint))
    assert len(set(found)) == 1
    assert json.loads((native / "config.json").read_text())["fingerprint"] == found[0][0]


def test_a_head_may_stand_for_the_decoders_embedding(make_folder):
    def rename(arrays):
        arrays["lm_head.out_proj.weight"] = arrays.pop("model.decoder.embed_tokens.weight")

    assert open_model(str(make_folder(change=rename))).config == CONFIG


def of_another_head(arrays):
    arrays["lm_head.out_proj.weight"] = 2 * arrays["model.decoder.embed_tokens.weight"]


def of_a_far_layer(arrays):
    arrays["model.encoder.layers.99999999.mlp.up_proj.weight"] = np.zeros((24, 16), np.float32)


def of_one_number(arrays):
    arrays["model.encoder.embed_tokens.weight"] = np.zeros((), np.float32)


def without_decoder(arrays):
    for name in [name for name in arrays if "decoder" in name]:
        del arrays[name]


def without_keys(arrays):
    del arrays["model.encoder.layers.0.self_attn.k_proj.weight"]


def without_last_layer(arrays):
    for name in [name for name in arrays if "encoder.layers.2" in name]:
        del arrays[name]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"of_encoder": {"hidden_activation": "silu"}}, "encoder.hidden_activation 'silu'"),
        ({"of_encoder": {"layer_types": ["full_attention"] * 3}}, "encoder.layer_types"),
        ({"of_encoder": {"layer_types": 7}}, "encoder.layer_types 7"),
        ({"of_encoder": {"attention_bias": True}}, "attention_bias True"),
        ({"of_encoder": {"rope_scaling": {"type": "linear"}}}, "rope_scaling"),
        ({"of_encoder": {"rope_parameters": {"rope_type": "yarn"}}}, "rope_parameters"),
        ({"of_encoder": {"rope_parameters": {"full_attention": {"rope_theta": 7.0}}}}, "rope_parameters"),
        ({"of_encoder": {"sliding_window": "x"}}, "encoder.sliding_window 'x'"),
        ({"of_encoder": {"query_pre_attn_scalar": 0}}, "query_pre_attn_scalar 0"),
        ({"of_encoder": {"attn_logit_softcapping": -1}}, "attn_logit_softcapping -1"),
        ({"of_encoder": {"num_attention_heads": 8}}, "num_attention_heads 8, and the weights have 4"),
        ({"of_encoder": {"head_dim": 7}}, "a T5Gemma's"),
        ({"of_config": {"decoder": None}}, "config.json has decoder None"),
        ({"of_config": {"bos_token_id": 5}}, "bos_token_id 5"),
        ({"of_config": {"eos_token_id": [107]}}, "eos_token_id"),
        ({"of_config": {"tie_word_embeddings": False}}, "tie_word_embeddings"),
        ({"of_config": {"vocab_size": 400}}, "vocab_size 400, and the weights have 320"),
        ({"change": of_another_head}, "lm_head.out_proj.weight is not the decoder's embedding"),
        ({"change": without_decoder}, "no decoder"),
        ({"change": without_keys}, "attention/key/kernel"),
        ({"change": without_last_layer}, "num_hidden_layers 3, and the weights have 2"),
        ({"change": lambda arrays: arrays.pop("model.encoder.embed_tokens.weight")}, "no T5Gemma"),
        ({"change": of_a_far_layer}, "encoder/layers_99999999: it is no whole model"),
        ({"change": of_one_number}, "encoder's arrays are not a T5Gemma's"),
    ],
)
def test_what_is_no_t5gemma_is_refused_in_one_line(make_folder, changes, named):
    with pytest.raises(RunError) as caught:
        open_model(str(make_folder(**changes)))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_embedding_of_fewer_rows_is_refused(make_folder):
    def shorten(arrays):
        name = "model.decoder.embed_tokens.weight"
        arrays[name] = arrays[name][:300]

    folder = make_folder(change=shorten)
    config = json.loads((folder / "config.json").read_text())
    config["decoder"]["vocab_size"] = 300
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="320 rows and its decoder's 300"):
        open_model(str(folder))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"add_bos_token": "no"}, "add_bos_token is 'no'"),
        ({"bos_token": "<unk>"}, "has, at id 3, <unk>"),
        ({"bos_token": {"content": "<start>"}}, "has no <start>"),
        ({"bos_token": 7}, "7 is no token"),
    ],
)
def test_a_vocabulary_of_texts_that_begin_otherwise_is_refused(make_folder, settings, named):
    folder = make_folder()
    write_vocabulary(folder, **settings)
    with pytest.raises(RunError) as caught:
        make_vocabulary(BaseModel(size=None, checkpoint=str(folder), vocabulary=None))
    assert named in str(caught.value)


def test_a_t5s_vocabulary_is_none_of_a_t5gemmas():
    base = BaseModel(size="t5gemma_small", checkpoint=None, vocabulary="asset:micro")
    with pytest.raises(RunError, match="has no <bos>, with which a T5Gemma's answers begin, at id 2"):
        make_vocabulary(base)


@pytest.mark.parametrize(
    ("settings", "begin_ids"),
    [({}, (2,)), ({"add_bos_token": False}, ()), ({"add_bos_token": None}, ()), (None, ())],
)
def test_inputs_begin_with_bos_where_the_tokenizer_says_so(make_folder, tmp_path, settings, begin_ids):
    folder, native = make_folder(), tmp_path / "native"
    write_vocabulary(folder, **(settings or {}))
    if settings is None:
        (folder / "tokenizer_config.json").unlink()
    convert_model(str(folder), str(native))
    for path in (folder, native):
        vocabulary = make_vocabulary(BaseModel(size=None, checkpoint=str(path), vocabulary=None))
        assert vocabulary.begin_ids == begin_ids
        plain = Vocabulary(open_model(str(path)).vocabulary, extra_ids=0)
        assert (vocabulary.fingerprint != plain.fingerprint) == bool(begin_ids)


def test_texts_begin_alike_whatever_sentinels_the_tokenizer_names(make_folder):
    folder = make_folder()
    write_vocabulary(folder, extra_ids=100)
    pieces = read_vocabulary(
        str(folder / "tokenizer.model"), dataclasses.replace(CONFIG, vocab_size=1000)
    ).size
    config = dataclasses.replace(CONFIG, vocab_size=pieces - 100)
    assert read_vocabulary(str(folder / "tokenizer.model"), config).begin_ids == (2,)


def test_the_tokenizer_json_beside_is_not_spoken_of(make_folder, capsys):
    folder = make_folder()
    write_vocabulary(folder)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    make_vocabulary(BaseModel(size=None, checkpoint=str(folder), vocabulary=None))
    assert "tokenizer.json" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [{"emb_dim": "x"}, {"query_scalar": 0}, {"num_layers": 10**7}, {"other": 1}]
)
def test_a_native_config_that_is_damaged_is_refused(make_folder, tmp_path, change):
    native = tmp_path / "native"
    convert_model(str(make_folder()), str(native))
    config = json.loads((native / "config.json").read_text())
    config["sizes"]["decoder"] |= change
    (native / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="not this project's"):
        open_model(str(native))
