"""Token caches of bytes: rows, labels and sentinels through SeqIO's tasks."""

import dataclasses

import pytest

pytest.importorskip("seqio")

from test_verbalizer import opened, quickstart  # noqa: F401  its fixture

from jax_prompts.data.cache_key import cache_directory
from jax_prompts.data.readable import check_labels
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary("bytes")


def test_rows_are_the_bytes_of_the_texts(quickstart, vocabulary):  # noqa: F811
    data = dataclasses.replace(quickstart, task_feature_lengths={"inputs": 64, "targets": 12})
    cache = opened(data, vocabulary)
    inputs, targets = cache.rows(range(len(cache)))
    assert cache.longest_inputs == 64
    assert cache.longest_targets == len("positive") + 1
    for index in range(len(cache)):
        texts = cache.example(index)
        for rows, name, length in ((inputs, "inputs", 64), (targets, "targets", 12)):
            ids = rows.values_N[rows.offsets[index] : rows.offsets[index + 1]].tolist()
            of_text = [byte + 3 for byte in texts[f"{name}_pretokenized"].encode()]
            assert ids == [*of_text[: length - 1], 1]
    assert (
        vocabulary.decode(targets.values_N[: targets.offsets[1]]) == cache.example(0)["targets_pretokenized"]
    )


def test_targets_begin_with_what_byt5_was_trained_with(quickstart, vocabulary):  # noqa: F811
    data = dataclasses.replace(quickstart, sentinel=True, task_feature_lengths={"inputs": 64, "targets": 12})
    _, targets = opened(data, vocabulary).rows(range(4))
    assert (targets.values_N[targets.offsets[:-1]] == 258).all()
    assert vocabulary.decode(targets.values_N[: targets.offsets[1]]) in ("positive", "negative")


def test_other_bytes_have_caches_of_their_own(quickstart, vocabulary):  # noqa: F811
    without = Vocabulary("bytes", extra_ids=0)
    directories = [
        cache_directory(quickstart, "train", each)("a") for each in (vocabulary, without, Vocabulary("bytes"))
    ]
    assert directories[0] == directories[2] != directories[1]


def test_labels_cut_to_the_same_bytes_are_refused(vocabulary):
    with pytest.raises(
        ConfigError, match=r"'not_equivalent' and 'not_entailed' are the same tokens, cut to 5"
    ):
        check_labels("task", ("not_equivalent", "not_entailed"), vocabulary, 5)
