"""Text about a small world: people, things and places, and what is said about them.

All text of the `micro` tasks comes from here. Every generator is a pure function of a `random.Random`, and
every answer follows from the sentences that stand before it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Pair = tuple[str, str]  # inputs, targets

NAMES = (
    "anna ben clara david emma frank grace henry ida jack kate leo maria nina oscar paul rosa sam tina victor "
    "walter zoe alice bruno diana eric fiona george helen ivan"
).split()
PLACES = (
    "kitchen garden garage cellar attic office library station market school church harbour park hotel theatre "
    "museum bakery hospital forest village"
).split()
OBJECTS = (
    "book key lamp cup hat coat ball box letter bag knife bottle chair clock map ring shoe towel basket drum"
).split()
COLOURS = "red blue green yellow black white brown grey pink purple orange silver".split()
ANIMALS = "dog cat horse cow sheep goat fox wolf bear mouse bird duck".split()
NUMBERS = "one two three four five six seven eight nine ten".split()

TOPICS = {
    "food": "bread cheese soup rice butter apple cake salad sugar pepper onion potato".split(),
    "music": "piano guitar violin song choir melody drum trumpet singer concert opera rhythm".split(),
    "travel": "train ticket passport suitcase airport journey hotel map harbour road bridge tourist".split(),
    "weather": "rain snow wind storm cloud thunder sunshine fog ice frost breeze lightning".split(),
    "sport": "football tennis goal race team coach medal stadium swimmer referee player match".split(),
    "animals": ANIMALS,
}
TOPIC_FORMS = (
    "{name} spoke about {a} and {b} all evening.",
    "there was a long report on {a} and {b}.",
    "we read a story about {a}, {b} and {c}.",
    "in the {place} they talked of {a} and {b}.",
    "{name} knows a lot about {a} and a little about {b}.",
)

OPPOSITES = (
    "hot cold, big small, long short, old new, fast slow, high low, early late, open closed, full empty, hard soft, "
    "light dark, loud quiet, rich poor, strong weak, wet dry, wide narrow, thick thin, near far, up down, "
    "left right, day night, begin end, come go, buy sell, win lose, push pull, happy sad, good bad, correct wrong, "
    "clean dirty, safe dangerous, easy difficult, cheap expensive, first last, true false, yes no, positive negative, "
    "love hate, laugh cry, friend enemy, summer winter, north south, east west, always never, before after"
)
OPPOSITE_PAIRS = [tuple(pair.split()) for pair in OPPOSITES.split(", ")]

HAPPY = (
    "smiled and sang", "won the race", "got a lovely present", "danced in the {place}", "laughed with friends",
    "found the lost {object}", "received good news", "was praised by everyone",
)  # fmt: skip
SAD = (
    "cried all night", "lost the {object}", "broke an arm", "sat alone in the {place}", "missed the train",
    "received bad news", "was shouted at by everyone", "fell ill in the {place}",
)  # fmt: skip


def answer_where(draw: random.Random) -> Pair:
    """A question on three statements (where, who or what colour), and the answer."""
    names, objects = draw.sample(NAMES, 3), draw.sample(OBJECTS, 3)
    places, colours = draw.sample(PLACES, 3), draw.sample(COLOURS, 3)
    context = " ".join(
        f"{n} put the {c} {o} in the {p}." for n, c, o, p in zip(names, colours, objects, places, strict=True)
    )
    i = draw.randrange(3)
    question, answer = draw.choice(
        [
            (f"where is the {objects[i]}?", f"the {places[i]}"),
            (f"who put the {objects[i]} in the {places[i]}?", names[i]),
            (f"what colour is the {objects[i]}?", colours[i]),
            (f"what did {names[i]} put in the {places[i]}?", f"the {objects[i]}"),
            (f"what is in the {places[i]}?", f"the {colours[i]} {objects[i]}"),
        ]
    )
    return f"question: {question} context: {context}", answer


def judge_statement(draw: random.Random) -> Pair:
    """A statement with a context, and whether it follows."""
    names, objects, places = draw.sample(NAMES, 2), draw.sample(OBJECTS, 2), draw.sample(PLACES, 2)
    context = " ".join(f"{n} has the {o} in the {p}." for n, o, p in zip(names, objects, places, strict=True))
    i, j = draw.randrange(2), draw.randrange(2)
    statement = draw.choice(
        [(f"the {objects[i]} is in the {places[j]}."), (f"{names[i]} has the {objects[j]}.")]
    )
    return f"is it so? {statement} context: {context}", "yes" if i == j else "no"


def arrange_words(draw: random.Random) -> Pair:
    """A few words to repeat, to reverse, to count, or to pick the first or last of, and the result."""
    words = draw.sample([*NAMES, *OBJECTS, *COLOURS, *PLACES, *ANIMALS], draw.randint(2, 6))
    text = " ".join(words)
    return draw.choice(
        [
            (f"repeat: {text}", text),
            (f"backwards: {text}", " ".join(reversed(words))),
            (f"first word: {text}", words[0]),
            (f"last word: {text}", words[-1]),
            (f"how many words: {text}", NUMBERS[len(words) - 1]),
        ]
    )


def name_topic(draw: random.Random) -> Pair:
    """A sentence, and what it is about."""
    topic = draw.choice(list(TOPICS))
    a, b, c = draw.sample(TOPICS[topic], 3)
    form = draw.choice(TOPIC_FORMS)
    sentence = form.format(name=draw.choice(NAMES), place=draw.choice(PLACES), a=a, b=b, c=c)
    return f"topic: {sentence}", topic


def odd_one_out(draw: random.Random) -> Pair:
    """Four words, and the one of another topic."""
    topic, other = draw.sample(list(TOPICS), 2)
    words = draw.sample([w for w in TOPICS[topic] if w not in TOPICS[other]], 3)
    odd = draw.choice([w for w in TOPICS[other] if w not in TOPICS[topic]])
    words.insert(draw.randrange(4), odd)
    return f"odd one out: {', '.join(words)}", odd


def opposite(draw: random.Random) -> Pair:
    """A word, and its opposite."""
    pair = draw.choice(OPPOSITE_PAIRS)
    i = draw.randrange(2)
    return f"opposite: {pair[i]}", pair[1 - i]


def sign_of_number(draw: random.Random) -> Pair:
    """A number, and whether it is above or below zero."""
    number = draw.randint(1, 999) * draw.choice([1, -1])
    wording = draw.choice(["{}", "the number {}", "{} degrees", "a balance of {}"])
    return f"sign: {wording.format(number)}", "positive" if number > 0 else "negative"


def mood_of_person(draw: random.Random) -> Pair:
    """What happened to two people, and whether one of them is happy or sad."""
    happy = draw.random() < 0.5
    name, other = draw.sample(NAMES, 2)
    events = [draw.choice(HAPPY if happy else SAD), draw.choice(SAD if happy else HAPPY)]
    who = [name, other]
    order = draw.sample([0, 1], 2)
    text = " ".join(
        f"{who[i]} {events[i].format(place=draw.choice(PLACES), object=draw.choice(OBJECTS))}." for i in order
    )
    return f"how does {name} feel? {text}", "happy" if happy else "sad"


GENERAL: tuple[Callable[[random.Random], Pair], ...] = (
    answer_where, judge_statement, arrange_words, name_topic, odd_one_out, opposite, sign_of_number, mood_of_person,
)  # fmt: skip
