"""How many steps each rung of a search has: of a budget in steps of all runs together, or in minutes of one worker."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Collection, Sequence
from typing import Protocol

from jax_prompts.runs import Suite
from jax_prompts.suites import states
from jax_prompts.suites.cells import Cell, groups_of
from jax_prompts.suites.table import Option, option_of

MEASURED_STEPS = 10


class Budget(Protocol):
    """What a search may cost."""

    def steps(self, options: Collection[Option], before: Sequence[Cell], rungs_left: int) -> int:
        """Steps of each run of a rung, without a bound above; 0 where not one fits.

        Args:
          options: those that the rung has.
          before: the cells of all rungs before it.
          rungs_left: how many there are to be from this one on; they share what is left.
        """
        ...


@dataclasses.dataclass(frozen=True)
class InSteps:
    """A budget in steps, those of all runs added up.

    Attributes:
      of_a_rung: steps of all its runs.
      runs: of each option: seeds times columns.
    """

    of_a_rung: float
    runs: int

    def steps(self, options: Collection[Option], before: Sequence[Cell], rungs_left: int) -> int:
        return int(self.of_a_rung / (len(options) * self.runs))


class InMinutes:
    """A budget in minutes of one worker, by what short runs of all cells took."""

    def __init__(self, minutes: float, measured: Sequence[Cell], suite: Suite) -> None:
        """Args: the budget; cells that were run for MEASURED_STEPS steps; their suite."""
        self._seconds = minutes * 60 - _seconds_of(measured)
        self._groups = [_Measured.of(group.cells) for group in groups_of(measured, suite.members)]

    def steps(self, options: Collection[Option], before: Sequence[Cell], rungs_left: int) -> int:
        share = (self._seconds - _seconds_of(before)) / rungs_left

        def seconds(steps: int) -> float:
            return sum(group.seconds(steps, options) for group in self._groups)

        return bisect.bisect_right(range(1, 1 << 31), share, key=seconds)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What cells that share a step take, in seconds.

    Attributes:
      beside_steps: of a run that is evaluated before and after its steps alone: to start, compile and evaluate.
      a_step: each cell's part of a step, by option.
      eval_period: steps between evaluations.
    """

    beside_steps: float
    a_step: tuple[tuple[Option, float], ...]
    eval_period: int

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> _Measured:
        beside, a_step = 0.0, []
        for cell in cells:
            if (summary := states.summary_of(cell)) is not None:
                shared_by = 1 + summary.get("shared_with", 0)
                seconds = cell.run.data.batch_size / summary["examples_per_second"] / shared_by
                a_step.append((option_of(cell), seconds))
                beside += summary["wall_seconds"] - MEASURED_STEPS * seconds
        return cls(beside, tuple(a_step), cells[0].run.training.eval_period or MEASURED_STEPS)

    def seconds(self, steps: int, options: Collection[Option]) -> float:
        """Of runs of those of these options that are here; what is beside steps is taken to be evaluation all of it."""
        own = [seconds for option, seconds in self.a_step if option in options]
        evaluations = 1 + -(-steps // self.eval_period)
        return self.beside_steps * evaluations / 2 + steps * sum(own) if own else 0.0


def _seconds_of(cells: Sequence[Cell]) -> float:
    """What runs took; of those that shared a step each its part."""
    summaries = filter(None, map(states.summary_of, cells))
    return sum(summary["wall_seconds"] for summary in summaries)
