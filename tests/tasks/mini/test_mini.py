"""The mini model's data: files by checksum, questions on few sentences, tasks that text gives by itself."""

from __future__ import annotations

import collections
import hashlib
import json
import lzma
import pathlib
import random
import re

import pytest
import seqio

import tasks.registry  # noqa: F401
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.models.sizes import size
from tasks.errors import TaskError
from tasks.mini import mini_tasks, sentences
from tasks.sources.checksums import checked_files

SUBJECTS = "Anna Bob Carol Dan Eve Frank Grace Henry".split()
VERBS = "sold painted carried found lost washed opened broke".split()
OBJECTS = "lamp chair table window basket ladder kettle bottle".split()


def _paragraph(draw: random.Random) -> str:
    made = [
        f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} the old {draw.choice(OBJECTS)} number {draw.randrange(10**6)}."
        for _ in range(3)
    ]
    return " ".join(made)


def _sign(folder: pathlib.Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    sums = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder)}\n" for file in files
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))


@pytest.fixture
def data_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """Every kind of file, a few examples each."""
    draw = random.Random(0)
    question = {"id": "q", "question": "Who sold it?", "answers": [{"text": "Bob", "answer_start": 0}]}
    article = {"title": "t", "paragraphs": [{"context": "Bob sold the lamp.", "qas": [question]}]}
    rows = {
        str(i): {"text_a": f"It is {i}.", "text_b": "It is a number.", "label": label}
        for i, label in enumerate(mini_tasks.NLI_LABELS)
    }
    contents = {
        "corpus/books-0.txt": "\n".join(_paragraph(draw) for _ in range(2000)).encode(),
        "corpus/news.txt.xz": lzma.compress("\n".join(_paragraph(draw) for _ in range(2000)).encode()),
        "squad_v1.1/train-v1.1.json": json.dumps({"data": [article]}).encode(),
        "squad_v1.1/dev-v1.1.json": json.dumps({"data": [article]}).encode(),
    }
    for task in ("SNLI", "MNLI"):
        for part in ("train", "dev"):
            contents[f"glue_10k_subsets/{task}/{part}.json"] = json.dumps(rows).encode()
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    _sign(tmp_path)
    return tmp_path


def _examples(task: str, data_dir: pathlib.Path, split: str = "train") -> list[dict[str, str]]:
    source = seqio.TaskRegistry.get(task).source.at(data_dir)
    return [
        {name: value.decode() for name, value in example.items()}
        for example in source.get_dataset(split).as_numpy_iterator()
    ]


def test_books_and_articles_are_the_corpus(data_dir):
    books, articles = (
        {example["text"] for example in _examples(f"mini_span_corruption_{kind}", data_dir)}
        for kind in ("books", "articles")
    )
    assert books and articles and not books & articles
    assert books < set((data_dir / "corpus/books-0.txt").read_text().splitlines())


def test_a_corpus_without_books_is_refused(data_dir):
    (data_dir / "corpus/books-0.txt").unlink()
    _sign(data_dir)
    with pytest.raises(TaskError, match="names no file of corpus/ whose name begins with books"):
        _examples("mini_span_corruption_books", data_dir)


@pytest.mark.parametrize("task", ["mini_span_corruption_articles", "mini_sentences"])
@pytest.mark.parametrize("harm, message", [("missing", "is missing"), ("changed", "is not the file that")])
def test_a_missing_or_changed_file_is_named(data_dir, task, harm, message):
    file = data_dir / "corpus/news.txt.xz"
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(lzma.compress(b"Another text."))
    with pytest.raises(TaskError, match=f"news.txt.xz {message}"):
        seqio.TaskRegistry.get(task).source.at(data_dir).get_dataset("train")


@pytest.mark.parametrize(
    "sums, message",
    [(None, "SHA256SUMS cannot be read"), ("", "names no file of corpus/"), (b"\xff", "not UTF-8")],
)
def test_sums_that_cannot_serve(tmp_path, sums, message):
    if sums is not None:
        (tmp_path / "SHA256SUMS").write_bytes(sums if isinstance(sums, bytes) else sums.encode())
    with pytest.raises(TaskError, match=message):
        checked_files(tmp_path, "corpus")


def test_without_data_dir_it_is_asked_for():
    for task in ("mini_span_corruption_books", "mini_squad", "mini_sentences"):
        with pytest.raises(TaskError, match="set DATA_DIR"):
            seqio.TaskRegistry.get(task).source.files("train")


def test_sums_as_every_sha256sum_writes_them(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b c.txt").write_text("x")
    (tmp_path / "ab").write_text("of no folder that is asked for")
    sha256 = hashlib.sha256(b"x").hexdigest()
    for form in (f"{sha256}  a/b c.txt\n", f"{sha256} *./a/b c.txt\n\n"):
        (tmp_path / "SHA256SUMS").write_text(form + f"{sha256}  ab\n")
        assert checked_files(tmp_path, "a") == [tmp_path / "a/b c.txt"]


def test_inference_in_t5s_form(data_dir):
    for task in ("snli", "mnli"):
        rows = _examples(f"mini_{task}", data_dir)
        assert rows[1] == {
            "inputs": f"{task} hypothesis: It is a number. premise: It is 1.",
            "targets": "neutral",
        }
        assert (
            _examples(f"mini_{task}", data_dir, "validation[:1]+train[2:]")[1]["targets"] == "contradiction"
        )


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{", "malformed JSON"),
        (b"[]", "one JSON object of rows is expected, not list"),
        (
            b'{"7": {"text_a": "a", "text_b": "b", "label": "maybe"}}',
            "entry '7': a row with one of the labels",
        ),
        (
            b'{"7": {"text_a": "a", "text_b": 3, "label": "neutral"}}',
            "entry '7': field 'text_b' must be text",
        ),
        (b"{}", "the split holds no examples"),
    ],
)
def test_bad_inference_files(data_dir, content, message):
    (data_dir / "glue_10k_subsets/SNLI/train.json").write_bytes(content)
    _sign(data_dir)
    with pytest.raises(TaskError, match=message):
        _examples("mini_snli", data_dir)


