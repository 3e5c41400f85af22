"""The stopwatch of a run, on a clock that the test turns."""

import pytest

from jax_prompts import stopwatch
from jax_prompts.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: now[0])
    return now


def test_steps_are_counted_apart_from_the_whole(clock):
    watch = Stopwatch()
    clock[0] += 5  # reading
    watch.start_steps()
    clock[0] += 2
    assert watch.seconds() == {"tuning_seconds": 2, "wall_seconds": 7}
    watch.stop_steps()
    clock[0] += 10  # an evaluation
    watch.start_steps()
    clock[0] += 1
    assert watch.seconds() == {"tuning_seconds": 3, "wall_seconds": 18}


def test_a_resumed_run_counts_on_and_leaves_out_the_time_between(clock):
    first = Stopwatch()
    first.start_steps()
    clock[0] += 4
    saved = first.state()
    clock[0] += 1000
    second = Stopwatch()
    clock[0] += 3
    second.count_on(saved)
    second.start_steps()
    clock[0] += 2
    assert second.seconds() == {"tuning_seconds": 6, "wall_seconds": 9}


def test_how_fast_steps_are_leaves_out_those_that_compiled(clock):
    first = Stopwatch()
    first.start_steps()
    clock[0] += 30  # it compiles
    first.compiled()
    for _ in range(4):
        clock[0] += 2
        first.took_step(16)
    first.stop_steps()
    assert first.examples_per_second == 8
    second = Stopwatch()
    second.count_on(first.state())
    assert second.examples_per_second == 8  # of a run that had ended when it was stopped
    second.start_steps()
    clock[0] += 50
    second.compiled()
    clock[0] += 8
    second.took_step(64)
    assert second.examples_per_second == 8
    assert second.seconds()["tuning_seconds"] == 96


def test_a_run_of_one_step_has_the_time_that_it_took(clock):
    watch = Stopwatch()
    watch.start_steps()
    clock[0] += 4
    watch.took_step(8)
    assert watch.examples_per_second == 2
