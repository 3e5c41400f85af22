"""BERT beside transformers, live: a folder that transformers wrote, its states, masked words and a prompt's classes."""

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("transformers", reason="pip install -e '.[parity]'")

import torch
import transformers

from jax_prompts.base_models.open import open_model
from jax_prompts.models.bert import Bert

pytestmark = pytest.mark.parity

P = 4
CASES = {
    "ordinary": {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                 "intermediate_size": 64, "max_position_embeddings": 64},
    "odd": {"vocab_size": 101, "hidden_size": 21, "num_hidden_layers": 1, "num_attention_heads": 3,
            "intermediate_size": 33, "max_position_embeddings": 37},
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def pair(request, tmp_path_factory):
    """(a masked-LM BERT of transformers, ours, its parameters)."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        **request.param, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    theirs = transformers.BertForMaskedLM(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(5)
    folder = tmp_path_factory.mktemp("bert")
    theirs.save_pretrained(folder)
    found = open_model(str(folder))
    flat = {name: jnp.asarray(array[...]) for name, array in found.arrays.items()}
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    return theirs, Bert(found.config), {"params": params}


def rows(vocabulary):
    ids_BL = np.random.default_rng(0).integers(5, vocabulary, (3, 13)).astype(np.int32)
    ids_BL[1, 8:], ids_BL[2, 4:] = 0, 0
    return ids_BL, (np.arange(13)[None] >= np.array([[7], [5], [13]])).astype(np.int32) * (ids_BL > 0)


def test_states_and_masked_words(pair):
    theirs, model, params = pair
    ids_BL, segments_BL = rows(theirs.config.vocab_size)
    with torch.no_grad():
        wanted = theirs(
            input_ids=torch.tensor(ids_BL).long(),
            attention_mask=torch.tensor(ids_BL > 0).long(),
            token_type_ids=torch.tensor(segments_BL).long(),
            output_hidden_states=True,
        )
    x_BLD = model.apply(params, jnp.asarray(ids_BL), None, jnp.asarray(segments_BL), method="encode")
    real_BL = ids_BL > 0
    np.testing.assert_allclose(x_BLD[real_BL], wanted.hidden_states[-1].numpy()[real_BL], atol=1e-4)
    logits_BLV = model.apply(params, x_BLD, method="predict_masked")
    np.testing.assert_allclose(logits_BLV[real_BL], wanted.logits.numpy()[real_BL], atol=1e-4)


def test_a_prompt_behind_cls(pair):
    theirs, model, params = pair
    ids_BL, _ = rows(theirs.config.vocab_size)
    prompt_PD = np.random.default_rng(1).normal(size=(P, theirs.config.hidden_size)).astype(np.float32)
    ids = torch.tensor(ids_BL).long()
    words = theirs.bert.embeddings.word_embeddings(ids)
    prompts = torch.tensor(prompt_PD).expand(len(ids_BL), -1, -1)
    with torch.no_grad():
        wanted = theirs.bert(
            inputs_embeds=torch.cat([words[:, :1], prompts, words[:, 1:]], dim=1),
            attention_mask=torch.cat([torch.ones(len(ids_BL), P), (ids > 0).float()], dim=1),
        ).last_hidden_state.numpy()
    first = theirs.config.vocab_size
    virtual_BP = np.tile(np.arange(first, first + P, dtype=np.int32), (len(ids_BL), 1))
    tokens_BL = np.concatenate([ids_BL[:, :1], virtual_BP, ids_BL[:, 1:]], axis=1)
    arrays = map(jnp.asarray, (tokens_BL, prompt_PD, np.zeros_like(tokens_BL)))
    x_BLD = model.apply(params, *arrays, method="encode")
    np.testing.assert_allclose(x_BLD[tokens_BL > 0], wanted[tokens_BL > 0], atol=1e-4)
