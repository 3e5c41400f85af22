"""DATA_DIR and CACHE_DIR in buckets: files copied to be read, caches filled once and copied whole."""

from __future__ import annotations

import dataclasses
import json

import pytest

pytest.importorskip("seqio")

from bucket_servers import amazon_bucket, google_bucket

from jax_prompts.config import Data, PromptDesign
from jax_prompts.data import cache_bucket, data_dir
from jax_prompts.data import fill as fill_module
from jax_prompts.data.open import open_caches
from jax_prompts.data.roles import are_filled, open_roles
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.storage import buckets, files
from jax_prompts.storage.home import local_root


@pytest.fixture(params=["gs", "s3"])
def bucket(request, monkeypatch, tmp_path):
    """URL of a new bucket, seen from a host with an empty disk."""
    on_host(monkeypatch, tmp_path, "host")
    if request.param == "gs":
        return google_bucket(request.getfixturevalue("google"), monkeypatch)
    return amazon_bucket(request.getfixturevalue("amazon"), monkeypatch)


def on_host(monkeypatch, tmp_path, name):
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / name))


@pytest.fixture
def fills(monkeypatch):
    """Names of the tasks that were tokenised."""
    done = []
    write = fill_module._write
    monkeypatch.setattr(
        fill_module, "_write", lambda task, *rest: (done.append(task.name), write(task, *rest))
    )
    return done


def texts(data: Data, vocabulary: Vocabulary) -> list[str]:
    ((_, cache),) = open_caches(data, "train", vocabulary)
    return cache.texts("inputs_pretokenized")


def test_official_files_are_copied_once_and_compared_by_version(
    bucket, toy: Data, small_vocabulary: Vocabulary, fills, monkeypatch, capsys
) -> None:
    files.write(f"{bucket}/official/train.tsv", "the fox\tyes\nthe dog\tno\n")
    files.write(f"{bucket}/official/more/other.tsv", "-")
    data = dataclasses.replace(toy, task="toy_files", data_dir=f"{bucket}/official/")
    assert texts(data, small_vocabulary) == ["the fox", "the dog"]
    assert "copying 2 files (0.0 MB)" in capsys.readouterr().err
    with monkeypatch.context() as patched:  # of what is as it was nothing is read
        patched.setattr(buckets, "download", None)
        assert texts(data, small_vocabulary) == ["the fox", "the dog"]
    assert fills == ["toy_files"]
    files.write(f"{bucket}/official/train.tsv", "the fox\tyes\nthe cat\tno\n")
    buckets.remove(f"{bucket}/official/more/other.tsv")
    assert texts(data, small_vocabulary) == ["the fox", "the cat"]
    err = capsys.readouterr().err
    assert (
        "copying 1 files" in err and f"made from another {bucket}/official/train.tsv; making it again" in err
    )
    assert not list((local_root() / "data").rglob("other.tsv"))
    # The same content, written again or read elsewhere, needs no new cache.
    files.write(f"{bucket}/official/train.tsv", "the fox\tyes\nthe cat\tno\n")
    assert texts(data, small_vocabulary) == ["the fox", "the cat"] and len(fills) == 2


def test_bad_data_in_a_bucket_is_named(bucket, toy: Data, small_vocabulary: Vocabulary, google) -> None:
    files.write(f"{bucket}/official/train.tsv", "the fox\tyes\nthe dog\n")
    data = dataclasses.replace(toy, task="toy_files", data_dir=f"{bucket}/official")
    with pytest.raises(ConfigError, match=rf"^{bucket}/official/train\.tsv:2: no tab in this line$"):
        texts(data, small_vocabulary)
    with pytest.raises(ConfigError, match=rf"^DATA_DIR {bucket}/nowhere holds no files: set it to where"):
        texts(dataclasses.replace(data, data_dir=f"{bucket}/nowhere"), small_vocabulary)
    with pytest.raises(ConfigError, match="holds no files"):
        texts(dataclasses.replace(data, data_dir=f"{bucket}-absent/nowhere"), small_vocabulary)
    if bucket.startswith("gs"):
        google.faults = lambda method, path: 403
        with pytest.raises(
            RunError, match=rf"^DATA_DIR {bucket}/official cannot be read: http 403 Forbidden"
        ):
            texts(data, small_vocabulary)


