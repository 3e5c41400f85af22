"""Makes token caches by running SeqIO tasks: besides `tasks`, only this and its helpers import TensorFlow.

A task whose source has `at(data_dir)` (the same source on official files) and `files(split)` (their paths)
can be made with DATA_DIR; sources without them are used as they are.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jax_prompts.config import Data
from jax_prompts.data import hub_files, protocols
from jax_prompts.data.cache_bucket import new_cache
from jax_prompts.data.cache_key import Directory, check_module_name, digest
from jax_prompts.data.readable import reads_back
from jax_prompts.data.task_errors import CORRECT_TASK, in_one_line, task_errors_as_config_errors
from jax_prompts.data.vocabularies.sentencepiece import SENTINEL, Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.display import console, log
from jax_prompts.errors import ConfigError, RunError, first_line, nearest
from jax_prompts.storage.copies import versions
from tasks.errors import TaskError
from tasks.sources.bad_lines import SHOWN, all_bad, skipping


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

    from jax_prompts.data.bert_features import bert_features
    from jax_prompts.data.numpy_vocabulary import TokenizerVocabulary
    from jax_prompts.data.tfds_access import check_tfds_access
    from jax_prompts.data.token_rows import BATCH_ROWS, SCHEMA, TEXTS, batches, ends_in_tokens, rows_of
    from jax_prompts.data.verbalizer import verbalized
    from tasks.classification import label_classes
    from tasks.own.task import own_task
    from tasks.selection import chooses
    from tasks.text.preprocessors import NO_LABEL


@task_errors_as_config_errors()
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
    provider = find_task(data)
    tasks = _tasks(provider, split)
    for task in tasks:
        if usable(task.name):
            continue
        with (
            new_cache(directory(task.name), lambda name=task.name: usable(name), data.cache_dir) as temporary,
            in_one_line(task.name, otherwise=_otherwise(task, data)),
            skipping(data.skip_bad_lines) as skipped,
        ):
            task = _adapted(task, data, vocabulary, temporary)
            check_tfds_access(task, split)
            _write(task, data, split, vocabulary, temporary, skipped)
    if isinstance(provider, seqio.Mixture):
        with (
            new_cache(directory(provider.name), lambda: False, data.cache_dir) as temporary,
            in_one_line(provider.name),
        ):
            parts = [
                (task.name, float(provider.get_rate(task)), chooses(provider.name, task.name))
                for task in tasks
            ]
            (temporary / "mixture.json").write_text(json.dumps(parts) + "\n")


@task_errors_as_config_errors()
def checked_tasks(data: Data) -> list[seqio.Task]:
    """Compares a run's settings with its task, of which no data is read; returns those tasks that choose the prompt.

    Raises:
      ConfigError: as `find_task`; a split that no task has; a VERBALIZER that does not fit a task's labels.
      RunError: the module cannot be imported.
    """
    provider = find_task(data)
    for split in protocols.official_splits(data):
        tasks = [verbalized(task, data.verbalizer) for task in _tasks(provider, split)]
        _check_split(_on_files(tasks[0], data), split)
    return [task for task in tasks if isinstance(provider, seqio.Task) or chooses(provider.name, task.name)]


def find_task(data: Data) -> seqio.Task | seqio.Mixture:
    """The registered task or mixture, or the task of the user's own files.

    Raises:
      ConfigError: no such task or module, or one that registers none.
      RunError: the module cannot be imported.
    """
    check_module_name(data.task_module)
    try:
        importlib.import_module(data.task_module)
    except (ConfigError, RunError, TaskError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and data.task_module.startswith(str(error.name)):
            raise ConfigError(f"MIXTURE_OR_TASK_MODULE {data.task_module}: no module {error.name}") from error
        if unknown := re.search(r"(?:Provider name not registered: |found with name ')([^\s']+)", str(error)):
            raise ConfigError(
                f"{data.task_module}: a mixture names the task {unknown[1]}, which is not registered before it; "
                f"did you mean {nearest(unknown[1], _registered())}?"
            ) from error
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise RunError(f"{data.task_module} cannot be imported ({reason}): correct it") from error
    names = _registered()
    if data.own_task is not None:
        if data.task_module.partition(".")[0] != "tasks":  # where names of its functions are looked up later
            raise ConfigError(
                f"OWN_TASK is set, and MIXTURE_OR_TASK_MODULE is {data.task_module}: leave one of them out"
            )
        if data.task in names:
            raise ConfigError(
                f"MIXTURE_OR_TASK_NAME {data.task} is another task's name: choose one for OWN_TASK that is not taken"
            )
        own = dataclasses.asdict(data.own_task)
        files = {split: own.pop(split) for split in ("train", "validation", "test")}
        return own_task(data.task, data.data_dir, files=files, fetch=hub_files.fetch, **own)
    if not names:
        raise ConfigError(
            f"MIXTURE_OR_TASK_MODULE {data.task_module} registers no task: name the module that registers yours, "
            "or tasks.registry"
        )
    if data.task not in names:
        raise ConfigError(
            f"MIXTURE_OR_TASK_NAME {data.task} is not registered by {data.task_module}: "
            f"use {nearest(data.task, names)}"
        )
    return seqio.get_mixture_or_task(data.task)


def _registered() -> set[str]:
    return {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}


def _tasks(provider: seqio.Task | seqio.Mixture, split: str) -> list[seqio.Task]:
    """The task, or those of a mixture's that have the split; if none has, all, so that the error names one."""
    if isinstance(provider, seqio.Task):
        return [provider]
    with in_one_line(provider.name):
        having = [task for task in provider.tasks if _has_split(task, split)]
    return having or provider.tasks


