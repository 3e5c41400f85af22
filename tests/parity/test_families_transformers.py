"""umT5, ByT5 and Flan-UL2 beside transformers: logits, what each generates, and ByT5's ids of texts."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("transformers", reason="pip install -e '.[parity]'")

import torch
import transformers
from pairs import Pair, for_transformers, random_t5, random_umt5, texts_and_targets

from jax_prompts.base_models.build import make_vocabulary, read_vocabulary
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import BaseModel
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.models.sizes import SIZES as PUBLIC

pytestmark = pytest.mark.parity
SIZES = {"vocab_size": 384, "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 3,
         "num_decoder_layers": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}  # fmt: skip
FAMILIES = {
    "umT5": (random_umt5, {}),
    "umT5, tied": (random_umt5, {"tie_word_embeddings": True}),
    "ByT5": (random_t5, {"num_layers": 6, "tokenizer_class": "ByT5Tokenizer"}),
    # Flan-UL2's heads are wider than its model: 16 of 256 numbers, and 4096.
    "Flan-UL2": (random_t5, {"d_kv": 20, "feed_forward_proj": "gated-silu"}),
}
TEXTS = [
    "", " ", "plain", "  two  spaces ", "tab\tline\nreturn\r", "naïve café",
    "日本語と한국어", "🙂👩‍👩‍👧", "e\u0301 \u200b\ufeff",
    "\x00\x7f", "<extra_id_0> of <extra_id_124>", "a<extra_id_1>b", "<extra_id_125>", "<extra_id_12", "a </s> b </s>",
    "<pad> <unk>", "\u2003</s>\u00a0x", "<EXTRA_ID_0>",
]  # fmt: skip
IDS = [
    [195, 3, 7],  # half a character
    [229, 133, 68],
    [229, 259, 133, 175],  # a sentinel within one
    [258, 257, 72],  # bytes that no text holds
    [2, 383, 0, 0, 72],
]


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request, tmp_path_factory):
    make, changes = request.param
    return Pair.of(make(5, **{**SIZES, **changes}), str(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize("longest", [23, 170])  # positions within max_distance and beyond
def test_logits(family, longest):
    ids_BS, decoder_BU, labels_BU = texts_and_targets(SIZES["vocab_size"], longest=longest)
    with torch.no_grad():
        theirs_BUV = family.theirs(**for_transformers(ids_BS, decoder_BU, labels_BU)).logits.numpy()
    np.testing.assert_allclose(family.logits(ids_BS, decoder_BU), theirs_BUV, atol=1e-4)
    scanned = dataclasses.replace(family, model=_scanned(family.model), params=_stacked(family))
    np.testing.assert_allclose(scanned.logits(ids_BS, decoder_BU), theirs_BUV, atol=1e-4)


def test_generation(family):
    ids_BS, _, _ = texts_and_targets(SIZES["vocab_size"], seed=3)
    length = 12
    with torch.no_grad():
        theirs_BU = family.theirs.generate(
            **for_transformers(ids_BS), do_sample=False, num_beams=1, max_new_tokens=length
        )[:, 1:].numpy()
    ours_BU = family.greedy(ids_BS, length)[:, : theirs_BU.shape[1]]
    np.testing.assert_array_equal(ours_BU, theirs_BU)


def _scanned(model):
    return model.clone(config=dataclasses.replace(model.config, scan_layers=True))


def _stacked(family):
    base = BaseModel(size=None, checkpoint=family.folder, vocabulary="", scan_layers=True)
    return load_weights(base, _scanned(family.model))


def test_each_family_is_told_from_its_folder(family):
    config = open_model(family.folder).config
    assert config.relpos_in_layers == (type(family.theirs).__name__ == "UMT5ForConditionalGeneration")
    assert config.mlp_activations == (family.theirs.config.dense_act_fn.removesuffix("_new"), "linear")
    assert config.logits_via_embedding == family.theirs.config.tie_word_embeddings


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.ByT5Tokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_byte_ids(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    vocabulary = Vocabulary("bytes")
    assert vocabulary.encode(text) == ids
    assert vocabulary.encode_all([text]) == [ids]


@pytest.mark.parametrize("ids", IDS)
def test_text_of_byte_ids(tokenizer, ids):
    unpadded = [number for number in ids if number]
    theirs = tokenizer.decode(unpadded, spaces_between_special_tokens=False)
    assert Vocabulary("bytes").decode(ids) == theirs


def test_sentinels_of_a_umt5_are_the_last_300_ids(train_vocabulary):
    file = train_vocabulary("the quick brown fox")
    theirs = transformers.T5Tokenizer(file, extra_ids=300, legacy=False)
    ours = read_vocabulary(file, PUBLIC["umt5_small"])
    assert ours.size == len(theirs)
    for i in (0, 1, 99, 100, 299):
        assert ours.encode(f"<extra_id_{i}>")[-1] == theirs.convert_tokens_to_ids(f"<extra_id_{i}>")
    assert ours.encode("the quick fox") == theirs("the quick fox", add_special_tokens=False).input_ids


def test_a_saved_tokenizer_with_added_tokens(tokenizer, tmp_path):
    """In a model's folder, with embedding rows for them."""
    random_t5(5, **{**SIZES, "vocab_size": 400}).save_pretrained(tmp_path)
    added = transformers.ByT5Tokenizer(extra_ids=3)
    added.add_tokens(["<ORG>", "naïve"])
    added.save_pretrained(tmp_path)
    vocabulary = make_vocabulary(BaseModel(size=None, checkpoint=str(tmp_path), vocabulary=None))
    for text in ["an <ORG> and <extra_id_2>, <extra_id_3>", "naïve cafés"]:
        assert vocabulary.encode(text) == added(text, add_special_tokens=False).input_ids
    assert vocabulary.size == len(added) == 264
    tokenizer.save_pretrained(tmp_path / "plain")
    plain = Vocabulary(str(tmp_path / "plain" / "tokenizer_config.json"))
    assert plain.fingerprint == Vocabulary("bytes").fingerprint != vocabulary.fingerprint
