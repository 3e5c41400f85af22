"""Texts of the registered tasks against those of the original tasks, string for string."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import seqio
import tensorflow as tf

import tasks.registry  # noqa: F401
from jax_prompts.config import ConfigError

EDGE = pathlib.Path(__file__).parents[1] / "goldens" / "task_text" / "preprocess_edge"
SUPER_GLUE = tuple(f"super_glue_{name}_v102" for name in ("boolq", "cb", "copa", "rte", "wic"))
GLUE = tuple(f"glue_{name}_v200" for name in ("sst2", "rte"))


def _texts(task_name: str, raw: dict[str, Any]) -> dict[str, Any]:
    """What a task's preprocessors before tokenisation make of one raw example."""
    task = seqio.TaskRegistry.get(task_name)
    assert task.preprocessors[-2:] == [
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos_after_trim,
    ]
    dataset = tf.data.Dataset.from_tensors(raw)
    for preprocessor in task.preprocessors[:-2]:
        dataset = preprocessor(dataset)
    (example,) = dataset.as_numpy_iterator()
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in example.items()}


def _compare(task_name: str, path: pathlib.Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows
    for row in rows:
        assert row["pairs"] == 1
        expected = {"inputs": row["inputs"], "targets": row["targets"], **row["other"]}
        assert _texts(task_name, row["raw"]) == expected
        assert _texts(f"taskless_{task_name}", row["raw"]) == expected | {"inputs": row["inputs_taskless"]}


@pytest.mark.parametrize("task_name", SUPER_GLUE)
def test_edge_cases(task_name: str):
    _compare(task_name, EDGE / f"{task_name.removesuffix('_v102')}.jsonl")


@pytest.mark.parametrize("kind", ["preprocess", "preprocess_unlabelled"])
@pytest.mark.parametrize("task_name", [*SUPER_GLUE, *GLUE])
def test_real_examples(shared: pathlib.Path, task_name: str, kind: str):
    _compare(task_name, shared / "goldens" / "task_text" / kind / f"{task_name[:-5]}.jsonl")


@pytest.mark.parametrize("task_name", [*SUPER_GLUE, *GLUE])
def test_a_task_names_its_labels_and_tfds_version(task_name: str):
    for prefix in ("", "taskless_"):
        task = seqio.TaskRegistry.get(prefix + task_name)
        assert len(task.postprocessor.keywords["label_classes"]) in (2, 3)
        version = "1.0.2" if task_name.endswith("v102") else "2.0.0"
        assert task.source.tfds_dataset.name.endswith(f":{version}")
        assert task.source.files("train") == []


@pytest.mark.parametrize(
    ("task_name", "split", "count"),
    [
        ("super_glue_boolq_v102", "validation", 3270),
        ("super_glue_boolq_v102", "test", 3245),
        ("super_glue_cb_v102", "train", 250),
        ("super_glue_cb_v102", "validation", 56),
        ("super_glue_cb_v102", "test", 250),
        ("super_glue_copa_v102", "train", 400),
        ("super_glue_copa_v102", "validation", 100),
        ("super_glue_copa_v102", "test", 500),
        ("super_glue_rte_v102", "train", 2490),
        ("super_glue_rte_v102", "validation", 277),
        ("super_glue_rte_v102", "test", 3000),
        ("super_glue_wic_v102", "train", 5428),
        ("super_glue_wic_v102", "validation", 638),
        ("super_glue_wic_v102", "test", 1400),
        ("glue_sst2_v200", "train", 67349),
        ("glue_sst2_v200", "validation", 872),
        ("glue_sst2_v200", "test", 1821),
        ("glue_rte_v200", "train", 2490),
        ("glue_rte_v200", "validation", 277),
        ("glue_rte_v200", "test", 3000),
    ],
)
def test_official_files_have_the_official_sizes(shared: pathlib.Path, task_name: str, split: str, count: int):
    source = seqio.TaskRegistry.get(task_name).source.at(shared / "data")
    assert source.num_input_examples(split) == count
    (labels,) = source.get_dataset(split).map(lambda x: x["label"]).batch(count).as_numpy_iterator()
    assert len(labels) == count
    assert (set(labels) == {-1}) == (split == "test")


def test_split_slices_of_a_real_file(shared: pathlib.Path):
    source = seqio.TaskRegistry.get("super_glue_boolq_v102").source.at(shared / "data")
    assert source.num_input_examples("validation[:2470]") == 2470
    assert source.num_input_examples("validation[-800:]") == 800
    with pytest.raises(ConfigError, match=r"BoolQ/train\.jsonl.*BoolQ/train\.jsonl"):
        source.get_dataset("train")


def test_the_whole_task_on_the_real_vocabulary(shared: pathlib.Path):
    vocabulary = seqio.SentencePieceVocabulary(
        str(shared / "data" / "t5_vocab" / "spiece.model"), extra_ids=100
    )
    features = dict.fromkeys(("inputs", "targets"), seqio.Feature(vocabulary, add_eos=True))
    task = seqio.TaskRegistry.get("taskless_super_glue_cb_v102")
    task = task.replace(source=task.source.at(shared / "data"), output_features=features)
    rows = list(
        task.get_dataset({"inputs": 64, "targets": 4}, split="validation", shuffle=False).as_numpy_iterator()
    )
    assert len(rows) == 56
    assert rows[0]["targets_pretokenized"] == b"contradiction"
    assert rows[0]["targets"].tolist() == [27252, 1]
    assert rows[0]["inputs_pretokenized"].startswith(
        b"hypothesis: Valence was helping premise: Valence the void"
    )
    assert max(len(row["inputs"]) for row in rows) == 64  # longer texts are cut, and end all the same
    assert all(row["inputs"][-1] == 1 for row in rows)


@pytest.mark.parametrize(
    ("task", "first"),
    [
        ("bert_super_glue_rte_v102", b"Dana Reeve"),
        ("bert_super_glue_wic_v102", b"class An emerging"),
        ("bert_super_glue_copa_v102", b"The man turned on the faucet. effect [SEP]"),
    ],
)
def test_segments_of_real_files(shared: pathlib.Path, task: str, first: bytes):
    registered = seqio.TaskRegistry.get(task)
    dataset = registered.source.at(shared / "data").get_dataset("validation", shuffle=False)
    example = next(registered.preprocessors[0](dataset).as_numpy_iterator())
    assert example["inputs"].startswith(first) and example["inputs"].count(b" [SEP] ") == 1
    assert example["targets"].decode() in registered.postprocessor.keywords["label_classes"]


def test_wsc_is_a_choice_over_all_its_examples(shared: pathlib.Path):
    task = seqio.TaskRegistry.get("bert_super_glue_wsc_v102")
    dataset = task.preprocessors[0](task.source.at(shared / "data").get_dataset("train", shuffle=False))
    examples = list(dataset.as_numpy_iterator())
    assert len(examples) == 554
    assert sum(example["targets"] == b"True" for example in examples) == 259
    assert examples[0]["inputs"].endswith(b"more skeptical. [SEP] He Mark")
