"""BERT against numbers produced by Hugging Face transformers."""

import pathlib

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file

from jax_prompts.base_models.open import open_model
from jax_prompts.models.bert import Bert, BertConfig

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "bert_hf"
CONFIG = BertConfig(80, 32, 4, 2, 64, max_length=64)
MODEL, V, P = Bert(CONFIG), 80, 5


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="module")
def params():
    """The file's arrays; its model has no masked-LM head, so that stays random."""
    start = nn.meta.unbox(MODEL.init(jax.random.key(0), method="initialize"))
    flat = flax.traverse_util.flatten_dict(start["params"], sep="/")
    found = open_model(str(GOLDEN))
    assert found.config == CONFIG
    assert {name for name in flat if not name.startswith("mlm_")} == set(found.arrays)
    flat |= {name: jnp.asarray(array[...]) for name, array in found.arrays.items()}
    return {"params": flax.traverse_util.unflatten_dict(flat, sep="/")}


def classifier(pooled_BD):
    head = load_file(GOLDEN / "model.safetensors")
    return pooled_BD @ head["classifier.weight"].T + head["classifier.bias"][None]


@pytest.mark.parametrize("typed", [True, False])
def test_hugging_face_parity(golden, params, typed):
    real_BL = golden["attention_mask"] == 1
    assert np.array_equal(real_BL, golden["input_ids"] > 0)
    segments_BL = golden["token_type_ids"] if typed else jnp.zeros_like(golden["input_ids"])
    x_BLD = MODEL.apply(params, golden["input_ids"], None, segments_BL, method="encode")
    suffix = "" if typed else "_type0"
    np.testing.assert_allclose(x_BLD[real_BL], golden[f"last_hidden_state{suffix}"][real_BL], atol=1e-4)
    pooled_BD = MODEL.apply(params, x_BLD, method="pool")
    np.testing.assert_allclose(pooled_BD, golden[f"pooler_output{suffix}"], atol=1e-4)
    if typed:
        np.testing.assert_allclose(classifier(pooled_BD), golden["classifier_logits"], atol=1e-4)


def test_prompt_after_cls_is_virtual_tokens(golden, params):
    """States, logits, loss and the prompt's gradient with five vectors after [CLS]."""
    ids_BL = golden["input_ids"]
    virtual_BP = np.broadcast_to(np.arange(V, V + P, dtype=np.int32), (len(ids_BL), P))
    tokens_BL = jnp.concatenate([ids_BL[:, :1], virtual_BP, ids_BL[:, 1:]], axis=1)
    real_BL = golden["prompted.attention_mask"] == 1

    def loss(prompts_QD):
        x_BLD = MODEL.apply(params, tokens_BL, prompts_QD, jnp.zeros_like(tokens_BL), method="encode")
        logits_BC = classifier(MODEL.apply(params, x_BLD, method="pool"))
        loss_B = -jax.nn.log_softmax(logits_BC)[np.arange(3), golden["prompted.labels"]]
        return loss_B.mean(), (x_BLD, logits_BC)

    (value, (x_BLD, logits_BC)), grad_PD = jax.value_and_grad(loss, has_aux=True)(
        jnp.asarray(golden["prompt"])
    )
    np.testing.assert_allclose(x_BLD[real_BL], golden["prompted.last_hidden_state"][real_BL], atol=1e-4)
    np.testing.assert_allclose(logits_BC, golden["prompted.classifier_logits"], atol=1e-4)
    np.testing.assert_allclose(value, golden["prompted.loss"][0], atol=1e-5)
    np.testing.assert_allclose(grad_PD, golden["prompted.grad_prompt"], atol=1e-5)


def test_masked_lm_head(params):
    """A dense layer, exact gelu, a norm, the embedding's transpose and a bias."""
    p = params["params"]
    x_BLD = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 32)), jnp.float32)
    logits_BLV = MODEL.apply(params, x_BLD, method="predict_masked")
    h = x_BLD @ p["mlm_dense"]["kernel"] + p["mlm_dense"]["bias"][None, None]
    h = np.asarray(0.5 * h * (1 + jax.scipy.special.erf(h / np.sqrt(2))))
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-12)
    np.testing.assert_allclose(logits_BLV, h @ p["token_embedder"]["embedding"].T, atol=1e-4)


def test_class_logits_are_float32_where_activations_are_bfloat16():
    """Of two logits that bfloat16 cannot tell apart the larger wins."""
    model = Bert(BertConfig(80, 32, 4, 2, 64, max_length=64, dtype=jnp.bfloat16), classes=2)
    start = nn.meta.unbox(model.init(jax.random.key(0), method="initialize"))["params"]
    start["classifier"] = {"kernel": jnp.zeros((32, 2)), "bias": jnp.array([4.0, 4.001])}
    tokens_BL = jnp.ones((3, 5), jnp.int32)
    logits_B1C = model.apply({"params": start}, tokens_BL, None)
    assert logits_B1C.dtype == jnp.float32
    np.testing.assert_array_equal(logits_B1C[:, 0], jnp.broadcast_to(jnp.array([4.0, 4.001]), (3, 2)))
