"""The profiler's window: which steps a trace holds, and what does not end a run."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from jax_prompts.errors import ConfigError
from jax_prompts.watching import profiler
from jax_prompts.watching.profiler import check_window, profiled


@jax.jit
def step(x):
    return x + 1


def trained(directory, window, done, until, train_step=step):
    """The array after steps `done + 1` to `until`, each an addition of one."""
    x = jnp.float32(done)
    with profiled(train_step, window, done, directory) as train_step:
        for _ in range(done, until):
            x = train_step(x)
    return float(x)


def steps_in(directory):
    """Numbers of the steps in each trace that Perfetto reads."""
    traces = sorted((directory / "tensorboard" / "plugins" / "profile").glob("*/perfetto_trace.json.gz"))
    return [
        [
            int(event["args"]["step_num"])
            for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
            if event.get("name") == "train"
        ]
        for trace in traces
    ]


@pytest.mark.parametrize(
    ("window", "done", "until", "traced"),
    [
        ((3, 5), 0, 8, [3, 4, 5]),
        ((1, 1), 0, 2, [1]),
        ((7, 8), 0, 8, [7, 8]),  # up to the last step
        ((3, 5), 3, 8, [4, 5]),  # resumed within the window
        ((3, 5), 0, 4, [3, 4]),  # ended within it
    ],
)
def test_a_trace_holds_the_steps_of_the_window(tmp_path, capsys, window, done, until, traced):
    assert trained(tmp_path, window, done, until) == until
    assert steps_in(tmp_path) == [traced]
    (folder,) = (tmp_path / "tensorboard" / "plugins" / "profile").iterdir()
    assert len(list(folder.glob("*.xplane.pb"))) == 1
    begun, ended = capsys.readouterr().err.splitlines()
    assert begun == f"profiling from step {traced[0]} on"
    assert ended.startswith(
        f"profile of steps {traced[0]} to {traced[-1]}: {folder}; open perfetto_trace.json.gz"
    )


@pytest.mark.parametrize(("window", "done"), [(None, 0), ((3, 5), 5), ((30, 31), 0)])
def test_without_a_step_in_the_window_there_is_no_trace(tmp_path, capsys, window, done):
    assert trained(tmp_path, window, done, 8) == 8
    assert not (tmp_path / "tensorboard").exists()
    assert capsys.readouterr().err == ""
    with profiled(step, None, 0, tmp_path) as same:
        assert same is step


def test_the_primary_process_traces_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(profiler, "primary", lambda: False)
    assert trained(tmp_path, (3, 5), 0, 8) == 8
    assert not (tmp_path / "tensorboard").exists()


def test_a_step_that_fails_ends_the_trace(tmp_path):
    def failing(x):
        if x == 4:
            raise RuntimeError("five")
        return x + 1

    with pytest.raises(RuntimeError, match="five"):
        trained(tmp_path, (3, 8), 0, 8, failing)
    assert steps_in(tmp_path) == [[3, 4, 5]]
    assert trained(tmp_path / "next", (1, 1), 0, 2) == 2  # another can begin
    assert steps_in(tmp_path / "next") == [[1]]


def test_a_trace_that_cannot_begin_does_not_end_the_run(tmp_path, capsys):
    jax.profiler.start_trace(tmp_path / "other")
    try:
        assert trained(tmp_path, (3, 5), 0, 8) == 8
    finally:
        jax.profiler.stop_trace()
    _, failed = capsys.readouterr().err.splitlines()
    assert failed.startswith("the profile failed (Profile has already been started")
    assert failed.endswith("the run goes on without it")


def test_a_trace_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    def full():
        raise OSError(28, "No space left on device")

    stop_trace = jax.profiler.stop_trace
    with monkeypatch.context() as patch:
        patch.setattr(jax.profiler, "stop_trace", full)
        assert trained(tmp_path, (3, 5), 0, 8) == 8
    stop_trace()
    assert "the profile failed ([Errno 28] No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ((10,), r"PROFILE_STEPS is \(10,\): set it to the first and the last step"),
        ((1, 2, 3), "the first and the last step"),
        ((), "the first and the last step"),
        ((0, 5), "a first step of at least 1"),
        ((-3, 5), "a first step of at least 1"),
        ((15, 10), r"PROFILE_STEPS is \(15, 10\): .* a last one that is not before it"),
        ((95, 101), r"PROFILE_STEPS is \(95, 101\), and the run has 100 steps: set it to steps up to 100"),
    ],
)
def test_windows_that_cannot_be_are_refused(window, words):
    with pytest.raises(ConfigError, match=words):
        check_window(window, 100)


@pytest.mark.parametrize("window", [None, (1, 1), (1, 100), [10, 15], (100, 100)])
def test_windows_of_a_run_pass(window):
    check_window(window, 100)