@pytest.mark.slow
def test_a_cache_is_filled_once_and_read_by_every_host(
    bucket, toy: Data, small_vocabulary: Vocabulary, fills, monkeypatch, tmp_path
) -> None:
    data = dataclasses.replace(toy, task="toy_mixture", cache_dir=f"{bucket}/caches")
    assert not are_filled(data, small_vocabulary)
    first = open_caches(data, "train", small_vocabulary)
    open_caches(data, "validation", small_vocabulary)
    assert len(fills) == 4
    on_host(monkeypatch, tmp_path, "second")
    assert are_filled(data, small_vocabulary)
    second = open_caches(data, "train", small_vocabulary)
    assert [(rate, cache.tokens, len(cache)) for rate, cache in first] == [
        (rate, cache.tokens, len(cache)) for rate, cache in second
    ]
    assert all(str(tmp_path / "second") in str(cache.directory) for _, cache in second)
    with monkeypatch.context() as patched:  # what is here is not copied again
        patched.setattr(buckets, "download", None)
        open_caches(data, "train", small_vocabulary)
    assert len(fills) == 4
    # Tokens of texts in a prompt design are another cache.
    lengths = {"inputs": 64, "targets": 16}
    designed = dataclasses.replace(
        data, task="toy_ten", prompt_design=PromptDesign(instruction="say"), task_feature_lengths=lengths
    )
    open_roles(designed, small_vocabulary)
    made = set(buckets.stored(f"{bucket}/caches"))
    on_host(monkeypatch, tmp_path, "third")
    open_roles(designed, small_vocabulary)
    assert set(buckets.stored(f"{bucket}/caches")) == made and len(fills) == 6


def test_half_a_cache_is_none(
    bucket, toy: Data, small_vocabulary: Vocabulary, fills, monkeypatch, tmp_path
) -> None:
    data = dataclasses.replace(toy, cache_dir=f"{bucket}/caches")
    upload, sent = buckets.upload, []

    def killed(place, url):
        if url.endswith("whole.json"):
            raise KeyboardInterrupt
        sent.append(url)
        upload(place, url)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(buckets, "upload", killed)
        texts(data, small_vocabulary)
    assert len(sent) == 2 and not list(local_root().rglob("tokens.arrow"))
    assert len(texts(data, small_vocabulary)) == 10 and len(fills) == 2
    # A file that is not what its filling wrote is told, on a host that has no copy.
    (whole,) = (name for name in buckets.stored(f"{bucket}/caches") if name.endswith("whole.json"))
    here = json.loads(files.read(f"{bucket}/caches/{whole}", 9999))
    place = f"{bucket}/caches/{whole.partition('/')[0]}/{here['folder']}"
    files.write(f"{place}/tokens.arrow", b"x" * here["files"]["tokens.arrow"]["bytes"])
    on_host(monkeypatch, tmp_path, "second")
    with pytest.raises(
        RunError, match=r"tokens\.arrow is damaged: remove .*/caches/toy_ten-train-\w+, which is made"
    ):
        texts(data, small_vocabulary)
    buckets.remove(f"{place}/tokens.arrow")
    with pytest.raises(RunError, match=r"token cache .* cannot be copied to .* \(No such file"):
        texts(data, small_vocabulary)
    # No list of files: no cache.
    files.write(f"{bucket}/caches/{whole}", b'{"folder": "../x", "files": {}}')
    assert len(texts(data, small_vocabulary)) == 10 and len(fills) == 3


def test_a_bucket_that_cannot_be_written_is_named(
    google, monkeypatch, tmp_path, toy: Data, small_vocabulary
) -> None:
    on_host(monkeypatch, tmp_path, "host")
    bucket = google_bucket(google, monkeypatch)
    with pytest.raises(RunError, match=r"^CACHE_DIR .*-absent/c cannot be written: there is no such bucket$"):
        texts(dataclasses.replace(toy, cache_dir=f"{bucket}-absent/c"), small_vocabulary)
    google.faults = lambda method, path: 403 if method == "POST" else None
    with pytest.raises(RunError, match=r"^CACHE_DIR .*/c cannot be written: http 403 Forbidden"):
        texts(dataclasses.replace(toy, cache_dir=f"{bucket}/c"), small_vocabulary)


def test_what_a_task_tells_without_its_files_asks_no_bucket(toy: Data, monkeypatch) -> None:
    monkeypatch.setattr(buckets, "stored", None)
    with data_dir.unread(dataclasses.replace(toy, data_dir="gs://bucket/official")) as here:
        assert here.data_dir is not None and "://" not in here.data_dir
    assert cache_bucket.bring(local_root() / "x", None)
