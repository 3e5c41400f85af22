"""Postprocessors and metrics against numbers of the original T5 code."""

from __future__ import annotations

import functools
import json
import pathlib
import subprocess
import sys

import pytest

from tasks import metrics
from tasks.postprocessors import label_id

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "task_text" / "metrics"
METRICS = {
    "accuracy": metrics.accuracy,
    "mean_3class_f1": functools.partial(metrics.mean_multiclass_f1, num_classes=3),
}
TASKS = sorted(path.stem.removeprefix("task_") for path in GOLDENS.glob("task_*.json"))


def _load(name: str):
    return json.loads((GOLDENS / f"{name}.json").read_text())


def test_label_ids_of_the_original():
    cases = _load("postprocess_string_label_to_class_id")
    assert len(cases) > 20
    for case in cases:
        assert label_id(case["decoded"], label_classes=case["label_classes"]) == case["output"], case


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_the_original(name: str):
    for case in _load(f"metric_{name}")["cases"]:
        scores = METRICS[name](case["targets"], case["predictions"])
        assert scores == pytest.approx(case["scores"], abs=1e-6), case["name"]


@pytest.mark.parametrize("name", TASKS)
def test_whole_evaluations_of_the_original(name: str):
    import tasks.registry  # noqa: F401
    import seqio  # isort: skip

    golden = _load(f"task_{name}")
    version = "v102" if name.startswith("super_glue") else "v200"
    for prefix in ("", "taskless_"):
        task = seqio.TaskRegistry.get(f"{prefix}{name}_{version}")
        targets = [
            task.postprocess_fn(example["targets_pretokenized"], example=example, is_target=True)
            for example in golden["examples"]
        ]
        assert targets == golden["targets"]
        for run in golden["runs"]:
            predictions = [
                task.postprocess_fn(text, example=example, is_target=False)
                for text, example in zip(run["predictions_text"], golden["examples"], strict=True)
            ]
            assert predictions == run["predictions"]
            scores = {}
            for metric in task.metric_fns:
                scores |= metric(targets, predictions)
            assert list(scores) == list(run["scores"])
            assert scores == pytest.approx(run["scores"], abs=1e-6)


def test_scoring_imports_no_tensorflow():
    code = "import sys, tasks.metrics, tasks.postprocessors; print({'tensorflow', 'seqio'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
