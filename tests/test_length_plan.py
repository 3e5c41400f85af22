"""Plans of evaluations and of texts: longer examples first, answers in order, and one length where it has to be one."""

import types

import numpy as np
import pytest

from jax_prompts.config import Data
from jax_prompts.errors import ConfigError
from jax_prompts.length_plan import plan_evaluation, plan_texts
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.t5 import T5, T5Config

T5_OF_TESTS = T5(T5Config(64, 512, 8, 6, 6, 64, 1024, ("gelu", "linear"), logits_via_embedding=False))
BERT_CONFIG = BertConfig(64, 512, 8, 6, 1024)
LENGTHS = np.array([30, 500, 20, 40, 25, 35])
CACHE = types.SimpleNamespace(input_lengths_N=LENGTHS, longest_inputs=500)


def plan(model=T5_OF_TESTS, prompts=1, passes=10_000, **settings):
    data = Data("task", "tasks", {"inputs": 512, "targets": 8}, 4, eval_batch_size=2, **settings)
    return plan_evaluation(model, None, data, CACHE, prompts=prompts, prompt_length=4, passes=passes)


def test_longer_examples_come_first_and_answers_are_put_back():
    found = plan()
    assert LENGTHS[found.order_N].tolist() == [500, 40, 35, 30, 25, 20]
    assert found.lengths == (32, 40, 504)
    answers = [f"answer to {n} behind {e}" for n in found.order_N for e in range(2)]
    expected = [f"answer to {n} behind {e}" for n in range(6) for e in range(2)]
    assert [answers[row] for row in found.rows_in_order(2)] == expected


def test_few_passes_are_worth_few_programs():
    assert plan(passes=1).lengths == (504,)


def test_one_group_keeps_the_order():
    found = plan(length_groups=1)
    assert found.order_N.tolist() == [*range(6)] and found.lengths == (504,)


def test_masked_words_have_one_length_and_classes_several():
    assert plan(Bert(BERT_CONFIG, classes=0)).lengths == (504,)
    assert len(plan(Bert(BERT_CONFIG, classes=2)).lengths) > 1


def test_lengths_without_a_place_for_the_longest():
    with pytest.raises(ConfigError, match="of 500 tokens: add 504"):
        plan(length_groups=(64, 128))


def texts(needed, known, rows=32):
    mesh = types.SimpleNamespace(size=1, devices=np.array([types.SimpleNamespace(platform="cpu")]))
    return plan_texts(T5_OF_TESTS, mesh, needed, [rows] * len(needed), prompt_length=4, known=known)


def test_few_texts_share_programs_and_many_have_their_own():
    known = (8, 16, 32, 64, 128)
    assert texts([40] * 2, known) == known
    assert texts([300], (8, 512), rows=1) == (8, 512)  # a text alone
    assert texts([40] * 2_000, known) == (40,)
    assert texts([40, 70] * 2_000, known) == (40, 72)


def test_later_texts_take_the_programs_of_earlier_ones():
    known = (8, 16, 32, 40, 64, 72, 128)
    assert texts([39, 70] * 1_000, known) == known
