"""Questions on a passage as text: SQuAD, MRQA and ReCoRD in T5's form (Raffel et al. 2020, appendix D)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tasks.text.preprocessors import NO_LABEL, Example, index_of


def pad_punctuation(text: tf.Tensor) -> tf.Tensor:
    """Puts blanks round each ASCII punctuation mark, and one blank for any run of ASCII white space."""
    return _collapse(tf.strings.regex_replace(text, r"([[:punct:]])", r" \1 "))


def squad(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """`question: Q context: C` and the first answer, all with punctuation padded; `answers` has them all.

    Raises:
      tf.errors.InvalidArgumentError: while reading, an example without answers.
    """

    def to_text(example: Example) -> Example:
        return {"id": example["id"], **_extractive(example, example["answers"]["text"])}

    return dataset.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)


def mrqa(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """`squad` for MRQA's examples."""

    def to_text(example: Example) -> Example:
        text = _extractive(example, example["answers"])
        return {"idx": example["qid"], "answer": text["targets"], **text}

    return dataset.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)


def record(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """`record query: Q entities: a, b passage: P`, one pair for each answer, `<unk>` where there is none."""

    def to_pairs(example: Example) -> Example:
        passage = _with_highlights(example["passage"])
        entities = tf.strings.reduce_join(example["entities"], separator=", ")
        words = ["record query:", example["query"], "entities:", entities, "passage:", passage]
        answers = example["answers"]
        targets = tf.cond(tf.size(answers) > 0, lambda: answers, lambda: tf.constant([NO_LABEL]))
        pairs = tf.size(targets)
        common = {**index_of(example), "inputs": tf.strings.join(words, separator=" "), "answers": answers}
        return {**_repeated(common, pairs), "targets": targets}

    return dataset.map(to_pairs, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def record_candidates(dataset: tf.data.Dataset, *, label_classes: Sequence[str]) -> tf.data.Dataset:
    """`Q [SEP] P`, one pair for each entity, which stands in the query's blank, and whether it is an answer.

    The query comes first, so that what is cut of a long pair is passage. Each pair keeps its `entity` and the query's
    `answers`; without any its label is hidden.

    Args:
      dataset: examples of ReCoRD.
      label_classes: names of wrong and right.
    """
    classes = tf.constant([NO_LABEL, *label_classes])

    def to_pairs(example: Example) -> Example:
        entities, answers = example["entities"], example["answers"]
        right = tf.reduce_any(entities[:, None] == answers[None], axis=1)
        label = tf.where(tf.size(answers) > 0, tf.cast(right, tf.int32), -1)
        parts = tf.strings.split(example["query"], "@placeholder")
        queries = tf.strings.reduce_join(parts[None, :-1] + entities[:, None], axis=1) + parts[-1]
        common = {**index_of(example), "answers": answers}
        return {
            **_repeated(common, tf.size(entities)),
            "entity": entities,
            "inputs": tf.strings.join([queries, _with_highlights(example["passage"])], separator=" [SEP] "),
            "targets": tf.gather(classes, label + 1),
        }

    return dataset.map(to_pairs, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def _with_highlights(passage: tf.Tensor) -> tf.Tensor:
    """ReCoRD's passage with the highlights under it as sentences.

    Behind a mark that ends a sentence they are joined by a space, else by a full stop and a space.
    """
    passage = tf.strings.regex_replace(passage, r"""([.?!"'])\n@highlight\n""", r"\1 ")
    return tf.strings.regex_replace(passage, r"\n@highlight\n", ". ")


def _repeated(common: Example, pairs: tf.Tensor) -> Example:
    return {name: tf.repeat(value[None], pairs, axis=0) for name, value in common.items()}


def _extractive(example: Example, answers: tf.Tensor) -> Example:
    question, context = pad_punctuation(example["question"]), pad_punctuation(example["context"])
    answers = pad_punctuation(answers)
    words = ["question:", question, "context:", context]
    return {
        "inputs": _collapse(tf.strings.join(words, separator=" ")),
        "targets": answers[0],
        "question": question,
        "context": context,
        "answers": answers,
    }


def _collapse(text: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_replace(text, r"\s+", " ")
