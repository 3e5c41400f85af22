"""Labels and texts that no answer can equal."""

import pytest

from jax_prompts.data.readable import check_labels, reads_back
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError


@pytest.fixture(scope="module")
def micro():
    return Vocabulary("asset:micro")


def test_texts_read_back_or_not(micro):
    assert reads_back("very negative", micro)
    for text in (" negative", "negative ", "very  negative", "negative\n", "n€gative"):
        assert not reads_back(text, micro), text


@pytest.mark.parametrize(
    ("labels", "length", "words"),
    [
        ((" negative", " positive"), 8, "label ' negative' reads 'negative'"),
        (("not_so", "so"), 8, "label 'not_so' reads 'not ⁇ so'"),
        (("same", "same"), 8, "labels 'same' and 'same' are the same tokens: give each"),
        (("so good a film", "so good a book"), 3, "'so good a book' are the same tokens, cut to 3 tokens"),
    ],
)
def test_labels_that_cannot_be_answered_are_refused(micro, labels, length, words):
    with pytest.raises(ConfigError, match=words.replace("⁇", r"\S*")):
        check_labels("a_task", labels, micro, length)


def test_labels_that_can_be_answered(micro):
    check_labels("a_task", ("very negative", "negative", "neutral"), micro, 8)
