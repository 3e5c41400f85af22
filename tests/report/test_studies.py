"""Studies as pictures: exact rows of each kind's charts and tables."""

import json

import altair
import pytest

from jax_prompts.report import studies
from jax_prompts.report.parts import Figure, Table

PROMPTS = [
    {"name": name, "file": f"{name}.safetensors", "task": name, "method": "Residual", "prompt_kind": "input",
     "length": 2, "width": 3, "own": [name]}
    for name in ("rte", "cb")
]  # fmt: skip
TRAINING = [{"name": "run", "members": [{"member": 0, "step": [0, 10], "rank": [2, 1], "norm": [3.0, None]}]}]
SPREAD = {"count": 2, "mean": 30.0, "deviation": 10.0}
NOTHING = {"count": 0, "mean": None, "deviation": None}
NEAR = {"step": 20, "score": 90.0, "tuning_seconds": 4.0, "wall_seconds": None}
NUMBERS = {"mean_best_cosine": 0.5, "distinct_nearest": 2, "clustered_positions": 0, "typical_share": None}

STUDIES = {
    "transfer": {
        "prompts": PROMPTS,
        "tasks": [
            {"task": "rte", "scores": [80.0, 60.0], "ratios": [1.0, 0.75]},
            {"task": "cb", "scores": [40.0, None], "ratios": None},
        ],
    },
    "copies": {
        "prompt": PROMPTS[0], "task": "rte", "whole": 90.0, "positions": [0, 1], "copies": [1, 5],
        "scores": [[10.0, 20.0], [50.0, 60.0]],
    },
    "similarity": {
        "prompts": [{**PROMPTS[0], "positions": [[1.0, 0.5], [0.5, 1.0]]}, {**PROMPTS[1], "positions": [[1.0]]}],
        "between": {"mean_vectors": [[1.0, 0.2], [0.2, 1.0]], "position_wise": [[1.0, None], [None, 1.0]]},
    },
    "rank": {
        "prompts": [{**PROMPTS[0], "singular_values": [4.0, 0.0], "rank": 1, "entropy_rank": 1.0, "stable_rank": 1.0}],
        "training": TRAINING,
    },
    "norms": {
        "prompts": [{**PROMPTS[0], "mean": 2.0, "min": 1.0, "max": 3.0, "positions": [1.0, 3.0]}],
        "vocabulary": {"model": "micro", "mean": 15.0, "min": 12.0, "max": 19.0},
        "training": TRAINING,
    },
    "convergence": {
        "within_percent": 1.0,
        "members": [{"run": "a", "member": 0, "settings": 0, "best": 90.0, "own": NEAR, "configuration": NEAR,
                     "finished": True}],
        "configurations": [{"number": 0, "own": {"step": SPREAD, "tuning_seconds": NOTHING, "wall_seconds": NOTHING}}],
    },
    "parameters": {
        "lengths": [5],
        "models": [
            {"model": f"t5_{size}", "parameters": count, "methods": [
                {"method": "model_tuning", "length": None, "tuned": count, "kept": count, "percent": 100.0},
                {"method": "residual", "length": 5, "tuned": 50, "kept": 10, "percent": 5000 / count},
            ]} for size, count in (("base", 200_000), ("small", 60_000))
        ],
    },
    "neighbours": {
        "prompts": [{
            **PROMPTS[0], **NUMBERS, "random": {**NUMBERS, "mean_best_cosine": 0.25},
            "labels": [
                {"label": "<b>", "first_piece_at": [0, 1], "mean_at": [], "best_position": 1, "best_cosine": 0.75}
            ],
            "near_duplicates": [[0, 1]],
            "positions": [{"position": 0, "norm": 2.0, "neighbours": [{"piece": "▁good", "cosine": 0.5}]}],
        }],
    },
}  # fmt: skip


def drawn(kind):
    return studies.section({"study": kind, **STUDIES[kind]}, "file", "study-0").parts


def rows_of(kind, number=0, view=0):
    return [part for part in drawn(kind) if isinstance(part, Figure)][number].views[view].rows


