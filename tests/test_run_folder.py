"""A run's folder in a bucket: what is taken there, in which order, read back, and named when it fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bucket_servers import google_bucket

from jax_prompts import run_folder
from jax_prompts.checkpoint import Checkpoints
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.run_folder import RunFolder
from jax_prompts.storage import bucket_lock, buckets, files, remote


@pytest.fixture
def url(google, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "cache"))
    return f"{google_bucket(google, monkeypatch)}/runs/a"


def put(folder, *names):
    for name in names:
        files.write(folder.path / name, name)


def test_a_directory_is_itself(tmp_path):
    folder = RunFolder(tmp_path)
    folder.publish()
    folder.share()
    folder.fetch()
    assert folder.address_of(tmp_path / "a" / "b") == str(tmp_path / "a" / "b")
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "checkpoints" / "x").mkdir()
    assert folder.checkpoints == str(tmp_path / "checkpoints") and folder.steps() == {7}


def test_what_has_changed_is_taken_there_and_read_back(url, google, monkeypatch):
    uploaded = []
    upload = buckets.upload
    monkeypatch.setattr(
        buckets, "upload", lambda file, to: (uploaded.append(to.removeprefix(f"{url}/")), upload(file, to))
    )
    with run_folder.opened(f"{url}/") as folder:
        put(
            folder,
            "summary.json",
            "tensorboard/hparams/x",
            "config.gin",
            "metrics/eval.jsonl",
            "predictions/a-1.jsonl",
        )
        (folder.path / "wandb").mkdir()
        (folder.path / "wandb" / "latest").symlink_to(folder.path / "config.gin")
        folder.publish()
        first = [
            "config.gin",
            "metrics/eval.jsonl",
            "predictions/a-1.jsonl",
            "tensorboard/hparams/x",
            "summary.json",
        ]
        assert uploaded == first
        put(folder, "prompt.safetensors")
        with (folder.path / "metrics/eval.jsonl").open("a") as file:
            file.write("more")
        folder.publish()
        assert uploaded == [*first, "metrics/eval.jsonl", "prompt.safetensors"]
        assert folder.address_of(folder.path / "prompt.safetensors") == f"{url}/prompt.safetensors"
    assert not folder.path.exists()
    assert set(buckets.stored(url)) == {*first, "prompt.safetensors"}
    files.write(f"{url}/checkpoints/5/state/x", b"")
    with run_folder.opened(url) as folder:
        here = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
        assert here == {*first, "prompt.safetensors"} - {"predictions/a-1.jsonl"}
        assert (folder.path / "metrics/eval.jsonl").read_text() == "metrics/eval.jsonlmore"
        assert folder.steps() == {5}
        uploaded.clear()
        (folder.path / "summary.json").unlink()
        (folder.path / "tensorboard/hparams/x").unlink()
        put(folder, "tensorboard/hparams/y")
        folder.publish()
        assert uploaded == ["tensorboard/hparams/y"]
    left = {
        "config.gin",
        "metrics/eval.jsonl",
        "predictions/a-1.jsonl",
        "prompt.safetensors",
        "tensorboard/hparams/y",
    }
    assert set(buckets.stored(url)) == left | {"checkpoints/5/state/x"}


def test_errors_name_the_bucket(url):
    with (
        pytest.raises(RunError, match=rf"^{url}/metrics/train.jsonl is damaged$"),
        run_folder.opened(url) as folder,
    ):
        raise RunError(f"{folder.path}/metrics/train.jsonl is damaged")


def test_who_has_lost_the_bucket_writes_nothing(url, monkeypatch):
    with run_folder.opened(url) as folder:
        put(folder, "config.gin")
        files.write(f"{url}/run.lock", '{"process": 7, "host": "elsewhere", "begun": "now"}')
        monkeypatch.setattr(bucket_lock, "SILENCE_SECONDS", 0.0)
        with pytest.raises(RunError, match="process 7 on elsewhere"):
            folder.publish()
    assert set(buckets.stored(url)) == {"run.lock"}


def test_a_bucket_that_stays_away_is_named(url, google, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("gcsfs.core.GCSFileSystem.retries", 1)
    with run_folder.opened(url) as folder:
        put(folder, "config.gin")
        google.faults = lambda method, path: 403 if method == "POST" else None
        with pytest.raises(RunError, match=rf"^MODEL_DIR {url} could not be brought up to date \(http 403"):
            folder.publish()
        google.faults = lambda method, path: None


@pytest.mark.parametrize("address", ["s3://bucket/run", "memory://run", "http://host/run"])
def test_other_kinds_are_refused_with_the_reason(address):
    with pytest.raises(ConfigError, match=rf"^MODEL_DIR {address} is no directory .* at gs:// alone"):
        run_folder.check_kind(address)


# Checkpoints


@pytest.fixture
def state():
    return {"prompt": jnp.arange(6.0).reshape(2, 3)}, {"count": jnp.asarray(3)}, {"prompt": jnp.ones((1, 3))}


def plus(state, step):
    return jax.tree.map(lambda x: x + step, state)


@pytest.mark.slow
def test_checkpoints_in_a_bucket_are_whole_or_not_there(url, state):
    saver = Checkpoints(f"{url}/checkpoints", keep=2)
    assert saver.restore_latest(*state) is None and saver.steps() == []
    for step in (5, 10, 15):
        saver.save(step, *plus(state, step), {"step": step})
    saver.wait()
    assert saver.steps() == [10, 15]
    assert saver.newest_bytes() > 0
    saver.close()
    # A save that was killed left all but the file that says it is whole; another file is damaged.
    names = buckets.stored(f"{url}/checkpoints")
    for name in names:
        if name.startswith("15/") and name != "15/commit_success.txt":
            files.write(f"{url}/checkpoints/20/{name[3:]}", files.read(f"{url}/checkpoints/{name}", 1 << 20))
    (metadata,) = (name for name in names if name.startswith("15/progress/metadata"))
    content = files.read(f"{url}/checkpoints/{metadata}", 1 << 20)
    files.write(f"{url}/checkpoints/{metadata}", content[: len(content) // 2])
    reader = Checkpoints(f"{url}/checkpoints", keep=2)
    step, *trees, progress = reader.restore_latest(*state)
    assert (step, progress) == (10, {"step": 10})
    for found, made in zip(jax.tree.leaves(trees), jax.tree.leaves(list(plus(state, 10))), strict=True):
        assert np.array_equal(found, made)
    reader.save(20, *state, {"step": 20})
    reader.wait()
    assert reader.steps() == [10, 20]
    reader.close()
    assert {name.partition("/")[0] for name in buckets.stored(f"{url}/checkpoints")} == {"10", "20"}
