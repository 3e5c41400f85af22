"""Ensembles: each way of answering by its definition, ties, agreement, one pass against one for each prompt."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest
from flax.core import meta
from labelled import LabelledCache

from jax_prompts.base_models.weights import random_weights
from jax_prompts.config import Data, Decoding
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.inference.ranking import Ranked
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import PromptMetadata
from jax_prompts.scoring.answers import Answers
from jax_prompts.scoring.ensemble import agreement, by_votes, candidates_of, ensemble_of
from jax_prompts.scoring.evaluator import Evaluator
from jax_prompts.scoring.prompt_scores import scores_of
from jax_prompts.scoring.prompt_set import PromptSet

MAJORITY, MEAN, RANK = "", "mean_log_probability/", "mean_rank/"


@pytest.mark.parametrize(
    ("votes", "log_p_EC", "wanted"),
    [
        # Two of three say b; a is likelier in the mean, since the one who says it is sure.
        (["a", "b", "b"], [[-0.1, -9.0], [-1.0, -0.9], [-1.0, -0.9]], {MAJORITY: "b", MEAN: "a", RANK: "b"}),
        # One vote each: the sum decides.
        (["a", "b"], [[-0.5, -0.6], [-2.0, -0.1]], {MAJORITY: "b", MEAN: "b", RANK: "b"}),
        # All alike: the earlier prompt's answer.
        (["a", "b"], [[-1.0, -1.0], [-1.0, -1.0]], {MAJORITY: "a", MEAN: "a", RANK: "a"}),
    ],
)
def test_one_answer_in_three_ways(votes, log_p_EC, wanted):
    assert by_votes(votes, candidates_of(votes), np.array(log_p_EC)) == wanted


def test_ranks_go_by_places_not_by_distances():
    """c is second for everyone, a first for two and last for three, and b the reverse but for one."""
    log_p_EC = np.array([[-1, -3, -2], [-1, -3, -2], [-3, -1, -2], [-3, -2, -1], [-9, -2, -1]], float)
    ways = by_votes(["a", "a", "b", "c", "c"], ["a", "b", "c"], log_p_EC)
    ranks = {"a": 1 + 1 + 3 + 3 + 3, "b": 3 + 3 + 1 + 2 + 2, "c": 2 + 2 + 2 + 1 + 1}
    assert ways[RANK] == min(ranks, key=ranks.get) == "c"
    assert ways[MAJORITY] == "c"  # a and c have two votes, and c the higher sum


def test_agreement_and_entropy_of_votes():
    votes_NE = [["a"] * 4, ["a", "a", "b", "b"], ["a", "b", "c", "d"], ["a", "b", "b", "b"]]
    answers_E = [Answers([votes[e] for votes in votes_NE]) for e in range(4)]
    log_p = [np.zeros((4, len(candidates_of(votes)))) for votes in votes_NE]
    ensemble = ensemble_of(answers_E, [candidates_of(votes) for votes in votes_NE], log_p)
    rows = agreement(answers_E, ensemble)
    assert [row["votes"] for row in rows] == votes_NE
    assert [row["agreement"] for row in rows] == [1.0, 0.5, 0.25, 0.75]
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert [row["vote_entropy"] for row in rows] == pytest.approx([0, math.log(2), math.log(4), quarter])
    assert [row["mean_rank"] for row in rows] == ["a"] * 3 + ["a"]


def test_labels_are_ranked_by_the_mean_of_their_log_probabilities():
    ranked_E = [
        Ranked(("no", "yes"), np.log(np.array([[0.6, 0.4], [0.6, 0.4]])), np.array([1, 1])),
        Ranked(("no", "yes"), np.log(np.array([[0.1, 0.9], [0.5, 0.5]])), np.array([1, 1])),
    ]
    answers_E = [Answers(["no", "no"], ranked) for ranked in ranked_E]
    ensemble = ensemble_of(answers_E, [["no"]] * 2, [np.zeros((2, 1))] * 2)
    assert ensemble.ways["rank/"].texts == ["yes", "no"]


LENGTHS = {"inputs": 16, "targets": 16}


@pytest.fixture(scope="module")
def vocabulary(train_vocabulary):
    return Vocabulary(train_vocabulary("text good not rather bad 0 1 2 3 4 5 6 7 8 9"))


@pytest.fixture(scope="module")
def model(vocabulary):
    config = T5Config(vocabulary.size, 32, 4, 1, 1, 8, 64, ("gelu", "linear"), logits_via_embedding=False)
    return T5(config)


@pytest.fixture(scope="module")
def params(model):
    return jax.tree.map(lambda x: x * 1.5, meta.unbox(random_weights(model, jax.random.key(0))))


def prompt_set(model, lengths, tasks=None):
    """Random prompts of these lengths."""
    prompts = [
        np.array(jax.random.normal(jax.random.key(n), (length, 32))) * 3 for n, length in enumerate(lengths)
    ]
    metadata = [PromptMetadata(task=task) for task in tasks or ["labelled"] * len(lengths)]
    return PromptSet([f"prompt-{n}" for n in range(len(lengths))], prompts, metadata, [{}] * len(lengths))


@pytest.fixture(scope="module")
def evaluator(model, vocabulary):
    cache = LabelledCache(["good", "not good", "rather bad"] * 4, None, encode=vocabulary.encode)
    data = Data("labelled", "tasks", LENGTHS, 4, eval_batch_size=8)
    return Evaluator(model, vocabulary, [cache], data, Decoding())


def test_one_pass_answers_as_one_for_each_prompt_does(evaluator, model, params):
    prompts = prompt_set(model, [4, 4, 3, 4, 3])
    assert prompts.groups == [[0, 1, 3], [2, 4]]
    results = scores_of(evaluator, params, prompts)
    assert list(results) == [*prompts.files, "ensemble"]
    texts = []
    for number, file in enumerate(prompts.files):
        alone = PromptSet([file], [prompts.prompts[number]], [prompts.metadata[number]], [{}])
        found = scores_of(evaluator, params, alone)[file]["labelled"]
        assert found.predictions == results[file]["labelled"].predictions
        texts.append([row["prediction"] for row in found.predictions])
    assert len({tuple(of_prompt) for of_prompt in texts}) > 1
    for row, votes in zip(results["ensemble"]["labelled"].predictions, zip(*texts, strict=True), strict=True):
        assert row["votes"] == list(votes)
        assert row["votes"].count(row["prediction"]) == max(map(votes.count, votes))
    context = results["ensemble"]["labelled"].context
    assert 0.2 <= context["agreement"] <= 1 and context["vote_entropy"] > 0


def test_losses_beside_answers_are_those_of_the_examples(evaluator, model, params):
    """Each prompt's, from the pass that also answers, against a pass that only asks how likely the targets are."""
    prompts_EPD = jax.numpy.stack(prompt_set(model, [4, 4]).prompts)
    (cache,) = evaluator.caches
    beside = [found["labelled"].losses for found in evaluator([params] * 2, prompts_EPD)]
    bare = LabelledCache(cache.targets, None, metrics=(), encode=cache.encode)
    alone = [
        found["labelled"].metrics
        for found in dataclasses.replace(evaluator, caches=[bare])([params] * 2, prompts_EPD)
    ]
    assert beside[0]["loss"] != pytest.approx(beside[1]["loss"], rel=0.01)
    for ours, wanted in zip(beside, alone, strict=True):
        assert ours == pytest.approx(wanted, rel=1e-5)