def tables_of(kind):
    return [part for part in drawn(kind) if isinstance(part, Table)]


def test_every_study_is_drawn():
    assert set(STUDIES) == set(studies.TITLES)


@pytest.mark.parametrize("kind", STUDIES)
def test_charts_are_valid(kind):
    figures = [part for part in drawn(kind) if isinstance(part, Figure)]
    with altair.data_transformers.enable("default", max_rows=None):
        assert all(view.chart.to_dict(validate=True) for figure in figures for view in figure.views)
    assert len({figure.id for figure in figures}) == len(figures)


def test_transfer_has_a_cell_for_each_prompt_and_task():
    assert [(row["row"], row["column"], row["value"], row["shown"]) for row in rows_of("transfer")] == [
        ("rte", "rte", 80.0, "80.0"), ("rte", "cb", 40.0, "40.0"),
        ("cb", "rte", 60.0, "60.0"), ("cb", "cb", None, "–"),
    ]  # fmt: skip
    assert [row["shown"] for row in rows_of("transfer", view=1)] == ["1.00", "–", "0.75", "–"]


def test_copies_have_positions_in_rows():
    assert [(row["row"], row["column"], row["value"]) for row in rows_of("copies")] == [
        ("0", "1 ×", 10.0), ("0", "5 ×", 50.0), ("1", "1 ×", 20.0), ("1", "5 ×", 60.0),
    ]  # fmt: skip


def test_similarity_is_within_and_between_prompts():
    assert rows_of("similarity") == [
        {"one": 0, "other": [0, 1], "cosine": [1.0, 0.5]},
        {"one": 1, "other": [0, 1], "cosine": [0.5, 1.0]},
    ]
    assert [row["shown"] for row in rows_of("similarity", 1, 1)] == ["1.00", "–", "–", "1.00"]


def test_ranks_have_singular_values_and_curves():
    assert rows_of("rank") == [{"line": "rte", "x": 1, "value": 4.0}]
    assert [(row["x"], row["value"]) for row in rows_of("rank", 1)] == [(0, 2), (10, 1)]
    assert tables_of("rank")[0].rows == [["rte", "2", "3", "1", "1.000", "1.000"]]


def test_norms_stand_beside_the_vocabulary():
    assert [row["value"] for row in rows_of("norms")] == [1.0, 3.0]
    assert [(row["x"], row["value"]) for row in rows_of("norms", 1)] == [(0, 3.0)]
    assert [row[0] for row in tables_of("norms")[0].rows] == ["rte", "vocabulary of micro"]


def test_convergence_has_an_interval_for_each_setting():
    assert rows_of("convergence") == [
        {"settings": "0: a", "value": 30.0, "low": 20.0, "high": 40.0, "members": 2}
    ]
    assert tables_of("convergence")[0].rows == [["a", "0", "0", "90.000", "20", "4.000", "20", "yes"]]


def test_parameters_are_a_line_for_each_method_over_sizes():
    assert [(row["line"], row["x"], row["value"]) for row in rows_of("parameters")] == [
        ("model_tuning", 60_000, 60_000), ("model_tuning", 200_000, 200_000),
        ("residual", 60_000, 50), ("residual", 200_000, 50),
    ]  # fmt: skip


def test_neighbours_are_tables():
    short, labels, positions = tables_of("neighbours")
    assert short.rows == [["rte", "0.500", "0.250", "2", "2", "0", "0", "–", "–", "2"]]
    assert labels.rows == [["rte", "<b>", "0, 1", "–", "1", "0.750"]]
    assert positions.rows == [["0", "2.000", "_good 0.50"]]


def test_what_is_no_study_is_said(tmp_path):
    file = tmp_path / "study.json"
    for content in ({"study": "dreams"}, {"study": "rank", "prompts": 1}, {"study": {}}):
        file.write_text(json.dumps(content))
        problems = []
        assert studies.sections([file], problems) == []
        assert "is no study that this version can draw" in problems[0]