def _has_split(task: seqio.Task, split: str) -> bool:
    asks_tfds = isinstance(task.source, seqio.TfdsDataSource) and not hasattr(task.source, "at")
    splits = () if asks_tfds else task.source.splits or ()  # TFDS may be out of reach, and says so by itself
    return not splits or re.split(r"[\[+]", split)[0].strip() in splits


def _check_split(task: seqio.Task, split: str) -> None:
    if not _has_split(task, split):
        raise ConfigError(f"{task.name} has no split {split!r}: use {nearest(split, task.source.splits)}")


def _adapted(
    task: seqio.Task, data: Data, vocabulary: Vocabulary | WordPiece, directory: pathlib.Path
) -> seqio.Task:
    """The task with the run's vocabulary and words for its labels, and its files where DATA_DIR says."""
    task = verbalized(task, data.verbalizer)
    if isinstance(vocabulary, WordPiece):
        features = bert_features(task, vocabulary)
    else:
        if vocabulary.model_bytes:
            model = directory / "vocabulary.model"  # SeqIO reads vocabularies from files
            model.write_bytes(vocabulary.model_bytes)
            ours = seqio.SentencePieceVocabulary(str(model), extra_ids=vocabulary.extra_ids)
        else:
            ours = TokenizerVocabulary(vocabulary)
        features = {
            name: dataclasses.replace(feature, vocabulary=ours) if name in TEXTS else feature
            for name, feature in task.output_features.items()
        }
    if data.data_dir is None and data.tfds_data_dir is not None:
        seqio.set_tfds_data_dir_override(data.tfds_data_dir)
    return _on_files(task, data).replace(output_features=features)


def _otherwise(task: seqio.Task, data: Data) -> str:
    official = data.data_dir is None and hasattr(task.source, "at")
    return "set DATA_DIR to read official files in place of TFDS" if official else CORRECT_TASK


def _on_files(task: seqio.Task, data: Data) -> seqio.Task:
    """The task, its source the files in DATA_DIR where that is set: these may have splits that TFDS lacks."""
    if data.data_dir is None:
        return task
    if hasattr(task.source, "at"):
        return task.replace(source=task.source.at(data.data_dir))
    if isinstance(task.source, seqio.TfdsDataSource):
        raise ConfigError(f"{task.name} reads TFDS alone and knows no official files: leave DATA_DIR out")
    return task


