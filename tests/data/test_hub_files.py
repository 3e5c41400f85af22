"""Files of the hub's data sets, asked of a server on this machine that answers as the hub does."""

from __future__ import annotations

import http.server
import pathlib
import threading
from collections.abc import Iterator

import huggingface_hub
import pytest
from huggingface_hub import constants

from jax_prompts.config import Data, OwnTask
from jax_prompts.data import hub_files
from jax_prompts.data.open import open_caches
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError, RunError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = b'{"text": "the fox", "label": "a"}\n{"text": "a dog", "label": "b"}\n'
FILES = {
    "/datasets/org/name/resolve/main/data/train.jsonl": ROWS,
    "/datasets/org/name/resolve/refs%2Fconvert%2Fparquet/train.jsonl": ROWS[:34],
}
REFUSALS = {
    "/datasets/org/name/resolve/other/": (404, "RevisionNotFound"),
    "/datasets/org/name/": (404, "EntryNotFound"),
    "/datasets/org/gated/": (403, "GatedRepo"),
    "/datasets/org/broken/": (501, ""),
    "/": (401, "RepoNotFound"),
}


class Hub(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        found = FILES.get(self.path)
        status, code = (
            (200, "")
            if found is not None
            else next(refusal for start, refusal in REFUSALS.items() if self.path.startswith(start))
        )
        body = found or b""
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("_Hub", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_files.fetch.cache_clear()
    yield handler
    server.shutdown()
    server.server_close()
    hub_files.fetch.cache_clear()


def test_a_file_is_fetched_once(hub, capsys):
    url = "hf://datasets/org/name/data/train.jsonl"
    path = hub_files.fetch(url)
    assert path.read_bytes() == ROWS and path.suffix == ".jsonl"
    said = "".join(capsys.readouterr().err.split())
    assert f"{url}is" in said and COMMIT in said
    asked = list(hub.asked)
    assert hub_files.fetch(url) == path and hub.asked == asked
    hub_files.fetch.cache_clear()  # as another process
    assert hub_files.fetch(url) == path
    assert [line for line in hub.asked if line.startswith("GET /datasets/")] == [
        "GET /datasets/org/name/resolve/main/data/train.jsonl"
    ]


@pytest.mark.parametrize("revision", ["refs/convert/parquet", "refs%2Fconvert%2Fparquet"])
def test_a_revision_may_be_named(hub, revision):
    assert hub_files.fetch(f"hf://datasets/org/name@{revision}/train.jsonl").read_bytes() == ROWS[:34]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "org/name/none.csv",
            "org/name has no file none.csv",
        ),
        ("org/name@other/train.jsonl", "org/name has no revision other"),
        ("org/none/train.jsonl", "no data set org/none, or a private one, which needs HF_TOKEN"),
        ("org/gated/train.jsonl", "accept its terms on its page there"),
        ("name/train.jsonl", "write it as hf://datasets/ORGANISATION/NAME/FILE"),
    ],
)
def test_what_the_hub_does_not_have(hub, name, reason):
    with pytest.raises(ConfigError) as error:
        hub_files.fetch(f"hf://datasets/{name}")
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_a_hub_out_of_reach(hub, monkeypatch):
    with pytest.raises(
        RunError, match=r"broken/x\.csv could not be fetched .*501.*: give OwnTask a local copy"
    ):
        hub_files.fetch("hf://datasets/org/broken/x.csv")
    url = "hf://datasets/org/name/data/train.jsonl"
    path = hub_files.fetch(url)
    hub_files.fetch.cache_clear()

    def refused(*_, **__):
        raise OSError("Illegal header value b'Bearer hf_abcdefghijklmnopqrstuvwxyz12345678'")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refused)
    assert hub_files.fetch(url) == path  # what was kept will do
    with pytest.raises(RunError, match="could not be fetched") as error:
        hub_files.fetch("hf://datasets/org/name/other.csv")
    assert "Bearer ***" in str(error.value) and "hf_abc" not in str(error.value)


def test_a_task_of_the_hub_is_read_once(hub, tmp_path, train_vocabulary):
    """Its cache is then used without the hub; a task of local and of the hub's files reads both."""
    (tmp_path / "dev.jsonl").write_bytes(ROWS[:34])
    own = OwnTask(
        train="hf://datasets/org/name/data/train.jsonl", validation="dev.jsonl", labels={"a": "x", "b": "y"}
    )
    lengths = {"inputs": 32, "targets": 8}
    data = Data(
        "mine",
        "tasks.registry",
        lengths,
        2,
        str(tmp_path),
        cache_dir=str(tmp_path / "caches"),
        own_task=own,
    )
    vocabulary = Vocabulary(train_vocabulary("the quick brown fox jumps over a lazy dog 0123456789"))
    ((_, cache),) = open_caches(data, "train", vocabulary)
    assert cache.texts("inputs_pretokenized") == ["the fox", "a dog"]
    asked = list(hub.asked)
    hub_files.fetch.cache_clear()
    ((_, again),) = open_caches(data, "train", vocabulary)
    assert again.directory == cache.directory and hub.asked == asked
    ((_, dev),) = open_caches(data, "validation", vocabulary)
    assert len(dev) == 1 and [file["path"] for file in dev.source["files"]] == ["dev.jsonl"]
    assert hub.asked == asked