def test_a_split_without_its_file(data_dir):
    (data_dir / "squad_v1.1/dev-v1.1.json").unlink()
    _sign(data_dir)
    assert len(_examples("mini_squad", data_dir)) == 1
    with pytest.raises(TaskError, match=r"names no squad_v1.1/dev\*"):
        _examples("mini_squad", data_dir, "validation")


def test_squad(data_dir):
    for split in ("train", "validation"):
        assert _examples("mini_squad", data_dir, split) == [
            {"inputs": "question: Who sold it? context: Bob sold the lamp.", "targets": "Bob"}
        ]


CONTEXT = 'One came first. Two is second, of 2.5 words. "Three" was third. Four.'


@pytest.mark.parametrize(
    "answer, characters, expected",
    [
        ("second", len(CONTEXT), CONTEXT),
        ("second", len(CONTEXT) - 1, CONTEXT.removesuffix(" Four.")),
        ("second", 40, "Two is second, of 2.5 words."),
        ("Four", 30, '"Three" was third. Four.'),
        ("first. Two", 44, "One came first. Two is second, of 2.5 words."),
        ("first. Two", 43, None),
        ("absent", 100, None),
    ],
)
def test_sentences_round_an_answer(answer, characters, expected):
    assert mini_tasks.sentences_around(CONTEXT, answer, characters) == expected


def test_sentence_tasks_have_the_answers_that_the_text_gives(data_dir):
    follows = {}
    for name, opened in (("books-0.txt", open), ("news.txt.xz", lzma.open)):
        with opened(data_dir / "corpus" / name, "rt") as lines:
            for line in lines:
                one, two, three = re.split(r"(?<=\.) ", line.strip())
                follows |= {one: two, two: three}
    made = _examples("mini_sentences", data_dir)
    assert made == _examples("mini_sentences", data_dir)
    assert not {row["inputs"] for row in made} & {
        row["inputs"] for row in _examples("mini_sentences", data_dir, "validation")
    }
    answers = collections.Counter()
    for row in made:
        inputs, answer = row["inputs"], row["targets"]
        kind = inputs.partition(" ")[0]
        if match := re.fullmatch(r"put in order: (.*)", inputs):
            assert answer in follows and sorted(answer.split()) == sorted(match[1].split())
            continue
        answers[kind, answer] += 1
        if match := re.fullmatch(r"does it follow\? sentence1: (.*) sentence2: (.*)", inputs):
            assert (answer == "yes") == (follows[match[1]] == match[2])
        elif match := re.fullmatch(r"which follows\? sentence: (.*) choice1: (.*) choice2: (.*)", inputs):
            right, wrong = (match[2], match[3]) if answer == "choice1" else (match[3], match[2])
            assert follows[match[1]] == right != wrong
        else:
            sentence = re.fullmatch(r"is it well put\? (.*)", inputs)[1]
            assert (answer == "yes") == (sentence in follows)
    assert answers.keys() == {
        *(("does", answer) for answer in ("yes", "no")),
        *(("is", answer) for answer in ("yes", "no")),
        *(("which", answer) for answer in ("choice1", "choice2")),
    }
    assert min(answers.values()) > 0.6 * max(answers.values())


def test_a_spoilt_sentence_is_another_with_its_first_and_last_word():
    draw, sentence = random.Random(0), "Bob and Bob and Bob and Bob sold it."
    for _ in range(200):
        words = sentences.spoilt(draw, sentence, "Anna did not see the lamp.").split()
        assert words != sentence.split()
        assert (words[0], words[-1]) == ("Bob", "it.")
        assert abs(len(words) - 9) <= 1


def test_sentences_that_are_not_whole_are_left_out(tmp_path):
    file = tmp_path / "a.txt"
    bad = (
        "lower case begins here and ends.",
        "It was, , a place of gaps.",
        "Too short.",
        "It does not end here,",
    )
    good = [f"This is whole sentence number {i}. And this is what comes after {i}." for i in range(400)]
    text = [f"{good[i].split('. ')[0]}. {bad[i % len(bad)]}" for i in range(400)]
    file.write_text("\n".join(text))
    assert list(sentences.sentence_pairs([file], "train")) == []
    file.write_text("\n".join(good))
    assert len(list(sentences.sentence_pairs([file], "train"))) > 50


@pytest.mark.parametrize("name", ["mini_span_corruption", "mini_lm_adaptation"])
def test_mixtures(name):
    mixture = seqio.MixtureRegistry.get(name)
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    text = {task: rate for task, rate in rates.items() if task.startswith(name)}
    assert text.keys() == {f"{name}_books", f"{name}_articles"}
    assert sum(text.values()) / sum(rates.values()) == pytest.approx(0.7)
    assert {task: rates[task] for task in rates.keys() - text.keys()} == mini_tasks.RATES
    compared = (
        "rte",
        "cb",
        "wic",
        "copa",
        "wsc",
        "boolq",
        "multirc",
        "sst",
        "mrpc",
        "cola",
        "stsb",
        "qnli",
        "mr",
    )
    assert not any(word in compared for task in rates for word in re.split(r"[_\d]+", task))


def test_the_vocabulary_fills_the_embedding():
    vocabulary = Vocabulary("asset:mini")
    assert vocabulary.size == size("mini").vocab_size
    assert vocabulary.extra_ids == 100
