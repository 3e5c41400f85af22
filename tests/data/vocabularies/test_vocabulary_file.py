"""Vocabularies from afar: read, or given up in one line."""

from __future__ import annotations

import threading

import fsspec
import pytest

from jax_prompts.data.vocabularies.vocabulary_file import read_content
from jax_prompts.errors import RunError
from jax_prompts.storage import remote


def test_remote_files_are_read() -> None:
    fsspec.filesystem("memory").pipe("/some/file", b"content")
    assert read_content("memory://some/file") == b"content"


def test_remote_files_fail_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refused)
    with pytest.raises(RunError, match=r"gs://bucket/v\.model .*no route\): set VOCABULARY to a local copy"):
        read_content("gs://bucket/v.model")


def test_remote_files_that_never_come_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda *_: threading.Event().wait())
    with pytest.raises(RunError, match="no answer"):
        read_content("gs://bucket/file")
