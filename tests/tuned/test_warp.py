"""WARP's verbaliser: where it starts, what reads it, what it refuses."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.base_models.weights import random_weights
from jax_prompts.errors import ConfigError
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.mask_place import MASK_PLACE
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import Base, Text
from jax_prompts.tuned import LoRA, Verbalizer, for_task
from jax_prompts.tuned.leaves import by_path, lay_in

CONFIG = BertConfig(40, 16, 2, 2, 24, max_length=32, separator_id=3, mask_id=4)
V, D, C = 40, 16, 3
MODEL = Bert(CONFIG, classes=C, at_mask=True)


class Vocabulary:
    size, unk_id = V, 1
    known = {"yes": [7], "no": [8], "maybe": [9], "per haps": [10, 11], "odd": [1], "[MASK]": [4]}

    def encode(self, text):
        return self.known[text]


@pytest.fixture(scope="module")
def boxed():
    weights = by_path(random_weights(MODEL, jax.random.key(0)))
    bias = dataclasses.replace(weights["mlm_bias"], value=jnp.arange(V, dtype=jnp.float32))
    return {**weights, "mlm_bias": bias}


def test_starts(boxed):
    random, other = (nn.meta.unbox(Verbalizer(classes=C).init(boxed, jax.random.key(i))) for i in range(2))
    assert {path: x.shape for path, x in random.items()} == {
        "verbalizer/kernel": (D, C), "verbalizer/bias": (C,)
    }  # fmt: skip
    assert all(jnp.abs(x).max() <= D**-0.5 and jnp.abs(x).min() > 0 for x in random.values())
    assert not np.array_equal(random["verbalizer/kernel"], other["verbalizer/kernel"])
    assert [*Verbalizer(bias=False, classes=C).init(boxed, jax.random.key(0))] == ["verbalizer/kernel"]

    kinds = (LoRA(), Verbalizer(start="labels"))
    lora, words = for_task(kinds, "task", C, ("yes", "no", "maybe"), Vocabulary())
    assert lora == kinds[0] and words.pieces == (7, 8, 9)
    leaves = nn.meta.unbox(words.init(boxed, jax.random.key(0)))
    embedding_VD = boxed["token_embedder/embedding"].value
    np.testing.assert_array_equal(leaves["verbalizer/kernel"], embedding_VD[7:10].T)
    np.testing.assert_array_equal(leaves["verbalizer/bias"], [7, 8, 9])


def test_started_from_words_it_is_the_masked_lm_head_of_these_words(boxed):
    weights = nn.meta.unbox(jax.tree.map(lambda x: x, dict(boxed), is_leaf=lambda x: hasattr(x, "names")))
    words = for_task((Verbalizer(start="labels"),), "task", C, ("yes", "no", "maybe"), Vocabulary())[0]
    leaves = nn.meta.unbox(words.init(boxed, jax.random.key(0)))
    params = lay_in({}, {**weights, **leaves})
    rows_BL = jnp.array([[2, 4, 9, V, MASK_PLACE, V + 1, 3, 0], [2, 9, MASK_PLACE, 12, 3, 13, 3, 0]])
    prompts_QD = jax.random.normal(jax.random.key(1), (2, D))
    logits_B1C = MODEL.apply({"params": params}, rows_BL, None, prompts_QD)
    ids_BL = jnp.where(rows_BL == MASK_PLACE, CONFIG.mask_id, rows_BL)
    logits_BLV = Bert(CONFIG).apply({"params": params}, ids_BL, None, prompts_QD)
    wanted_BC = jnp.stack([logits_BLV[0, 4, 7:10], logits_BLV[1, 2, 7:10]])
    assert logits_B1C.shape == (2, 1, C)
    np.testing.assert_allclose(logits_B1C[:, 0], wanted_BC, atol=1e-4)


def test_every_vector_starts_from_the_embedding_of_mask():
    embedding_VD = jax.random.normal(jax.random.key(0), (V, D))
    start = Text("[MASK]", repeat=True).table_init(Base(embedding_VD, Vocabulary()))
    np.testing.assert_array_equal(start(jax.random.key(1), (5, D)), jnp.tile(embedding_VD[4], (5, 1)))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("yes", "per haps"), "'per haps' of task is no word .* cuts it into 2 pieces: set VERBALIZER"),
        (("yes", "odd"), "'odd' of task is no word .* does not have it"),
        ((), "task has no labels"),
    ],
)
def test_labels_that_it_cannot_start_from_are_one_line(labels, words):
    with pytest.raises(ConfigError, match=words):
        for_task((Verbalizer(start="labels"),), "task", len(labels), labels, Vocabulary())


def test_a_t5_is_refused():
    config = T5Config(64, 16, 2, 2, 2, 8, 24, ("gelu", "linear"), logits_via_embedding=False)
    weights = by_path(random_weights(T5(config), jax.random.key(0)))
    with pytest.raises(
        ConfigError, match=r"a T5 has none: use a BERT, such as gin_configs/models/bert_base.gin"
    ):
        Verbalizer(classes=2).init(weights, jax.random.key(0))
