"""Official files: where they are looked for, what they become, and what is said of bad ones."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import seqio

import tasks.registry  # noqa: F401
from tasks.errors import TaskError

CB = [
    {"premise": "It rains.", "hypothesis": "it is wet", "label": "entailment", "idx": 7},
    {"premise": "It rains.", "hypothesis": "it is dry", "label": "contradiction", "idx": 8},
    {"premise": "It\u2028rains.", "hypothesis": "Jane naps", "label": "neutral", "idx": 9},
]


def _write(path: pathlib.Path, rows: list[Any]) -> pathlib.Path:
    """Rows as JSON lines; text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _source(data_dir: pathlib.Path, task: str = "super_glue_cb_v102") -> Any:
    return seqio.TaskRegistry.get(task).source.at(data_dir)


@pytest.mark.parametrize("layout", ["superglue/CB", "CB"])
def test_both_layouts_give_the_examples_of_tfds(tmp_path: pathlib.Path, layout: str):
    path = _write(tmp_path / layout / "train.jsonl", CB)
    source = _source(tmp_path)
    assert source.files("train[:2]") == [path]
    examples = list(source.get_dataset("train").as_numpy_iterator())
    assert [example["label"] for example in examples] == [0, 1, 2]
    assert examples[2]["premise"] == "It\u2028rains.".encode()
    assert [example["idx"] for example in examples] == [7, 8, 9]
    assert examples[0]["label"].dtype == "int64"


def test_splits_join_and_are_sliced(tmp_path: pathlib.Path):
    train, validation = (_write(tmp_path / "CB" / f"{name}.jsonl", CB) for name in ("train", "val"))
    source = _source(tmp_path)
    split = "validation[2:]+train[:34%]"
    assert source.files(split) == [validation, train]
    assert [example["idx"] for example in source.get_dataset(split).as_numpy_iterator()] == [9, 7]


def test_tsv_rows_are_counted_and_quotes_are_text(tmp_path: pathlib.Path):
    _write(tmp_path / "glue/SST-2/dev.tsv", ["sentence\tlabel", 'a "fine" film \t1', '"dull\t0', ""])
    _write(tmp_path / "glue/SST-2/test.tsv", ["index\tsentence", "5\tgood"])
    source = _source(tmp_path, "glue_sst2_v200")
    examples = list(source.get_dataset("validation").as_numpy_iterator())
    assert [(x["idx"], x["sentence"], x["label"]) for x in examples] == [
        (0, b'a "fine" film ', 1),
        (1, b'"dull', 0),
    ]
    assert [(x["idx"], x["label"]) for x in source.get_dataset("test").as_numpy_iterator()] == [(0, -1)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"premise": "It rains."', "malformed JSON"),
        ("[1, 2]", "JSON object is expected"),
        ({**CB[0], "label": "maybe"}, 'label "maybe" is none of the task\'s classes "entailment"'),
        ({**CB[0], "label": 0}, "label 0 is none"),
        ({**CB[0], "label": ["entailment"]}, "is none of"),
        ({**CB[0], "premise": None}, "field 'premise' must be text, found null"),
        ({**CB[0], "idx": "7"}, "field 'idx' must be a whole number"),
        ({**CB[0], "idx": True}, "field 'idx' must be a whole number"),
        ({name: CB[0][name] for name in ("premise", "label", "idx")}, "no field 'hypothesis'"),
        ({name: CB[0][name] for name in ("premise", "hypothesis", "idx")}, "no field 'label'"),
        (json.dumps({**CB[0], "premise": "\ud800", "idx": 10}), "surrogate"),
        ({**CB[2], "idx": 7}, "the same number or name (7) as line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: pathlib.Path, line: Any, reason: str):
    path = _write(tmp_path / "CB/train.jsonl", [CB[0], "", CB[1], line, CB[2]])
    with pytest.raises(TaskError) as caught:
        _source(tmp_path).get_dataset("train")
    message = str(caught.value)
    assert message.startswith(f"{path}, line 4: ")
    assert reason in message
    assert "\n" not in message


def test_labels_are_compared_with_their_type(tmp_path: pathlib.Path):
    labels = (True, False, 1)
    rows = [{"passage": "p", "question": "q", "label": label, "idx": i} for i, label in enumerate(labels)]
    path = _write(tmp_path / "BoolQ/train.jsonl", rows)
    with pytest.raises(TaskError, match=r"line 3: label 1 is none of the task's classes false, true"):
        _source(tmp_path, "super_glue_boolq_v102").get_dataset("train")
    _write(path, rows[:2])
    labels = [x["label"] for x in _source(tmp_path, "super_glue_boolq_v102").get_dataset("train")]
    assert labels == [1, 0]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["sentence\tlabel", "good\t1", "bad"], "line 3: 1 tab-separated fields, the header has 2"),
        (["sentence\tlabel", "good\t2"], 'line 2: label "2" is none of the task\'s classes "0", "1"'),
        (["text\tlabel", "good\t1"], "line 2: no field 'sentence'"),
    ],
)
def test_a_bad_tsv_line_is_named(tmp_path: pathlib.Path, lines: list[str], reason: str):
    _write(tmp_path / "SST-2/train.tsv", lines)
    with pytest.raises(TaskError, match=r"SST-2/train\.tsv") as caught:
        _source(tmp_path, "glue_sst2_v200").get_dataset("train")
    assert reason in str(caught.value)


