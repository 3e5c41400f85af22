"""A whole run that is watched, stopped within its window, gone on with, and started once more."""

import json
import os
import subprocess
import sys

import pytest
from test_profiler import steps_in
from test_weights_and_biases import kept, values

pytestmark = pytest.mark.slow
ENV = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "WANDB_MODE": "offline",
}
SETTINGS = {
    "INITIAL_CHECKPOINT_PATH": "None",
    "EVAL_PERIOD": 6,
    "BATCH_SIZE": 8,
    "PROMPT_LENGTH": 4,
    "EVAL_SPLIT": "validation[:40]",
    "Training.log_period": 3,
    "Optimizer.schedule": "'constant'",
    "Optimizer.warmup_steps": 0,
}


def t5x(**macros):
    flags = [f"--gin.{name}={value}" for name, value in {**SETTINGS, **macros}.items()]
    command = [
        sys.executable,
        "-m",
        "jax_prompts.main",
        "train",
        "--gin_file=gin_configs/quickstart.gin",
        *flags,
    ]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr.splitlines()


def test_a_watched_run_is_resumed_and_ends_once(tmp_path, compile_cache):
    pytest.importorskip("wandb", reason="pip install -e '.[wandb]'")
    ENV.update(compile_cache)
    where = {"MODEL_DIR": tmp_path / "run", "CACHE_DIR": tmp_path / "cache"}
    t5x(**where, TRAIN_STEPS=6, WANDB=True)
    _, first_err = t5x(**where, TRAIN_STEPS=9, PROFILE_STEPS="(5, 8)")
    assert "profiling from step 7 on" in first_err
    assert steps_in(tmp_path / "run") == [[7, 8]]
    summary, err = t5x(**where, TRAIN_STEPS=12, WANDB=True)
    assert "resuming at step 9" in err
    (line,) = [line for line in err if line.startswith("step ")]
    assert line.startswith("step 12/12  loss ") and "  validation accuracy " in line

    sessions = list((tmp_path / "run" / "tensorboard" / "hparams").iterdir())
    assert len(sessions) == 1
    runs = kept(tmp_path / "run")
    assert len({found["run"][0].run_id for found in runs}) == 1 and len(runs) == 2
    last = {}
    for record in runs[1]["summary"]:
        last |= values(record.update)
    assert json.loads(last["best_metric"]) == summary["best_metric"]
    steps = [[int(values(row.item)["step"]) for row in found["history"]] for found in runs]
    assert {0, 3, 6} == set(steps[0]) and {12} == set(steps[1])

    again, err = t5x(**where, TRAIN_STEPS=12, WANDB=True)
    assert again == summary
    assert list((tmp_path / "run" / "tensorboard" / "hparams").iterdir()) == sessions
    assert len(kept(tmp_path / "run")) == 2
