"""Rows behind learning curves: mean and deviation over members, seconds, what shares a chart."""

import pytest
from report_runs import make_run

from jax_prompts.report import curves, limits, sweeps
from jax_prompts.report.series import averaged, best_first, read_lines, series_of, thinned
from jax_prompts.results.find import find


def read(*paths):
    series, problems = series_of(find([str(path) for path in paths]))
    lines = read_lines(series, problems)
    assert problems == []
    return series, lines


def test_members_are_averaged_with_their_sample_deviation():
    rows = averaged([{0: 1.0, 10: 2.0}, {10: 4.0}])
    low, high = (pytest.approx(3 + sign * 2**0.5, rel=1e-5) for sign in (-1, 1))
    assert rows == [
        {"step": 0, "value": 1.0, "low": 1.0, "high": 1.0, "members": 1},
        {"step": 10, "value": 3.0, "low": low, "high": high, "members": 2},
    ]


def test_a_long_curve_keeps_its_ends():
    rows = thinned([{"step": step} for step in range(1000)])
    assert len(rows) == limits.POINTS and (rows[0]["step"], rows[-1]["step"]) == (0, 999)


def test_losses_have_a_row_for_each_step_and_part(tmp_path):
    series, lines = read(make_run(tmp_path / "run", scores=(80.0, 90.0), recorded=True))
    (loss,) = curves.losses_of(series, lines)
    rows = curves.rows_of(series, lines, loss)
    assert [(row["part"], row["step"], row["value"], row["members"]) for row in rows] == [
        ("training", 10, 1.5, 2),
        ("training", 20, 2.5, 2),
        ("validation", 0, 1.0, 2),
        ("validation", 10, 1.5, 2),
        ("validation", 20, 1.5, 2),
    ]
    assert [row["seconds"] for row in rows] == [20.0, 40.0, 0.0, 20.0, 40.0]


def test_scores_are_of_the_metrics_alone(tmp_path):
    series, lines = read(make_run(tmp_path / "run", recorded=True))
    (score,) = curves.scores_of(series, lines)
    assert (score.name, score.unit) == ("accuracy", "accuracy")
    assert [row["value"] for row in curves.rows_of(series, lines, score)] == [0.0, 45.0, 90.0]


def test_runs_without_the_new_records_have_curves_against_steps(tmp_path):
    series, _ = read(make_run(tmp_path / "run"))
    learning, training = curves.sections(series, [])
    axes = {view.labels[2] for figure in learning.parts for view in figure.views}
    assert axes == {"steps"}
    assert any("seconds.jsonl" in remark for remark in learning.remarks)
    assert any("prompt.jsonl" in remark for remark in training.remarks)


def test_recorded_ranks_are_drawn_against_both(tmp_path):
    series, _ = read(make_run(tmp_path / "run", recorded=True))
    _, training = curves.sections(series, [])
    assert {view.labels[1:] for view in training.parts[0].views} >= {
        ("rank", "steps"), ("rank", "seconds of tuning"), ("entropy rank", "steps"),
    }  # fmt: skip


def test_cells_that_differ_in_their_seed_alone_are_one_series(tmp_path):
    for seed in (0, 1):
        for rate in ("0.3", "0.1"):
            cell = tmp_path / "suite" / "cells" / f"residual.rte.learning_rate={rate}.seed{seed}"
            make_run(cell, scores=(80.0 + seed,), settings={"RANDOM_SEED": str(seed), "LEARNING_RATE": rate})
    series, _ = read(tmp_path / "suite")
    assert [(each.name, each.scope, each.scores) for each in series] == [
        ("residual.rte.learning_rate=0.1", "suite", [80.0, 81.0]),
        ("residual.rte.learning_rate=0.3", "suite", [80.0, 81.0]),
    ]


def test_runs_by_themselves_stay_apart(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"run{seed}", settings={"RANDOM_SEED": str(seed)})
    series, _ = read(tmp_path)
    assert [each.name for each in series] == ["run0", "run1"]


def test_a_sweep_has_a_series_for_each_setting(tmp_path):
    import json

    run = make_run(tmp_path / "run", scores=(10.0, 20.0, 30.0, 50.0))
    summary = json.loads((run / "summary.json").read_text())
    for number, member in enumerate(summary["members"]):
        member["settings"] = {"LEARNING_RATE": (0.1, 0.1, 0.3, 0.3)[number], "RANDOM_SEED": number % 2}
    (run / "summary.json").write_text(json.dumps(summary))
    series, _ = read(run)
    assert [(each.name, each.scores) for each in series] == [
        ("run · LEARNING_RATE=0.1", [10.0, 20.0]),
        ("run · LEARNING_RATE=0.3", [30.0, 50.0]),
    ]
    (lines,) = sweeps.lines_of(series, sweeps.AXES[0]).values()
    (rows,) = lines.values()
    assert [(row["x"], row["value"], row["members"]) for row in rows] == [(0.1, 15.0, 2), (0.3, 40.0, 2)]
    assert rows[0]["low"] == pytest.approx(15 - 50**0.5, rel=1e-5)


def test_lengths_are_a_line_for_each_rate(tmp_path):
    for rate in ("0.1", "0.3"):
        for length, score in (("5", 60.0), ("20", 70.0)):
            own = {"LEARNING_RATE": rate, "PROMPT_LENGTH": length, "Residual.length": length}
            make_run(tmp_path / f"{rate}-{length}", scores=(score,), settings=own)
    series, _ = read(tmp_path)
    (lines,) = sweeps.lines_of(series, sweeps.AXES[1]).values()
    assert {name: [(row["x"], row["value"]) for row in rows] for name, rows in lines.items()} == {
        "LEARNING_RATE=0.1": [(5, 60.0), (20, 70.0)],
        "LEARNING_RATE=0.3": [(5, 60.0), (20, 70.0)],
    }


def test_runs_of_one_rate_make_no_figure_of_rates(tmp_path):
    series, _ = read(make_run(tmp_path / "run"))
    assert sweeps.section(series) is None


def test_of_many_lines_the_best_are_kept(tmp_path):
    for number in range(limits.LINES + 2):
        make_run(tmp_path / f"run{number:02}", scores=(float(number),))
    series, _ = read(tmp_path)
    kept = best_first(series, limits.LINES)
    assert [each.score for each in kept] == [float(number) for number in range(2, limits.LINES + 2)]
    _, remarks = curves.groups_of(series)
    assert remarks == ["rte: the 8 lines of the best scores are drawn, of 10."]
