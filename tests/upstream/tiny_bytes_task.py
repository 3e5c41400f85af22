"""A SeqIO task of a few lines of text beside this file, which T5X's gin files import; its vocabulary is bytes."""

import pathlib

import seqio
import tensorflow as tf

FILE = pathlib.Path(__file__).with_name("tiny_bytes.tsv")
BYTES = seqio.Feature(seqio.ByteVocabulary())


def inputs_and_targets(lines):
    def split(line):
        columns = tf.strings.split(line, "\t")
        return {"inputs": columns[0], "targets": columns[1]}

    return lines.map(split)


def accuracy(targets, predictions):
    return {"accuracy": sum(map(str.__eq__, targets, predictions)) / len(targets)}


seqio.TaskRegistry.add(
    "tiny_bytes",
    source=seqio.TextLineDataSource(dict.fromkeys(("train", "validation", "test"), str(FILE))),
    preprocessors=[
        inputs_and_targets,
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={"inputs": BYTES, "targets": BYTES},
    metric_fns=[accuracy],
)
