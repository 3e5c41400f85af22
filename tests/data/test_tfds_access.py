"""TFDS without a network, and mixtures that name no task: one line, soon, and what to do."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import threading

import pytest

pytest.importorskip("seqio")

from jax_prompts.config import Data
from jax_prompts.data import tfds_access
from jax_prompts.data.open import open_caches
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError, RunError


@pytest.fixture
def official(tmp_path: pathlib.Path) -> Data:
    return Data(
        task="taskless_super_glue_cb_v102",
        task_module="tasks.registry",
        task_feature_lengths={"inputs": 16, "targets": 8},
        batch_size=4,
        cache_dir=str(tmp_path / "caches"),
        tfds_data_dir=str(tmp_path / "tfds"),
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_what_to_download_is_said_without_a_network(official: Data, small_vocabulary: Vocabulary, offline):
    with pytest.raises(RunError) as error:
        open_caches(official, "train[:50]", small_vocabulary)
    message = str(error.value)
    assert "\n" not in message
    assert "super_glue/cb:1.0.2" in message and official.tfds_data_dir in message
    assert "put superglue/CB/train.jsonl from https://super.gluebenchmark.com/tasks" in message
    assert "DATA_DIR" in message


def test_names_that_are_looked_up_for_ever_are_given_up(monkeypatch: pytest.MonkeyPatch):
    over = threading.Event()

    def look_up(*_, **__):
        over.wait()
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(tfds_access, "SECONDS", 0.5)
    assert not tfds_access._any_answers(["https://one.invalid", "https://two.invalid"])
    over.set()  # of threads that would wait for ever


def test_a_mixture_of_an_unknown_task_names_those_like_it(
    toy: Data, small_vocabulary: Vocabulary, task_package: pathlib.Path
):
    (task_package / "toytasks" / "broken.py").write_text(
        "import seqio\nfrom toytasks import registry\n"
        "seqio.MixtureRegistry.add('toy_broken', [('toy_tenn', 1)])\n"
    )
    with pytest.raises(ConfigError, match=r"mixture names the task toy_tenn, .* did you mean .*toy_ten"):
        open_caches(
            dataclasses.replace(toy, task="toy_broken", task_module="toytasks.broken"),
            "train",
            small_vocabulary,
        )
