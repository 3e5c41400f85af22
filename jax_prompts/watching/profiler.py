"""JAX's profiler over a window of steps: a trace for XProf, TensorBoard's PROFILE tab and Perfetto."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from jax_prompts.display import log
from jax_prompts.distributed.processes import primary
from jax_prompts.errors import ConfigError, first_line
from jax_prompts.watching.tensorboard import FOLDER

Step = Callable[..., Any]


def check_window(window: Sequence[int] | None, steps: int) -> None:
    """Raises ConfigError for a window that is none, or that a run of so many steps does not come to."""
    if window is None:
        return
    shown = f"PROFILE_STEPS is {tuple(window)}"
    if len(window) != 2:
        raise ConfigError(f"{shown}: set it to the first and the last step, such as (10, 15)")
    first, last = window
    if first < 1 or last < first:
        raise ConfigError(
            f"{shown}: set it to a first step of at least 1, and a last one that is not before it"
        )
    if last > steps:
        raise ConfigError(f"{shown}, and the run has {steps} steps: set it to steps up to {steps}")


@contextlib.contextmanager
def profiled(
    train_step: Step, window: Sequence[int] | None, done: int, directory: pathlib.Path
) -> Iterator[Step]:
    """`train_step`, of which the profiler traces the calls in a window of steps; of several processes the primary's.

    The device is idle when the trace begins and when it ends. A run that ends, stops or resumes within the window
    traces the steps that it takes in it. What goes wrong with a trace does not stop the run.

    Args:
      train_step: called once a step; not changed.
      window: first and last step, counted from 1; None: nothing is traced.
      done: steps before the first call.
      directory: MODEL_DIR.
    """
    if window is None or not primary():
        yield train_step
        return
    first, last = window
    trace, steps = _Trace(directory / FOLDER), itertools.count(done + 1)

    def traced(*arrays: Any) -> Any:
        step = next(steps)
        if not first <= step <= last:
            return train_step(*arrays)
        trace.begin(step, arrays)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            results = train_step(*arrays)
        trace.took(step)
        if step == last:
            trace.end(results)
        return results

    try:
        yield traced
    finally:
        trace.end(())


class _Trace:
    """One trace, in `plugins/profile` below a folder of TensorBoard's."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._steps: list[int] = []
        self._running = self._failed = False

    def begin(self, step: int, arrays: Any) -> None:
        """Starts once all arrays are there, unless it has."""
        if self._running or self._failed:
            return
        jax.block_until_ready(arrays)
        log(f"profiling from step {step} on")
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # its events would crowd out those of the devices
        with self._carefully():
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True, profiler_options=options)
            self._running = True

    def took(self, step: int) -> None:
        """Notes a step that is in the trace."""
        self._steps.append(step)

    def end(self, results: Any) -> None:
        """Ends it once all results are there, and says where it lies; nothing where it does not run."""
        if not self._running:
            return
        self._running = False
        jax.block_until_ready(results)
        with self._carefully():
            jax.profiler.stop_trace()
            newest = max(
                (self._folder / "plugins" / "profile").iterdir(), key=lambda path: path.stat().st_mtime
            )
            log(
                f"profile of steps {self._steps[0]} to {self._steps[-1]}: {newest}; open perfetto_trace.json.gz in it "
                f"at https://ui.perfetto.dev, or: pip install xprof; xprof --logdir={self._folder}"
            )

    @contextlib.contextmanager
    def _carefully(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed = True
            log(f"the profile failed ({first_line(error)}): the run goes on without it")
