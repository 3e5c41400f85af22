"""Official files with examples inside one another: what they become, and what is said of bad ones."""

from __future__ import annotations

import copy
import gzip
import json
import pathlib
from typing import Any

import pytest
import seqio

import tasks.registry  # noqa: F401
from tasks.errors import TaskError
from tasks.sources import nested
from tasks.sources.bad_lines import skipping

MULTIRC = {
    "idx": 3,
    "passage": {
        "text": "It rains.",
        "questions": [
            {"question": "What falls?", "idx": 5, "answers": [{"text": "rain", "idx": 8, "label": 1}]},
            {"question": "Where?", "idx": 6, "answers": [{"text": "up", "idx": 9}]},
        ],
    },
}
RECORD = {
    "idx": 2,
    "passage": {
        "text": "Bob met Ann and Bob.",
        "entities": [{"start": 8, "end": 10}, {"start": 0, "end": 2}, {"start": 16, "end": 18}],
    },
    "qas": [
        {
            "query": "@placeholder met",
            "idx": 7,
            "answers": [{"text": "Bob"}, {"text": "Ann"}, {"text": "Bob"}],
        }
    ],
}
SQUAD = {
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "It rains.",
                    "qas": [
                        {"id": "a", "question": "What?", "answers": [{"text": "rain", "answer_start": 3}]}
                    ],
                }
            ],
        }
    ]
}
MRQA = {"context": " It rains. ", "qas": [{"qid": "a", "question": " What? ", "answers": ["rain", "it"]}]}
HEADER = {"header": {"dataset": "NewsQA"}}


def _source(task: str, data: pathlib.Path) -> Any:
    return seqio.TaskRegistry.get(task).source.at(data)


