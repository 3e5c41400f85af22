"""The small world: answers that follow from the text, and a quickstart that pre-training has not seen."""

from __future__ import annotations

import collections
import itertools
import random
import re

import numpy as np
import pytest
import seqio

import tasks.registry  # noqa: F401
from jax_prompts.data.vocabularies.sentencepiece import EOS_ID, Vocabulary
from tasks.errors import TaskError
from tasks.micro import micro_tasks, reviews, world

SAMPLE = 400
Pairs = list[tuple[str, str]]


def _examples(task: str, split: str) -> Pairs:
    # Straight from the generator: TensorFlow would hand over the 300,000 rows in minutes instead of seconds.
    rows = seqio.TaskRegistry.get(task).source._generate(split)
    return [(row["inputs"], row["targets"]) for row in rows]


def _sample(kind, count: int = SAMPLE) -> Pairs:
    draw = random.Random(kind.__name__)
    return [kind(draw) for _ in range(count)]


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!]) ", text)


def _pattern(template: str) -> re.Pattern[str]:
    """Reads a sentence made from a template: the word and the thing come back as groups."""
    for name, words in {
        "word": reviews.GOOD + reviews.BAD,
        "thing": reviews.THINGS,
        "name": world.NAMES,
        "place": world.PLACES,
    }.items():
        first, again = f"(?P<{name}>{'|'.join(words)})", f"(?P={name})"
        template = template.replace("{" + name + "}", first, 1).replace("{" + name + "}", again)
    return re.compile(re.sub(r"\ba (?=\()", "an? ", template).replace(".", r"\."))


PATTERNS = {template: _pattern(template) for template in reviews.ALL_TEMPLATES}


def _parse(sentence: str) -> tuple[str, str, bool]:
    """(template, word, whether it praises) of a sentence, read off its text alone."""
    found = [(template, match) for template, p in PATTERNS.items() if (match := p.fullmatch(sentence))]
    assert len(found) == 1, sentence
    template, match = found[0]
    negated = template in reviews.NEGATED
    return template, match["word"], (match["word"] in reviews.GOOD) != negated


def _praises(text: str) -> bool:
    verdicts = {_parse(sentence)[2] for sentence in _sentences(text)}
    assert len(verdicts) == 1, text
    return verdicts.pop()


@pytest.fixture(scope="module")
def quickstart() -> dict[str, Pairs]:
    return {split: _examples("quickstart_reviews", split) for split in ("train", "validation")}


@pytest.fixture(scope="module")
def pretraining() -> Pairs:
    """Everything that the supervised part of pre-training can show, both of its splits."""
    splits = itertools.product(("micro_world", "micro_reviews"), micro_tasks.WORLD_SIZES)
    return [pair for task, split in splits for pair in _examples(task, split)]


@pytest.fixture(scope="module")
def micro_vocabulary() -> Vocabulary:
    return Vocabulary("asset:micro")


@pytest.mark.parametrize("task", ["micro_world", "micro_reviews", "quickstart_reviews"])
def test_generated_text_is_always_the_same_and_differs_between_splits(task):
    source = seqio.TaskRegistry.get(task).source
    train, again, validation = (
        list(itertools.islice(source._generate(split), 100)) for split in ("train", "train", "validation")
    )
    assert train == again
    assert train != validation


