"""Buckets of both kinds, of real servers: prompt files, stores, and folders listed and copied."""

import os
import sys
import uuid

import numpy as np
import pytest
from bucket_servers import amazon_bucket, google_bucket
from etils import epath

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.interop.exchange import export_prompt
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt
from jax_prompts.prompts.prompt_paths import prompt_paths
from jax_prompts.prompts.store import PromptStore
from jax_prompts.storage import buckets, files, remote

PROMPT_PD = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(params=["gs", "s3"])
def bucket(request, monkeypatch):
    """URL of a new bucket."""
    if request.param == "gs":
        return google_bucket(request.getfixturevalue("google"), monkeypatch)
    return amazon_bucket(request.getfixturevalue("amazon"), monkeypatch)


def test_prompt_files_are_written_read_and_found_by_pattern(bucket):
    for name in "ab":
        save_prompt(f"{bucket}/runs/{name}/prompt.safetensors", PROMPT_PD, PromptMetadata(task=name))
    read_PD, metadata = load_prompt(f"{bucket}/runs/a/prompt.safetensors")
    assert (read_PD == PROMPT_PD).all() and metadata.task == "a"
    wanted = [f"{bucket}/runs/{name}/prompt.safetensors" for name in "ab"]
    assert prompt_paths("PROMPT_FILES", [f"{bucket}/runs/*/prompt.safetensors"]) == wanted
    with pytest.raises(ConfigError, match=r"PROMPT_FILES .*/none/\* names no file"):
        prompt_paths("PROMPT_FILES", [f"{bucket}/none/*"])
    with pytest.raises(ConfigError, match="does not exist: set it to a prompt file"):
        load_prompt(f"{bucket}/nothing.safetensors")
    export_prompt(wanted[0], f"{bucket}/p.npy", to="npy")
    assert files.read(f"{bucket}/p.npy", 9999).startswith(b"\x93NUMPY")


def test_a_store_in_a_bucket(bucket, tmp_path):
    save_prompt(
        tmp_path / "p.safetensors", PROMPT_PD, PromptMetadata(task="rte", metric="accuracy", score=70.0)
    )
    store = PromptStore(f"{bucket}/prompts")
    store.add("one", tmp_path / "p.safetensors")
    with pytest.raises(ConfigError, match="has a prompt one already"):
        store.add("one", tmp_path / "p.safetensors")
    assert [entry.name for entry in store.find(task="r*", min_score=60)] == ["one"]
    assert store.verify().whole == ("one",)
    store.remove("one")
    with pytest.raises(ConfigError, match="there is no prompt store"):
        store.list()


def test_a_bucket_that_is_not_there_is_named(bucket):
    absent = f"{bucket.partition('://')[0]}://absent-{uuid.uuid4().hex}"
    with pytest.raises(ConfigError, match="does not exist"):
        load_prompt(f"{absent}/p.safetensors")
    with pytest.raises(
        RunError, match=rf"^{absent}/p.safetensors could not be written: there is no such bucket$"
    ):
        save_prompt(f"{absent}/p.safetensors", PROMPT_PD, PromptMetadata())


def test_folders_are_listed_and_their_objects_copied(bucket, tmp_path):
    assert buckets.stored(f"{bucket}/f") == {}
    (tmp_path / "big").write_bytes(os.urandom(100_000))
    for name in ("big", "in/here/big"):
        buckets.upload(tmp_path / "big", f"{bucket}/f/{name}")
    files.write(f"{bucket}/f/none", b"")
    files.write(f"{bucket}/further", b"no part of it")
    found = buckets.stored(f"{bucket}/f/")
    assert {name: there.size for name, there in found.items()} == {
        "big": 100_000,
        "in/here/big": 100_000,
        "none": 0,
    }
    for name, there in found.items():
        buckets.download(f"{bucket}/f/{name}", tmp_path / "copy" / name, there)
    assert (tmp_path / "copy/in/here/big").read_bytes() == (tmp_path / "big").read_bytes()
    assert (tmp_path / "copy/none").read_bytes() == b""
    assert buckets.content(f"{bucket}/f/none", 9) == b""
    with pytest.raises(files.TooLargeError):
        buckets.content(f"{bucket}/f/big", 9)
    buckets.upload(tmp_path / "big", f"{bucket}/f/later")  # behind a listing that a library may have kept
    assert len(files.read(f"{bucket}/f/later", 1 << 20)) == 100_000
    buckets.remove(f"{bucket}/f/later")
    files.write(f"{bucket}/f/big", b"another")
    assert buckets.stored(f"{bucket}/f")["big"].version != found["big"].version
    buckets.remove(f"{bucket}/f/big")
    buckets.remove(f"{bucket}/f/big")
    assert set(buckets.stored(f"{bucket}/f")) == {"in/here/big", "none"}
    with pytest.raises(FileNotFoundError):
        buckets.download(f"{bucket}/f/big", tmp_path / "gone", found["big"])
    assert not (tmp_path / "gone").exists()


def test_objects_that_no_path_can_name_are_left_out(monkeypatch, capsys):
    """A copy of a stranger's bucket writes nothing outside of its folder."""
    named = ["whole", "in/here", "/etc/x", "../x", "a/../../x", "a//x", "./x", "a/..", "b/", "nul\0"]

    class Listing:
        def find(self, path, detail):
            return {f"{path}{name}": {"type": "file", "size": 1} for name in named}

    monkeypatch.setattr(buckets, "patiently", lambda url, ask: ask(Listing(), url.removeprefix("gs://")))
    for _ in range(2):  # said once
        assert set(buckets.stored("gs://bucket/f")) == {"whole", "in/here"}
    said = capsys.readouterr().err
    assert said.count("is left out: no file can have that name") == len(named) - 3  # `b/` is a folder's mark
    assert "warning: ../x below gs://bucket/f" in said


def test_what_is_not_installed_is_named(monkeypatch):
    for name in ("s3", "s3a"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        RunError, match=r"s3:// needs s3fs, which is not installed: .*pip install -e '\.\[s3\]'$"
    ):
        load_prompt("s3://bucket/p.safetensors")


def test_what_passes_is_asked_again_and_what_does_not_is_not(monkeypatch):
    asked = []
    monkeypatch.setattr(remote.time, "sleep", lambda _: None)

    def failing(*errors):
        def ask(*_):
            asked.append(1)
            if len(asked) <= len(errors):
                raise errors[len(asked) - 1]
            return "answer"

        return ask

    class Throttled(Exception):
        code = 429

    passing = (
        Throttled(),
        TimeoutError(),
        ConnectionResetError(),
        OSError(16, "Please reduce your request rate."),
    )
    assert remote.patiently("memory://x", failing(*passing)) == "answer"
    assert len(asked) == 5
    for lasting in (PermissionError("no"), ValueError("no"), FileNotFoundError("no")):
        asked.clear()
        with pytest.raises(OSError):
            remote.patiently("memory://x", failing(lasting, lasting))
        assert len(asked) == 1
    asked.clear()
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(TimeoutError):
        remote.patiently("memory://x", failing(TimeoutError()))


def test_the_end_of_an_upload_whose_answer_is_lost_is_sent_again(google, monkeypatch):
    """As Orbax writes its small files."""
    file, lost = epath.Path(google_bucket(google, monkeypatch)) / "metadata", []

    def faults(method, path):
        if "upload_id" in path and not lost:
            lost.append(path)
            return "drop"
        return None

    google.faults = faults
    file.write_text("whole")
    assert file.read_text() == "whole" and lost
