"""SeqIO preprocessors: labelled examples as `inputs` and `targets`, and small steps before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import seqio
import tensorflow as tf

Example = dict[str, Any]

NO_LABEL = "<unk>"  # T5's target of an example without a label


def label_text(
    dataset: tf.data.Dataset, *, name: str, fields: Sequence[str], label_classes: Sequence[str]
) -> tf.data.Dataset:
    """T5's form of classification: `name field: text field: text` and the label's name.

    As in Raffel et al. 2020, appendix D. White space within texts is kept, `idx` passes through (its parts as
    `idx/part`, where it has parts), and a label below 0 becomes `<unk>`.

    Args:
      dataset: examples with `idx`, `label` and `fields`.
      name: task name in front.
      fields: text fields in the order of the input.
      label_classes: names of labels 0, 1, ...
    """
    classes = tf.constant([NO_LABEL, *label_classes])

    def to_text(example: Example) -> Example:
        words = [word for field in fields for word in (f"{field}:", example[field])]
        return {
            **index_of(example),
            "inputs": tf.strings.join([name, *words], separator=" "),
            "targets": classes[tf.maximum(example["label"], -1) + 1],
        }

    return dataset.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)


def segment_text(
    dataset: tf.data.Dataset, *, segments: Sequence[Sequence[str]], label_classes: Sequence[str]
) -> tf.data.Dataset:
    """BERT's form: the fields of each segment, [SEP] between segments, and the label's name.

    Args:
      dataset: examples with `idx`, `label` and the fields.
      segments: text fields of each segment, in order; one without fields is left out.
      label_classes: names of labels 0, 1, ...
    """
    classes = tf.constant([NO_LABEL, *label_classes])

    def to_text(example: Example) -> Example:
        texts = [
            tf.strings.join([example[field] for field in fields], separator=" ")
            for fields in segments
            if fields
        ]
        return {
            **index_of(example),
            "inputs": tf.strings.join(texts, separator=" [SEP] "),
            "targets": classes[tf.maximum(example["label"], -1) + 1],
        }

    return dataset.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)


def index_of(example: Example) -> Example:
    """`idx`, or `idx/part` for each part of it."""
    index = example["idx"]
    return (
        {f"idx/{part}": value for part, value in index.items()} if isinstance(index, dict) else {"idx": index}
    )


def score_text(dataset: tf.data.Dataset, *, name: str, fields: Sequence[str]) -> tf.data.Dataset:
    """T5's form of STS-B: the score as text, rounded to a multiple of 0.2, halves to even.

    Args:
      dataset: examples with `idx`, a float `label`, and `fields`.
      name, fields: see `label_text`.
    """

    def to_text(example: Example) -> Example:
        words = [word for field in fields for word in (f"{field}:", example[field])]
        return {
            "idx": example["idx"],
            "inputs": tf.strings.join([name, *words], separator=" "),
            "targets": tf.strings.as_string(tf.round(example["label"] * 5) / 5, precision=1),
        }

    return dataset.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)


def strip_markup(dataset: tf.data.Dataset, *, fields: Sequence[str]) -> tf.data.Dataset:
    """Removes MultiRC's markup: each `<br>` becomes a space, `<b>` and `</b>` vanish."""

    def plain(text: tf.Tensor) -> tf.Tensor:
        return tf.strings.regex_replace(tf.strings.regex_replace(text, "<br>", " "), "</?b>", "")

    return dataset.map(
        lambda example: {**example, **{field: plain(example[field]) for field in fields}},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def numbered(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Gives examples without an `idx` their number; some sets of TFDS have none."""
    if "idx" in dataset.element_spec:
        return dataset
    return dataset.enumerate().map(lambda idx, example: {"idx": tf.cast(idx, tf.int32), **example})


@seqio.map_over_dataset
def remove_first_token(example: Example) -> Example:
    """Cuts `inputs` up to its first space: the task's name, which a prompt replaces (Lester et al. 2021)."""
    inputs = tf.strings.regex_replace(example["inputs"], r"^[^ ]* ", "", replace_global=False)
    return {**example, "inputs": inputs}
