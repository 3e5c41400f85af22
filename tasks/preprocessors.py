"""Raw examples to `inputs` and `targets` texts."""

from __future__ import annotations

from collections.abc import Sequence

import seqio
import tensorflow as tf

NO_LABEL = "<unk>"  # T5's target of an example without a label


def label_text(
    dataset: tf.data.Dataset, *, name: str, fields: Sequence[str], label_classes: Sequence[str]
) -> tf.data.Dataset:
    """T5's form of classification: `name field: text field: text` and the label's name.

    As in Raffel et al. 2020, appendix D. White space within texts is kept, `idx` passes through, and a label
    below 0 becomes `<unk>`.

    Args:
      dataset: examples with `idx`, `label` and `fields`.
      name: task name in front.
      fields: text fields in the order of the input.
      label_classes: names of labels 0, 1, ...
    """
    classes = tf.constant([NO_LABEL, *label_classes])

    def to_text(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        words = [word for field in fields for word in (f"{field}:", example[field])]
        return {
            "idx": example["idx"],
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

    def to_text(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        texts = [
            tf.strings.join([example[field] for field in fields], separator=" ")
            for fields in segments
            if fields
        ]
        return {
            "idx": example["idx"],
            "inputs": tf.strings.join(texts, separator=" [SEP] "),
            "targets": classes[tf.maximum(example["label"], -1) + 1],
        }

    return dataset.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)


@seqio.map_over_dataset
def remove_first_token(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Cuts `inputs` up to its first space: the task's name, which a prompt replaces (Lester et al. 2021)."""
    inputs = tf.strings.regex_replace(example["inputs"], r"^[^ ]* ", "", replace_global=False)
    return {**example, "inputs": inputs}
