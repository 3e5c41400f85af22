"""Descriptions in JSON: read whole, or refused by name."""

from __future__ import annotations

import pathlib

import pytest

from jax_prompts.errors import RunError
from jax_prompts.storage import json_file
from jax_prompts.storage.json_file import read_object


def test_a_byte_order_mark_is_left_out(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_bytes('\ufeff{"name": "é"}'.encode())
    assert read_object(tmp_path / "config.json") == {"name": "é"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[1]", "no JSON object"),
        (b'{"pad": 0, "pad": 1}', "twice"),
        (b'{"pad": NaN}', "no finite number"),
        (b'{"pad": "\xff"}', "utf-8"),
        (b"[" * 100_000, "recursion"),
        (b'{"pad": "a long word"}', "over 16"),
        (None, "No such file"),
    ],
)
def test_anything_else_is_refused_by_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, reason: str
) -> None:
    if b"long" in (content or b""):
        monkeypatch.setattr(json_file, "MAX_BYTES", 16)
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunError, match=rf"config\.json cannot be read: .*{reason}"):
        read_object(tmp_path / "config.json")
