"""Texts of the registered tasks against those of the original tasks, string for string."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import seqio
import tensorflow as tf

import tasks.registry  # noqa: F401
from tasks.errors import TaskError
from tasks.features import TOKENIZE
from tasks.sources.seqio_sources import as_dataset

LOCAL = pathlib.Path(__file__).parents[1] / "goldens" / "task_text"
SUPER_GLUE = tuple(f"super_glue_{name}_v102" for name in ("boolq", "cb", "copa", "multirc", "rte", "wic"))
GLUE = tuple(
    f"glue_{name}_v200"
    for name in (
        "cola",
        "sst2",
        "mrpc",
        "qqp",
        "mnli",
        "mnli_matched",
        "mnli_mismatched",
        "qnli",
        "rte",
        "wnli",
        "ax",
    )
)
OTHER = {
    "super_glue_wsc_train": "super_glue_wsc_v102_simple_train",
    "super_glue_wsc_eval": "super_glue_wsc_v102_simple_eval",
    "glue_wnli_simple": "glue_wnli_v002_simple_eval",
    "squad": "squad_v010_allanswers",
    "mrqa_relation_extraction": "mrqa_relation_extraction_v100_examples",
}


def registered(golden: str) -> str:
    """The task that a golden file is of."""
    return OTHER.get(golden) or golden + ("_v102" if golden.startswith("super_glue") else "_v200")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    return value.decode() if isinstance(value, bytes) else value


def _texts(task_name: str, raws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a task's preprocessors before tokenisation make of raw examples."""
    task = seqio.TaskRegistry.get(task_name)
    assert tuple(task.preprocessors[-2:]) == TOKENIZE
    dataset = as_dataset(raws)
    for preprocessor in task.preprocessors[:-2]:
        dataset = preprocessor(dataset)
    return [{name: _plain(value) for name, value in row.items()} for row in dataset.as_numpy_iterator()]


def _compare(task_name: str, path: pathlib.Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if isinstance(row["raw"].get("answers"), dict):  # their places in the context are not used
            row["raw"]["answers"] = {"text": row["raw"]["answers"]["text"]}
    for row in [row for row in rows if row.get("error")]:
        with pytest.raises(tf.errors.InvalidArgumentError):
            _texts(task_name, [row["raw"]])
    rows = [row for row in rows if not row.get("error")]
    raws = [row["raw"] for row in rows if row["pair"] == 0]
    pairs = [row for row in rows if row["pairs"]]
    expected = [{"inputs": row["inputs"], "targets": row["targets"], **row["other"]} for row in pairs]
    assert expected
    assert _texts(task_name, raws) == expected
    if f"taskless_{task_name}" in seqio.TaskRegistry.names():
        for row, pair in zip(expected, pairs, strict=True):
            row["inputs"] = pair["inputs_taskless"]
        assert _texts(f"taskless_{task_name}", raws) == expected


@pytest.mark.parametrize("golden", sorted(path.stem for path in LOCAL.glob("preprocess_edge/*.jsonl")))
def test_edge_cases(golden: str):
    _compare(registered(golden), LOCAL / "preprocess_edge" / f"{golden}.jsonl")


@pytest.mark.slow
def test_every_text_of_the_original(shared: pathlib.Path):
    folder = shared / "goldens" / "task_text"
    paths = sorted(folder.glob("preprocess*/*.jsonl"))
    assert len(paths) == 54
    for path in paths:
        _compare(registered(path.stem), path)


def test_both_versions_of_glue_read_alike():
    for name in GLUE:
        new, old = seqio.TaskRegistry.get(name), seqio.TaskRegistry.get(name.replace("v200", "v002"))
        assert old.source.tfds_dataset.name == new.source.tfds_dataset.name.replace("2.0.0", "1.0.0")
        assert [repr(step) for step in old.preprocessors] == [repr(step) for step in new.preprocessors]


@pytest.mark.parametrize("task_name", [*SUPER_GLUE, *GLUE])
def test_a_task_names_its_labels_and_tfds_version(task_name: str):
    for prefix in ("", "taskless_"):
        task = seqio.TaskRegistry.get(prefix + task_name)
        assert 2 <= len(task.postprocessor.keywords["label_classes"]) <= 3
        version = "1.0.2" if task_name.endswith("v102") else "2.0.0"
        assert task.source.tfds_dataset.name.endswith(f":{version}")
        assert task.source.files("train") == []


OFFICIAL_SIZES = {
    "super_glue_boolq_v102": {"validation": 3270, "test": 3245},
    "super_glue_cb_v102": {"train": 250, "validation": 56, "test": 250},
    "super_glue_copa_v102": {"train": 400, "validation": 100, "test": 500},
    "super_glue_multirc_v102": {"train": 27243, "validation": 4848, "test": 9693},
    "super_glue_rte_v102": {"train": 2490, "validation": 277, "test": 3000},
    "super_glue_wic_v102": {"train": 5428, "validation": 638, "test": 1400},
    "super_glue_wsc_v102_simple_train": {"train": 554},
    "super_glue_wsc_v102_simple_eval": {"validation": 104, "test": 146},
    "super_glue_axb_v102": {"test": 1104},
    "super_glue_axg_v102": {"test": 356},
    "glue_cola_v200": {"train": 8551, "validation": 1043, "test": 1063},
    "glue_sst2_v200": {"train": 67349, "validation": 872, "test": 1821},
    "glue_mrpc_v200": {
        "train": 3667,
        "validation": 408,
        "test": 1725,
    },  # officially 3,668: this copy lacks one
    "glue_stsb_v200": {"train": 5749, "validation": 1500, "test": 1379},
    "glue_qnli_v200": {"validation": 5463, "test": 5463},
    "glue_rte_v200": {"train": 2490, "validation": 277, "test": 3000},
    "glue_wnli_v200": {"train": 635, "validation": 71, "test": 146},
    "glue_ax_v200": {"test": 1104},
    "squad_v010_allanswers": {"train": 87599, "validation": 10570},
    "mrqa_relation_extraction_v100_examples": {"validation": 2948},
}
PUBLIC = ("super_glue_axb_v102", "super_glue_axg_v102")  # test sets that have their labels


@pytest.mark.parametrize("task_name", OFFICIAL_SIZES)
def test_official_files_have_the_official_sizes(shared: pathlib.Path, task_name: str):
    source = seqio.TaskRegistry.get(task_name).source.at(shared / "data")
    for split, count in OFFICIAL_SIZES[task_name].items():
        assert source.num_input_examples(split) == count
        dataset = source.get_dataset(split)
        if "label" in dataset.element_spec:
            (labels,) = dataset.map(lambda x: x["label"]).batch(count).as_numpy_iterator()
            assert len(labels) == count
            assert (set(labels) == {-1}) == (split == "test" and task_name not in PUBLIC)


def test_split_slices_of_a_real_file(shared: pathlib.Path):
    source = seqio.TaskRegistry.get("super_glue_boolq_v102").source.at(shared / "data")
    assert source.num_input_examples("validation[:2470]") == 2470
    assert source.num_input_examples("validation[-800:]") == 800
    with pytest.raises(TaskError, match=r"BoolQ/train\.jsonl.*BoolQ/train\.jsonl"):
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
