"""Supervised text-to-text tasks that plain text gives by itself: which sentence follows, and is one well put."""

from __future__ import annotations

import collections
import pathlib
import random
import re
import zlib
from collections.abc import Iterator, Sequence

from tasks.micro.world import Pair
from tasks.sources.text_files import read_paragraphs

_ONE_PARAGRAPH_IN = 4
_BOUNDARY = re.compile(r"(?<=[.!?]) (?=[A-Z])")
_WHOLE = re.compile(r"[A-Z][^|]*[a-z0-9][.!?]")
_GAP = re.compile(r" [,.;:)]|[(,] ?[,).]|  ")  # what Wikinews's text has where a link was
_WORDS = range(5, 31)
_FEW_WORDS = 10  # as many as put in order
_REMEMBERED = 32


def sentence_pairs(files: Sequence[pathlib.Path], split: str) -> Iterator[Pair]:
    """A pair from each of one paragraph in four that has two whole sentences side by side.

    What is random depends on the split and the text before alone.
    """
    draw = random.Random(split)
    before: collections.deque[str] = collections.deque(maxlen=_REMEMBERED)  # sentences of other paragraphs
    for paragraph in read_paragraphs(files, split):
        if zlib.crc32(b"sentences" + paragraph) % _ONE_PARAGRAPH_IN:
            continue
        sentences = _BOUNDARY.split(paragraph.decode())
        places = [i for i in range(len(sentences) - 1) if all(map(_is_whole, sentences[i : i + 2]))]
        if not places:
            continue
        i = draw.choice(places)
        if before:
            yield _pair(draw, sentences[i], sentences[i + 1], draw.choice(before))
        before.append(sentences[i])


def _pair(draw: random.Random, sentence: str, following: str, other: str) -> Pair:
    """One of four tasks; `other` does not follow."""
    yes = draw.random() < 0.5
    answer, (one, two) = "yes" if yes else "no", (following, other) if yes else (other, following)
    words = sentence.split()
    if len(words) <= _FEW_WORDS and draw.random() < 0.5:
        return f"put in order: {' '.join(draw.sample(words, len(words)))}", sentence
    kind = draw.randrange(3)
    if kind == 0:
        return f"does it follow? sentence1: {sentence} sentence2: {one}", answer
    if kind == 1:
        choice = "choice1" if yes else "choice2"
        return f"which follows? sentence: {sentence} choice1: {one} choice2: {two}", choice
    return f"is it well put? {sentence if yes else spoilt(draw, sentence, other)}", answer


def spoilt(draw: random.Random, sentence: str, other: str) -> str:
    """The sentence with a word moved, left out, or put in from another sentence; never the same."""
    words = sentence.split()
    while True:
        changed, i = (
            list(words),
            draw.randrange(1, len(words) - 1),
        )  # the first and the last would tell by their form
        kind = draw.randrange(3)
        word = changed.pop(i) if kind < 2 else draw.choice(other.split()[1:-1])
        if kind != 1:
            changed.insert(draw.randrange(1, len(changed)), word)
        if changed != words:
            return " ".join(changed)


def _is_whole(sentence: str) -> bool:
    return len(sentence.split()) in _WORDS and bool(_WHOLE.fullmatch(sentence)) and not _GAP.search(sentence)
