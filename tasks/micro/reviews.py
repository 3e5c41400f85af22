"""Reviews: sentences of praise and blame, made from templates and words.

A sentence is a template, a word of praise or blame, and a thing. The (template, word) combinations fall into
three disjoint sets, so that no sentence of one can occur in another: `pretraining`, which the `micro` model
reads, and the `train` and `validation` parts of the quickstart. Every word is in all three, and every template
but one: `validation` has no BARE sentences, since sentences of other templates end in them ("everyone said the
soup was fresh.", "the soup at the garden was fresh.").
"""

from __future__ import annotations

import dataclasses
import functools
import random
import re

from tasks.micro.world import NAMES, PLACES, Pair

GOOD = (
    "good great excellent wonderful lovely delightful superb splendid fantastic brilliant charming perfect pleasant "
    "beautiful amazing impressive enjoyable outstanding remarkable marvellous terrific fine admirable magnificent "
    "refreshing satisfying memorable elegant exciting inspiring glorious graceful cheerful friendly generous clever "
    "fresh comfortable reliable worthy funny moving fascinating engaging entertaining powerful touching honest smart "
    "warm sweet lively thrilling hilarious magical compelling original sincere tender joyful"
).split()
BAD = (
    "bad terrible awful horrible dreadful disappointing poor nasty boring dull disgusting miserable unpleasant ugly "
    "shocking annoying tedious mediocre worthless pathetic appalling useless lousy atrocious stale bland filthy "
    "rotten painful depressing dismal clumsy gloomy rude greedy stupid broken uncomfortable unreliable shameful silly "
    "awkward lame weak slow cold shallow predictable pointless hollow messy foolish sloppy tiresome lifeless "
    "ridiculous cheap dirty confusing false"
).split()
THINGS = (
    "soup cake coffee bread fish dinner wine meal service waiter room bed film book song play concert show story "
    "actor singer music hotel tour painting garden phone car lamp jacket"
).split()

BARE = "the {thing} was {word}."
TEMPLATES = (
    BARE,
    "i found the {thing} {word}.",
    "what a {word} {thing}!",
    "we thought the {thing} was really {word}.",
    "a {word} {thing} from beginning to end.",
    "everyone said the {thing} was {word}.",
    "the {thing} at the {place} was {word}.",
    "{name} and i had a {word} {thing}.",
    "it was a {word} {thing} in every way.",
    "to be honest, the {thing} was quite {word}.",
    "this was the most {word} {thing} of the year.",
    "once again the {thing} turned out {word}.",
    "{name} called the {thing} {word}, and so do i.",
    "they gave us a truly {word} {thing}.",
    "for that price the {thing} was {word}.",
    "the {thing} looked {word} and it was {word}.",
    "such a {word} {thing} is rare.",
    "my {thing} was {word} today.",
    "the {thing} was more {word} than i expected.",
    "rather {word}, this {thing}.",
)
NEGATED = ("the {thing} was not {word} at all.", "nobody would call this {thing} {word}.")
ALL_TEMPLATES = TEMPLATES + NEGATED

RETURN = (
    "i will come again soon.", "i would recommend it to all my friends.", "we want to go back tomorrow.",
    "it made my day.", "thank you so much for this.", "it was worth every penny.",
)  # fmt: skip
LEAVE = (
    "i will never come again.", "i would not recommend it to anyone.", "we want our money back.",
    "it ruined my day.", "i am going to complain about this.", "it was a waste of money.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Review:
    """One or two sentences of one mind, the thing they are about, and whether they praise it."""

    text: str
    thing: str
    praise: bool


@functools.cache
def combinations(part: str, praise: bool) -> list[tuple[str, str]]:
    """The (template, word) combinations of a set whose sentences praise, or blame."""
    found = []
    for t, template in enumerate(ALL_TEMPLATES):
        words = GOOD if praise != (template in NEGATED) else BAD
        if template == BARE and part == "validation":
            continue
        # Diagonals of the table template x word: 3 of 5 for pre-training, 1 of 5 for each part of the quickstart.
        found += [
            (template, word)
            for w, word in enumerate(words)
            if ("pretraining", "pretraining", "pretraining", "train", "validation")[(t + w) % 5] == part
        ]
    return found


def review(draw: random.Random, part: str) -> Review:
    """A review from the combinations of `part`."""
    praise, thing = draw.random() < 0.5, draw.choice(THINGS)
    sentences = [
        template.format(thing=thing, word=word, name=draw.choice(NAMES), place=draw.choice(PLACES))
        for template, word in draw.sample(combinations(part, praise), draw.choice((1, 1, 2)))
    ]
    text = re.sub(r"\b(a|A) (?=[aeiou])", r"\1n ", " ".join(sentences))
    return Review(text, thing, praise)


def continue_review(draw: random.Random) -> Pair:
    """A review and what its writer says next, as plain text without a task's name."""
    said = review(draw, "pretraining")
    return said.text, draw.choice(RETURN if said.praise else LEAVE)


def ask_about_review(draw: random.Random) -> Pair:
    """A question on a review (would its writer return, what is it about, do two agree), and the answer."""
    said = review(draw, "pretraining")
    kind = draw.randrange(5)
    if kind == 0:
        return f"will they return? {said.text}", "yes" if said.praise else "no"
    if kind == 1:
        return f"what is it about? {said.text}", f"the {said.thing}"
    if kind == 2:
        other = review(draw, "pretraining")
        return f"do they agree? {said.text} / {other.text}", "yes" if said.praise == other.praise else "no"
    if kind == 3:
        closing = draw.choice(RETURN + LEAVE)
        return f"does it fit? {said.text} {closing}", "yes" if (closing in RETURN) == said.praise else "no"
    feeling = "liked" if said.praise else "disliked"
    return f"say it shortly: {said.text}", f"they {feeling} the {said.thing}."


def quickstart(part: str, seed: int, count: int) -> list[dict[str, str]]:
    """The quickstart's examples: distinct reviews, half of each label, in a fixed order."""
    draw = random.Random(f"{seed} {part}")
    wanted = {"positive": count // 2, "negative": count - count // 2}
    rows: list[dict[str, str]] = []
    seen = set[str]()
    while len(rows) < count:
        said = review(draw, part)
        label = "positive" if said.praise else "negative"
        if said.text not in seen and wanted[label]:
            seen.add(said.text)
            wanted[label] -= 1
            rows.append({"inputs": said.text, "targets": label})
    return rows
