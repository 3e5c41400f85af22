"""T5's registered tasks beside ours, and the texts that both make of raw examples."""

import itertools
from typing import Any

import numpy as np
import pytest
import seqio
import tensorflow as tf

import tasks.registry  # noqa: F401


def _withdraw() -> dict[str, seqio.Task]:
    """Takes all tasks out of SeqIO's registry and returns them by name."""
    found = {name: seqio.TaskRegistry.get(name) for name in seqio.TaskRegistry.names()}
    for name in found:
        seqio.TaskRegistry.remove(name)
    return found


# Many names are the same, and SeqIO has one registry: T5's tasks stay outside it.
OURS = _withdraw()
import t5.data.tasks  # noqa: E402, F401

THEIRS = _withdraw()
for _name, _task in OURS.items():
    seqio.TaskRegistry.add_provider(_name, _task)


def _counterpart(ours: str) -> str:
    """T5's name: it has GLUE in TFDS's version 1.0.0 alone, and no task of MRQA but SQuAD's form."""
    return "squad_v010_allanswers" if ours.startswith("mrqa_") else ours.replace("_v200", "_v002")


PAIRS = {ours: _counterpart(ours) for ours in OURS if _counterpart(ours) in THEIRS}
WNLI = ("glue_wnli_v002_simple_eval", "glue_wnli_v200_simple_eval")


def kind(ours: str) -> str:
    """Name of the task's raw examples in `raw_examples`."""
    return "mrqa" if ours.startswith("mrqa_") else PAIRS[ours]


def differs(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)


def pairs(different: dict[str, str]) -> list[Any]:
    """Names of all tasks that are T5's too, as parameters; from those of `different` a difference is expected."""
    return [pytest.param(name, marks=differs(different[name]) if name in different else ()) for name in PAIRS]


def dataset_of(rows: list[dict[str, Any]]) -> tf.data.Dataset:
    """Rows as TFDS gives them: vectors of texts, labels of 64 bits and other numbers of 32."""
    specs = {name: _spec(name, value) for name, value in rows[0].items()}
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=specs)


def _spec(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _spec(inner, part) for inner, part in value.items()}
    if isinstance(value, list):
        return tf.TensorSpec([None], tf.string)
    if name == "label" and isinstance(value, int):
        return tf.TensorSpec([], tf.int64)
    return tf.TensorSpec([], {str: tf.string, int: tf.int32, float: tf.float32}[type(value)])


def texts_of_ours(name: str, dataset: tf.data.Dataset) -> list[dict[str, Any]]:
    """Examples before tokenisation, plain, as postprocessors get them from our cache."""
    return plain(_texts(OURS[name], dataset))


def texts_of_theirs(name: str, dataset: tf.data.Dataset) -> list[dict[str, Any]]:
    """Those that T5 makes for our task `name`, with bytes and arrays, as T5's postprocessors get them."""
    task = THEIRS[PAIRS[name]]
    if kind(name) != "mrqa":
        return _texts(task, dataset)
    rows = _texts(task, dataset.map(_as_squad))
    return [{"idx" if key == "id" else key: value for key, value in row.items()} for row in rows]


def _texts(task: seqio.Task, dataset: tf.data.Dataset) -> list[dict[str, Any]]:
    for step in itertools.takewhile(
        lambda step: step is not seqio.preprocessors.tokenize, task.preprocessors
    ):
        dataset = step(dataset)
    return list(dataset.as_numpy_iterator())


def _as_squad(example: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": example["qid"],
        "question": example["question"],
        "context": example["context"],
        "answers": {"text": example["answers"]},
    }


def plain(value: Any) -> Any:
    """The same with Python's texts, numbers and lists."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value
