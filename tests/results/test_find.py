"""What directories hold, whichever way they are named."""

import pathlib

import pytest
from made_runs import make_run, right

from jax_prompts.errors import ConfigError
from jax_prompts.results.find import find
from jax_prompts.results.run_files import RunFiles


def test_a_run_that_is_named_twice_is_found_once(tmp_path):
    make_run(tmp_path / "runs" / "a", right("1100"))
    make_run(tmp_path / "runs" / "b", right("1100"))
    a, runs = str(tmp_path / "runs" / "a"), str(tmp_path / "runs")
    assert [len(find(paths).runs) for paths in ([runs, a], [a, runs], [runs])] == [2, 2, 2]
    with pytest.raises(ConfigError, match="named twice"):
        find([a, a])


def test_members_of_a_sweep_under_way_have_their_own_settings(tmp_path):
    sweep = 'SWEEP={"LEARNING_RATE": (0.1, 0.3), "RANDOM_SEED": (0, 1)}'
    run = make_run(tmp_path / "run", *[right("1100")] * 4, bindings=(sweep,), finished=False)
    own = RunFiles(run).own_settings
    assert [each["LEARNING_RATE"] for each in own] == [0.1, 0.1, 0.3, 0.3]
    alike = make_run(tmp_path / "alike", *[right("1100")] * 2, finished=False)
    assert RunFiles(alike).own_settings == [{}, {}]


def test_evaluations_before_tuning_are_everyones(tmp_path):
    run = RunFiles(make_run(tmp_path / "run", *[right("1100")] * 2))
    assert [line.get("member") for line in run.evaluations] == [None, 0, 1, 0, 1]


def test_folders_that_cannot_be_read_are_passed_over(tmp_path, monkeypatch):
    make_run(tmp_path / "runs" / "a", right("1100"))
    (tmp_path / "suite" / "cells").mkdir(parents=True)
    listed = pathlib.Path.iterdir

    def unreadable(self):
        if self.name == "cells":
            raise PermissionError(13, "denied", str(self))
        return listed(self)

    monkeypatch.setattr(pathlib.Path, "iterdir", unreadable)
    found = find([str(tmp_path)])
    assert (len(found.runs), len(found.suites)) == (1, 0)
