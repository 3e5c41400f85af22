"""Questions on a passage as text: SQuAD, MRQA and ReCoRD in T5's form (Raffel et al. 2020, appendix D)."""

from __future__ import annotations

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
    """`record query: Q entities: a, b passage: P`, one pair for each answer, `<unk>` where there is none.

    The highlights under a passage are joined to it as sentences: behind a mark that ends one by a space, else by
    a full stop and a space.
    """

    def to_pairs(example: Example) -> Example:
        passage = example["passage"]
        passage = tf.strings.regex_replace(passage, r"""([.?!"'])\n@highlight\n""", r"\1 ")
        passage = tf.strings.regex_replace(passage, r"\n@highlight\n", ". ")
        entities = tf.strings.reduce_join(example["entities"], separator=", ")
        words = ["record query:", example["query"], "entities:", entities, "passage:", passage]
        answers = example["answers"]
        targets = tf.cond(tf.size(answers) > 0, lambda: answers, lambda: tf.constant([NO_LABEL]))
        pairs = tf.size(targets)
        common = {**index_of(example), "inputs": tf.strings.join(words, separator=" "), "answers": answers}
        repeated = {name: tf.repeat(value[None], pairs, axis=0) for name, value in common.items()}
        return {**repeated, "targets": targets}

    return dataset.map(to_pairs, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


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
