"""Runs of t5x in several processes over loopback, each with few virtual CPU devices."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np

from jax_prompts.prompts import load_prompt

SHORT = {
    "SCAN_LAYERS": True,
    "TRAIN_STEPS": 24,
    "EVAL_PERIOD": 12,
    "CHECKPOINT_PERIOD": 6,
    "BATCH_SIZE": 8,
    "LEARNING_RATE": 0.002,  # a higher one makes more of the order of additions
    "PROMPT_LENGTH": 4,
    "Residual.hidden": 8,
    "EVAL_SPLIT": "validation[:24]",
    "EVAL_BATCH_SIZE": 16,
    "Training.log_period": 1,
}


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def environment(devices=1, **more):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"  # the last counts
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3", **more}


def line(command, *flags, **macros):
    settings = [f"--gin.{macro}={value}" for macro, value in macros.items()]
    gin_file = "--gin_file=gin_configs/quickstart.gin"
    return [sys.executable, "-m", "jax_prompts.main", command, gin_file, *flags, *settings]


def start(count, *flags, command="train", devices=1, each=None, env=None, port=None, **macros):
    """Starts `count` processes; `each` has more flags of each process and `env` more variables."""
    port = port or free_port()
    return [
        subprocess.Popen(
            line(
                command,
                "--multiprocess_gpu",
                f"--coordinator_address=127.0.0.1:{port}",
                f"--process_count={count}",
                f"--process_index={index}",
                *flags,
                *(each[index] if each else ()),
                **macros,
            ),
            env=environment(devices, **(env[index] if env else {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def launched(count, *arguments, **variables):
    """`scripts/launch_local.py` of this command in `count` processes."""
    return subprocess.Popen(
        [sys.executable, "scripts/launch_local.py", str(count), *arguments],
        env={**os.environ, **variables},
        cwd=pathlib.Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes, timeout=600):
    """Exit status, last line on stderr, and stdout of each."""
    outputs = [process.communicate(timeout=timeout) for process in processes]
    statuses = [process.returncode for process in processes]
    return statuses, [(err.splitlines() or [""])[-1] for _, err in outputs], [out for out, _ in outputs]


def alone(devices=1, **macros):
    """The same run in one process."""
    done = subprocess.run(line("train", **macros), env=environment(devices), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def records(directory, name):
    return [json.loads(text) for text in (directory / "metrics" / name).read_text().splitlines()]


def assert_same_run(directory, reference, rtol=1e-5):
    """Losses, metrics, predictions and the best prompt of two runs; 0 wants every bit equal."""
    for name in ("train.jsonl", "eval.jsonl"):
        ours, theirs = records(directory, name), records(reference, name)
        assert [x["step"] for x in ours] == [x["step"] for x in theirs]
        for x, y in zip(ours, theirs, strict=True):
            assert x.keys() == y.keys()
            for key, value in x.items():
                if isinstance(value, float):
                    np.testing.assert_allclose(value, y[key], rtol=rtol, err_msg=f"{name} {x['step']} {key}")
                else:
                    assert value == y[key]
    predictions = sorted(file.name for file in (reference / "predictions").iterdir())
    assert sorted(file.name for file in (directory / "predictions").iterdir()) == predictions
    for name in predictions:
        assert (directory / "predictions" / name).read_text() == (
            reference / "predictions" / name
        ).read_text()
    ours_PD, theirs_PD = (load_prompt(where / "prompt.safetensors")[0] for where in (directory, reference))
    np.testing.assert_allclose(ours_PD, theirs_PD, rtol=0, atol=rtol * np.abs(theirs_PD).max())
