"""BERT beside transformers, live: a folder that transformers wrote, its states, masked words, a prompt, WARP."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("transformers", reason="pip install -e '.[parity]'")

import torch
import transformers

from jax_prompts.base_models.open import open_model
from jax_prompts.data.layout import RaggedTokens, SpecialTokens, encoder_tokens
from jax_prompts.models.bert import Bert
from jax_prompts.models.mask_place import MASK_PLACE, with_mask

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


def test_warp_and_its_gradients(pair):
    """Embeddings put together by hand as the released code does, the head without its decoder, a linear layer."""
    theirs, model, params = pair
    V, D, C, cls, sep, mask = theirs.config.vocab_size, theirs.config.hidden_size, 3, 2, 3, 4
    draw = np.random.default_rng(2)
    a, b, c = (draw.integers(5, V, size).tolist() for size in (4, 3, 6))
    texts, classes_B = [[cls, *a, sep, *b, sep], [cls, *c, sep]], np.array([2, 0])
    prompt_PD, kernel_DC, bias_C = (
        draw.normal(size=size).astype(np.float32) * 0.5 for size in ((P, D), (D, C), (C,))
    )

    word = theirs.bert.embeddings.word_embeddings
    wanted = [torch.tensor(x, requires_grad=True) for x in (prompt_PD, kernel_DC, bias_C)]
    p1, p2, p3, p4 = (wanted[0][i : i + 1] for i in range(P))

    def words(*ids):
        return word(torch.tensor(ids))

    rows = [
        ([words(cls), p1, words(*a), p2, words(mask), p3, words(sep, *b), p4, words(sep)], 6 + 1, 9),
        ([words(cls), p1, words(*c), p2, words(mask), p3, p4, words(sep)], 8 + 1, 13),
    ]
    logits = []
    for parts, place, first in rows:
        x_LD = torch.cat(parts)
        segments = (torch.arange(len(x_LD)) > first).long()
        states = theirs.bert(inputs_embeds=x_LD[None], token_type_ids=segments[None]).last_hidden_state
        logits.append(theirs.cls.predictions.transform(states[0, place]) @ wanted[1] + wanted[2])
    torch.nn.functional.cross_entropy(
        torch.stack(logits), torch.tensor(classes_B), reduction="sum"
    ).backward()

    ids_P = with_mask(np.arange(V, V + P, dtype=np.int32))
    rows_BL = encoder_tokens(RaggedTokens.of(texts), ids_P, 16, SpecialTokens(begin=1, eos_id=sep))
    assert [row.tolist().index(MASK_PLACE) for row in rows_BL] == [place for _, place, _ in rows]
    tokens_BL = jnp.asarray(rows_BL)
    config = dataclasses.replace(model.config, separator_id=sep, mask_id=mask)
    reading = Bert(config, classes=C, at_mask=True)

    def loss(prompt_PD, kernel_DC, bias_C):
        verbalizer = {"kernel": kernel_DC, "bias": bias_C}
        logits_B1C = reading.apply(
            {"params": {**params["params"], "verbalizer": verbalizer}}, tokens_BL, None, prompt_PD
        )
        log_p_BC = jax.nn.log_softmax(logits_B1C[:, 0])
        return -jnp.sum(jnp.take_along_axis(log_p_BC, classes_B[:, None], axis=1)), logits_B1C[:, 0]

    gradients, logits_BC = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(
        *map(jnp.asarray, (prompt_PD, kernel_DC, bias_C))
    )
    np.testing.assert_allclose(logits_BC, torch.stack(logits).detach().numpy(), atol=1e-4)
    for ours, leaf in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(ours, leaf.grad.numpy(), atol=1e-4, rtol=1e-3)
