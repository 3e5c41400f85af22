"""Rows of parquet files: values as JSON has them, what is refused by name, and little of a file at a time."""

from __future__ import annotations

import datetime
import math
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import TaskError
from tasks.own import parquet
from tasks.own.rows import open_rows
from tasks.own.task import own_task
from tasks.sources.bad_lines import skipping
from tasks.sources.seqio_sources import BLOCK


def own(folder: pathlib.Path, **settings):
    defaults = {
        "files": {"train": "x.parquet"},
        "inputs": "{text}",
        "target": "{label}",
        "labels": None,
        "answers": None,
        "metrics": ("accuracy",),
        "tsv_quotes": None,
        "id": None,
        "fetch": pathlib.Path,
    }
    return own_task("mine", str(folder), **{**defaults, **settings}).source


def write(folder: pathlib.Path, table: dict | pa.Table, **options) -> pathlib.Path:
    path = folder / "x.parquet"
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
    return path


def examples(source, split: str = "train") -> list[dict]:
    return [*source.get_dataset(split).as_numpy_iterator()]


def refusal(source) -> str:
    with pytest.raises(Exception) as error:  # TensorFlow's, of what is raised while it reads
        examples(source)
    return str(error.value)


def test_values_are_those_of_json_lines(tmp_path):
    """Numbers in 32 bits and categories too; columns that are not used may hold anything."""
    table = {
        "a.b": ["x", "naïve"],
        "whole": pa.array([1, 2], pa.int16()),
        "half": pa.array([0.5, 1.0], pa.float16()),
        "single": pa.array([3.8, 1.0], pa.float32()),
        "double": [0.1, 1e20],
        "good": [True, False],
        "kind": pa.array(["u", "v"]).dictionary_encode(),
        "large": pa.array(["p", "q"], pa.large_string()),
        "nested": [{"x": 1}, {"x": 2}],
        "bytes": [b"\xff", b""],
    }
    write(tmp_path, table)
    names = ("a.b", "whole", "half", "single", "double", "good", "kind", "large")
    found = examples(own(tmp_path, inputs="|".join(f"{{{name}}}" for name in names), target="{kind}"))
    assert [row["inputs"].decode() for row in found] == [
        "x|1|0.5|3.8|0.1|true|u|p",
        "naïve|2|1.0|1.0|1e+20|false|v|q",
    ]
    assert [(row["idx"], row["targets"]) for row in found] == [(0, b"u"), (1, b"v")]


def test_lists_of_answers(tmp_path):
    write(tmp_path, {"text": ["who?", "what?"], "all": [["fox", "dog"], ["cat"]]})
    found = examples(own(tmp_path, answers="all", metrics=("squad",)))
    assert [list(row["answers"]) for row in found] == [[b"fox", b"dog"], [b"cat"]]
    assert [row["targets"] for row in found] == [b"fox", b"cat"]
    numbers = pa.array([[3.8, 0.1], [2.0]], pa.list_(pa.float32()))
    write(tmp_path, {"text": ["who?", "what?"], "all": numbers})
    found = examples(own(tmp_path, answers="all", metrics=("squad",)))
    assert [list(row["answers"]) for row in found] == [[b"3.8", b"0.1"], [b"2.0"]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([{"a": 1}], "struct"),
        ([[["a"]]], "list"),
        ([b"a"], "binary"),
        ([datetime.date(2020, 1, 1)], "date32"),
        (pa.array([1], pa.decimal128(5, 2)), "decimal"),
    ],
)
def test_a_column_of_another_kind_is_refused_by_name(tmp_path, values, kind):
    path = write(tmp_path, {"text": values, "label": ["a"]})
    with pytest.raises(
        TaskError, match=rf"{path}: column 'text' holds {kind}.*text, numbers, true and false"
    ):
        examples(own(tmp_path))
    assert len(list(open_rows(path, wanted=["label"])[1])) == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["a", None, "c"], "column 'text' must be text or a number, found null"),
        (["a", " ", "c"], "column 'text' is empty"),
        ([1.0, math.nan, 2.0], "column 'text' is NaN, no finite number"),
        (pa.array([1, math.inf, 2], pa.float32()), "column 'text' is Infinity, no finite number"),
        (pa.array([b"a", b"\xff", b"c"]).view(pa.string()), "not UTF-8"),
    ],
)
def test_a_bad_row_stops_or_is_left_out(tmp_path, values, reason):
    path = write(tmp_path, {"text": values, "label": ["x", "y", "z"]})
    message = refusal(own(tmp_path))
    assert f"{path}, row 2: {reason}" in message and "remove the row" in message
    with skipping(True) as skipped:
        assert [row["targets"] for row in examples(own(tmp_path))] == [b"x", b"z"]
    assert len(skipped) == 1


