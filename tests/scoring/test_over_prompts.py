"""Mean, deviation and best over prompts, also where a metric has no value for constant answers."""

import math

import pytest

from jax_prompts.scoring.averages import deviation
from jax_prompts.scoring.summary import over_prompts


def test_a_metric_without_a_value_is_no_value_and_never_best():
    of = {"a": math.nan, "b": 10.0, "c": 30.0}
    found = over_prompts({prompt: {"task": {"pearson": value}} for prompt, value in of.items()})
    assert math.isnan(found["mean"]["task"]["pearson"]) and math.isnan(found["deviation"]["task"]["pearson"])
    assert found["best"] == "c"


def test_the_least_loss_is_best():
    found = over_prompts({name: {"task": {"loss": loss}} for name, loss in (("a", 2.0), ("b", 1.0))})
    assert found == {
        "mean": {"task": {"loss": 1.5}},
        "deviation": {"task": {"loss": pytest.approx(math.sqrt(0.5))}},
        "best": "b",
    }


def test_deviations():
    assert deviation([1.0]) is None
    assert deviation([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert math.isnan(deviation([1.0, math.nan]))
