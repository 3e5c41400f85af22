"""What the number that chooses a prompt is called, in files and tables."""

import pathlib
import types

import pytest

from jax_prompts.best import metadata_of, scored
from jax_prompts.config import BaseModel, Data, Optimizer, Training
from jax_prompts.runs import TrainRun
from jax_prompts.scoring.best_tracker import BestTracker, metric_name, selection_metric
from jax_prompts.scoring.summary import summarize

RANKED = {"accuracy": 50.0, "rank/accuracy": 75.0, "rank_normalized/accuracy": 25.0}


@pytest.mark.parametrize(
    ("metrics", "name", "tasks", "expected", "value"),
    [
        ({"rte": {"accuracy": 50.0}}, None, None, "accuracy", 50.0),
        ({"rte": RANKED}, None, None, "accuracy", 50.0),
        ({"rte": RANKED}, "rank/accuracy", None, "rank/accuracy", 75.0),
        ({"record": {"f1": 40.0, "em": 20.0}}, None, None, "mean of f1, em", 30.0),
        ({"record": {"f1": 40.0, "em": 20.0}}, "em", None, "em", 20.0),
        ({"lm": {"loss": 2.5, "token_accuracy": 30.0}}, None, None, "loss", 2.5),
        ({"lm": {"loss": 2.5, "token_accuracy": 30.0}}, "token_accuracy", None, "token_accuracy", 30.0),
        ({"rte": {"accuracy": 50.0}, "boolq": {"accuracy": 70.0}}, None, None, "accuracy", 60.0),
        ({"rte": RANKED, "cb": {"f1": 10.0, "accuracy": 30.0}}, None, None, "mean of accuracy, f1", 35.0),
        ({"squad": {"em": 40.0, "f1": 60.0}, "drop": {"x": 0.0}}, None, ["squad"], "mean of em, f1", 50.0),
    ],
)
def test_the_number_has_the_name_of_its_metrics(metrics, name, tasks, expected, value):
    assert metric_name(metrics, name, tasks) == expected
    assert selection_metric(metrics, name, tasks)[0] == value
    tracker = BestTracker.fresh(name, 1, tasks)
    tracker.update(7, {0: {"metrics": metrics}})
    assert (tracker.best[0]["metric"], tracker.best[0]["value"]) == (expected, value)


def test_a_prompt_file_names_it():
    run = types.SimpleNamespace(
        model=types.SimpleNamespace(size="micro", checkpoint="asset:micro"),
        data=types.SimpleNamespace(task="record"),
        method=None,
        leaves=(),
        method_name="ModelTuning",
    )
    metadata = metadata_of(types.SimpleNamespace(run=run, labels=()), "a", "b")
    found = scored(metadata, {"metric": "mean of f1, em", "value": 30.0, "step": 7})
    assert (metadata.metric, found.metric, found.score, found.step) == ("", "mean of f1, em", 30.0, 7)


def baseline(**metrics):
    return {"examples": 8, "majority_baseline": metrics}


@pytest.mark.parametrize(
    ("metrics", "about", "name", "tasks", "majority"),
    [
        ({"rte": RANKED}, {"rte": baseline(accuracy=52.0)}, None, None, 52.0),
        ({"rte": RANKED}, {"rte": baseline(accuracy=52.0)}, "rank_normalized/accuracy", None, 52.0),
        ({"cb": {"f1": 1.0, "em": 2.0}}, {"cb": baseline(f1=20.0, em=50.0)}, None, None, 35.0),
        ({"cb": {"f1": 1.0, "em": 2.0}}, {"cb": baseline(f1=None, em=50.0)}, "em", None, 50.0),
        ({"cb": {"f1": 1.0, "em": 2.0}}, {"cb": baseline(f1=None, em=50.0)}, None, None, None),
        (
            {"a": {"em": 1.0}, "b": {"em": 2.0}},
            {"a": baseline(em=4.0), "b": baseline(em=6.0)},
            None,
            None,
            5.0,
        ),
        ({"a": {"em": 1.0}, "b": {"em": 2.0}}, {"a": baseline(em=4.0)}, None, None, None),
        ({"a": {"em": 1.0}, "b": {"em": 2.0}}, {"a": baseline(em=4.0)}, None, ["a"], 4.0),
        ({"lm": {"loss": 2.5, "token_accuracy": 30.0}}, {}, None, None, None),
    ],
)
def test_a_summary_has_the_same_of_a_constant_answer(metrics, about, name, tasks, majority):
    tracker = BestTracker.fresh(name, 2, tasks)
    tracker.update(3, {member: {"metrics": metrics, "about_scores": about} for member in (0, 1)})
    training = Training(steps=3, eval_period=3, members=2)
    run = TrainRun(
        "", BaseModel(None, None, None), Data("a", "tasks", {}, 1), Optimizer("adamw", 0.1), training
    )
    tests = {1: {"metrics": metrics}}
    found = summarize(run, tracker, metrics, tests, [5, 6], [pathlib.Path("p0"), pathlib.Path("p1")])
    assert found["majority_metric"] == majority
    assert found["metric"] == metric_name(metrics, name, tasks)
    assert ["test_metric" in member for member in found["members"]] == [False, True]
    assert found["members"][1]["test_metric"] == found["untuned_metric"] == found["best_metric"]
    assert "metric" not in found["members"][0] and found["metrics"] == [metrics, metrics]
