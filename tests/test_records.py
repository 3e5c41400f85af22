"""What a run leaves in MODEL_DIR."""

import pytest

from jax_prompts import records
from jax_prompts.config import BaseModel, Data, Optimizer, Training
from jax_prompts.errors import ConfigError
from jax_prompts.run_folder import RunFolder
from jax_prompts.runs import TrainRun


def run(directory, **training):
    return TrainRun(
        str(directory),
        BaseModel("micro", None, None),
        Data("rte", "tasks", {"inputs": 8, "targets": 2}, 4),
        Optimizer("adamw", 0.1),
        Training(10, 5, **training),
    )


def test_a_model_dir_that_is_not_shared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_SEEN_SECONDS", 0.0)
    records.Records(RunFolder(tmp_path), "A = 1\n")
    monkeypatch.setattr(records, "from_primary", lambda name, written: f"{written}0")
    with pytest.raises(ConfigError, match="all processes share"):
        records.Records(RunFolder(tmp_path), "A = 1\n")


def test_a_flush_leaves_events_on_disk(tmp_path):
    with records.Records(RunFolder(tmp_path), "A = 1\n") as kept:
        kept.watch(0, run(tmp_path), steps=10)
        (events,) = (tmp_path / "tensorboard").iterdir()
        before = events.stat().st_size
        kept.scalars("train", 1, {"loss": 2.5})
        kept.flush()
        assert events.stat().st_size > before


def test_those_who_watch_see_the_numbers_and_the_end(tmp_path):
    class Watching(list):
        def scalars(self, step, values):
            self.append((step, values))

        def finish(self, sessions, summary):
            self.append((sessions, summary, (tmp_path / "summary.json").exists()))

        def close(self, *, failed):
            self.append(failed)

    seen = Watching()
    member = {"seed": 0, "best_metric": 75.0, "best_step": 10, "file": "x"}
    summary = {"task": "rte", "metric": "accuracy", "last_step": 10, "members": [member]}
    with records.Records(RunFolder(tmp_path), "A = 1\n") as kept:
        kept.watch(0, run(tmp_path), steps=10)
        kept._watching.append(seen)
        kept.scalars("train", 5, {"member": 2, "loss": 2.5, "count": 3})
        kept.scalars("eval", 5, {"task": "rte", "split": "validation", "accuracy": 50.0, "more": {"a": 1.0}})
        kept.finish(summary)
    assert seen[:2] == [(5, {"train/2/loss": 2.5, "train/2/count": 3.0}), (5, {"eval/rte/accuracy": 50.0})]
    (session,), told, finished_before = seen[2]
    assert session.metrics == {"best_metric": 75.0, "best_step": 10.0} and session.settings["steps"] == 10
    assert told == summary and not finished_before  # a run killed in between ends again
    assert kept.summary() == summary
    assert seen[3:] == [False]
    with pytest.raises(RuntimeError), records.Records(RunFolder(tmp_path), None) as kept:
        kept._watching.append(seen)
        raise RuntimeError
    assert seen[4:] == [True]
