"""The script of both stages on a stand-in for t5x; the count of texts that are in both."""

from __future__ import annotations

import json
import os
import pathlib
import runpy
import subprocess
import sys

import pytest

pytest.importorskip("seqio")

ROOT = pathlib.Path(__file__).parent.parent.parent
T5X = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
exit "${STATUS:-0}"
"""


@pytest.fixture
def both_stages(tmp_path):
    """`both_stages(*arguments, STATUS=...)`: the script's status and what it called."""
    (tmp_path / "t5x").write_text(T5X)
    (tmp_path / "t5x").chmod(0o755)
    calls = tmp_path / "calls"

    def run(*arguments, **environment):
        calls.write_text("")
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), **environment}
        done = subprocess.run([ROOT / "scripts/mini.sh", *arguments], env=env, capture_output=True, text=True)
        return done.returncode, calls.read_text().splitlines()

    return run


def test_the_second_stage_begins_with_the_first_ones_model(both_stages):
    status, (first, second) = both_stages("data", "runs", "--gin.RANDOM_SEED=1")
    assert status == 0
    assert first.startswith("pretrain --gin_file=gin_configs/mini_pretrain.gin")
    assert second.startswith("pretrain --gin_file=gin_configs/mini_adapt.gin")
    for call, folder in ((first, "pretrain"), (second, "adapt")):
        assert f"--gin.MODEL_DIR=runs/{folder} " in call and "--gin.DATA_DIR=data" in call
        assert call.endswith("--gin.RANDOM_SEED=1")
    assert "--gin.INITIAL_CHECKPOINT_PATH=runs/pretrain/model" in second


def test_a_stopped_stage_is_not_followed_by_the_next(both_stages):
    status, calls = both_stages("data", "runs", STATUS="75")
    assert status == 75 and len(calls) == 1
    assert both_stages("data") == (2, [])


def test_overlap_counts_runs_of_words(tmp_path, monkeypatch, capsys):
    sentence = "the committee said on monday that the new bridge would open in the spring of next year"
    other = "nobody in the village had ever seen so many ships lie at anchor in one small bay"
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text(f"Reports: {sentence.capitalize()}, at last.\n")
    rows = [
        {"idx": 0, "premise": f"As was said: {sentence}.", "hypothesis": "It opens.", "label": "entailment"},
        {"idx": 1, "premise": f"{other}.", "hypothesis": "It opens.", "label": "entailment"},
        {"idx": 2, "premise": "The committee said so.", "hypothesis": "It opens.", "label": "not_entailment"},
    ]
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE/val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["text_overlap.py", "--mixture", "span_corruption", "--data_dir", str(tmp_path / "text")]
    command += ["--against", "super_glue_rte_v102", "--against_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(ROOT / "scripts/text_overlap.py"), run_name="__main__")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "task": "super_glue_rte_v102",
            "split": "validation",
            "examples": 3,
            "compared": 2,
            "shared": 1,
            "by_task": {"span_corruption": 1},
        }
    ]
