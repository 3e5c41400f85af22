"""Measures how long a run takes, and how much of that its steps."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds of a run since it was made; a resumed one counts on, so that only the time between is left out."""

    def __init__(self) -> None:
        self._begun, self._tuning = time.monotonic(), 0.0
        self._steps_since: float | None = None

    def count_on(self, seconds: dict[str, float]) -> None:
        """Adds what `seconds` gave when the run was saved."""
        self._begun -= seconds["wall_seconds"]
        self._tuning += seconds["tuning_seconds"]

    def start_steps(self) -> None:
        """What follows are steps, until `stop_steps`."""
        self._steps_since = time.monotonic()

    def stop_steps(self) -> None:
        self._tuning, self._steps_since = self.tuning_seconds, None

    @property
    def tuning_seconds(self) -> float:
        """Spent in steps, compiling them included."""
        return self._tuning + (0.0 if self._steps_since is None else time.monotonic() - self._steps_since)

    def seconds(self) -> dict[str, float]:
        """`tuning_seconds`, and `wall_seconds` in all."""
        return {"tuning_seconds": self.tuning_seconds, "wall_seconds": time.monotonic() - self._begun}
