"""Metrics as one line."""

import math

import pytest

from jax_prompts.scoring.summary import one_line

RTE, CB = {"rte": {"accuracy": 52.0}}, {"cb": {"accuracy": 70.0, "f1": 60.125}}


@pytest.mark.parametrize(
    ("metrics", "named", "shown"),
    [
        ([RTE], True, "rte accuracy 52.00"),
        ([RTE], False, "accuracy 52.00"),
        ([RTE | CB], False, "rte accuracy 52.00, cb accuracy 70.00, cb f1 60.12"),
        (
            [{"rte": {"accuracy": 60.0}}, RTE, {"rte": {"accuracy": 55.0}}],
            True,
            "rte accuracy 52.00 to 60.00",
        ),
        ([RTE, {"rte": {"accuracy": 52.001}}], False, "accuracy 52.00"),
        ([{"rte": {"pearson": math.nan}}], False, "pearson nan"),
    ],
)
def test_metrics_are_one_line(metrics, named, shown):
    assert one_line(*metrics, named=named) == shown
