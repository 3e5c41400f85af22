"""The lock of a run in a bucket: one holder, told to others, taken over from the dead, lost to none without notice."""

import json
import subprocess
import sys

import pytest
from bucket_servers import google_bucket

from jax_prompts.errors import RunError
from jax_prompts.storage import bucket_lock, buckets, files
from jax_prompts.storage.run_lock import BusyError

HOLD = """
import sys
from jax_prompts.storage import bucket_lock
with bucket_lock.held(sys.argv[1]):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def folder(google, monkeypatch):
    monkeypatch.setattr(bucket_lock, "_POLL_SECONDS", 0.05)
    return f"{google_bucket(google, monkeypatch)}/runs/a"


def holder_of(folder):
    return json.loads(files.read(f"{folder}/run.lock", 9999))


def test_one_holds_it_and_others_are_told_who(folder, monkeypatch):
    monkeypatch.setattr(bucket_lock, "_RENEWAL_SECONDS", 0.1)
    with bucket_lock.held(folder) as check:
        here = holder_of(folder)
        with (
            pytest.raises(BusyError, match=rf"^MODEL_DIR {folder} is in use .*process {here['process']} on "),
            bucket_lock.held(folder),
        ):
            pass
        assert holder_of(folder)["beat"] > here["beat"]
        check()
    assert buckets.stored(folder) == {}
    with bucket_lock.held(folder):
        assert holder_of(folder)["run"] != here["run"]


def test_a_killed_holder_of_this_machine_gives_way_at_once(folder, monkeypatch):
    program = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert program.stdout.readline() == b"held\n"
    monkeypatch.setattr(bucket_lock, "SILENCE_SECONDS", 0.2)  # it lives, but has not renewed by then
    program.kill()
    program.communicate()
    monkeypatch.setattr(bucket_lock, "SILENCE_SECONDS", 900.0)
    with bucket_lock.held(folder):
        assert holder_of(folder)["process"] != program.pid


@pytest.mark.parametrize(
    "content", ['{"host": "elsewhere", "process": 7, "begun": "yesterday"}', "no JSON", "[]"]
)
def test_a_holder_elsewhere_is_waited_for(folder, monkeypatch, content, capsys):
    monkeypatch.setattr(bucket_lock, "SILENCE_SECONDS", 0.3)
    files.write(f"{folder}/run.lock", content)
    with bucket_lock.held(folder):
        assert "waiting up to" in capsys.readouterr().err


def test_who_lost_it_is_told_and_leaves_the_other_alone(folder, monkeypatch):
    monkeypatch.setattr(bucket_lock, "_RENEWAL_SECONDS", 0.05)
    with bucket_lock.held(folder) as check:
        files.write(f"{folder}/run.lock", '{"host": "elsewhere", "process": 7, "begun": "now"}')
        monkeypatch.setattr(bucket_lock, "SILENCE_SECONDS", 0.0)  # it was renewed long ago
        with pytest.raises(
            RunError, match=r"out of reach for too long, and MODEL_DIR .*process 7 on elsewhere"
        ):
            check()
    assert holder_of(folder)["process"] == 7


def test_of_two_who_take_it_over_one_wins(folder, google, monkeypatch):
    """The other wrote between the look at the lock and the write."""
    files.write(f"{folder}/run.lock", "left")
    monkeypatch.setattr(bucket_lock, "SILENCE_SECONDS", 0.2)

    def first(self, version, holder):
        files.write(f"{folder}/run.lock", '{"host": "elsewhere", "process": 8, "begun": "now"}')

    monkeypatch.setattr(bucket_lock._Lock, "_wait", first)
    with pytest.raises(BusyError, match="process 8 on elsewhere"), bucket_lock.held(folder):
        pass


def test_an_answer_that_is_lost_is_no_other_holder(folder, google):
    """The library sends it again and meets what it has written before."""
    lost = []

    def faults(method, path):
        if "/upload/" in path and not lost:
            lost.append(path)
            return "drop"
        return None

    google.faults = faults
    with bucket_lock.held(folder) as check:
        assert lost
        check()
    assert buckets.stored(folder) == {}
