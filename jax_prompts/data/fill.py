"""Makes token caches by running SeqIO tasks: besides `tasks`, the only importer of TensorFlow.

A task whose source has `at(data_dir)` (the same source on official files) and `files(split)` (their paths)
can be made with DATA_DIR; sources without them are used as they are.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import functools
import importlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jax_prompts.config import ConfigError, Data, RunError, nearest
from jax_prompts.data.cache import Directory, digest
from jax_prompts.data.vocabulary import Vocabulary
from jax_prompts.data.wordpiece import WordPiece
from jax_prompts.display import console, say


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """Drops what native code writes to stderr."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


# TensorFlow remarks on missing GPUs, first while it is imported, when no setting of its own counts yet.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _stderr_closed():
    import seqio
    import tensorflow as tf

    from jax_prompts.data.bert_features import bert_features, label_classes
    from jax_prompts.data.verbalizer import verbalized

TEXTS = ("inputs", "targets")
BATCH_ROWS = 4096  # rows in memory at once: about 16 MB of 1,000 tokens each
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
UNLABELLED = "<unk>"  # the target T5's text format gives examples whose label is hidden
SCHEMA = pa.schema(
    {
        "inputs": pa.list_(pa.int32()),
        "targets": pa.list_(pa.int32()),
        "inputs_pretokenized": pa.string(),
        "targets_pretokenized": pa.string(),
        "example": pa.string(),
    }
)


def fill(
    data: Data,
    split: str,
    vocabulary: Vocabulary | WordPiece,
    directory: Directory,
    usable: Callable[[str], bool],
) -> None:
    """Makes the caches of a task or mixture that are not usable yet.

    Each is written beside its place and renamed, so that readers see all of it or nothing, and several
    processes may fill at once.

    Args:
      data: names the task or mixture, and how long its rows may be.
      split: split name, TFDS slices allowed.
      vocabulary: replaces the one in the task's output features.
      directory: task or mixture name -> where its cache belongs.
      usable: whether a task's cache is there and fits.

    Raises:
      ConfigError: unknown task, split or module; a bad data file; a label outside the classes; no examples.
      RunError: the source cannot be reached, or the cache cannot be written.
    """
    with contextlib.suppress(RuntimeError, ValueError):  # too late where TensorFlow already runs
        tf.config.set_visible_devices([], "GPU")  # the GPU's memory is JAX's
    provider = _provider(data)
    tasks = [provider] if isinstance(provider, seqio.Task) else provider.tasks
    for task in tasks:
        if usable(task.name):
            continue
        with (
            _temporary(directory(task.name), lambda name=task.name: usable(name)) as temporary,
            _one_line(task.name),
        ):
            task = _adapted(task, data, vocabulary, temporary)
            _write(task, data, split, vocabulary, temporary)
    if isinstance(provider, seqio.Mixture):
        with _temporary(directory(provider.name), lambda: False) as temporary, _one_line(provider.name):
            rates = [(task.name, float(provider.get_rate(task))) for task in tasks]
            (temporary / "mixture.json").write_text(json.dumps(rates) + "\n")


def _provider(data: Data) -> seqio.Task | seqio.Mixture:
    """The registered task or mixture."""
    try:
        importlib.import_module(data.task_module)
    except (ConfigError, RunError):
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and data.task_module.startswith(str(error.name)):
            raise ConfigError(f"MIXTURE_OR_TASK_MODULE {data.task_module}: no module {error.name}") from error
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise RunError(f"{data.task_module} cannot be imported ({reason}): correct it") from error
    names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    if data.task not in names:
        raise ConfigError(
            f"MIXTURE_OR_TASK_NAME {data.task} is not registered by {data.task_module}: "
            f"use {nearest(data.task, names)}"
        )
    return seqio.get_mixture_or_task(data.task)


