"""Words in place of labels, through the caches: tokens, postprocessor, key; words that cannot work."""

import dataclasses

import pytest

pytest.importorskip("seqio")

from jax_prompts.config import Data
from jax_prompts.data.open import open_caches
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError


@pytest.fixture(scope="module")
def micro():
    return Vocabulary("asset:micro")


@pytest.fixture
def quickstart(tmp_path):
    return Data(
        task="quickstart_reviews",
        task_module="tasks.registry",
        task_feature_lengths={"inputs": 48, "targets": 4},
        batch_size=4,
        cache_dir=str(tmp_path),
        eval_split="validation[:40]",
    )


def opened(data, vocabulary):
    ((_, cache),) = open_caches(data, data.eval_split, vocabulary)
    return cache


def test_the_model_reads_words_in_place_of_labels(quickstart, micro):
    words = {"positive": "good", "negative": "bad"}
    plain = opened(quickstart, micro)
    cache = opened(dataclasses.replace(quickstart, verbalizer=words), micro)
    assert cache.directory != plain.directory
    assert cache.labels == ("bad", "good")  # in the order of the task's labels
    assert cache.label_counts == {words[label]: n for label, n in plain.label_counts.items()}
    assert [cache.postprocess(text) for text in ("bad", "good", "positive")] == [0, 1, -1]
    _, targets = cache.rows(range(len(cache)))
    for index in range(len(cache)):
        example, before = cache.example(index), plain.example(index)
        assert example["inputs_pretokenized"] == before["inputs_pretokenized"]
        assert example["targets_pretokenized"] == words[before["targets_pretokenized"]]
        tokens = targets.values_N[targets.offsets[index] : targets.offsets[index + 1]]
        assert tokens.tolist() == [*micro.encode(example["targets_pretokenized"]), 1]
    assert opened(quickstart, micro).directory == plain.directory


def test_labels_may_change_places(quickstart, micro):
    words = {"positive": "negative", "negative": "positive"}
    plain = opened(quickstart, micro)
    cache = opened(dataclasses.replace(quickstart, verbalizer=words), micro)
    assert cache.labels == ("positive", "negative")
    assert cache.example(0)["targets_pretokenized"] == words[plain.example(0)["targets_pretokenized"]]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"positve": "good", "negative": "bad"}, "'positve', which is no label .*: use positive"),
        ({"positive": "good"}, "no word for negative"),
        ({"positive": "so", "negative": "so"}, "'so' for negative and positive"),
        ({}, "no word for negative, positive"),
    ],
)
def test_words_that_cannot_work(quickstart, micro, words, reason):
    with pytest.raises(ConfigError, match=reason) as raised:
        opened(dataclasses.replace(quickstart, verbalizer=words), micro)
    assert "\n" not in str(raised.value)


def test_a_task_without_labels_is_refused(quickstart, micro):
    data = dataclasses.replace(quickstart, task="micro_world", verbalizer={"a": "b"})
    with pytest.raises(ConfigError, match="micro_world has no labels"):
        opened(data, micro)
