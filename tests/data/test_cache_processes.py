"""Caches filled and read by other processes: beside each other, without TensorFlow, on a full disk."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("seqio")

from jax_prompts.config import Data
from jax_prompts.data.open import open_caches
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary


def start_python(code: str, task_package: pathlib.Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(task_package), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def printed(process: subprocess.Popen[str]) -> str:
    text = process.communicate()[0]
    assert process.returncode == 0
    return text


def settings_code(toy: Data, vocabulary_path: pathlib.Path, vocabulary: Vocabulary) -> str:
    vocabulary_path.write_bytes(vocabulary.model_bytes)
    return f"""
        from jax_prompts.config import Data, PromptDesign
        from jax_prompts.errors import RunError
        from jax_prompts.data.open import open_caches
        from jax_prompts.data.vocabularies.sentencepiece import Vocabulary

        data, vocabulary = {toy!r}, Vocabulary({str(vocabulary_path)!r})
    """


def test_a_filled_cache_needs_no_tensorflow(
    toy: Data, small_vocabulary: Vocabulary, task_package: pathlib.Path, tmp_path
) -> None:
    open_caches(dataclasses.replace(toy, task="toy_mixture"), "train", small_vocabulary)
    code = (
        settings_code(toy, tmp_path / "v.model", small_vocabulary)
        + """
        import dataclasses, sys
        import numpy as np
        from jax_prompts.data.sampler import eval_batches, train_batches

        for name in ("tensorflow", "seqio", "tensorflow_datasets"):
            sys.modules[name] = None  # an import would raise

        caches = open_caches(dataclasses.replace(data, task="toy_mixture"), "train", vocabulary)
        options = dict(inputs_length=16, targets_length=4, batch_size=4)
        next(train_batches([caches], seeds=[0], prompt_ids_TP=np.arange(2)[None], **options))
        ((_, cache),) = open_caches(data, "train", vocabulary)
        assert len(list(eval_batches(cache, prompt_ids_EP=np.arange(2)[None], **options))) == 3
        assert cache.metrics[0]([1], [cache.postprocess("yes")]) == {"accuracy": 100.0}
        assert not [name for name in sys.modules if name.startswith("tensorflow") and sys.modules[name]]
        try:
            open_caches(data, "validation", vocabulary)
        except RunError as error:
            print(error)
    """
    )
    (line,) = printed(start_python(code, task_package)).splitlines()
    assert "no token cache of toy_ten validation" in line
    assert "t5x cache" in line


def test_a_full_disk_is_said_and_leaves_nothing(
    toy: Data, small_vocabulary: Vocabulary, task_package: pathlib.Path, tmp_path
) -> None:
    code = (
        settings_code(dataclasses.replace(toy, task="toy_many"), tmp_path / "v.model", small_vocabulary)
        + """
        import resource
        import jax_prompts.data.fill

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            open_caches(data, "train", vocabulary)
        except RunError as error:
            print(error)
    """
    )
    (line,) = printed(start_python(code, task_package)).splitlines()
    assert "cannot be written" in line
    assert list(pathlib.Path(toy.cache_dir).iterdir()) == []


@pytest.mark.slow
def test_several_processes_may_fill_at_once(
    toy: Data, small_vocabulary: Vocabulary, task_package: pathlib.Path, tmp_path
) -> None:
    code = (
        settings_code(toy, tmp_path / "v.model", small_vocabulary)
        + """
        ((_, cache),) = open_caches(data, "train", vocabulary)
        print(len(cache), cache.rows(range(10))[0].values_N.sum())
    """
    )
    processes = [start_python(code, task_package) for _ in range(2)]
    assert len({printed(process) for process in processes}) == 1
    assert len(list(pathlib.Path(toy.cache_dir).iterdir())) == 1
