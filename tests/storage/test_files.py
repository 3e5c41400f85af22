"""Files by path and URL: whole or not at all, within a limit, and every failure an OSError."""

import os
import threading
import uuid

import fsspec
import pytest

from jax_prompts.storage import files, remote


@pytest.fixture(params=["path", "file", "memory"])
def folder(request, tmp_path):
    """The same folder for all: a path, a URL of one, a remote one."""
    return {
        "path": str(tmp_path / "f"),
        "file": f"file://{tmp_path}/f",
        "memory": f"memory://{uuid.uuid4().hex}",
    }[request.param]


def test_what_is_written_is_read_listed_and_removed(folder):
    files.write(f"{folder}/a", b"one", replace=False)
    files.write(f"{folder}/b", b"", replace=False)
    files.write(f"{folder}/a", b"two", replace=True)
    with pytest.raises(FileExistsError):
        files.write(f"{folder}/a", b"three", replace=False)
    assert files.read(f"{folder}/a", 3) == b"two"
    assert files.read(f"{folder}/b", 0) == b""
    assert files.listing(folder) == {"a", "b"}
    files.remove(f"{folder}/a")
    assert files.listing(folder) == {"b"}
    for absent in (files.remove, lambda path: files.read(path, 9)):
        with pytest.raises(FileNotFoundError):
            absent(f"{folder}/a")
    with pytest.raises(FileNotFoundError):
        files.listing(f"{folder}/elsewhere")


def test_a_file_over_the_limit_is_not_read(folder):
    files.write(f"{folder}/large", b"1234", replace=False)
    with pytest.raises(files.TooLargeError, match="4 bytes, over 3") as caught:
        files.read(f"{folder}/large", 3)
    assert caught.value.size == 4


def test_a_stream_of_unknown_size_is_cut_at_the_limit(monkeypatch):
    class Endless:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, count):
            return b"x" * count

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "open", lambda *_: Endless())
    with pytest.raises(files.TooLargeError, match="over 3"):
        files.read("memory://endless", 3)


def test_pipes_and_folders_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(IsADirectoryError):
            files.read(str(path), 9)


def test_whatever_a_library_raises_is_an_error_of_the_file(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no route\nto host")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", refuse)
    with pytest.raises(OSError, match=r"no route$"):
        files.listing("memory://x")
    with pytest.raises(OSError, match="Protocol not known: nosuch"):
        files.read("nosuch://x", 1)


def test_a_remote_that_does_not_answer_is_given_up(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", lambda *_, **__: released.wait())
    with pytest.raises(TimeoutError, match="no answer"):
        files.listing("memory://x")
    released.set()
