"""Reads what `t5x infer` is asked, line by line, and cuts it into chunks that fit into memory."""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, BinaryIO

from jax_prompts.errors import printable
from jax_prompts.storage import json_text

BYTE_ORDER_MARK = "\ufeff".encode()  # what some programs write first
MAX_LINE_BYTES = 4 * 2**20  # hundreds of thousands of words, of which a model reads some hundred
MAX_CHUNK_CHARACTERS = 8 * 2**20  # a chunk of long lines has fewer of them
_FORM = '{"prompt": NAME, "text": ...}'


@dataclasses.dataclass(frozen=True)
class Request:
    """One line of input: which prompt (None: the bare model), and the text."""

    prompt: str | None
    text: str

    @property
    def row(self) -> dict[str, Any]:
        """What stands in the output in front of the answer."""
        return {"prompt": self.prompt, "text": self.text}


@dataclasses.dataclass(frozen=True)
class BadLine:
    """A line that cannot be answered: its number, from 1, and why."""

    line: int
    reason: str

    @property
    def row(self) -> dict[str, Any]:
        """What stands in the output in place of an answer."""
        return {"line": self.line, "error": self.reason}


def read_requests(stream: BinaryIO, names: Collection[str]) -> Iterator[Request | BadLine]:
    r"""Lines of JSON `{"prompt": NAME, "text": ...}`, or of raw text when there is one prompt or none.

    They are UTF-8 and end at \n or \r\n alone.

    Raises:
      OSError: the stream cannot be read.
    """
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        try:
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                raise _Unanswerable(f"has {MAX_LINE_BYTES:,} bytes or more: shorten it")
            line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            yield _request(_decoded(line.removesuffix(b"\n").removesuffix(b"\r")), names)
        except _Unanswerable as error:
            yield BadLine(number, printable(str(error)))


def chunks(requests: Iterable[Request | BadLine], lines: int) -> Iterator[list[Request | BadLine]]:
    """The requests, in order, as lists of `lines` of them, or of fewer long ones."""
    chunk: list[Request | BadLine] = []
    characters = 0
    for request in requests:
        chunk.append(request)
        characters += len(request.text) if isinstance(request, Request) else 0
        if len(chunk) == lines or characters >= MAX_CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


class _Unanswerable(Exception):
    """Why a line is none that can be answered."""


def _decoded(line: bytes) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise _Unanswerable(f"is not UTF-8 ({error.reason} at byte {error.start + 1})") from error
    if "\0" in text:
        raise _Unanswerable("holds a NUL, which no text does")
    if not text.strip():
        raise _Unanswerable('is empty; {"text": ""} asks for the answer to an empty text')
    return text


def _request(line: str, names: Collection[str]) -> Request:
    only = next(iter(names)) if len(names) == 1 else None
    if not line.lstrip().startswith("{"):
        if len(names) > 1:
            raise _Unanswerable(f"is raw text, but {len(names)} prompts are given; write {_FORM}")
        return Request(only, line)
    row = _parsed(line)
    if "text" not in row:
        raise _Unanswerable(f"is not {_FORM}: there is no text")
    prompt, text = row.get("prompt", only), row["text"]
    if not isinstance(text, str):
        raise _Unanswerable(f"is not {_FORM}: text is {reprlib.repr(text)}, no string")
    if "\0" in text:
        raise _Unanswerable("holds a NUL, which no text does")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _Unanswerable(
            f"holds half a surrogate pair at character {error.start + 1} of its text"
        ) from error
    if prompt not in names and not (prompt is None and not names):
        given = ", ".join(names) or "none"
        raise _Unanswerable(f"asks for prompt {reprlib.repr(prompt)}; given are {given}")
    return Request(prompt, text)


def _parsed(line: str) -> dict[str, Any]:
    try:
        row = json_text.loads(line)
    except json.JSONDecodeError as error:
        raise _Unanswerable(f"is not {_FORM}: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise _Unanswerable(f"is not {_FORM}: it is nested too deep") from error
    except ValueError as error:
        raise _Unanswerable(f"is not {_FORM}: {error}") from error
    assert isinstance(row, dict)  # it begins with a brace
    return row
