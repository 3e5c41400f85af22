"""Directories: whole or not at all, whoever else writes there, and whatever a killed process left."""

import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from jax_prompts.errors import ConfigError
from jax_prompts.storage.directories import atomic_directory
from jax_prompts.storage.temporary import final_name, temporary_path


def content(folder: pathlib.Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(folder: pathlib.Path, text: str) -> None:
    (folder / "inside").mkdir(exist_ok=True)
    for name in ("a", "inside/b"):
        (folder / name).write_text(text)


def both(text: str) -> dict[str, str]:
    return {"a": text, "inside/b": text}


def test_a_new_directory_appears_at_the_end(tmp_path):
    target = tmp_path / "not" / "yet" / "target"
    with atomic_directory(target) as folder:
        fill(folder, "new")
        assert not target.exists()
    assert content(target) == both("new")
    assert list(target.parent.iterdir()) == [target]


def test_a_new_directory_takes_no_others_place(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("full", "file"):
        with (
            pytest.raises(ConfigError, match=f"{name} exists: choose another"),
            atomic_directory(tmp_path / name),
        ):
            pytest.fail("nothing may be written")
    with pytest.raises(OSError, match="not empty"), atomic_directory(tmp_path / "late") as folder:
        fill(folder, "new")
        (tmp_path / "late").mkdir()
        fill(tmp_path / "late", "meanwhile")
    assert content(tmp_path / "full") == {"thesis.txt": "years of work"}
    assert content(tmp_path / "late") == both("meanwhile")
    (tmp_path / "empty").mkdir()
    with atomic_directory(tmp_path / "empty") as folder:
        fill(folder, "new")
    assert content(tmp_path / "empty") == both("new")
    assert {path.name for path in tmp_path.iterdir()} == {"full", "file", "late", "empty"}


@pytest.mark.parametrize("usable", [None, lambda: False])
def test_a_block_that_fails_leaves_nothing(tmp_path, usable):
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "target", usable) as folder:
        fill(folder, "half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_is_usable_stays_and_what_is_not_gives_way(tmp_path):
    target = tmp_path / "target"
    for text, expected in (("first", "first"), ("second", "first"), ("third", "third")):
        with atomic_directory(target, lambda text=text: text == "second") as folder:
            fill(folder, text)
        assert content(target) == both(expected)
    (tmp_path / "file").write_text("")
    with atomic_directory(tmp_path / "file", lambda: False) as folder:
        fill(folder, "new")
    assert content(tmp_path / "file") == both("new")
    assert {path.name for path in tmp_path.iterdir()} == {"target", "file"}


def test_several_may_replace_it_at_once(tmp_path):
    start = threading.Barrier(6)

    def replace(number):
        start.wait()
        for _ in range(10):
            with atomic_directory(tmp_path / "target", lambda: False) as folder:
                fill(folder, str(number))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(replace, range(6)))
    assert content(tmp_path / "target") in [both(str(number)) for number in range(6)]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_killed_process_leaves_what_was_there(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    fill(target, "old")
    code = f"""
import os, pathlib, signal
from jax_prompts.storage.directories import atomic_directory
with atomic_directory(pathlib.Path({str(target)!r}), lambda: os.kill(os.getpid(), signal.SIGKILL)) as folder:
    (folder / "a").write_text("new")
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert content(target) == both("old")
    (left,) = set(tmp_path.iterdir()) - {target}
    assert (final_name(left.name), content(left)) == ("target", {"a": "new"})


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path):
    old, young, other = (
        temporary_path(tmp_path / "old"),
        temporary_path(tmp_path / "young"),
        tmp_path / ".x.tmp",
    )
    for left in (old, young, other):
        left.mkdir()
        (left / "tokens.arrow").write_bytes(b"part")
    yesterday = time.time() - 25 * 3600
    for folder in (old, other):
        for path in (folder / "tokens.arrow", folder):
            os.utime(path, (yesterday, yesterday))
    os.utime(young, (yesterday, yesterday))  # but not what is in it
    with atomic_directory(tmp_path / "cache", lambda: False) as directory:
        (directory / "tokens.arrow").write_bytes(b"whole")
    assert {path for path in tmp_path.iterdir()} == {young, other, tmp_path / "cache"}
