"""Ranking labels: the loss of each label as a target, the likeliest one chosen, one compilation, bad settings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from labelled import LabelledCache

from jax_prompts.base_models.weights import random_weights
from jax_prompts.config import Data, Decoding
from jax_prompts.data.layout import RaggedTokens, SpecialTokens, decoder_arrays, encoder_tokens
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import SPECIAL, WordPiece
from jax_prompts.errors import ConfigError
from jax_prompts.inference.predict import device_batches
from jax_prompts.inference.ranking import Ranked, label_arrays, log_probabilities, make_rank
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.scoring.evaluator import Evaluator
from jax_prompts.step import loss_sums

LABELS = ("good", "not good", "rather bad")
P, INPUTS, TARGETS = 4, 16, 12


@pytest.fixture(scope="module")
def vocabulary(train_vocabulary):
    return Vocabulary(train_vocabulary("text good not rather bad 0 1 2 3 4 5 6 7 8 9"))


def small(vocabulary, **more):
    return T5Config(
        vocabulary.size, 32, 4, 1, 1, 8, 64, ("gelu", "linear"), logits_via_embedding=False, **more
    )


def weights(model, seed=0):
    params = meta.unbox(random_weights(model, jax.random.key(seed)))
    return jax.tree.map(lambda x: x * 1.5, params)  # far from uniform answers


def cache_of(vocabulary, count=11, labels=LABELS):
    targets = [labels[i % len(labels)] for i in range(count)]
    return LabelledCache(targets, labels, encode=vocabulary.encode)


def data(**more):
    return Data("labelled", "tasks", {"inputs": INPUTS, "targets": TARGETS}, 4, eval_batch_size=4, **more)


def explicit(model, params, prompts_QD, prompt_ids, cache, vocabulary):
    """log p of every label of every example, by the training loss, one row at a time."""
    log_p_NC = np.zeros((len(cache), len(cache.labels)))
    loss = jax.jit(lambda batch: loss_sums(model, params, prompts_QD, batch))
    for n in range(len(cache)):
        inputs, _ = cache.rows([n])
        for c, label in enumerate(cache.labels):
            targets = RaggedTokens.of([[*vocabulary.encode(label), 1]])
            batch = {
                "encoder_input_tokens": encoder_tokens(inputs, prompt_ids, len(prompt_ids) + INPUTS),
                **decoder_arrays(targets, TARGETS),
            }
            log_p_NC[n, c] = -loss(batch)["loss_sum"]
    return log_p_NC


@pytest.mark.parametrize(
    ("prompt_kind", "scan", "members"),
    [
        ("input", False, 0),
        ("input", False, 2),
        ("input", True, 1),
        ("deep", False, 1),
        ("prefix", False, 2),
        ("decoder_prefix", False, 2),
    ],
)
def test_scores_are_the_training_loss_of_each_label(vocabulary, prompt_kind, scan, members):
    model = T5(small(vocabulary, scan_layers=scan), prompt_kind)
    params, cache = weights(model), cache_of(vocabulary)
    Q = members * P
    prompts = jax.random.normal(jax.random.key(1), (Q, model.config.prompt_width(prompt_kind))) if Q else None
    rank = make_rank(model)
    found = []
    for member in range(max(members, 1)):
        first = model.config.vocab_size + member * P
        prompt_ids = np.arange(first, first + (P if Q else 0), dtype=np.int32)
        batches = device_batches(
            cache,
            prompt_ids_EP=prompt_ids[None],
            inputs_length=INPUTS,
            batch_size=4,
            special_tokens=SpecialTokens(),
        )
        labels = label_arrays(LABELS, vocabulary, TARGETS)
        log_p_NC = np.concatenate([*log_probabilities(rank, params, prompts, batches, labels)])
        wanted_NC = explicit(model, params, prompts, prompt_ids, cache, vocabulary)
        np.testing.assert_allclose(log_p_NC, wanted_NC, rtol=2e-5, atol=2e-5)
        found.append(log_p_NC)
    if members > 1:
        assert np.abs(found[0] - found[1]).max() > 1e-3  # each has its own prompt in front
    assert rank._cache_size() == 1


def preferring(model, logits):
    """Parameters of a model whose next token never depends on the input: token -> logit, others 0."""
    params = jax.tree.map(lambda x: x, weights(model))
    embedding_VD = params["token_embedder"]["embedding"]
    params["token_embedder"]["embedding"] = embedding_VD.at[:, 0].set(1000.0)
    params["decoder"]["decoder_norm"]["scale"] = jnp.zeros(32).at[0].set(32**-0.5)  # leaves 1 in column 0
    kernel_DV = jnp.zeros((32, model.config.vocab_size))
    for token, logit in logits.items():
        kernel_DV = kernel_DV.at[0, token].set(logit)
    params["decoder"]["logits_dense"]["kernel"] = kernel_DV
    return params


@pytest.mark.parametrize("wanted", LABELS)
def test_the_label_that_the_model_prefers_is_chosen(vocabulary, wanted):
    model, cache = T5(small(vocabulary)), cache_of(vocabulary)
    pieces = {label: set(vocabulary.encode(label)) for label in LABELS}
    logits = {token: 8.0 if token in pieces[wanted] else -8.0 for label in LABELS for token in pieces[label]}
    scorer = Evaluator(model, vocabulary, [cache], data(rank_classification=True), Decoding())
    (scores,) = scorer([preferring(model, logits)], None)
    found = scores["labelled"]
    assert {row["rank_normalized"] for row in found.predictions} == {wanted}
    share = cache.targets.count(wanted) / len(cache)
    assert found.metrics["rank_normalized/accuracy"] == pytest.approx(100 * share)
    assert found.context["rank_normalized/constant_predictor"]


def test_length_normalisation_takes_the_mean():
    log_p_NC = np.array([[-6.0, -8.0], [-2.0, -9.0], [-4.0, -8.0]], np.float32)
    ranked = Ranked(("short", "long"), log_p_NC, np.array([2, 4]))
    assert ranked.best == ["short"] * 3
    assert ranked.best_normalized == ["long", "short", "short"]  # the first among equals


def test_both_ways_stand_beside_generation(vocabulary):
    model, cache = T5(small(vocabulary)), cache_of(vocabulary)
    scorer = Evaluator(model, vocabulary, [cache], data(rank_classification=True), Decoding())
    params = weights(model)
    prompts_EPD = jax.random.normal(jax.random.key(1), (3, P, 32))
    together = [found["labelled"] for found in scorer([params] * 3, prompts_EPD)]
    assert scorer._rank._cache_size() == 1
    for member, found in enumerate(together):
        assert found.metrics.keys() == {"accuracy", "rank/accuracy", "rank_normalized/accuracy"}
        alone = scorer([params], prompts_EPD[member : member + 1])[0]["labelled"]
        assert alone.metrics == found.metrics
        for row, target in zip(found.predictions, cache.targets, strict=True):
            scores = row["label_log_probabilities"]
            assert list(scores) == list(LABELS)
            assert row["rank"] == max(scores, key=scores.get)
            assert row["targets"] == target
        right = [row["rank"] == row["targets"] for row in found.predictions]
        assert found.metrics["rank/accuracy"] == pytest.approx(100 * np.mean(right))

    plain = Evaluator(model, vocabulary, [cache], data(), Decoding())([params], None)[0]["labelled"]
    assert plain.metrics.keys() == {"accuracy"}
    assert "rank" not in plain.predictions[0]


def test_bert_answers_with_its_likeliest_class_already(tmp_path):
    model = Bert(BertConfig(300, 32, 1, 2, 64, max_length=32), classes=2)
    cache = LabelledCache(["yes", "no", "no"], ("no", "yes"))
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL.values()))
    vocabulary = WordPiece(str(tmp_path / "vocab.txt"))
    scorer = Evaluator(model, vocabulary, [cache], data(rank_classification=True), Decoding())
    params = meta.unbox(model.init(jax.random.key(0), method="initialize")["params"])
    found = scorer([params], None)[0]["labelled"]
    assert found.metrics.keys() == {"accuracy"}
    assert found.context["out_of_class_predictions"] == 0
    for row in found.predictions:
        scores = row["label_log_probabilities"]
        assert row["prediction"] == max(scores, key=scores.get)
        assert sum(map(math.exp, scores.values())) == pytest.approx(1)


def test_labels_that_the_length_makes_equal_are_refused(vocabulary):
    assert label_arrays(("good", "not good"), vocabulary, 8)["decoder_target_tokens"].shape[0] == 2
    with pytest.raises(ConfigError, match=r"targets 1 .*'not good' from 'good'.*RANK_CLASSIFICATION"):
        label_arrays(("good", "not good"), vocabulary, 1)


def test_settings_that_cannot_work_are_refused(vocabulary):
    model = T5(small(vocabulary))
    free = LabelledCache(["a", "b"], None)
    with pytest.raises(ConfigError, match="RANK_CLASSIFICATION is True, but labelled answers with free text"):
        Evaluator(model, vocabulary, [free], data(rank_classification=True), Decoding())
    with pytest.raises(ConfigError, match="BOOTSTRAP is -1"):
        Evaluator(model, vocabulary, [free], data(bootstrap=-1), Decoding())
