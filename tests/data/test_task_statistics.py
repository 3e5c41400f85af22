"""`t5x tasks`: every task, counted where its data is."""

from __future__ import annotations

import json
import pathlib

import pytest

pytest.importorskip("seqio")

from jax_prompts import main
from jax_prompts.data.task_statistics import describe_tasks
from jax_prompts.errors import ConfigError


@pytest.fixture(autouse=True)
def caches(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "caches"))


def run(capsys, *argv: str) -> tuple[dict, str]:
    main.main(["tasks", *argv])
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), err


def test_without_data_every_task_is_listed(capsys):
    found, err = run(capsys)
    rows = {row["task"]: row for row in found["tasks"]}
    assert rows["super_glue_rte_v102"] == {
        "task": "super_glue_rte_v102",
        "forms": ["taskless_super_glue_rte_v102", "bert_super_glue_rte_v102"],
        "source": "TFDS super_glue/rte:1.0.2",
        "labels": ["entailment", "not_entailment"],
        "metrics": ["accuracy"],
        "splits": {
            split: {"missing": "give --vocabulary to count"} for split in ("train", "validation", "test")
        },
    }
    assert rows["mr"]["source"] == "files" and rows["quickstart_reviews"]["source"] == "generated"
    assert "taskless_super_glue_rte_v102" not in rows
    assert "span_corruption" in found["mixtures"]["micro_span_corruption"]
    assert "super_glue_rte_v102" in err and "not_entailment" in err


def test_files_are_counted_and_the_rest_is_not_available(tmp_path: pathlib.Path, capsys):
    (tmp_path / "CB").mkdir()
    rows = [
        {"premise": "p " * n, "hypothesis": "h", "label": ("neutral", "entailment")[n == 1], "idx": n}
        for n in (1, 2, 300)
    ]
    (tmp_path / "CB/train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "CB/val.jsonl").write_text("{")
    found, err = run(
        capsys,
        f"--data_dir={tmp_path}",
        "--vocabulary=asset:micro",
        "--json",
        "--inputs_length=100",
        "--targets_length=16",
    )
    row = next(row for row in found["tasks"] if row["task"] == "super_glue_cb_v102")
    train = row["splits"]["train"]
    assert (train["examples"], train["labels"]) == (3, {"entailment": 1, "contradiction": 0, "neutral": 2})
    assert train["inputs"]["p99"] > 250 > train["inputs"]["mean"] > 100
    assert train["targets"]["mean"] < 10
    assert (train["inputs"]["cut"], train["targets"]["cut"]) == (1, 0)
    assert "val.jsonl, line 1: malformed JSON" in row["splits"]["validation"]["missing"]
    assert row["splits"]["test"] == {"missing": "no files under --data_dir"}
    other = next(row for row in found["tasks"] if row["task"] == "glue_sst2_v200")
    assert {facts["missing"] for facts in other["splits"].values()} == {"no files under --data_dir"}
    assert "┃" not in err


def test_real_sizes_and_labels(shared: pathlib.Path, capsys):
    vocabulary = str(shared / "data/t5_vocab/spiece.model")
    found, err = run(
        capsys,
        "--task=super_glue_cb_v102",
        "--task=taskless_mr",
        f"--data_dir={shared / 'data'}",
        f"--vocabulary={vocabulary}",
    )
    cb, mr = found["tasks"]
    assert {split: facts["examples"] for split, facts in cb["splits"].items()} == {
        "train": 250,
        "validation": 56,
        "test": 250,
    }
    assert cb["splits"]["train"]["labels"] == {"entailment": 115, "contradiction": 119, "neutral": 16}
    assert mr["task"] == "taskless_mr" and "test.json" in mr["splits"]["test"]["missing"]
    assert found["mixtures"] == {}
    assert "7,795" in err and "contradiction 47.6 %" in err


def test_wrong_names_and_settings():
    with pytest.raises(
        ConfigError, match=r"no task super_glue_rte; did you mean .*super_glue_rte_v102.*t5x cache"
    ):
        describe_tasks(["super_glue_rte"], None, None)
    with pytest.raises(ConfigError, match="add --vocabulary"):
        describe_tasks([], "somewhere", None)