def _write(
    task: seqio.Task,
    data: Data,
    split: str,
    vocabulary: Vocabulary | WordPiece,
    directory: pathlib.Path,
    skipped: Collection[str],
) -> None:
    """One task's `tokens.arrow` and `info.json`; `skipped` fills with bad lines while the data is read."""
    functions = _functions(task, data)
    labels = label_classes(task)
    _check_split(task, split)
    begin = _begin(task, vocabulary) if data.sentinel else ()
    log(f"tokenising {task.name} {split} (once)")
    count, longest, label_counts = 0, dict.fromkeys(TEXTS, 0), collections.Counter[str]()
    cut, misread = dict.fromkeys(TEXTS, 0), 0
    with pa.OSFile(str(directory / "tokens.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        found = batches(task, split, data.task_feature_lengths)
        for columns in _counted(found, task.num_input_examples(split)):
            rows = rows_of(columns, task, vocabulary, data.task_feature_lengths, begin)
            for feature in TEXTS:
                lengths = rows.column(feature).value_lengths()
                longest[feature] = max(longest[feature], pc.max(lengths).as_py())
                cut[feature] += rows.column(f"{feature}_cut").true_count
            if labels is not None:
                texts = rows.column("targets_pretokenized").to_pylist()
                for number, text in enumerate(texts, start=count):
                    _check_label(task.name, split, number, text, labels)
                label_counts.update(texts)
            elif getattr(columns.get("targets"), "dtype", None) == tf.string and isinstance(
                vocabulary, Vocabulary
            ):
                texts = rows.column("targets_pretokenized").to_pylist()
                misread += sum(text != NO_LABEL and not reads_back(text, vocabulary) for text in texts)
            writer.write_batch(rows)
            count += rows.num_rows
    if not count:
        reason = all_bad() or f"look at {data.data_dir or 'its source'}"
        raise ConfigError(f"{task.name} has no examples in split {split!r}: {reason}")
    info = {
        "task": task.name,
        "split": split,
        "count": count,
        "lengths": data.task_feature_lengths,
        "longest": longest,
        "cut": cut,
        "misread_targets": misread,
        "vocabulary": vocabulary.fingerprint,
        "labels": None if labels is None else list(labels),
        "label_counts": label_counts,
        **functions,
        "source": _files(task, split, data),
        "bad_lines": {"count": len(skipped), "first": list(skipped)[:SHOWN]},
        "tokens": digest(directory / "tokens.arrow"),
    }
    (directory / "vocabulary.model").unlink(missing_ok=True)
    (directory / "info.json").write_text(json.dumps(info, indent=2) + "\n")


def _begin(task: seqio.Task, vocabulary: Vocabulary | WordPiece) -> Sequence[int]:
    """The ids that targets begin with, where they are to begin with a sentinel."""
    first = vocabulary.first_sentinel if isinstance(vocabulary, Vocabulary) else None
    if first is None:
        raise ConfigError(f"SENTINEL is True, and the vocabulary has no {SENTINEL}: set it to False")
    if not ends_in_tokens(task):
        raise ConfigError(f"SENTINEL is True, but {task.name} makes its tokens by itself: leave it out")
    return [first]


def _check_label(task: str, split: str, number: int, label: str, labels: Iterable[str]) -> None:
    if label not in labels and label != NO_LABEL:
        raise ConfigError(
            f"{task} {split}, example {number}: label {label!r} is none of {', '.join(labels)}: "
            "correct the data file"
        )


POSTPROCESSOR = "postprocessor"  # of a task, as a cache names the one that it asks the task for


def _functions(task: seqio.Task, data: Data) -> dict[str, Any]:
    """Postprocessor and metrics by name, so that evaluation finds them without SeqIO; others as the task has them."""
    package = data.task_module.partition(".")[0]
    if len(task.metric_objs) > len(task.predict_metric_fns):
        raise ConfigError(
            f"{task.name} has metrics that are not functions (targets, predictions): give it such metric_fns"
        )

    def named(function: Callable[..., Any], which: str | int) -> dict[str, Any]:
        kwargs: dict[str, Any] = {}
        while isinstance(function, functools.partial) and not function.args:
            kwargs = {**function.keywords, **kwargs}
            function = function.func
        module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
        if module.partition(".")[0] == package and name.isidentifier():
            with contextlib.suppress(TypeError):  # arguments that are no plain values
                return {"function": f"{module}:{name}", "kwargs": json.loads(json.dumps(kwargs))}
        if package == "tasks":
            raise ConfigError(
                f"{task.name} is scored by {module}:{name or function}, and {data.task_module} is the project's own: "
                "set MIXTURE_OR_TASK_MODULE to the module that registers it"
            )
        if data.verbalizer is not None:
            raise ConfigError(
                f"VERBALIZER is set, and {task.name} is scored by {module}:{name or function}, no function of "
                f"package {package}: leave VERBALIZER out, or wrap the function there"
            )
        return {"of_task": which}

    return {
        "postprocess": None if task.postprocessor is None else named(task.postprocessor, POSTPROCESSOR),
        "metrics": [named(metric, number) for number, metric in enumerate(task.predict_metric_fns)],
    }


def _files(task: seqio.Task, split: str, data: Data) -> dict[str, Any]:
    """Where the examples came from: the kind of source, and files under DATA_DIR by content."""
    source = task.source
    if (data.data_dir is None and data.own_task is None) or not hasattr(source, "files"):
        return {"kind": "tfds" if isinstance(source, seqio.TfdsDataSource) else "task", "files": []}
    root = pathlib.Path(data.data_dir or ".").absolute()  # links may lead elsewhere: leave them
    paths = [pathlib.Path(path).absolute() for path in source.files(split)]
    known, recorded = versions(root), []
    for path in paths:
        name = os.path.relpath(path, root)
        version = {"version": known[name]} if name in known else {}
        recorded.append({"path": name, **digest(path), **version})
    return {"kind": "files", "files": recorded}


def _counted(batches: Iterable[dict[str, Any]], total: int | None) -> Iterator[dict[str, Any]]:
    """The batches, while a terminal shows how many examples have passed."""
    shown = (BarColumn(), MofNCompleteColumn(), TextColumn("examples"), TimeRemainingColumn())
    with Progress(*shown, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("", total=total)
        for batch in batches:
            yield batch
            progress.advance(bar, BATCH_ROWS)
