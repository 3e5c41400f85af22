"""Puts words in place of a task's labels: the model reads and writes them as targets, and is scored against them."""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping

import seqio
import tensorflow as tf

from jax_prompts.errors import ConfigError, nearest
from tasks.classification import label_classes


def verbalized(task: seqio.Task, words: Mapping[str, str] | None) -> seqio.Task:
    """The task with a word for each of its labels, in their order; the same task without `words`.

    Targets are replaced where the task's text is finished and about to be tokenised.

    Raises:
      ConfigError: the task has no labels; `words` misses one, names another, or has one word for two.
    """
    if words is None:
        return task
    labels = label_classes(task)
    if labels is None:
        raise ConfigError(f"VERBALIZER is set, but {task.name} has no labels: leave it out")
    for label in words:
        if label not in labels:
            raise ConfigError(
                f"VERBALIZER names {label!r}, which is no label of {task.name}: use {nearest(label, labels)}"
            )
    missing = [label for label in labels if label not in words]
    if missing:
        raise ConfigError(
            f"VERBALIZER has no word for {', '.join(missing)}: give {task.name} one for each label"
        )
    (word, count), *_ = collections.Counter(words.values()).most_common(1)
    if count > 1:
        both = " and ".join(label for label in labels if words[label] == word)
        raise ConfigError(f"VERBALIZER has {word!r} for {both}: give each label a word of its own")

    steps = list(task.preprocessors)
    if seqio.preprocessors.tokenize not in steps:
        raise ConfigError(f"VERBALIZER is set, but {task.name} makes its tokens by itself: leave it out")
    steps.insert(
        steps.index(seqio.preprocessors.tokenize), functools.partial(_replace_targets, words=dict(words))
    )
    return task.replace(
        preprocessors=steps,
        postprocess_fn=functools.partial(
            task.postprocessor, label_classes=tuple(words[label] for label in labels)
        ),
    )


def _replace_targets(dataset: tf.data.Dataset, *, words: Mapping[str, str]) -> tf.data.Dataset:
    def replace(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        target = replaced = example["targets"]
        for label, word in words.items():
            replaced = tf.where(target == label, word, replaced)
        return {**example, "targets": replaced}

    return dataset.map(replace, num_parallel_calls=tf.data.AUTOTUNE)
