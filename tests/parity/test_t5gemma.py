"""T5Gemma beside transformers: logits, gradients of a prompt, what each generates, ids of texts."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("transformers", reason="pip install -e '.[parity]'")

import sentencepiece
import torch
import transformers
from pairs import Pair, for_transformers, texts_and_targets

from jax_prompts.base_models.build import read_vocabulary
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import BaseModel

pytestmark = pytest.mark.parity
V, P, START = 384, 4, 2
STACK = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10,
         "query_pre_attn_scalar": 7}  # fmt: skip
SMALLER = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 6,
           "num_key_value_heads": 3, "head_dim": 8, "query_pre_attn_scalar": 8}  # fmt: skip
FAMILIES = {  # what both stacks have, and the decoder
    "window over all": ({}, {}),
    "window shorter than a row": ({"sliding_window": 5}, {}),
    "smaller decoder, low caps": (
        {"sliding_window": 4, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        SMALLER,
    ),
    "no caps, one key for all": (
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "num_key_value_heads": 1},
        {},
    ),
    "other rotary base, key for each": ({"rope_theta": 100.0, "num_key_value_heads": 4}, {}),
}


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request, tmp_path_factory):
    both, of_decoder = request.param
    config = transformers.T5GemmaConfig(
        encoder={**STACK, **both},
        decoder={**STACK, **both, **of_decoder},
        vocab_size=V,
        attn_implementation="eager",  # the others leave the caps out
    )
    torch.manual_seed(5)
    theirs = transformers.T5GemmaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            # Of large sublayers an answer has more than the last token once more.
            parameter.normal_(3.0 if ".post_" in name else 0.0, 0.3)
    return Pair.of(theirs, str(tmp_path_factory.mktemp("model")))


def their_batch(ids_BS, decoder_BU):
    """With what Gemma starts with where a T5 starts with 0."""
    started_BU = np.where(np.arange(decoder_BU.shape[1]) == 0, START, decoder_BU)
    # Padding of the decoder is behind all that counts; transformers would see none in the first 0 alone.
    return {**for_transformers(ids_BS, started_BU), "decoder_attention_mask": torch.ones(decoder_BU.shape)}


def with_padding(ids_BS):
    """The second row has padding in its middle, too."""
    ids_BS = ids_BS.copy()
    ids_BS[1, 3:5] = 0
    return ids_BS


def test_logits(family):
    ids_BS, decoder_BU, _ = texts_and_targets(V)
    ids_BS = with_padding(ids_BS)
    with torch.no_grad():
        theirs_BUV = family.theirs(**their_batch(ids_BS, decoder_BU)).logits.numpy()
    assert np.abs(theirs_BUV).max() > 1.0
    np.testing.assert_allclose(family.logits(ids_BS, decoder_BU), theirs_BUV, atol=1e-4)
    model = family.model.clone(config=dataclasses.replace(family.model.config, scan_layers=True))
    base = BaseModel(size=None, checkpoint=family.folder, vocabulary="", scan_layers=True)
    scanned = dataclasses.replace(family, model=model, params=load_weights(base, model)[0])
    np.testing.assert_allclose(scanned.logits(ids_BS, decoder_BU), theirs_BUV, atol=1e-4)


def test_gradients_of_a_prompt(family):
    ids_BS, decoder_BU, labels_BU = texts_and_targets(V)
    ids_BS = with_padding(ids_BS)
    D = family.model.config.emb_dim
    prompt_PD = np.random.default_rng(1).normal(0.0, 0.3, (P, D)).astype(np.float32)
    theirs_PD = torch.tensor(prompt_PD, requires_grad=True)
    batch = their_batch(ids_BS, decoder_BU)
    embedded_BSD = family.theirs.get_input_embeddings()(batch.pop("input_ids"))
    prompts_BPD = theirs_PD[None].expand(len(ids_BS), -1, -1)
    prompted_BLD = torch.cat([prompts_BPD, embedded_BSD], dim=1)
    mask_BL = torch.cat([torch.ones(len(ids_BS), P).long(), batch.pop("attention_mask")], dim=1)
    log_probs = torch.log_softmax(
        family.theirs(inputs_embeds=prompted_BLD, attention_mask=mask_BL, **batch).logits, dim=-1
    )
    chosen_BU = torch.gather(log_probs, 2, torch.tensor(labels_BU).long()[..., None])[..., 0]
    loss = -chosen_BU[torch.tensor(labels_BU > 0)].mean()
    loss.backward()

    tokens_BL, _ = family._prompted(ids_BS, prompt_PD)

    def ours(prompt_PD):
        variables = {"params": family.params}
        logits = family.model.apply(variables, jnp.asarray(tokens_BL), jnp.asarray(decoder_BU), prompt_PD)
        log_probs_BUV = jax.nn.log_softmax(logits)
        chosen_BU = jnp.take_along_axis(log_probs_BUV, labels_BU[..., None], axis=-1)[..., 0]
        return -jnp.sum(chosen_BU * (labels_BU > 0)) / (labels_BU > 0).sum()

    value, gradient_PD = jax.jit(jax.value_and_grad(ours))(jnp.asarray(prompt_PD))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    scale = float(theirs_PD.grad.abs().max())
    assert scale > 1e-3
    np.testing.assert_allclose(gradient_PD, theirs_PD.grad.numpy(), rtol=1e-4, atol=1e-4 * scale)


def test_generation(family):
    ids_BS, _, _ = texts_and_targets(V, seed=3)
    length = 12
    # With its cache, transformers 4 cuts what the cross-attention reads to the window; without it, it does not.
    options = {"do_sample": False, "num_beams": 1, "max_new_tokens": length, "use_cache": False}
    with torch.no_grad():
        theirs_BU = family.theirs.generate(**for_transformers(ids_BS), **options)[:, 1:].numpy()
    ours_BU = family.greedy(ids_BS, length)[:, : theirs_BU.shape[1]]
    np.testing.assert_array_equal(ours_BU, theirs_BU)
    assert len(np.unique(theirs_BU)) > 5


def test_sizes_are_told_from_the_folder(family):
    ours, theirs = open_model(family.folder).config, family.theirs.config
    assert ours.vocab_size == V
    for found, stack in ((ours.encoder, theirs.encoder), (ours.decoder, theirs.decoder)):
        assert (found.emb_dim, found.num_layers) == (stack.hidden_size, stack.num_hidden_layers)
        assert (found.num_heads, found.num_kv_heads) == (
            stack.num_attention_heads,
            stack.num_key_value_heads,
        )
        assert found.attention_cap == (stack.attn_logit_softcapping or 0.0)


@pytest.mark.parametrize("add_bos_token", [True, False])
def test_ids_of_texts(family, tmp_path, add_bos_token):
    """Of a SentencePiece model of Gemma's form: byte pairs, bytes for what is unknown, no space in front."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 20),
        model_writer=model, model_type="bpe", vocab_size=330, byte_fallback=True, pad_id=0, eos_id=1, bos_id=2,
        unk_id=3, eos_piece="<eos>", bos_piece="<bos>", pad_piece="<pad>", hard_vocab_limit=False,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    theirs = transformers.GemmaTokenizer(str(tmp_path / "tokenizer.model"), add_bos_token=add_bos_token)
    theirs.save_pretrained(tmp_path)
    ours = read_vocabulary(str(tmp_path / "tokenizer.model"), family.model.config)
    assert ours.size == len(theirs)
    for text in ["the quick fox", "  two  spaces", "naïve 🙂", "", "dog\nfox\t!"]:
        assert [*ours.begin_ids, *ours.encode(text)] == theirs(text).input_ids
        assert ours.decode(ours.encode(text)) == text
