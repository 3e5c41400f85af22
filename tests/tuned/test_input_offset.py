"""Offsets on the input's embeddings: known values, where they stand, and what has none."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.base_models.tuned_file import check_leaves
from jax_prompts.base_models.weights import abstract_weights, random_weights
from jax_prompts.errors import ConfigError
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.input_offset import with_offsets
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import PromptMetadata
from jax_prompts.tuned import ADePT, DePT
from jax_prompts.tuned.dept import check_text_length
from jax_prompts.tuned.leaves import by_path, lay_in, nested

CONFIG = T5Config(64, 16, 2, 2, 2, 8, 24, ("gelu", "linear"), logits_via_embedding=False)
V, D, R, T = CONFIG.vocab_size, CONFIG.emb_dim, 3, 5
DRAW = np.random.default_rng(0)
PAIR = {"a": DRAW.normal(size=(T, R)), "b": DRAW.normal(size=(R, D))}
NETWORK = {
    "down": {"kernel": DRAW.normal(size=(D, R)), "bias": DRAW.normal(size=R)},
    "up": {"kernel": DRAW.normal(size=(R, D)), "bias": DRAW.normal(size=D)},
}
# Prompts of two lengths and none, texts of 3, 6 (one more than T) and 2 tokens.
TOKENS_BL = np.array([
    [V, V + 1, 7, 9, 1, 0, 0, 0],
    [V + 2, 5, 6, 7, 8, 9, 1, 0],
    [4, 1, 0, 0, 0, 0, 0, 0],
], np.int32)  # fmt: skip
NUMBERS = [[2, 3, 4], [1, 2, 3, 4, 5, 6], [0, 1]]  # places of text tokens
X_BLD = DRAW.normal(size=(*TOKENS_BL.shape, D))


def float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def of_model(leaves, x_BLD, tokens_BL):
    """What a model with these leaves makes of embeddings."""

    class Model(nn.Module):
        def __call__(self, x_BLD, tokens_BL):
            return with_offsets(self, x_BLD, tokens_BL, V)

    params = {"input_offset": leaves}
    return np.asarray(Model().apply({"params": params}, jnp.asarray(x_BLD), jnp.asarray(tokens_BL)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("leaves", [PAIR, NETWORK, {**PAIR, **NETWORK}], ids=["dept", "adept", "both"])
def test_text_alone_has_an_offset_by_its_own_number(leaves, dtype):
    x_BLD = np.asarray(jnp.asarray(X_BLD, dtype), np.float64)
    wanted_BLD = x_BLD.copy()
    for row, places in enumerate(NUMBERS):
        for number, place in enumerate(places):
            if "down" in leaves:
                down, up = leaves["down"], leaves["up"]
                hidden_R = np.maximum(x_BLD[row, place] @ down["kernel"] + down["bias"], 0)
                wanted_BLD[row, place] += hidden_R @ up["kernel"] + up["bias"]
            if "a" in leaves and number < T:
                wanted_BLD[row, place] += leaves["a"][number] @ leaves["b"]
    found_BLD = of_model(float32(leaves), jnp.asarray(X_BLD, dtype), TOKENS_BL)
    assert found_BLD.dtype == np.float32
    np.testing.assert_allclose(found_BLD, wanted_BLD, rtol=1e-5, atol=1e-5)


def test_kinds_start_as_no_offset_and_fold_to_the_scale():
    weights = by_path(abstract_weights(T5(CONFIG)))
    for kind in (DePT(rank=R, max_length=T), ADePT(rank=R)):
        leaves = nested(nn.meta.unbox(kind.init(weights, jax.random.key(0))))["input_offset"]
        np.testing.assert_array_equal(of_model(leaves, jnp.float32(X_BLD), TOKENS_BL), np.float32(X_BLD))
        starts = leaves["a"] if "a" in leaves else leaves["down"]["kernel"]
        assert 0.3 < np.abs(starts).max() <= R**-0.5
    folded = DePT(rank=4, alpha=3.0).fold({"input_offset/a": 1.0, "input_offset/b": 2.0}, training=True)
    assert folded == {"input_offset/a": 1.0, "input_offset/b": 3.0}  # 2 * 3 / sqrt(4)
    assert "input_offset/dropout" not in ADePT(dropout=0.1).fold({}, training=False)
    assert ADePT(dropout=0.1).fold({}, training=True)["input_offset/dropout"] == np.float32(0.1)


@pytest.fixture(scope="module")
def frozen():
    return nn.meta.unbox(random_weights(T5(CONFIG), jax.random.key(0)))


LEAVES = {f"input_offset/{name}": leaf for name, leaf in float32(PAIR).items()}
PROMPTS_QD = jnp.asarray(DRAW.normal(size=(4, D)), jnp.float32)
TARGETS_BU = np.array([[0, 5, 6], [0, 7, 8], [0, 9, 3]], np.int32)


def test_padding_and_what_else_is_in_the_batch_change_nothing(frozen):
    params = lay_in(frozen, LEAVES)
    apply = jax.jit(lambda *batch: T5(CONFIG).apply({"params": params}, *batch, PROMPTS_QD))
    mixed_BUV = apply(TOKENS_BL, TARGETS_BU)
    for row in range(3):
        short = TOKENS_BL[row : row + 1, : np.count_nonzero(TOKENS_BL[row])]
        for tokens_BL in (short, np.pad(short, ((0, 0), (0, 9)))):
            alone_BUV = apply(tokens_BL, TARGETS_BU[row : row + 1])
            np.testing.assert_allclose(alone_BUV[0], mixed_BUV[row], rtol=1e-4, atol=1e-5)
    # Behind another prompt a text has the offsets that it had.
    moved_BL = np.array([[V + 2, V, V + 1, 7, 9, 1, 0, 0]], np.int32)
    by_hand = X_BLD[0, 2:5] + (PAIR["a"] @ PAIR["b"])[:3]
    found = of_model(float32(PAIR), jnp.float32(np.insert(X_BLD[:1, :7], 0, 0.0, axis=1)), moved_BL)[0, 3:6]
    np.testing.assert_allclose(found, by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_decoding_step_by_step_is_the_same_function_and_the_decoders_words_have_no_offset(frozen):
    params, model = lay_in(frozen, LEAVES), T5(CONFIG)
    variables, tokens_BL, targets_BU = {"params": params}, jnp.asarray(TOKENS_BL), jnp.asarray(TARGETS_BU)
    encoded = model.apply(variables, tokens_BL, PROMPTS_QD, method="encode")
    cache = model.apply(variables, encoded, tokens_BL, 3, method="start_decoding")
    whole_BUV = model.apply(variables, tokens_BL, targets_BU, PROMPTS_QD)
    for u in range(3):
        step_BV, cache = model.apply(variables, targets_BU[:, u], cache, jnp.int32(u), method="decode_step")
        np.testing.assert_allclose(step_BV, whole_BUV[:, u], rtol=1e-4, atol=1e-4)
    # The encoder's output with an offset, the decoder of a model that has none.
    bare_BUV = model.apply({"params": frozen}, encoded, tokens_BL, targets_BU, method="decode")
    offset_BUV = model.apply(variables, encoded, tokens_BL, targets_BU, method="decode")
    np.testing.assert_array_equal(bare_BUV, offset_BUV)


METADATA = PromptMetadata(method="PromptTuning + DePT", base_model="tiny")
BERT = Bert(BertConfig(64, D, 2, 1, 24), classes=2)


@pytest.mark.parametrize(
    ("leaves", "words"),
    [
        ({"a": (T, R), "b": (R, D + 1)}, rf"- input_offset/b \[{R}, {D}\] \+ input_offset/b \[{R}, {D + 1}\]"),
        ({"a": (T, R)}, "- input_offset/b"),
        ({"b": (R, D)}, "- input_offset/a"),
        ({"a": (T, R + 1), "b": (R, D)}, r"- input_offset/b \[4, 16\] \+ input_offset/b \[3, 16\]"),
        ({"a": (T,), "b": (1, D)}, r"\+ input_offset/a \[5\]"),
        ({"a": (0, R), "b": (R, D)}, r"\+ input_offset/a \[0, 3\]"),
        ({"down/kernel": (D, R), "up/kernel": (R, D), "up/bias": (D,)}, "- input_offset/down/bias"),
        ({"c": (D, R)}, r"\+ input_offset/c"),
        ({"a/b": (D, R)}, r"\+ input_offset/a/b"),
    ],
)  # fmt: skip
def test_leaves_that_the_model_cannot_read_are_one_line(leaves, words):
    arrays = {f"input_offset/{name}": np.zeros(shape, np.float32) for name, shape in leaves.items()}
    with pytest.raises(ConfigError, match=words):
        check_leaves("p", T5(CONFIG), arrays, METADATA, np.zeros((0, 0), np.float32))


def test_texts_longer_than_their_offsets_are_refused_before_training():
    check_text_length((ADePT(rank=2), DePT(rank=2, max_length=5)), 5)
    with pytest.raises(
        ConfigError, match=r"DePT.max_length is 5 and TASK_FEATURE_LENGTHS inputs .* have 6 tokens"
    ):
        check_text_length((ADePT(rank=2), DePT(rank=2, max_length=5)), 6)


def test_a_bert_has_no_place_for_them():
    for kind in (DePT(rank=2), ADePT(rank=2)):
        with pytest.raises(
            ConfigError, match=f"{type(kind).__name__} is tuned beside embeddings of a T5's input"
        ):
            kind.init(by_path(abstract_weights(BERT)), jax.random.key(0))
    arrays = {name: np.asarray(leaf) for name, leaf in LEAVES.items()}
    arrays["classifier/kernel"] = np.zeros((D, 2), np.float32)
    metadata, none_PD = dataclasses.replace(METADATA, labels=("a", "b")), np.zeros((0, 0), np.float32)
    with pytest.raises(ConfigError, match=r"p holds classifier without classifier/bias: use the whole file"):
        check_leaves("p", BERT, arrays, metadata, none_PD)
    arrays["classifier/bias"] = np.zeros(2, np.float32)
    with pytest.raises(ConfigError, match=r"\+ input_offset/a \+ input_offset/b"):
        check_leaves("p", BERT, arrays, metadata, none_PD)
