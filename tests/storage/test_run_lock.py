"""One run at a time in a folder, whoever dies and on whatever file system."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from jax_prompts.errors import RunError
from jax_prompts.storage import run_lock
from jax_prompts.storage.run_lock import held


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(run_lock, "_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(run_lock, "_POLL_SECONDS", 0.01)


def left_by(folder, **holder):
    folder.mkdir(exist_ok=True)
    (folder / run_lock.NAME).write_text(json.dumps({"process": 7, "begun": "2020-02-02 20:02:02", **holder}))


def test_a_second_run_is_told_who_the_first_is(tmp_path):
    with held(tmp_path):
        with pytest.raises(RunError) as caught, held(tmp_path):
            pytest.fail("both have it")
        who = f"process {os.getpid()} on {socket.gethostname()}, begun 20"
        assert who in str(caught.value) and "\n" not in str(caught.value)
    with held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_that_a_run_leaves_empty_are_gone(tmp_path):
    with held(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path / "a" / "b"):
        (tmp_path / "a" / "c").write_text("kept")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "c"]


HOLD = "import pathlib, sys, time\nfrom jax_prompts.storage.run_lock import held\n\
with held(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"


def test_what_a_killed_process_held_is_free(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {process.pid} on"), held(tmp_path):
            pytest.fail("both have it")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / run_lock.NAME).exists()
    with held(tmp_path):
        assert json.loads((tmp_path / run_lock.NAME).read_text())["process"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "\0" * 99])
def test_a_damaged_file_is_nobodys(tmp_path, content):
    (tmp_path / run_lock.NAME).write_text(content)
    with held(tmp_path):
        pass


def test_a_process_of_this_host_that_ended_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_shows_life", lambda *_: pytest.fail("waited"))
    left_by(tmp_path, host=socket.gethostname())
    with held(tmp_path):
        pass


@pytest.mark.parametrize("kernel_locks", [True, False])
def test_another_host_is_believed_as_long_as_it_shows_life(tmp_path, monkeypatch, kernel_locks):
    if not kernel_locks:

        def flock(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", flock)
    left_by(tmp_path, host="elsewhere")
    file, ended = tmp_path / run_lock.NAME, threading.Event()

    def live():
        while not ended.wait(0.02):
            os.utime(file)

    other = threading.Thread(target=live)
    other.start()
    with (
        pytest.raises(RunError, match=r"process 7 on elsewhere, begun 2020.*is no more, remove .*run\.lock$"),
        held(tmp_path),
    ):
        pytest.fail("both have it")
    ended.set()
    other.join()
    assert file.exists()
    with held(tmp_path):
        assert json.loads(file.read_text())["host"] == socket.gethostname()
    assert not file.exists()


def test_a_run_shows_life(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_RENEWAL_SECONDS", 0.01)
    with held(tmp_path):
        assert run_lock._shows_life(tmp_path / run_lock.NAME, {})


def test_a_holder_that_leaves_meanwhile_is_followed(tmp_path, monkeypatch):
    left_by(tmp_path, host="elsewhere")
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / run_lock.NAME).unlink())
    with held(tmp_path):
        assert json.loads((tmp_path / run_lock.NAME).read_text())["process"] == os.getpid()
