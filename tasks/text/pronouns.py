"""Pronouns and what they stand for: WSC, DPR and WNLI in T5's form `wsc: ... *pronoun* ...` (Raffel et al. 2020).

The sentences are few, so that plain Python makes the text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

import tensorflow as tf

from tasks.errors import TaskError
from tasks.text.preprocessors import Example

PRONOUNS = ("he", "she", "they", "it", "her", "his", "their", "them", "him")
# Two sentences in which the number of the pronoun's word is wrong, and what T5 makes of them.
_MISPLACED = (
    ('"Good for him," he said. ', '"Good for *{}* ," he said.'),
    (
        "magic pebble in an iron safe . Some day they might want to use it ,",
        "magic pebble in an iron safe . Some day they might want to use *{}* ,",
    ),
)


def wsc(dataset: tf.data.Dataset, *, correct_only: bool = False, first_word: bool = False) -> tf.data.Dataset:
    """The text with its pronoun marked, and the noun phrase it may stand for; `label` says whether it does.

    Args:
      dataset: examples of WSC.
      correct_only: leaves out the noun phrases that the pronoun does not stand for.
      first_word: the target is the text's word at the phrase's index instead of the phrase.

    Raises:
      TaskError: while reading, a pronoun that is not where its index says.
    """

    def to_text(example: Example) -> Example:
        marked = _python(mark_pronoun, example["text"], example["span2_text"], example["span2_index"])
        return {
            "inputs": tf.strings.join(["wsc:", marked], separator=" "),
            "targets": _word(example) if first_word else example["span1_text"],
            "label": example["label"],
            "idx": example["idx"],
        }

    if correct_only:
        dataset = dataset.filter(lambda example: example["label"] != 0)
    return dataset.map(to_text)


def dpr(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The sentence with the first occurrence of its pronoun marked, and the candidate it stands for: label 1."""

    def to_text(example: Example) -> Example:
        marked = _python(mark_first, example["sentence"], example["pronoun"])
        return {
            "inputs": tf.strings.join(["wsc:", marked], separator=" "),
            "targets": example["candidates"][example["label"]],
            "label": tf.ones_like(example["label"]),
        }

    return dataset.map(to_text)


def wnli(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """WNLI as WSC: the premise with a pronoun marked, and what the hypothesis has in the pronoun's place."""

    def to_text(example: Example) -> Example:
        premise, hypothesis = example["sentence1"], example["sentence2"]
        marked, referent = tf.numpy_function(
            lambda *texts: [part.encode() for part in substituted(*(text.decode() for text in texts))],
            [premise, hypothesis],
            [tf.string, tf.string],
        )
        marked, referent = tf.ensure_shape(marked, []), tf.ensure_shape(referent, [])
        return {
            "inputs": tf.strings.join(["wsc:", marked], separator=" "),
            "targets": referent,
            "premise": premise,
            "hypothesis": hypothesis,
            "label": example["label"],
            "idx": example["idx"],
        }

    return dataset.map(to_text)


def _word(example: Example) -> tf.Tensor:
    return tf.strings.split(example["text"], " ")[example["span1_index"]]


def mark_pronoun(text: str, pronoun: str, index: int) -> str:
    """The text with word `index`, which has to be the pronoun, as `*pronoun*`.

    Words stand between single spaces. As in T5, a stand-alone capital X is marked too, and a pronoun at the end
    gets a space behind it.

    Raises:
      TaskError: another word is there, or it is the first.
    """
    for plain, marked in _MISPLACED:
        if plain in text:
            return text.replace(plain, marked.format(pronoun))
    words = text.split(" ")
    if not 0 < index < len(words) or words[index] != pronoun:
        raise TaskError(
            f"WSC: {pronoun!r} is not word {index} of {text!r}: correct span2_index of this example"
        )
    before, after = " ".join(words[:index]), " ".join(words[index + 1 :])
    return f"{before} X {after}".replace(" X ", f" *{pronoun}* ")


def mark_first(sentence: str, pronoun: str) -> str:
    """The sentence with the pronoun, where it first is a whole word behind another, as `*pronoun*`."""
    return re.sub(rf" ({re.escape(pronoun)})([ .,])", r" *\1*\2", sentence, count=1)


def substituted(premise: str, hypothesis: str) -> tuple[str, str]:
    """The premise with the pronoun marked that the hypothesis replaces, and the words that replace it.

    The hypothesis is taken as a piece of the premise with other words in place of a pronoun; of all pronouns
    the one counts with most words in common round it. Without any the premise stays and the referent is empty.
    """
    places = [*re.finditer(r"\S+", premise)]
    words, said = [_plain(place[0]) for place in places], hypothesis.split()
    plain_said = [_plain(word) for word in said]
    # Words in common; the pronoun's index, negative so that the first wins; words before and after the referent.
    best = (0, 0, 0, 0)
    for index, word in enumerate(words):
        if word in PRONOUNS:
            before = _overlap(words[:index], plain_said)
            after = _overlap(words[:index:-1], plain_said[::-1])
            # Words before the pronoun may be the referent itself, so that they may count as none in common.
            for start in (before, 0):
                if start + after < len(said):
                    best = max(best, (start + after, -index, start, after))
    common, index, before, after = best
    if not common:
        return premise, ""
    place = places[-index]
    marked = re.sub(r"(\w+)(.*)", lambda m: f"*{m[1]}*" + (f" {m[2]}" if m[2] else ""), place[0], count=1)
    referent = " ".join(said[before : len(said) - after]).rstrip(string.punctuation).removesuffix("'s")
    return premise[: place.start()] + marked + premise[place.end() :], referent


def _overlap(context: list[str], said: list[str]) -> int:
    """How many of the first words of `said` are the last of `context`."""
    sizes = range(min(len(context), len(said)), 0, -1)
    return next((size for size in sizes if context[-size:] == said[:size]), 0)


def _plain(word: str) -> str:
    return word.lower().strip(string.punctuation)


def _python(function: Callable[..., str], *values: tf.Tensor) -> tf.Tensor:
    """A text that a Python function makes of texts and numbers."""

    def call(*arguments: object) -> bytes:
        plain = [value.decode() if isinstance(value, bytes) else value for value in arguments]
        return function(*plain).encode()

    return tf.ensure_shape(tf.numpy_function(call, list(values), tf.string), [])
