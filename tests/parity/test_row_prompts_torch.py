"""ATTEMPT and SMoP on a T5 of transformers: a forward in torch from the papers' equations, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("transformers", reason="pip install -e '.[parity]'")

import torch
from pairs import Pair, random_t5, texts_and_targets

from jax_prompts.tuned.leaves import flat, lay_in, nested

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

P, M, K, V, D = 5, 7, 4, 101, 24
NORM = ("input_attention/norm/scale", "input_attention/norm/bias")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    sizes = {"d_kv": 8, "num_heads": 3, "d_ff": 33, "num_layers": 2, "feed_forward_proj": "relu"}
    return Pair.of(random_t5(5, vocab_size=V, d_model=D, **sizes), str(tmp_path_factory.mktemp("model")))


def smop(p, embedded_BTD, real_BT):
    counts_B1 = real_BT.sum(1, keepdim=True)
    mean_BD = (embedded_BTD * real_BT[..., None]).sum(1) / counts_B1
    gate_B, chosen_B = torch.softmax(mean_BD @ p["input_router/kernel"], 1).max(1)
    prompts_KPD = torch.cat([p["prompt"][None], p["input_router/prompt"]])
    return prompts_KPD[chosen_B] * gate_B[:, None, None]


def attempt(p, embedded_BTD, real_BT):
    x_BD = embedded_BTD.masked_fill(~real_BT[..., None], -torch.inf).max(1).values
    h_BD = torch.nn.functional.silu(x_BD @ p["input_attention/down/kernel"]) @ p["input_attention/up/kernel"]
    query_BD = torch.nn.functional.layer_norm(h_BD, (D,), *(p[name] for name in NORM))
    prompts_KPD = torch.cat([p["input_attention/sources"], p["prompt"][None]])
    a_BK = torch.softmax(query_BD @ prompts_KPD.max(1).values.T, 1)
    return torch.einsum("bk,kpd->bpd", a_BK, prompts_KPD) + p["prompt"]


SHAPES = {
    "smop": {"prompt": (P, D), "input_router/kernel": (D, K), "input_router/prompt": (K - 1, P, D)},
    "attempt": {
        "prompt": (P, D), "input_attention/down/kernel": (D, M), "input_attention/up/kernel": (M, D),
        NORM[0]: (D,), NORM[1]: (D,), "input_attention/sources": (K - 1, P, D),
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "forward"), [("smop", smop), ("attempt", attempt)])
def test_logits_and_gradients(pair, name, forward):
    draw = np.random.default_rng(4)
    numbers = {path: draw.normal(size=shape).astype(np.float32) for path, shape in SHAPES[name].items()}
    numbers |= {path: 0.2 * numbers[path] for path in NORM if path in numbers}
    ids_BT, decoder_BU, labels_BU = texts_and_targets(V, seed=3)

    theirs = {path: torch.tensor(array, requires_grad=True) for path, array in numbers.items()}
    tokens = torch.tensor(ids_BT).long()
    embedded_BTD = pair.theirs.get_input_embeddings()(tokens).detach()
    rows_BPD = forward(theirs, embedded_BTD, tokens > 0)
    mask_BL = torch.cat([torch.ones(len(ids_BT), P), (tokens > 0).float()], 1)
    found = pair.theirs(
        inputs_embeds=torch.cat([rows_BPD, embedded_BTD], 1), attention_mask=mask_BL,
        decoder_input_ids=torch.tensor(decoder_BU).long(),
        labels=torch.tensor(np.where(labels_BU > 0, labels_BU, -100)).long(),
    )  # fmt: skip
    found.loss.backward()

    virtual_BP = np.tile(np.arange(V, V + P, dtype=np.int32), (len(ids_BT), 1))
    tokens_BL = jnp.asarray(np.concatenate([virtual_BP, ids_BT], axis=1))

    def loss(numbers):
        leaves = {path: leaf for path, leaf in flat(numbers).items() if path != "prompt"}
        params = lay_in(pair.params, leaves)
        logits = pair.model.apply({"params": params}, tokens_BL, jnp.asarray(decoder_BU), numbers["prompt"])
        log_p = jax.nn.log_softmax(logits)
        nats = -jnp.take_along_axis(log_p, labels_BU[..., None], axis=-1)[..., 0]
        return jnp.sum(nats * (labels_BU > 0)) / (labels_BU > 0).sum(), logits

    tree = nested(jax.tree.map(jnp.asarray, numbers))
    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(tree)
    np.testing.assert_allclose(logits, found.logits.detach(), atol=1e-4)
    for path, leaf in flat(gradient).items():
        np.testing.assert_allclose(leaf, theirs[path].grad, rtol=1e-3, atol=1e-5, err_msg=path)
        assert np.abs(leaf).max() > 1e-4, path
