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
ARTICLES = ("a", "an", "the", "each")
# Two texts in which the number of the pronoun's word is wrong, and what T5 makes of them.
_MISPLACED = {
    "The boy continued to whip the pony , and eventually the pony threw him over. John laughed out quite loud. "
    '"Good for him," he said. ': ('him," he said. ', '*{}* ," he said.'),
    "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the magic pebble in an iron "
    "safe . Some day they might want to use it , but really for now, what more could they wish for?": (
        "to use it ,",
        "to use *{}* ,",
    ),
}


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
    if text in _MISPLACED:
        plain, marked = _MISPLACED[text]
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

    Of all pronouns that one counts which has most words of the hypothesis directly before and behind it, of equals
    the first. Without any such word the referent is empty.

    Raises:
      TaskError: the premise has no pronoun.
    """
    places = [*re.finditer(r"\S+", premise)]
    words, said = [_plain(place[0]) for place in places], hypothesis.split()
    plain_said = [_plain(word) for word in said]
    found = [
        (index, *_context(words[:index], words[index + 1 :], plain_said))
        for index, word in enumerate(words)
        if word in PRONOUNS
    ]
    if not found:
        raise TaskError(
            f"WNLI: {premise!r} has no pronoun of {', '.join(PRONOUNS)}: correct or remove the example"
        )
    index, _, between = max(found, key=lambda pronoun: pronoun[1])
    place = places[index]
    marked = re.sub(r"(\w+)(.*)", lambda m: f"*{m[1]}*" + (f" {m[2]}" if m[2] else ""), place[0], count=1)
    return premise[: place.start()] + marked + premise[place.end() :], _referent(said[between], hypothesis)


def _context(before: list[str], after: list[str], said: list[str]) -> tuple[int, slice]:
    """How many words directly before and behind a pronoun are said, and where words stand in its place.

    These stand between the longest run of words before it and the longest behind it, wherever those are said; where
    nothing does, in front of the words behind it, or else behind those before it.
    """
    sizes = range(len(said), 0, -1)
    first = next(
        ((size, at) for size in sizes if (at := _find(before[-size:], said, size)) is not None), None
    )
    last = next(((size, at) for size in sizes if (at := _find(after[:size], said, size)) is not None), None)
    start = 0 if first is None else first[0] + first[1]
    stop = len(said) if last is None else last[1]
    common = sum(run[0] for run in (first, last) if run is not None)
    places = [
        slice(start, stop) if first and last else None,
        slice(0, stop) if last else None,
        slice(start, len(said)) if first else None,
    ]
    return common, next((place for place in places if place and place.start < place.stop), slice(0, 0))


def _find(run: list[str], said: list[str], size: int) -> int | None:
    """Where `size` words first stand in `said`; None where they do not, or are fewer."""
    if len(run) < size:
        return None
    return next((at for at in range(len(said) - size + 1) if said[at : at + size] == run), None)


def _referent(words: list[str], hypothesis: str) -> str:
    """Words of a hypothesis from an article on, the last of those that are there, as it first spells them."""
    lower = [word.lower() for word in words]
    start = max((lower.index(article) for article in ARTICLES if article in lower), default=0)
    text = " ".join(words[start:]).rstrip(string.punctuation)
    at = max(0, hypothesis.lower().find(text.lower()))
    return hypothesis[at : at + len(text)].removesuffix("'s")


def _plain(word: str) -> str:
    word = word.lower()
    return word[:-1] if word.endswith((".", ",", "?", "!")) else word


def _python(function: Callable[..., str], *values: tf.Tensor) -> tf.Tensor:
    """A text that a Python function makes of texts and numbers."""

    def call(*arguments: object) -> bytes:
        plain = [value.decode() if isinstance(value, bytes) else value for value in arguments]
        return function(*plain).encode()

    return tf.ensure_shape(tf.numpy_function(call, list(values), tf.string), [])
