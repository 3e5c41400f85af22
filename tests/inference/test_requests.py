"""Lines that `t5x infer` reads: where they end, what is in front of them, and what is none."""

import io
import itertools

import pytest

from jax_prompts.inference import requests
from jax_prompts.inference.requests import BadLine, Request, chunks, read_requests

pytestmark = pytest.mark.usefixtures("unchecked")  # which take BytesIO for no file


def read(content, names=("p",)):
    content = content if isinstance(content, bytes) else content.encode()
    return list(read_requests(io.BytesIO(content), list(names)))


def test_lines_are_read_without_marks_and_line_ends():
    content = '\ufeffa film\r\na\u2028b\x0bc\rd\n\ufeffe\n{"text": "f"}\r\n  {"text": ""}\ng'
    assert [request.text for request in read(content)] == [
        "a film",
        "a\u2028b\x0bc\rd",
        "\ufeffe",  # only the first line of a file can have one
        "f",
        "",
        "g",
    ]


def test_a_byte_order_mark_does_not_make_json_raw_text():
    assert read('\ufeff{"text": "a film"}\r\n') == [Request("p", "a film")]


def test_the_bare_model_needs_no_name():
    assert read('a\n{"text": "b"}\n{"text": "c", "prompt": null}\n', ()) == [
        Request(None, "a"),
        Request(None, "b"),
        Request(None, "c"),
    ]


FORM = 'is not {"prompt": NAME, "text": ...}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"caf\xe9", "is not UTF-8 (unexpected end of data at byte 4)"),
        (b"\xff\xfea\0", "is not UTF-8 (invalid start byte at byte 1)"),
        (b'{"text": "\xed\xa0\x80"}', "is not UTF-8 (invalid continuation byte at byte 11)"),
        (rb'{"text": "a\ud83d"}', "holds half a surrogate pair at character 2 of its text"),
        (rb'{"text": "a", "prompt": "\ud83d"}', "asks for prompt '\\ud83d'; given are p"),
        (b'{"text": ' + b"[" * 100_000, f"{FORM}: it is nested too deep"),
        (b'{"a":' * 100_000, f"{FORM}: it is nested too deep"),
        (b'{"prompt": "p"}', f"{FORM}: there is no text"),
        (b'{"text": 5}', f"{FORM}: text is 5, no string"),
        (b'{"text": null}', f"{FORM}: text is None, no string"),
        (b'{"text": "a", "prompt": "q"}', "asks for prompt 'q'; given are p"),
        (b'{"text": "a", "prompt": ["p"]}', "asks for prompt ['p']; given are p"),
        (b'{"text": "a", "prompt": null}', "asks for prompt None; given are p"),
        (b'{"text": "a", "text": "b"}', f"{FORM}: a key stands twice in one object"),
        (b'{"text": "a", "n": NaN}', f"{FORM}: NaN is no finite number"),
        (b'{"text": 1e999}', f"{FORM}: 1e999 is no finite number"),
        (b'{"text": ', f"{FORM}: Expecting value at character 10"),
        (b'{"text": "a"} b', f"{FORM}: Extra data at character 15"),
        (b"a\0b", "holds a NUL, which no text does"),
        (rb'{"text": "a\u0000b"}', "holds a NUL, which no text does"),
        (b"", 'is empty; {"text": ""} asks for the answer to an empty text'),
        (b" \t\r", 'is empty; {"text": ""} asks for the answer to an empty text'),
        (b"a" * 2 * requests.MAX_LINE_BYTES, "has 4,194,304 bytes or more: shorten it"),
        (b'{"text": ' + b"1" * 5000 + b"}", f"{FORM}: Exceeds the limit (4300 digits)"),
    ],
    ids=range(24),
)
def test_a_bad_line_is_one_line_and_nothing_else_is_lost(line, reason):
    before, bad, after = read(b"before\n" + line + b"\nafter")
    assert (before, after) == (Request("p", "before"), Request("p", "after"))
    assert isinstance(bad, BadLine) and bad.line == 2
    assert bad.reason.startswith(reason) and "\n" not in bad.reason
    assert len(bad.reason) < 200


def test_raw_text_needs_one_prompt():
    (bad,) = read("text", ("p", "q"))
    assert bad.reason == 'is raw text, but 2 prompts are given; write {"prompt": NAME, "text": ...}'
    assert read('{"text": "a", "prompt": "q"}', ("p", "q")) == [Request("q", "a")]


def test_a_line_just_within_the_limit_is_read(monkeypatch):
    monkeypatch.setattr(requests, "MAX_LINE_BYTES", 8)
    assert read("1234567\n12345678\n1234567") == [
        Request("p", "1234567"),
        BadLine(2, "has 8 bytes or more: shorten it"),
        Request("p", "1234567"),
    ]


def test_chunks_hold_lines_up_to_a_number_or_a_length(monkeypatch):
    monkeypatch.setattr(requests, "MAX_CHUNK_CHARACTERS", 10)
    asked = [Request("p", text) for text in ("a", "b", "c", "d" * 9, "e", "f" * 99, "g")] + [BadLine(8, "")]
    found = list(chunks(asked, 3))
    assert [len(chunk) for chunk in found] == [3, 2, 1, 2]
    assert list(itertools.chain(*found)) == asked
    assert list(chunks([], 3)) == []
