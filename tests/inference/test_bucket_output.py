"""`t5x infer` from lines and into answers in a bucket: gone on with on this machine and on another; what is refused."""

import json
import shutil

import pytest
from bucket_servers import amazon_bucket, google_bucket
from test_infer import CHUNK, LINES, Upper, answered, raised, run

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.inference import infer
from jax_prompts.storage import buckets


@pytest.fixture(params=["gs", "s3"])
def url(request, monkeypatch, tmp_path, unchecked):
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(infer, "Engine", Upper)
    monkeypatch.setattr(infer, "CHUNK_BATCHES", CHUNK // 2)
    raised.clear()
    server, bucket = {"gs": ("google", google_bucket), "s3": ("amazon", amazon_bucket)}[request.param]
    url = bucket(request.getfixturevalue(server), monkeypatch)
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in LINES))
    buckets.upload(tmp_path / "in", f"{url}/in")
    yield url
    raised.clear()


def rows(url):
    return [json.loads(line) for line in buckets.content(url, 1 << 20).splitlines()]


def test_lines_and_answers_in_a_bucket(url, google, tmp_path):
    asked = []
    google.faults = lambda method, path: asked.append(path) or (503 if len(asked) % 5 == 3 else None)
    report = run(source=f"{url}/in", target=f"{url}/out")
    google.faults = lambda method, path: None
    assert (report["examples"], report["output"]) == (11, f"{url}/out")
    assert rows(f"{url}/out") == answered(LINES)
    assert set(buckets.stored(url)) == {"in", "out"}
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("machine", ["this", "another"])
def test_a_run_goes_on_where_it_stood(url, tmp_path, machine):
    raised["line 9"] = MemoryError()
    with pytest.raises(MemoryError):
        run(source=f"{url}/in", target=f"{url}/out")
    raised.clear()
    assert rows(f"{url}/out.partial") == answered(LINES[:8])
    if machine == "another":
        shutil.rmtree(tmp_path / "cache")
    with pytest.raises(
        ConfigError, match=f"{url}/out.partial .*hold answers of a run that ended early: --resume"
    ):
        run(source=f"{url}/in", target=f"{url}/out")
    with pytest.raises(ConfigError, match=f"{url}/out.partial was made with another EVAL_BATCH_SIZE"):
        run(source=f"{url}/in", target=f"{url}/out", resume=True, batch_size=3)
    assert run(source=f"{url}/in", target=f"{url}/out", resume=True)["resumed"] == 8
    assert rows(f"{url}/out") == answered(LINES)
    assert set(buckets.stored(url)) == {"in", "out"}
    with pytest.raises(ConfigError, match=f"--output {url}/out is finished"):
        run(source=f"{url}/in", target=f"{url}/out", resume=True)
    assert run(source=f"{url}/in", target=f"{url}/out")["resumed"] == 0


def test_one_killed_while_it_is_taken_to_the_bucket_is_finished_later(url, monkeypatch):
    upload = buckets.upload

    def failing(place, address):
        if address == f"{url}/out":
            raise PermissionError(13, "http 403 Forbidden")
        upload(place, address)

    with (
        monkeypatch.context() as patch,
        pytest.raises(RunError, match=f"--output {url}/out cannot be written: http 403"),
    ):
        patch.setattr(buckets, "upload", failing)
        run(source=f"{url}/in", target=f"{url}/out")
    assert rows(f"{url}/out.partial") == answered(LINES)
    assert run(source=f"{url}/in", target=f"{url}/out", resume=True)["resumed"] == 11
    assert set(buckets.stored(url)) == {"in", "out"}


@pytest.mark.parametrize(
    ("source", "target", "error", "words"),
    [
        ("{url}/in", "{url}/in", ConfigError, "is the file that --input reads"),
        (
            "{url}/none",
            "{url}/out",
            ConfigError,
            "--input {url}/none cannot be read: there is no such object",
        ),
        ("{url}/in", "{url}/", ConfigError, "--output {url}/ is a folder"),
        ("{url}/in", "{url}-none/out", RunError, "--output {url}-none/out cannot be written"),
    ],
)
def test_what_cannot_be_is_one_line(url, source, target, error, words):
    with pytest.raises(error) as raised_error:
        run(source=source.format(url=url), target=target.format(url=url))
    assert words.format(url=url) in str(raised_error.value) and "\n" not in str(raised_error.value)
    assert set(buckets.stored(url)) == {"in"}