def _examples(data_dir: pathlib.Path, task: str, split: str) -> list[dict[str, Any]]:
    return list(_source(data_dir, task).get_dataset(split).as_numpy_iterator())


def test_columns_are_found_by_their_names(tmp_path: pathlib.Path):
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    _write(tmp_path / "MRPC/dev.tsv", [header, "1\t7\t8\tA b .\tB ."])
    (row,) = _examples(tmp_path, "glue_mrpc_v200", "validation")
    assert (row["sentence1"], row["sentence2"], row["label"]) == (b"A b .", b"B .", 1)
    _write(
        tmp_path / "MNLI/dev_mismatched.tsv",
        ["index\tsentence1\tsentence2\tlabel1\tgold_label", "0\tP\tH\tx\tneutral"],
    )
    for task, split in (
        ("glue_mnli_mismatched_v200", "validation"),
        ("glue_mnli_v200", "validation_mismatched"),
    ):
        (row,) = _examples(tmp_path, task, split)
        assert (row["premise"], row["hypothesis"], row["label"]) == (b"P", b"H", 1)
    _write(tmp_path / "CoLA/train.tsv", ["gj04\t0\t*\tThey drank the pub."])
    _write(tmp_path / "CoLA/test.tsv", ["index\tsentence", "0\tBill left."])
    (row,) = _examples(tmp_path, "glue_cola_v200", "train")
    assert (row["sentence"], row["label"]) == (b"They drank the pub.", 0)
    assert [row["label"] for row in _examples(tmp_path, "glue_cola_v200", "test")] == [-1]


def test_rows_of_qqp_that_break_off_are_left_out(tmp_path: pathlib.Path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    rows = ["1\t2\t3\tWho?\tWhat?\t0", "4\t5\t6\tWhy", "7\t8\t9\tHow?\tHow so?\t1"]
    _write(tmp_path / "QQP/train.tsv", [header, *rows])
    examples = _examples(tmp_path, "glue_qqp_v200", "train")
    assert [(row["idx"], row["question1"], row["label"]) for row in examples] == [
        (0, b"Who?", 0),
        (2, b"How?", 1),
    ]


def test_scores_are_numbers(tmp_path: pathlib.Path):
    _write(tmp_path / "STS-B/dev.tsv", ["sentence1\tsentence2\tscore", "a\tb\t3.25"])
    (row,) = _examples(tmp_path, "glue_stsb_v200", "validation")
    assert (row["label"], row["label"].dtype) == (3.25, "float32")
    for value in ("good", "nan", ""):
        _write(tmp_path / "STS-B/dev.tsv", ["sentence1\tsentence2\tscore", f"a\tb\t{value}"])
        with pytest.raises(TaskError, match=rf"dev\.tsv, line 2: score \"{value}\" is no number"):
            _source(tmp_path, "glue_stsb_v200").get_dataset("validation")


def test_bytes_that_are_not_utf8_are_named(tmp_path: pathlib.Path):
    path = _write(tmp_path / "CB/train.jsonl", CB)
    path.write_bytes(path.read_bytes().replace(b"wet", b"w\xff"))
    with pytest.raises(TaskError, match=r"train\.jsonl, line 1: not UTF-8"):
        _source(tmp_path).get_dataset("train")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_named(tmp_path: pathlib.Path, content: bytes):
    path = _write(tmp_path / "CB/train.jsonl", [])
    path.write_bytes(content)
    with pytest.raises(TaskError, match=r"CB/train\.jsonl holds no examples"):
        _source(tmp_path).get_dataset("train")


def test_a_header_without_rows_is_no_data(tmp_path: pathlib.Path):
    _write(tmp_path / "SST-2/train.tsv", ["sentence\tlabel", ""])
    with pytest.raises(TaskError, match="holds no examples"):
        _source(tmp_path, "glue_sst2_v200").get_dataset("train")


def test_absent_directory_and_file_are_named(tmp_path: pathlib.Path):
    with pytest.raises(TaskError, match=r"DATA_DIR .*nowhere is not a directory"):
        _source(tmp_path / "nowhere")
    with pytest.raises(TaskError) as caught:
        _source(tmp_path).files("validation")
    assert f"{tmp_path}/superglue/CB/val.jsonl" in str(caught.value)
    assert f"{tmp_path}/CB/val.jsonl" in str(caught.value)