def _adapted(
    task: seqio.Task, data: Data, vocabulary: Vocabulary | WordPiece, directory: pathlib.Path
) -> seqio.Task:
    """The task with the run's vocabulary and words for its labels, and its files where DATA_DIR says."""
    task = verbalized(task, data.verbalizer)
    if isinstance(vocabulary, WordPiece):
        features = bert_features(task, vocabulary)
    else:
        model = directory / "vocabulary.model"  # SeqIO reads vocabularies from files
        model.write_bytes(vocabulary.model_bytes)
        ours = seqio.SentencePieceVocabulary(str(model), extra_ids=vocabulary.extra_ids)
        features = {
            name: dataclasses.replace(feature, vocabulary=ours) if name in TEXTS else feature
            for name, feature in task.output_features.items()
        }
    source = task.source
    if data.data_dir is not None and hasattr(source, "at"):
        source = source.at(data.data_dir)
    elif data.data_dir is not None and isinstance(source, seqio.TfdsDataSource):
        raise ConfigError(f"{task.name} reads TFDS alone and knows no official files: leave DATA_DIR out")
    elif data.tfds_data_dir is not None:
        seqio.set_tfds_data_dir_override(data.tfds_data_dir)
    return task.replace(source=source, output_features=features)


def _write(
    task: seqio.Task, data: Data, split: str, vocabulary: Vocabulary | WordPiece, directory: pathlib.Path
) -> None:
    """One task's `tokens.arrow` and `info.json`."""
    functions = _functions(task, data.task_module.partition(".")[0])
    labels = label_classes(task)
    splits = list(task.source.splits or ())
    if splits and re.split(r"[\[+]", split)[0] not in splits:
        raise ConfigError(f"{task.name} has no split {split!r}: use {nearest(split, splits)}")
    say(f"tokenising {task.name} {split} (once)")
    dataset = task.get_dataset(
        sequence_length=data.task_feature_lengths, split=split, shuffle=False, seed=0, try_in_mem_cache=False
    )

    count, longest, label_counts = 0, dict.fromkeys(TEXTS, 0), collections.Counter[str]()
    with pa.OSFile(str(directory / "tokens.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for rows in _chunks(_counted(dataset.as_numpy_iterator(), task.num_input_examples(split))):
            columns = [_row(example, vocabulary) for example in rows]
            for number, row in enumerate(columns, start=count):
                for feature in longest:
                    longest[feature] = max(longest[feature], len(row[feature]))
                if labels is not None:
                    _check_label(task.name, split, number, row["targets_pretokenized"], labels)
                    label_counts[row["targets_pretokenized"]] += 1
            writer.write_batch(pa.RecordBatch.from_pylist(columns, SCHEMA))
            count += len(rows)
    if not count:
        raise ConfigError(
            f"{task.name} has no examples in split {split!r}: look at {data.data_dir or 'its source'}"
        )
    info = {
        "task": task.name,
        "split": split,
        "count": count,
        "lengths": data.task_feature_lengths,
        "longest": longest,
        "vocabulary": vocabulary.fingerprint,
        "labels": None if labels is None else list(labels),
        "label_counts": label_counts,
        **functions,
        "source": _files(task, split, data),
        "tokens": digest(directory / "tokens.arrow"),
    }
    (directory / "vocabulary.model").unlink(missing_ok=True)
    (directory / "info.json").write_text(json.dumps(info, indent=2) + "\n")


def _row(example: dict[str, Any], vocabulary: Vocabulary | WordPiece) -> dict[str, Any]:
    """An example of the dataset as a row of the cache."""
    row: dict[str, Any] = {}
    for feature in TEXTS:
        row[feature] = np.asarray(example.pop(feature, ()), np.int32)
        text = example.pop(f"{feature}_pretokenized", None)
        row[f"{feature}_pretokenized"] = vocabulary.decode(row[feature]) if text is None else _plain(text)
    row["example"] = json.dumps({name: _plain(value) for name, value in example.items()})
    return row


def _plain(value: Any) -> Any:
    """A value of a dataset as JSON knows it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if hasattr(value, "to_list"):  # ragged tensors
        value = value.to_list()
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
        return value if not isinstance(value, bytes | list) else _plain(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _check_label(task: str, split: str, number: int, label: str, labels: Iterable[str]) -> None:
    if label not in labels and label != UNLABELLED:
        raise ConfigError(
            f"{task} {split}, example {number}: label {label!r} is none of {', '.join(labels)}: "
            "correct the data file"
        )


def _functions(task: seqio.Task, package: str) -> dict[str, Any]:
    """Postprocessor and metrics by name, so that evaluation finds them without SeqIO."""
    if len(task.metric_objs) > len(task.predict_metric_fns):
        raise ConfigError(
            f"{task.name} has metrics that are not functions (targets, predictions): give it such metric_fns"
        )

    def named(function: Callable[..., Any]) -> dict[str, Any]:
        kwargs: dict[str, Any] = {}
        while isinstance(function, functools.partial):
            if function.args:
                raise ConfigError(f"{task.name}: pass {function.args} to {function.func.__name__} by keyword")
            kwargs = {**function.keywords, **kwargs}
            function = function.func
        module, name = function.__module__, function.__qualname__
        if module.partition(".")[0] != package or not name.isidentifier():
            raise ConfigError(
                f"{task.name} is scored by {module}:{name}: metrics and postprocessors have to be plain "
                f"functions of a module in package {package}, so wrap it there"
            )
        try:
            return {"function": f"{module}:{name}", "kwargs": json.loads(json.dumps(kwargs))}
        except TypeError as error:
            raise ConfigError(
                f"{task.name}: arguments of {name} have to be plain values ({error})"
            ) from error

    return {
        "postprocess": None if task.postprocessor is None else named(task.postprocessor),
        "metrics": [named(metric) for metric in task.predict_metric_fns],
    }


def _files(task: seqio.Task, split: str, data: Data) -> dict[str, Any]:
    """Where the examples came from: the kind of source, and files under DATA_DIR by content."""
    source = task.source
    if data.data_dir is None or not hasattr(source, "files"):
        return {"kind": "tfds" if isinstance(source, seqio.TfdsDataSource) else "task", "files": []}
    root = pathlib.Path(data.data_dir).expanduser().absolute()  # links may lead elsewhere: leave them
    paths = [pathlib.Path(path).absolute() for path in source.files(split)]
    return {
        "kind": "files",
        "files": [{"path": str(path.relative_to(root)), **digest(path)} for path in paths],
    }


def _counted(examples: Iterable[dict[str, Any]], total: int | None) -> Iterator[dict[str, Any]]:
    """Shows on a terminal how many examples have passed."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("examples"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(examples, total=total)


def _chunks(examples: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for example in examples:
        chunk.append(example)
        if len(chunk) == BATCH_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@contextlib.contextmanager
def _temporary(place: pathlib.Path, usable: Callable[[], bool]) -> Iterator[pathlib.Path]:
    """A fresh directory that becomes `place` if all goes well, and is removed if not."""
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
        yield temporary
        temporary.chmod(0o755)
        if not usable():  # else another process was faster: keep its work, which may be in use
            if place.exists():
                old = pathlib.Path(tempfile.mkdtemp(prefix=".old-", dir=place.parent))
                place.rename(old / place.name)
                shutil.rmtree(old, ignore_errors=True)
            try:
                temporary.rename(place)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster just now
                    raise
    except OSError as error:
        raise RunError(
            f"token cache {place} cannot be written ({error.strerror or error}): free space, or set CACHE_DIR"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _one_line(task: str) -> Iterator[None]:
    """Errors of TensorFlow, TFDS and a task's own code as one line with their reason."""
    try:
        yield
    except (ConfigError, RunError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        # TensorFlow wraps what Python code raised inside a dataset; the reason is still in its text.
        own = re.search(r"(ConfigError|RunError): (.+)", str(error))
        if own:
            raise (ConfigError if own[1] == "ConfigError" else RunError)(own[2]) from error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RunError(
            f"{task} cannot be read: {reason} (DATA_DIR reads official files instead of TFDS)"
        ) from error
