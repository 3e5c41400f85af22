"""Tokens that transformers adds to a T5's vocabulary, and embedding rows for them, beside transformers."""

import pathlib
import shutil

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("transformers", reason="pip install -e '.[parity]'")

import torch
import transformers
from pairs import Pair, for_transformers, random_t5, random_umt5

from jax_prompts.assets import resolve_asset
from jax_prompts.base_models.build import make_vocabulary
from jax_prompts.config import BaseModel

pytestmark = pytest.mark.parity
SIZES = {"vocab_size": 4096, "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 24, "num_layers": 2,
         "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}  # fmt: skip
TEXTS = [
    "an <ORG> in the garden",
    "<extra_id_0> and <extra_id_99> <ORG>",
    "naïveté of a naïve dinner",
    "plain",
]


@pytest.fixture(scope="module", params=[random_t5, random_umt5])
def extended(request, tmp_path_factory):
    """(pair, tokenizer, folder): more rows than tokens, and more of these than the base has."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copy(pathlib.Path(resolve_asset("asset:micro")) / "vocabulary.model", folder / "spiece.model")
    tokenizer = transformers.T5TokenizerFast(str(folder / "spiece.model"), extra_ids=100)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<ORG>"]}, replace_additional_special_tokens=False
    )
    tokenizer.add_tokens(["naïve"])
    model = request.param(3, **SIZES)
    model.resize_token_embeddings(len(tokenizer) + 5)
    tokenizer.save_pretrained(folder)
    return Pair.of(model, str(folder)), tokenizer, folder


def test_ids_are_the_tokenizers(extended):
    pair, tokenizer, folder = extended
    vocabulary = make_vocabulary(BaseModel(size=None, checkpoint=str(folder), vocabulary=None))
    for text in TEXTS:
        assert vocabulary.encode(text) == tokenizer(text, add_special_tokens=False).input_ids
    assert (vocabulary.size, pair.model.config.vocab_size) == (len(tokenizer), len(tokenizer) + 5)
    assert vocabulary.encode("<ORG>")[-1] >= 4096  # past the base's


def test_logits_of_added_rows_and_a_prompt_behind_them(extended):
    pair, tokenizer, _ = extended
    batch = tokenizer(TEXTS, padding=True, return_tensors="np")
    ids_BS = batch.input_ids.astype(np.int32)
    decoder_BU = np.tile([0, 4097, 4096, 9], (len(TEXTS), 1)).astype(np.int32)
    with torch.no_grad():
        theirs_BUV = pair.theirs(**for_transformers(ids_BS, decoder_BU)).logits.numpy()
    np.testing.assert_allclose(pair.logits(ids_BS, decoder_BU), theirs_BUV, atol=1e-4)
    prompt_PD = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    with torch.no_grad():
        embedded = torch.cat(
            [
                torch.tensor(prompt_PD).expand(len(TEXTS), -1, -1),
                pair.theirs.shared(torch.tensor(ids_BS).long()),
            ],
            1,
        )
        mask = torch.tensor(np.pad(ids_BS > 0, ((0, 0), (3, 0)), constant_values=True)).long()
        prompted_BUV = pair.theirs(
            inputs_embeds=embedded, attention_mask=mask, decoder_input_ids=torch.tensor(decoder_BU).long()
        ).logits.numpy()
    np.testing.assert_allclose(pair.logits(ids_BS, decoder_BU, prompt_PD), prompted_BUV, atol=1e-4)
