"""A run in a notebook."""

import json
import sys

import pytest
from report_runs import make_run, prediction

import jax_prompts
from jax_prompts.errors import ConfigError

ROWS = [prediction(0, "yes", "yes"), prediction(1, "yes", "no")]


@pytest.fixture
def run(tmp_path):
    return jax_prompts.Run(make_run(tmp_path / "<run>", scores=(80.0, 90.0), predictions=ROWS, recorded=True))


def test_its_summary_and_settings_are_those_of_its_files(run):
    assert run.summary["best_metric"] == 85.0
    assert run.settings["MIXTURE_OR_TASK_NAME"] == "'rte'"


def test_its_curves_are_a_chart(run):
    chart = run.curves().to_dict()
    values = [row["value"] for row in chart["datasets"]["rows"]]
    assert values == [0.0, 42.5, 85.0]
    assert run.curves("entropy rank", "seconds").to_dict()["datasets"]["rows"][1]["seconds"] == 20.0


def test_curves_that_are_not_there_are_named(run):
    with pytest.raises(ConfigError, match="has not recorded dreams against steps: it has loss, score"):
        run.curves("dreams")
    with pytest.raises(ConfigError, match="set it to step or seconds"):
        run.curves("loss", "days")


def test_its_predictions_begin_with_the_wrong_ones(run):
    frame = run.predictions()
    assert list(frame["right"]) == [False, False, True, True]
    assert list(frame["member"]) == [0, 1, 0, 1]
    assert list(frame.columns[:3]) == ["task", "when", "member"]


def test_a_run_without_predictions_has_an_empty_frame(tmp_path):
    frame = jax_prompts.Run(make_run(tmp_path / "run")).predictions()
    assert len(frame) == 0 and "right" in frame.columns


def test_it_shows_itself_with_markup_as_text(run):
    shown = run._repr_html_()
    assert "<svg" in shown and "85.00" in shown
    assert "&lt;run&gt;" in shown and "<run>" not in shown


def test_it_shows_itself_before_the_first_evaluation(tmp_path):
    (tmp_path / "config.gin").write_text("MIXTURE_OR_TASK_NAME = 'rte'\n")
    shown = jax_prompts.Run(tmp_path)._repr_html_()
    assert "unfinished" in shown and "<svg" not in shown


def test_what_is_no_run_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        jax_prompts.Run(tmp_path)


def test_without_the_extra_it_still_shows_its_table(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    assert "85.00" in run._repr_html_()
    with pytest.raises(ConfigError, match="pip install"):
        run.curves()
    assert json.dumps(run.summary)
