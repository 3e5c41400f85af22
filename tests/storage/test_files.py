"""Files by path and URL: whole or not at all, within a limit, and every failure an OSError."""

import concurrent.futures
import os
import random
import signal
import subprocess
import sys
import threading
import uuid

import fsspec
import pytest

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.storage import files, remote
from jax_prompts.storage.temporary import final_name


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


def test_links_that_lead_nowhere_are_no_files(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "elsewhere")
    assert files.listing(tmp_path) == {"a"}


def test_what_comes_back_is_what_went_in(folder):
    draw = random.Random(0)
    kept = {}
    for _ in range(40):
        name, size = (
            f"f{draw.randrange(8)}",
            draw.choice([0, 1, draw.randrange(100), draw.randrange(100_000)]),
        )
        content = draw.randbytes(size)
        if draw.random() < 0.3:
            content = "".join(chr(draw.randrange(0x20, 0x2FFF)) for _ in range(size % 1000))
        replace = draw.random() < 0.6 or name not in kept
        if replace:
            files.write(f"{folder}/{name}", content)
            kept[name] = content.encode() if isinstance(content, str) else content
        else:
            with pytest.raises(FileExistsError):
                files.write(f"{folder}/{name}", content, replace=False)
        assert files.listing(folder) == kept.keys()
        assert all(files.read(f"{folder}/{other}", len(kept[other])) == kept[other] for other in kept)


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "new" / "file"
    for old in (None, b"old"):
        if old is not None:
            path.write_bytes(old)
        with pytest.raises(ZeroDivisionError), files.atomic_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError
        assert [entry.read_bytes() for entry in path.parent.iterdir()] == ([] if old is None else [old])


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), files.atomic_file(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_process_killed_before_the_end_leaves_the_old_file(tmp_path, call):
    path = tmp_path / "file"
    files.write(path, "old")
    code = f"""
import os, signal
from jax_prompts.storage import files
os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write({str(path)!r}, "new")
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (left,) = set(tmp_path.iterdir()) - {path}
    assert (final_name(left.name), left.read_text()) == ("file", "new")
    files.write(path, "newer")  # which what was left does not hinder
    assert path.read_text() == "newer"


def test_of_writers_that_do_not_replace_the_first_one_stays(tmp_path):
    path, written = tmp_path / "file", threading.Barrier(8)

    def write(number):
        try:
            with files.atomic_file(path, replace=False) as temporary:
                temporary.write_bytes(bytes([number]))
                written.wait()
        except FileExistsError:
            return b""
        return bytes([number])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            (first,) = filter(None, pool.map(write, range(8)))
            assert path.read_bytes() == first
            assert list(tmp_path.iterdir()) == [path]
            path.unlink()


def test_of_writers_that_replace_a_reader_sees_one_whole(tmp_path):
    path = tmp_path / "file"
    files.write(path, bytes(100_000))

    def write(number):
        for _ in range(10):
            files.write(path, bytes([number]) * 100_000)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(4)]
        while not all(writer.done() for writer in writers):
            content = files.read(path, 100_000)
            assert len(content) == 100_000 and len(set(content)) == 1
        for writer in writers:
            writer.result()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_write_error_names_the_path_and_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "a" / "x"):
        reason = rf"x could not be written \({tmp_path}/file is a file\): choose a place in a directory$"
        with pytest.raises(ConfigError, match=reason), files.write_errors(path):
            files.write(path, b"")
    with (
        pytest.raises(RunError, match=r"full could not be written: No space left$"),
        files.write_errors("full"),
    ):
        raise OSError(28, "No space left")


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


def test_a_pipe_is_written_as_it_is(tmp_path):
    """As a device is: a name that took its place would break whatever else uses it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with concurrent.futures.ThreadPoolExecutor() as reader:
        read = reader.submit(pipe.read_bytes)
        files.write(pipe, "content")
        assert read.result(timeout=10) == b"content"
    assert pipe.is_fifo()
