"""Tasks as a user of T5X writes them, with SeqIO alone: nothing here knows this project."""

import functools

import numpy as np
import seqio
import tensorflow as tf

LABELS = ("good", "bad")
WORDS = {"fine": "good", "warm": "good", "cold": "bad", "dull": "bad"}
THINGS = ("soup", "film", "song", "garden", "phone", "story")
ROWS = [(f"the {thing} was {word}", label) for thing in THINGS for word, label in WORDS.items()]
BYTES = seqio.ByteVocabulary()


def rows(split, shuffle_files=False, seed=None):
    del shuffle_files, seed
    chosen = ROWS if split == "train" else ROWS[:16]
    reviews, labels = zip(*chosen, strict=True)
    columns = {"review": list(reviews), "label": [LABELS.index(label) for label in labels]}
    return tf.data.Dataset.from_tensor_slices({**columns, "id": list(range(len(chosen)))})


SOURCE = seqio.FunctionDataSource(
    dataset_fn=rows, splits=["train", "validation"], num_input_examples={"train": 24, "validation": 16}
)


@seqio.map_over_dataset
def to_text(example, prefix="review: "):
    label = tf.gather(tf.constant(LABELS), example["label"])
    return {
        "inputs": tf.strings.join([prefix, example["review"]]),
        "targets": label,
        "answers": tf.stack([label, tf.strings.upper(label)]),
        "idx": example["id"],
    }


def answers_of(output, example=None, is_target=False):
    """As T5's for SQuAD: of a target all answers, bytes to SeqIO."""
    if is_target:
        return [answer.decode("utf-8") for answer in example["answers"]]
    return output.strip()


def any_answer(targets, predictions):
    right = [prediction in answers for answers, prediction in zip(targets, predictions, strict=True)]
    return {
        "any_answer": seqio.metrics.Scalar(100 * np.mean(right)),
        "sample": seqio.metrics.Text(f"{targets[0]} {predictions[0]}"),
        "share": np.float32(np.mean(right)),
    }


def same(targets, predictions, scale):
    return {"same": scale * float(np.mean([t == p for t, p in zip(targets, predictions, strict=True)]))}


seqio.TaskRegistry.add(
    "users_answers",
    source=SOURCE,
    preprocessors=[
        functools.partial(to_text, prefix="a review: "),
        seqio.preprocessors.tokenize,
        seqio.CacheDatasetPlaceholder(),
        seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
        "inputs": seqio.Feature(vocabulary=BYTES),
        "targets": seqio.Feature(vocabulary=BYTES),
        "answers": seqio.Feature(
            vocabulary=seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.string, required=False
        ),
    },
    postprocess_fn=answers_of,
    metric_fns=[any_answer],
)
# Scored by what no cache can name: a lambda, and arguments by place.
seqio.TaskRegistry.add(
    "users_lambda",
    source=SOURCE,
    preprocessors=[to_text, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    output_features={name: seqio.Feature(vocabulary=BYTES) for name in ("inputs", "targets")},
    postprocess_fn=lambda output, example=None, is_target=False: output.lower(),
    metric_fns=[functools.partial(same, scale=100.0), lambda targets, predictions: {"none": 0.0}],
)


@seqio.map_over_dataset
def to_ids(example, shift=0):
    characters = tf.strings.unicode_decode(example["review"], "UTF-8")
    return {
        "inputs": tf.concat([characters + shift, [1]], 0),
        "targets": tf.stack([3 + tf.cast(example["label"], tf.int32), 1]),
        "idx": example["id"],
    }


@seqio.map_over_dataset
def to_numbers(example):
    return {
        "inputs": tf.ones([3], tf.float32),
        "targets": tf.stack([3 + tf.cast(example["label"], tf.int32), 1]),
    }


IDS = {
    name: seqio.Feature(vocabulary=seqio.PassThroughVocabulary(4096), add_eos=False)
    for name in ("inputs", "targets")
}
seqio.TaskRegistry.add("users_ids", source=SOURCE, preprocessors=[to_ids], output_features=IDS, metric_fns=[])
for task, step in {
    "users_large_ids": functools.partial(to_ids, shift=5000),
    "users_negative_ids": functools.partial(to_ids, shift=-500),
    "users_numbers": to_numbers,
}.items():
    seqio.TaskRegistry.add(
        task,
        source=SOURCE,
        preprocessors=[step],
        output_features={
            **IDS,
            "inputs": seqio.Feature(
                vocabulary=seqio.PassThroughVocabulary(0),
                add_eos=False,
                dtype=tf.float32 if task == "users_numbers" else tf.int32,
            ),
        },
    )


def fails(targets, predictions):
    return 1 / 0


def fails_too(output, **_):
    return 1 / 0


for task, (postprocess_fn, metric_fn) in {
    "users_failing_metric": (None, fails),
    "users_failing_postprocessor": (fails_too, any_answer),
    "users_texts_alone": (None, lambda targets, predictions: {"sample": seqio.metrics.Text("x")}),
}.items():
    seqio.TaskRegistry.add(
        task,
        source=SOURCE,
        preprocessors=[to_text, seqio.preprocessors.tokenize],
        output_features={name: seqio.Feature(vocabulary=BYTES) for name in ("inputs", "targets")},
        postprocess_fn=postprocess_fn,
        metric_fns=[metric_fn],
    )


@seqio.map_over_dataset
def to_words(example):
    return {"inputs": example["review"], "targets": tf.gather(tf.constant(LABELS), example["label"])}


def raises(dataset):
    raise ValueError("no such column\nin the second line")


def empty_texts(dataset, feature):
    return dataset.map(lambda example: {**example, feature: ""})


TEXTS = {name: seqio.Feature(vocabulary=BYTES) for name in ("inputs", "targets")}
NUMBERS = {
    **TEXTS,
    "targets": seqio.Feature(vocabulary=seqio.PassThroughVocabulary(100), add_eos=False),
}
for task, (steps, features) in {
    "users_raising": ([raises], TEXTS),
    "users_wrongly_tokenised": (
        [lambda dataset: dataset.map(lambda example: {"inputs": example["review"], "targets": [5]})],
        NUMBERS,
    ),
    "users_empty_inputs": ([to_words, functools.partial(empty_texts, feature="inputs")], TEXTS),
    "users_empty_targets": ([to_words, functools.partial(empty_texts, feature="targets")], TEXTS),
}.items():
    seqio.TaskRegistry.add(
        task,
        source=SOURCE,
        preprocessors=[*steps, seqio.preprocessors.tokenize],
        output_features=features,
    )
