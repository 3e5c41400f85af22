"""Offsets on the input's embeddings beside a T5 of transformers, with the papers' equations in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")

import torch
from pairs import Pair, for_transformers, random_t5, texts_and_targets

from jax_prompts.prompts import PromptTuning
from jax_prompts.step import assemble
from jax_prompts.tuned import ADePT, DePT
from jax_prompts.tuned.leaves import nested

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

P, R, T, D, V = 5, 6, 30, 32, 128
DRAW = np.random.default_rng(0)
SHAPES = {
    DePT(rank=R, alpha=8.0, max_length=T): {"a": (T, R), "b": (R, D)},
    ADePT(rank=R): {"down/kernel": (D, R), "down/bias": (R,), "up/kernel": (R, D), "up/bias": (D,)},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    settings = {"vocab_size": V, "d_model": D, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 2}
    model = random_t5(11, **settings, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    return Pair.of(model, str(tmp_path_factory.mktemp("model")))


def theirs(model, tuned, ids_BS, decoder_BU):
    """Logits as the papers have it: the whole input, padded to T, and behind the prompt."""
    batch = for_transformers(np.pad(ids_BS, ((0, 0), (0, T - ids_BS.shape[1]))), decoder_BU)
    e_BTD = model.shared(batch["input_ids"])
    if "a" in tuned:
        e_BTD = e_BTD + 8.0 / R**0.5 * (tuned["a"] @ tuned["b"])
    else:
        hidden = torch.relu(e_BTD @ tuned["down/kernel"] + tuned["down/bias"])
        e_BTD = e_BTD + hidden @ tuned["up/kernel"] + tuned["up/bias"]
    prompts_BPD = tuned["prompt"].expand(len(ids_BS), -1, -1)
    mask = torch.cat([torch.ones(len(ids_BS), P), batch["attention_mask"]], 1)
    found = model(
        inputs_embeds=torch.cat([prompts_BPD, e_BTD], 1),
        attention_mask=mask,
        decoder_input_ids=batch["decoder_input_ids"],
    )
    return found.logits


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: type(kind).__name__)
def test_logits_and_gradients(pair, kind):
    numbers = {name: DRAW.normal(size=shape) for name, shape in SHAPES[kind].items()}
    numbers = {name: 0.5 * x.astype(np.float32) for name, x in numbers.items()}
    numbers["prompt"] = DRAW.normal(size=(P, D)).astype(np.float32)
    ids_BS, decoder_BU, labels_BU = texts_and_targets(V, seed=3)

    tensors = {name: torch.tensor(x, requires_grad=True) for name, x in numbers.items()}
    wanted = theirs(pair.theirs, tensors, ids_BS, decoder_BU)
    labels = torch.tensor(labels_BU).long()
    torch.nn.functional.cross_entropy(wanted[labels > 0], labels[labels > 0], reduction="sum").backward()

    virtual_BP = np.tile(np.arange(V, V + P, dtype=np.int32), (len(ids_BS), 1))
    tokens_BL, targets_BU = jnp.asarray(np.concatenate([virtual_BP, ids_BS], 1)), jnp.asarray(decoder_BU)

    def ours(numbers):
        leaves = {f"input_offset/{name}": x for name, x in numbers.items() if name != "prompt"}
        tuned = {"prompt": {"prompt": numbers["prompt"]}, "model": nested(leaves)}
        params, prompt_PD = assemble(pair.model, PromptTuning(P), tuned, pair.params, (kind,))
        return pair.model.apply({"params": params}, tokens_BL, targets_BU, prompt_PD)

    def loss(numbers):
        each_BU = optax.softmax_cross_entropy_with_integer_labels(ours(numbers), jnp.asarray(labels_BU))
        return jnp.sum(each_BU * (labels_BU > 0))

    numbers = jax.tree.map(jnp.asarray, numbers)
    np.testing.assert_allclose(ours(numbers), wanted.detach().numpy(), atol=1e-4)
    for name, gradient in jax.grad(loss)(numbers).items():
        np.testing.assert_allclose(gradient, tensors[name].grad.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
        assert np.abs(gradient).max() > 1e-3
