"""A small vocabulary, and a package of SeqIO tasks that lives in a temporary directory."""

from __future__ import annotations

import pathlib
import textwrap

import pytest

from jax_prompts.config import Data
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary

TASKS = '''
import functools
import os
import pathlib

import seqio
import tensorflow as tf

from toytasks import scoring

FEATURE = seqio.Feature(seqio.PassThroughVocabulary(10), add_eos=True)
FEATURES = {"inputs": FEATURE, "targets": FEATURE}
STEPS = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim]
SPLITS = ("train", "validation", "none")


def sentences(number, split):
    return [] if split == "none" else [
        {"inputs": f"sentence {i} " + "of words " * (i % 7), "targets": ("yes", "no")[i % 2], "idx": i}
        for i in range(number)
    ]


def dataset(rows):
    return tf.data.Dataset.from_generator(
        lambda: iter(rows),
        output_signature={
            "inputs": tf.TensorSpec([], tf.string),
            "targets": tf.TensorSpec([], tf.string),
            "idx": tf.TensorSpec([], tf.int32),
        },
    )


class Files(seqio.DataSource):
    """Lines `input<TAB>target` of SPLIT.tsv."""

    def __init__(self, folder=None):
        super().__init__(splits=SPLITS)
        self.folder = folder

    def at(self, data_dir):
        return Files(data_dir)

    def files(self, split):
        return [os.path.join(self.folder, split + ".tsv")]

    @property
    def supports_arbitrary_sharding(self):
        return False

    def list_shards(self, split):
        return self.files(split)

    def get_dataset(self, split, shuffle=True, seed=None, shard_info=None, num_epochs=1):
        def rows():
            path = pathlib.Path(self.files(split)[0])
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if "\\t" not in line:
                    from jax_prompts.errors import ConfigError

                    raise ConfigError(f"{path}:{number}: no tab in this line")
                text, target = line.split("\\t")
                yield {"inputs": text, "targets": target, "idx": number}

        return dataset(rows())


def add(name, source, labels=("no", "yes"), steps=STEPS):
    seqio.TaskRegistry.add(
        name, source=source, preprocessors=steps, output_features=FEATURES,
        postprocess_fn=functools.partial(scoring.class_of, label_classes=list(labels)),
        metric_fns=[scoring.accuracy],
    )


def generated(number, splits=SPLITS, rows_an_example=1):
    def rows(split, shuffle_files=False, seed=None):
        return dataset([{**row, "idx": row["idx"] // rows_an_example} for row in sentences(number, split)])

    return seqio.FunctionDataSource(rows, splits=splits)


add("toy_ten", generated(10))
add("toy_many", generated(5000))
add("toy_qnli", generated(1200))
add("toy_wic", generated(10, rows_an_example=2))
add("toy_wrong_label", generated(10), labels=("true", "false"))
seqio.TaskRegistry.add(
    "toy_free", source=generated(10), preprocessors=STEPS, output_features=FEATURES, metric_fns=[scoring.accuracy]
)
add("toy_files", Files())
add("toy_train_only", generated(10, ("train",)))
add("toy_placeholder", generated(10), steps=[STEPS[0], seqio.CacheDatasetPlaceholder(), STEPS[1]])
# Steps that are SeqIO's but do not say so: these are run one by one.
add("toy_wrapped", generated(10), steps=[
    lambda dataset, output_features: STEPS[0](dataset, output_features),
    lambda dataset, output_features, sequence_length: STEPS[1](dataset, output_features, sequence_length),
])
seqio.MixtureRegistry.add("toy_mixture", [("toy_ten", 3), ("toy_many", 1)])
seqio.MixtureRegistry.add("toy_and_dev", [("toy_ten", lambda task: 2.5), ("toy_train_only", 1)])
'''

SCORING = """
import sys
from os import getcwd


def class_of(text, label_classes, example=None, is_target=False):
    return label_classes.index(text) if text in label_classes else -1


def accuracy(targets, predictions):
    return {"accuracy": 100.0 * sum(t == p for t, p in zip(targets, predictions)) / len(targets)}
"""


@pytest.fixture(scope="session")
def small_vocabulary(train_vocabulary) -> Vocabulary:
    return Vocabulary(
        train_vocabulary(
            "sentence of words yes no 0 1 2 3 4 5 6 7 8 9 the quick brown fox jumps over a lazy dog_"
        )
    )


@pytest.fixture(scope="session")
def t5_vocabulary_path(shared: pathlib.Path) -> str:
    return str(shared / "data" / "t5_vocab" / "spiece.model")


@pytest.fixture(scope="session")
def superglue_folder(shared: pathlib.Path) -> str:
    return str(shared / "data" / "superglue")


@pytest.fixture(scope="session")
def task_package(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The package `toytasks`, importable."""
    root = tmp_path_factory.mktemp("tasks")
    (root / "toytasks").mkdir()
    (root / "toytasks" / "__init__.py").write_text("")
    (root / "toytasks" / "registry.py").write_text(textwrap.dedent(TASKS))
    (root / "toytasks" / "scoring.py").write_text(textwrap.dedent(SCORING))
    (root / "outside.py").write_text("raise AssertionError('imported')")
    return root


@pytest.fixture
def toy(task_package: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """Settings for task `toy_ten`, with a cache directory of their own."""
    monkeypatch.syspath_prepend(str(task_package))
    return Data(
        task="toy_ten",
        task_module="toytasks.registry",
        task_feature_lengths={"inputs": 16, "targets": 8},
        batch_size=4,
        cache_dir=str(tmp_path / "caches"),
    )
