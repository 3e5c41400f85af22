"""Postprocessors and metrics against numbers of the original T5 code."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import pytest

from tasks.metrics import answers, correlations, labels
from tasks.text import postprocessors

LOCAL = pathlib.Path(__file__).parents[1] / "goldens" / "task_text" / "metrics"
METRICS = {
    "accuracy": labels.accuracy,
    "f1_score_with_invalid": labels.f1_with_invalid,
    "matthews_corrcoef": labels.matthews,
    "mean_3class_f1": functools.partial(labels.mean_multiclass_f1, num_classes=3),
    "mean_group_all_match": labels.grouped_exact_match,
    "multirc_f1_over_all_answers": labels.grouped_f1,
    "pearson_corrcoef": correlations.pearson,
    "spearman_corrcoef": correlations.spearman,
    "squad": answers.squad,
    "deduplicate_squad": answers.squad_by_group,
}
POSTPROCESSORS = {
    "string_label_to_class_id": postprocessors.label_id,
    "multirc": functools.partial(postprocessors.multirc, label_classes=("False", "True")),
    "qa": postprocessors.answers,
    "record": postprocessors.record,
    "string_to_float": postprocessors.score,
    "wsc_simple": postprocessors.referent,
}


@pytest.fixture(params=["here", "shared"])
def goldens(request: pytest.FixtureRequest) -> pathlib.Path:
    """The goldens kept here, which are some, and those of the data directory, which are all."""
    if request.param == "here":
        return LOCAL
    return request.getfixturevalue("shared") / "goldens" / "task_text" / "metrics"


def _all(goldens: pathlib.Path, kind: str) -> dict[str, Any]:
    found = {
        path.stem.removeprefix(kind): json.loads(path.read_text()) for path in goldens.glob(f"{kind}*.json")
    }
    assert found
    return found


def _numbers(scores: dict[str, float | str]) -> Any:
    return pytest.approx({name: float(value) for name, value in scores.items()}, abs=1e-6, nan_ok=True)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_postprocessors_of_the_original(goldens: pathlib.Path):
    for name, cases in _all(goldens, "postprocess_").items():
        if name == "prompt_tuning_extras":
            continue
        for case in cases:
            arguments = {key: case[key] for key in ("label_classes", "example", "is_target") if key in case}
            found = POSTPROCESSORS[name](case["decoded"], **arguments)
            assert _plain(found) == case["output"], (name, case)


def test_words_of_the_other_paraphrase_set(shared: pathlib.Path):
    path = shared / "goldens" / "task_text" / "metrics" / "postprocess_prompt_tuning_extras.json"
    for case in json.loads(path.read_text()):
        for old, new, key in (
            ("equivalent", "duplicate", "mrpc_to_qqp"),
            ("duplicate", "equivalent", "qqp_to_mrpc"),
        ):
            classes = (case[key], "")  # class 0 is what the original makes of the text
            found = postprocessors.translated_label_id(
                case["decoded"], old=old, new=new, label_classes=classes
            )
            assert found == 0


def test_metrics_of_the_original(goldens: pathlib.Path):
    for name, golden in _all(goldens, "metric_").items():
        for case in golden["cases"]:
            scores = METRICS[name](case["targets"], case["predictions"])
            assert scores == _numbers(case["scores"]), (name, case["name"])


def test_whole_evaluations_of_the_original(goldens: pathlib.Path):
    from test_task_text import registered

    import tasks.registry  # noqa: F401
    import seqio  # isort: skip

    for name, golden in _all(goldens, "task_").items():
        forms = ("", "taskless_") if f"taskless_{registered(name)}" in seqio.TaskRegistry.names() else ("",)
        for prefix in forms:
            task = seqio.TaskRegistry.get(prefix + registered(name))
            targets = [
                task.postprocess_fn(example["targets_pretokenized"], example=example, is_target=True)
                for example in golden["examples"]
            ]
            assert _plain(targets) == golden["targets"], name
            for run in golden["runs"]:
                predictions = [
                    task.postprocess_fn(text, example=example, is_target=False)
                    for text, example in zip(run["predictions_text"], golden["examples"], strict=True)
                ]
                assert _plain(predictions) == run["predictions"], name
                scores = {}
                for metric in task.metric_fns:
                    scores |= metric(targets, predictions)
                assert list(scores) == list(run["scores"])
                assert scores == _numbers(run["scores"]), name


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999", "two", ""])
def test_what_is_no_finite_number_is_no_number(text: str):
    assert postprocessors.score(text) == -1


def test_answers_without_gold_score_nothing():
    assert answers.squad([[]], ["Paris"]) == {"em": 0, "f1": 0}


def test_micro_f1_of_single_labels_is_accuracy():
    targets = [{"value": value, "group": 0} for value in (0, 0, 0, 1)]
    predictions = [{"value": 0}] * 4
    assert labels.grouped_accuracy(targets, predictions) == {"micro_f1": 75}
    assert labels.grouped_f1(targets, predictions) == {"f1": 0}
