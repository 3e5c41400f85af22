"""Measures how long a run takes, how much of that its steps, and how fast they are."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds of a run since it was made; a resumed one counts on, so that only the time between is left out."""

    def __init__(self) -> None:
        self._begun, self._tuning = time.monotonic(), 0.0
        self._examples, self._compiling = 0, 0.0
        self._steps_since: float | None = None

    def count_on(self, saved: dict[str, float]) -> None:
        """Adds what `state` gave when the run was saved."""
        self._begun -= saved["wall_seconds"]
        self._tuning += saved["tuning_seconds"]
        self._examples += int(saved["examples"])
        self._compiling += saved["compiling_seconds"]

    def start_steps(self) -> None:
        """What follows are steps, until `stop_steps`."""
        self._steps_since = time.monotonic()

    def stop_steps(self) -> None:
        self._tuning, self._steps_since = self.tuning_seconds, None

    def took_step(self, examples: int) -> None:
        """Counts the rows of a step for `examples_per_second`."""
        self._examples += examples

    def compiled(self) -> None:
        """What has run since `start_steps` compiled, and says nothing about how fast steps are."""
        self._compiling += self.tuning_seconds - self._tuning

    @property
    def tuning_seconds(self) -> float:
        """Spent in steps, compiling them included."""
        return self._tuning + (0.0 if self._steps_since is None else time.monotonic() - self._steps_since)

    @property
    def examples_per_second(self) -> float:
        """Of all steps that were counted, those before a stop included."""
        return self._examples / max(self.tuning_seconds - self._compiling, 1e-9)

    def seconds(self) -> dict[str, float]:
        """`tuning_seconds`, and `wall_seconds` in all."""
        return {"tuning_seconds": self.tuning_seconds, "wall_seconds": time.monotonic() - self._begun}

    def state(self) -> dict[str, float]:
        """What `count_on` takes, in plain JSON."""
        return {**self.seconds(), "examples": self._examples, "compiling_seconds": self._compiling}
