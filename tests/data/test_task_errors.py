"""Errors of tasks end as configuration errors with the same text, wherever they are raised."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

pytest.importorskip("seqio")

from jax_prompts.config import Data
from jax_prompts.data.open import open_caches
from jax_prompts.data.task_statistics import describe_tasks
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError
from tasks import catalogue
from tasks.errors import TaskError

TORN = """
import seqio

from tasks.errors import BadLine, TaskError
from toytasks import registry


class Torn:
    def __init__(self, error):
        self.error = error

    def __iter__(self):
        raise self.error


def add(name, error, at_once):
    def rows(split, shuffle_files=False, seed=None):
        if at_once:
            raise error
        return registry.dataset(Torn(error))

    registry.add(name, seqio.FunctionDataSource(rows, splits=("train",)))


add("toy_torn_first", TaskError("the file is torn"), True)
add("toy_torn_within", TaskError("the file is torn"), False)
add("toy_torn_line", BadLine("the file is torn"), False)
"""


@pytest.fixture
def torn(toy: Data, task_package: pathlib.Path) -> Data:
    (task_package / "toytasks" / "torn.py").write_text(TORN)
    (task_package / "toytasks" / "refused.py").write_text(
        "from tasks.errors import TaskError\nraise TaskError('the file is torn')\n"
    )
    return dataclasses.replace(toy, task_module="toytasks.torn")


@pytest.mark.parametrize("task", ["toy_torn_first", "toy_torn_within", "toy_torn_line"])
def test_while_reading(torn: Data, small_vocabulary: Vocabulary, task: str):
    with pytest.raises(ConfigError, match=r"^the file is torn$"):
        open_caches(dataclasses.replace(torn, task=task), "train", small_vocabulary)


def test_while_the_module_is_imported(torn: Data, small_vocabulary: Vocabulary):
    with pytest.raises(ConfigError, match=r"^the file is torn$"):
        open_caches(dataclasses.replace(torn, task_module="toytasks.refused"), "train", small_vocabulary)


def test_while_the_scoring_of_a_cache_is_imported(torn: Data, small_vocabulary: Vocabulary):
    ((_, cache),) = open_caches(torn, "train", small_vocabulary)
    path = cache.directory / "info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "metrics": [{"function": "toytasks.refused:f", "kwargs": {}}]}))
    ((_, cache),) = open_caches(torn, "train", small_vocabulary)
    with pytest.raises(ConfigError, match=r"^the file is torn$"):
        cache.metrics  # noqa: B018


def test_while_tasks_are_listed(monkeypatch: pytest.MonkeyPatch):
    def refuse():
        raise TaskError("the file is torn")

    monkeypatch.setattr(catalogue, "tasks_by_name", refuse)
    with pytest.raises(ConfigError, match=r"^the file is torn$"):
        describe_tasks([], None, None)
