"""What commands print and runs keep is JSON, whatever the numbers."""

import json

from jax_prompts.storage import json_text


def test_numbers_that_are_not_finite_are_null():
    report = {
        "metrics": {"stsb": {"pearson": float("nan"), "spearman": 12.5}},
        "low": (float("-inf"), 0, "NaN"),
    }
    read = json.loads(json_text.dumps(report), parse_constant=lambda name: 1 / 0)
    assert read == {"metrics": {"stsb": {"pearson": None, "spearman": 12.5}}, "low": [None, 0, "NaN"]}