def test_answers_are_as_likely_as_they_are_as_labels(evaluator, model, params, vocabulary):
    """Log-probabilities of candidates of each example equal those of the same texts ranked as labels of all."""
    prompts = prompt_set(model, [4, 4])
    texts = ["good", "not good", "bad"]
    prompts_EPD = jax.numpy.stack(prompts.prompts)
    cache = evaluator.caches[0]
    examples_N = np.array([1, 5, 6])
    texts_NC = list(itertools.permutations(texts))[:3]
    found_NEC = evaluator.log_p([params] * 2, prompts_EPD, cache, examples_N, texts_NC)
    labelled = LabelledCache(cache.targets, texts, encode=vocabulary.encode)
    data = Data("labelled", "tasks", LENGTHS, 4, eval_batch_size=8, rank_classification=True)
    ranked = Evaluator(model, vocabulary, [labelled], data, Decoding())([params] * 2, prompts_EPD)
    for n, (example, of_example) in enumerate(zip(examples_N, texts_NC, strict=True)):
        for member in range(2):
            likely = ranked[member]["labelled"].answers.ranked.log_p(int(example))
            wanted = [likely[text] for text in of_example]
            np.testing.assert_allclose(found_NEC[n, member], wanted, rtol=2e-5, atol=2e-5)


def test_prompts_of_other_tasks_make_no_ensemble(evaluator, model, params):
    results = scores_of(evaluator, params, prompt_set(model, [4, 4], tasks=["labelled", "another"]))
    assert list(results) == ["prompt-0", "prompt-1"]
    unknown = scores_of(evaluator, params, prompt_set(model, [4, 4], tasks=["labelled", ""]))
    assert "ensemble" in unknown