def _write(path: pathlib.Path, *rows: Any) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join(json.dumps(row) for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _changed(document: dict, value: Any, *keys: str | int) -> dict:
    """The document with another value under these keys; without the last of them for `...`."""
    changed = copy.deepcopy(document)
    inner: Any = changed
    for key in keys[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return changed


def test_multirc_has_an_example_for_each_answer(tmp_path: pathlib.Path):
    _write(tmp_path / "superglue/MultiRC/train.jsonl", MULTIRC)
    rows = list(_source("super_glue_multirc_v102", tmp_path).get_dataset("train").as_numpy_iterator())
    assert [(row["answer"], row["label"]) for row in rows] == [(b"rain", 1), (b"up", -1)]
    assert rows[1]["idx"] == {"paragraph": 3, "question": 6, "answer": 9}


def test_record_sorts_entities_and_answers(tmp_path: pathlib.Path):
    other = _changed(RECORD, 8, "qas", 0, "idx")
    _write(tmp_path / "ReCoRD/train.jsonl", RECORD, _changed(other, ..., "qas", 0, "answers"))
    rows = list(_source("super_glue_record_v102", tmp_path).get_dataset("train").as_numpy_iterator())
    assert rows[0]["entities"].tolist() == [b"Ann", b"Bob"]
    assert [row["answers"].tolist() for row in rows] == [[b"Ann", b"Bob"], []]
    assert rows[0]["idx"] == {"passage": 2, "query": 7}


def test_squad_and_mrqa(tmp_path: pathlib.Path):
    _write(tmp_path / "squad_v1.1/dev-v1.1.json", SQUAD)
    (row,) = _source("squad_v010_allanswers", tmp_path).get_dataset("validation").as_numpy_iterator()
    assert (row["id"], row["context"], row["answers"]["text"].tolist()) == (b"a", b"It rains.", [b"rain"])
    for name in ("mrqa/dev/NewsQA.jsonl.gz", "mrqa/dev/NewsQA.jsonl", "mrqa/NewsQA.dev.jsonl"):
        path = _write(tmp_path / name, HEADER, MRQA)
        source = _source("mrqa_news_qa_v100_examples", tmp_path)
        assert source.files("validation") == [path]
        (row,) = source.get_dataset("validation").as_numpy_iterator()
        assert (row["context"], row["question"]) == (b"It rains.", b"What?")
        assert row["answers"].tolist() == [b"rain", b"it"]
        path.unlink()
    with pytest.raises(TaskError, match=r"neither .*mrqa/train/NewsQA\.jsonl\.gz nor .* exists"):
        source.files("train")


def test_other_domains_are_validated_on_the_test_split_of_tfds():
    task = seqio.TaskRegistry.get("mrqa_drop_v100_examples")
    assert task.source.splits == ("validation",)
    assert task.source._in_tfds("validation[:5]") == "test[:5]"
    assert seqio.TaskRegistry.get("mrqa_hotpot_qa_v100_examples").source.splits == ("train", "validation")


def test_real_mrqa_sample_without_header(shared: pathlib.Path, tmp_path: pathlib.Path):
    (tmp_path / "mrqa").mkdir()
    (tmp_path / "mrqa/NewsQA.dev.jsonl").write_bytes((shared / "data/mrqa/NewsQA_sample.jsonl").read_bytes())
    assert _source("mrqa_news_qa_v100_examples", tmp_path).num_input_examples("validation") == 17


def test_real_record_has_a_pair_for_each_answer(shared: pathlib.Path, tmp_path: pathlib.Path):
    (tmp_path / "ReCoRD").mkdir()
    (tmp_path / "ReCoRD/train.jsonl").write_bytes((shared / "data/fewglue/ReCoRD/train.jsonl").read_bytes())
    task = seqio.TaskRegistry.get("super_glue_record_v102")
    queries = list(task.source.at(tmp_path).get_dataset("train").as_numpy_iterator())
    pairs = list(task.preprocessors[0](task.source.at(tmp_path).get_dataset("train")).as_numpy_iterator())
    assert len(queries) == 32
    assert len(pairs) == sum(max(1, len(query["answers"])) for query in queries) > 32


@pytest.mark.parametrize(
    ("file", "task", "rows", "expected"),
    [
        (
            "MultiRC/train.jsonl",
            "super_glue_multirc_v102",
            [_changed(MULTIRC, 2, "passage", "questions", 1, "answers", 0, "label")],
            "line 1, passage.questions[1].answers[0]: label 2 is none of 0, 1; correct or remove the line",
        ),
        (
            "MultiRC/train.jsonl",
            "super_glue_multirc_v102",
            [_changed(MULTIRC, "x", "passage")],
            'line 1, passage: an object is expected, found "x"',
        ),
        (
            "MultiRC/train.jsonl",
            "super_glue_multirc_v102",
            [MULTIRC, MULTIRC],
            "line 2, passage.questions[0].answers[0]: the same number or name "
            '({"paragraph": 3, "question": 5, "answer": 8}) as line 1, passage.questions[0].answers[0]',
        ),
        (
            "ReCoRD/train.jsonl",
            "super_glue_record_v102",
            [_changed(RECORD, "0", "passage", "entities", 1, "start")],
            "line 1, passage.entities[1]: field 'start' must be a whole number",
        ),
        (
            "ReCoRD/train.jsonl",
            "super_glue_record_v102",
            [_changed(RECORD, ..., "qas")],
            "line 1: field 'qas' must be a list",
        ),
        (
            "squad_v1.1/train-v1.1.json",
            "squad_v010_allanswers",
            [_changed(SQUAD, [], "data", 0, "paragraphs", 0, "qas", 0, "answers")],
            "data[0].paragraphs[0].qas[0]: no answers, and every question of SQuAD 1.1 has one; correct or remove",
        ),
        (
            "squad_v1.1/train-v1.1.json",
            "squad_v010_allanswers",
            [_changed(SQUAD, 7, "data", 0, "paragraphs", 0, "context")],
            "data[0].paragraphs[0]: field 'context' must be text, found 7",
        ),
        (
            "mrqa/train/NewsQA.jsonl",
            "mrqa_news_qa_v100_examples",
            [HEADER, MRQA, _changed(MRQA, [], "qas", 0, "answers")],
            "line 3, qas[0]: field 'answers' is empty",
        ),
        (
            "mrqa/train/NewsQA.jsonl.gz",
            "mrqa_news_qa_v100_examples",
            [HEADER, MRQA, MRQA],
            'line 3, qas[0]: the same number or name ("a") as line 2, qas[0]',
        ),
        (
            "mrqa/train/NewsQA.jsonl",
            "mrqa_news_qa_v100_examples",
            [_changed(MRQA, ["a", 1], "qas", 0, "answers")],
            "line 1, qas[0].answers: field '1' must be text, found 1",
        ),
    ],
)
def test_bad_entries_are_named(tmp_path: pathlib.Path, file: str, task: str, rows: list, expected: str):
    path = _write(tmp_path / file, *rows)
    with pytest.raises(TaskError) as caught:
        _source(task, tmp_path).get_dataset("train")
    assert str(caught.value).startswith(f"{path}, {expected}")
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(tmp_path: pathlib.Path):
    path = _write(tmp_path / "mrqa/train/NewsQA.jsonl.gz", HEADER, MRQA)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TaskError, match=r"NewsQA\.jsonl\.gz cannot be read \(.*\); check DATA_DIR"):
        _source("mrqa_news_qa_v100_examples", tmp_path).get_dataset("train")
    path.write_bytes(b"no gzip")
    with pytest.raises(TaskError, match=r"NewsQA\.jsonl\.gz cannot be read \(.*\)"):
        _source("mrqa_news_qa_v100_examples", tmp_path).get_dataset("train")
    path = _write(tmp_path / "squad_v1.1/train-v1.1.json", SQUAD)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TaskError, match=r"train-v1\.1\.json: malformed JSON \(.*\); replace the file"):
        _source("squad_v010_allanswers", tmp_path).get_dataset("train")
    _write(path, {"data": []})
    with pytest.raises(TaskError, match=r"train-v1\.1\.json holds no examples"):
        _source("squad_v010_allanswers", tmp_path).get_dataset("train")


def test_of_a_bad_line_nothing_is_kept(tmp_path: pathlib.Path):
    """Half of a question's answers would be scored as the question."""
    bad = copy.deepcopy(MULTIRC)
    bad["passage"]["questions"][1]["answers"] = [{"text": "up", "idx": 9}, {"text": 5, "idx": 10}]
    (tmp_path / "multirc.jsonl").write_text("\n".join(map(json.dumps, [bad, MULTIRC, [1]])))
    with skipping(True) as left_out:
        assert len(list(nested.multirc(tmp_path / "multirc.jsonl"))) == 2
    assert len(left_out) == 2
    paragraph = {
        "context": "It rains.",
        "qas": [{"id": "a", "question": "What?", "answers": [{"text": "It"}]}],
    }
    articles = [
        {"title": "without"},
        {"paragraphs": [paragraph, {**paragraph, "qas": [*paragraph["qas"], {}]}]},
    ]
    (tmp_path / "squad.json").write_text(json.dumps({"data": articles}))
    with skipping(True) as left_out:
        assert [example["id"] for _, example in nested.squad(tmp_path / "squad.json")] == ["a"]
    assert len(left_out) == 2