def test_rows_of_one_name_and_missing_columns(tmp_path):
    path = write(tmp_path, {"text": ["a", "b"], "label": ["x", "y"], "key": [7, 7]})
    assert f'{path}, row 2: the same number or name ("7") as row 1' in refusal(own(tmp_path, id="key"))
    with pytest.raises(
        TaskError, match=r"has no column 'review', only text, label, key: correct OwnTask.inputs"
    ):
        examples(own(tmp_path, inputs="{review}"))
    twice = pa.table([["a"], ["b"], ["c"]], names=["text", "text", "label"])
    write(tmp_path, twice)
    with pytest.raises(TaskError, match="has two columns 'text': rename one"):
        examples(own(tmp_path))
    write(tmp_path, {"text": pa.array([], pa.string()), "label": pa.array([], pa.string())})
    with pytest.raises(TaskError, match="holds no examples"):
        examples(own(tmp_path))


@pytest.mark.parametrize("damage", [b"", b"text,label\n", None])
def test_a_damaged_file(tmp_path, damage):
    path = write(tmp_path, {"text": ["a"] * 5000, "label": ["b"] * 5000})
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(80) + whole[84:] if damage is None else damage)
    assert f"{path} cannot be read (" in refusal(own(tmp_path))


def test_slices_and_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS", 4)
    count = 22
    write(tmp_path, {"text": [f"t{n}" for n in range(count)], "label": ["x"] * count}, row_group_size=7)
    source = own(tmp_path)
    assert [row["idx"] for row in examples(source)] == list(range(count))
    assert [row["inputs"] for row in examples(source, "train[-2:]")] == [
        f"t{count - 2}".encode(),
        f"t{count - 1}".encode(),
    ]
    assert len(examples(source, "train[:50%]+train[50%:]")) == count
    with pytest.raises(TaskError, match=f"reaches past its {count} examples"):
        examples(source, "train[:9999]")


def test_rows_are_given_before_the_file_ends(tmp_path):
    """What comes later is not read: the last row is bad, and the first are there."""
    texts = [str(n) for n in range(BLOCK + 10)]
    write(tmp_path, {"text": [*texts, None], "label": ["x"] * (len(texts) + 1)})
    source = own(tmp_path)
    first = [*source.get_dataset("train").take(10).as_numpy_iterator()]
    assert [row["inputs"] for row in first] == [str(n).encode() for n in range(10)]
    assert f"row {BLOCK + 11}: column 'text' must be text" in refusal(source)
    rows = open_rows(tmp_path / "x.parquet", wanted=["label"])[1]
    assert next(rows)[1] == {"label": "x"}  # of the columns that are used


def test_files_that_are_neither_here_nor_of_the_hub(tmp_path):
    with pytest.raises(TaskError, match=r"OwnTask.train: s3://b/x.csv is neither a path nor hf://datasets/"):
        own(tmp_path, files={"train": "s3://b/x.csv"})
    path = write(tmp_path, {"text": ["a"], "label": np.array(["b"])})
    fetched = own(tmp_path, files={"train": "hf://datasets/o/n/x.parquet"}, fetch=lambda url: path)
    assert len(examples(fetched)) == 1 and fetched.files("train") == []