@pytest.mark.parametrize("split, count", [("train", 2000), ("validation", 400)])
def test_quickstart_is_balanced_distinct_and_labelled_as_the_words_say(quickstart, split, count):
    rows = quickstart[split]
    assert collections.Counter(label for _, label in rows) == {"positive": count // 2, "negative": count // 2}
    assert len({text for text, _ in rows}) == count
    for text, label in rows:
        assert ("positive" if _praises(text) else "negative") == label


def test_quickstart_validation_shares_nothing_with_training(quickstart):
    sentences, combinations = {}, {}
    for split, rows in quickstart.items():
        sentences[split] = {sentence for text, _ in rows for sentence in _sentences(text)}
        combinations[split] = {_parse(sentence)[:2] for sentence in sentences[split]}
    assert not combinations["train"] & combinations["validation"]
    text = "\n".join(sentences["train"])  # a sentence inside a longer one counts, too
    assert [sentence for sentence in sentences["validation"] if sentence in text] == []
    templates, words = map(set, zip(*combinations["train"], strict=True))
    assert templates == set(reviews.ALL_TEMPLATES)
    assert words == {*reviews.GOOD, *reviews.BAD}


@pytest.mark.slow
def test_pretraining_never_shows_a_validation_sentence(quickstart, pretraining):
    text = "\n".join(f"{inputs}\n{targets}" for inputs, targets in pretraining)
    sentences = {sentence for review, _ in quickstart["validation"] for sentence in _sentences(review)}
    assert len(sentences) >= 400
    assert [sentence for sentence in sentences if sentence in text] == []


def test_pretraining_never_gives_a_review_the_quickstart_labels(pretraining):
    for inputs, targets in pretraining:
        if {"positive", "negative"} & {targets, *re.findall(r"\w+", inputs)}:
            assert re.match(r"(sign|opposite|repeat|backwards): ", inputs), inputs


def test_the_sets_of_combinations_are_disjoint_and_each_is_complete():
    parts = {
        part: {pair for praise in (True, False) for pair in reviews.combinations(part, praise)}
        for part in ("pretraining", "train", "validation")
    }
    for one, other in itertools.combinations(parts.values(), 2):
        assert not one & other
    for part, pairs in parts.items():
        templates, words = map(set, zip(*pairs, strict=True))
        assert set(reviews.ALL_TEMPLATES) - templates == ({reviews.BARE} if part == "validation" else set())
        assert words == {*reviews.GOOD, *reviews.BAD}


def test_every_polar_word_can_be_learned_from_continuations():
    seen = collections.Counter[str]()
    for text, said_next in _sample(reviews.continue_review, 20_000):
        assert (said_next in reviews.RETURN) == _praises(text)
        assert said_next in reviews.RETURN + reviews.LEAVE
        seen.update(_parse(sentence)[1] for sentence in _sentences(text))
    assert min(seen[word] for word in (*reviews.GOOD, *reviews.BAD)) >= 100


def test_questions_on_reviews():
    for inputs, answer in _sample(reviews.ask_about_review):
        question, _, text = re.fullmatch(r"([a-z ]+([?:])) (.*)", inputs).groups()
        things = {m["thing"] for s in _sentences(text) for p in PATTERNS.values() if (m := p.fullmatch(s))}
        if question == "will they return?":
            assert answer == ("yes" if _praises(text) else "no")
        elif question == "what is it about?":
            assert {answer.removeprefix("the ")} == things
        elif question == "do they agree?":
            one, other = text.split(" / ")
            assert answer == ("yes" if _praises(one) == _praises(other) else "no")
        elif question == "does it fit?":
            *said, closing = _sentences(text)
            assert answer == ("yes" if _praises(" ".join(said)) == (closing in reviews.RETURN) else "no")
        else:
            verb = "liked" if _praises(text) else "disliked"
            assert (question, answer) == ("say it shortly:", f"they {verb} the {things.pop()}.")


def test_where_who_what():
    for inputs, answer in _sample(world.answer_where):
        question, context = re.fullmatch(r"question: (.*\?) context: (.*)", inputs).groups()
        facts = re.findall(r"(\w+) put the (\w+) (\w+) in the (\w+)\.", context)
        answers = {}
        for name, colour, thing, place in facts:
            answers[f"where is the {thing}?"] = f"the {place}"
            answers[f"who put the {thing} in the {place}?"] = name
            answers[f"what colour is the {thing}?"] = colour
            answers[f"what did {name} put in the {place}?"] = f"the {thing}"
            answers[f"what is in the {place}?"] = f"the {colour} {thing}"
        assert len(answers) == 15  # no question has two answers
        assert answers[question] == answer


def test_statements():
    for inputs, answer in _sample(world.judge_statement):
        statement, context = re.fullmatch(r"is it so\? (.*?\.) context: (.*)", inputs).groups()
        facts = re.findall(r"(\w+) has the (\w+) in the (\w+)\.", context)
        true = {f"{name} has the {thing}." for name, thing, _ in facts}
        true |= {f"the {thing} is in the {place}." for _, thing, place in facts}
        assert answer == ("yes" if statement in true else "no")


def test_words():
    for inputs, answer in _sample(world.arrange_words):
        task, text = inputs.split(": ")
        words = text.split()
        assert (
            answer
            == {
                "repeat": text,
                "backwards": " ".join(reversed(words)),
                "first word": words[0],
                "last word": words[-1],
                "how many words": world.NUMBERS[len(words) - 1],
            }[task]
        )


def test_topics_and_odd_words():
    for inputs, topic in _sample(world.name_topic):
        words = set(re.findall(r"\w+", inputs))
        shared = {name: len(words & set(of_topic)) for name, of_topic in world.TOPICS.items()}
        assert shared[topic] >= 2
    for inputs, odd in _sample(world.odd_one_out):
        words = inputs.removeprefix("odd one out: ").split(", ")
        rest = set(words) - {odd}
        assert len(words) == 4 and len(rest) == 3
        assert any(rest <= set(topic) and odd not in topic for topic in world.TOPICS.values())


def test_opposites_signs_and_moods():
    pairs = {*world.OPPOSITE_PAIRS, *((b, a) for a, b in world.OPPOSITE_PAIRS)}
    for inputs, answer in _sample(world.opposite):
        assert (inputs.removeprefix("opposite: "), answer) in pairs
    for inputs, answer in _sample(world.sign_of_number):
        assert answer == ("negative" if "-" in inputs else "positive")
    events = {True: world.HAPPY, False: world.SAD}
    slots = {"place": f"({'|'.join(world.PLACES)})", "object": f"({'|'.join(world.OBJECTS)})"}
    for inputs, answer in _sample(world.mood_of_person):
        name, text = re.fullmatch(r"how does (\w+) feel\? (.*)", inputs).groups()
        (event,) = re.findall(rf"\b{name} ([^.]*)\.", text)
        kinds = [
            happy for happy, all_ in events.items() for e in all_ if re.fullmatch(e.format(**slots), event)
        ]
        assert kinds == [answer == "happy"]


def test_vocabulary_of_micro(micro_vocabulary, quickstart):
    assert micro_vocabulary.size == 4096
    assert micro_vocabulary.extra_ids == 100
    assert (micro_vocabulary.pad_id, micro_vocabulary.eos_id, micro_vocabulary.unk_id) == (0, 1, 2)
    assert micro_vocabulary.encode("<extra_id_0> <extra_id_99>") == [4095, 3996]
    for word in "positive negative good bad yes no true false happy sad".split():
        assert len(micro_vocabulary.encode(word)) == 1, word
    pieces = [len(micro_vocabulary.encode(word)) for word in (*reviews.GOOD, *reviews.BAD)]
    assert (
        np.mean(np.array(pieces) == 1) > 2 / 3
    )  # the last twenty of either list joined after the vocabulary
    kinds = (*world.GENERAL, reviews.continue_review, reviews.ask_about_review)
    for kind in kinds:
        for text in itertools.chain(*_sample(kind, 50)):
            ids = micro_vocabulary.encode(text)
            assert micro_vocabulary.unk_id not in ids
            assert micro_vocabulary.decode(ids) == text
    assert max(len(micro_vocabulary.encode(text)) for text, _ in quickstart["validation"]) < 48


def test_tasks_through_seqio(micro_vocabulary, tmp_path):
    path = tmp_path / "vocabulary.model"
    path.write_bytes(micro_vocabulary.model_bytes)
    feature = seqio.Feature(seqio.SentencePieceVocabulary(str(path), extra_ids=100), add_eos=True)
    task = seqio.TaskRegistry.get("quickstart_reviews")
    task = task.replace(output_features=dict.fromkeys(("inputs", "targets"), feature))
    rows = list(
        task.get_dataset(
            {"inputs": 48, "targets": 4}, split="validation[:8]", shuffle=False
        ).as_numpy_iterator()
    )
    assert len(rows) == task.num_input_examples("validation[:8]") == 8
    expected = _examples("quickstart_reviews", "validation")[:8]
    for row, (text, label) in zip(rows, expected, strict=True):
        assert row["inputs"][-1] == row["targets"][-1] == EOS_ID
        assert (micro_vocabulary.decode(row["inputs"]), micro_vocabulary.decode(row["targets"])) == (
            text,
            label,
        )
        assert task.postprocess_fn(label) == ["negative", "positive"].index(label)
    assert task.source.at("anywhere") is task.source
    assert task.source.files("train") == []
    with pytest.raises(TaskError, match="validation"):
        task.num_input_examples("validatoin")


@pytest.mark.parametrize(
    "name, objective", [("micro_span_corruption", "span_corruption"), ("micro_lm_adaptation", "prefix_lm")]
)
def test_mixtures_are_half_plain_text(name, objective):
    mixture = seqio.MixtureRegistry.get(name)
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert rates.keys() == {objective, "micro_world", "micro_reviews"}
    assert rates[objective] / sum(rates.values()) == 0.5
