"""Lines of data files: where they end, byte order marks, and JSON that says one thing twice or nothing."""

from __future__ import annotations

import pathlib

import pytest

from tasks.errors import BadLine, TaskError
from tasks.sources.lines import json_document, json_lines, parsed_json, read_lines, tab_separated

MARK = b"\xef\xbb\xbf"


def written(path: pathlib.Path, content: bytes) -> pathlib.Path:
    path.write_bytes(content)
    return path


def test_only_line_feeds_end_lines(tmp_path: pathlib.Path):
    path = written(tmp_path / "x.txt", "a\rb\u2028c\x0bd\x85e\r\n\n \nf\r".encode())
    assert list(read_lines(path)) == [(1, "a\rb\u2028c\x0bd\x85e"), (4, "f")]


def test_a_byte_order_mark_is_left_out_of_rows_and_documents(tmp_path: pathlib.Path):
    lines = written(tmp_path / "x.jsonl", MARK + b'{"a": 1}\n{"a": 2}\n')
    assert [row for _, row in json_lines(lines)] == [{"a": 1}, {"a": 2}]
    table = written(tmp_path / "x.tsv", MARK + b"a\tb\n1\t2\n")
    assert [row for _, row in tab_separated(table)] == [{"a": "1", "b": "2"}]
    assert json_document(written(tmp_path / "x.json", MARK + b'{"a": 1}')) == {"a": 1}


def test_a_byte_order_mark_is_left_out_of_paragraphs(tmp_path: pathlib.Path):
    from tasks.sources.text_files import read_paragraphs

    texts = written(tmp_path / "x.txt", MARK + b"the fox\n" + MARK + b"the dog\n")
    found = [*read_paragraphs([texts], "train"), *read_paragraphs([texts], "validation")]
    assert sorted(found) == [b"the fox", MARK + b"the dog"]  # in the middle it is text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "key 'a' twice in one object"),
        ('{"a": [{"b": 1, "b": 1}]}', "key 'b' twice in one object"),
        ('{"a": NaN}', "NaN is no finite number"),
        ('{"a": [-Infinity]}', "-Infinity is no finite number"),
        ('{"a": 1e999}', "1e999 is no finite number"),
    ],
)
def test_json_that_says_a_thing_twice_or_nothing_is_bad(tmp_path: pathlib.Path, text: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        parsed_json(text)
    path = written(tmp_path / "x.jsonl", f'{{"a": 1}}\n{text}\n'.encode())
    with pytest.raises(BadLine, match=f"line 2: malformed JSON .*{reason}"):
        list(json_lines(path))
    with pytest.raises(TaskError, match=reason):
        json_document(written(tmp_path / "x.json", text.encode()))
