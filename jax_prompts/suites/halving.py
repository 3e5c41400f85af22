"""Chooses among the options of a suite within a budget, by successive halving (Jamieson and Talwalkar 2016, section 3).

An option is a row with one combination of the searched settings. All are trained for a few steps, the best of them for
more, and so on; each rung costs about the same. The rungs are suites of their own in MODEL_DIR/rungs, whose runs start
anew, so that every score is that of a whole run, its learning rates gone down to their end.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from jax_prompts.display import log, print_table
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.results.endings import command, show_lines
from jax_prompts.runs import Suite
from jax_prompts.storage import json_text, places
from jax_prompts.storage.remote import is_remote
from jax_prompts.suites import states
from jax_prompts.suites.budget import MEASURED_STEPS, Budget, InMinutes, InSteps
from jax_prompts.suites.cells import Cell
from jax_prompts.suites.table import Option, lower_is_better, option_of, score_of
from jax_prompts.suites.worker import work

# The cells of a suite in another directory, for so many steps.
CellsAt = Callable[[str, int], list[Cell]]


@dataclasses.dataclass(frozen=True)
class Rung:
    """One round of a search.

    Attributes:
      steps: of each run.
      cells: the runs.
      scores: mean validation score of each option, best first; None of one that could not be run.
    """

    steps: int
    cells: tuple[Cell, ...]
    scores: dict[Option, float | None]


def choose(suite: Suite, cells: Sequence[Cell], cells_at: CellsAt) -> dict[str, Any]:
    """Searches, shows what was found, and writes MODEL_DIR/choice.json and, a run to repeat, MODEL_DIR/winner.gin.

    A search that was stopped goes on behind its finished runs; any number of workers may share one.

    Args:
      suite: one with a budget.
      cells: all of its cells, for as many steps as a run is to have at most.
      cells_at: makes the cells of a rung.

    Raises:
      ConfigError: settings that make no search, or a budget that no step fits into.
      RunError: no option could be run.
    """
    root, full = suite.model_dir, full_steps(cells)
    options = list(dict.fromkeys(map(option_of, cells)))
    states.claim_for_search(root, {"steps": full, "options": [_name(option) for option in options]})

    def run(name: str, steps: int, wanted: Sequence[Option]) -> list[Cell]:
        at = places.below(root, f"rungs/{name}")
        own = [cell for cell in cells_at(at, steps) if option_of(cell) in wanted]
        work(dataclasses.replace(suite, model_dir=at), own)
        return own

    sizes = sizes_of(len(options), suite.eta)
    if "steps" in suite.budget:
        budget: Budget = _in_steps(suite, len(cells), sizes)
    else:
        log(f"measuring runs of {MEASURED_STEPS} steps")
        budget = InMinutes(suite.budget["minutes"], run("measured", MEASURED_STEPS, options), suite)
    rungs: list[Rung] = []
    for number, size in enumerate(sizes):
        options = options[:size]
        before = [cell for rung in rungs for cell in rung.cells]
        steps = min(full, budget.steps(options, before, len(sizes) - number))
        if not rungs:
            _check_possible(suite, steps, len(options), len(sizes))
        elif steps <= rungs[-1].steps:
            log("the budget is used up: what is known has to do")
            break
        log(f"rung {number + 1} of {len(sizes)}: {len(options)} options, {steps} steps each")
        own = run(f"{number + 1}_of_{steps}_steps", steps, options)
        scores = _scores(own, options)
        rungs.append(Rung(steps, tuple(own), scores))
        options = [option for option, score in scores.items() if score is not None]
        if not options:
            raise RunError(f"no option could be run: {'; '.join(_failures(own).values())}")
        if steps == full:
            break  # there is no more to know
    return _report(root, rungs, cells_at(places.below(root, "winner"), full))


def sizes_of(options: int, eta: int) -> list[int]:
    """How many options each rung has: all, the best of every `eta`, and so on, and two or more in the last."""
    sizes = [options]
    while sizes[-1] > eta:
        sizes.append(-(-sizes[-1] // eta))
    return sizes


def full_steps(cells: Sequence[Cell]) -> int:
    """Steps of every cell. Raises ConfigError unless they are as many for all."""
    found = {cell.run.training.steps for cell in cells}
    steps = found.pop()
    if found or steps is None:
        raise ConfigError(
            "Suite.budget is of steps up to TRAIN_STEPS, which has to be set, and the same for all cells"
        )
    return steps


def show_plan(suite: Suite, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Shows the rungs of a search as they would be: options, and steps where the budget is in steps.

    Raises:
      ConfigError: a budget that no step fits into.
    """
    full, options = full_steps(cells), list(dict.fromkeys(map(option_of, cells)))
    sizes = sizes_of(len(options), suite.eta)
    budget = _in_steps(suite, len(cells), sizes) if "steps" in suite.budget else None
    plan: list[dict[str, Any]] = []
    for number, size in enumerate(sizes):
        steps, words = None, "as many steps as are measured to fit"
        if budget is not None:
            steps = min(full, budget.steps(options[:size], [], len(sizes) - number))
            _check_possible(suite, steps, size, len(sizes))
            words = f"{steps} steps each"
        log(f"rung {number + 1}: {size} options, {words}")
        plan.append({"options": size, "steps": steps})
        if steps == full:
            break
    return plan


def _in_steps(suite: Suite, cells: int, sizes: Sequence[int]) -> InSteps:
    return InSteps(suite.budget["steps"] / len(sizes), cells // sizes[0])


def _check_possible(suite: Suite, steps: int, options: int, rungs: int) -> None:
    if steps < 1:
        raise ConfigError(
            f"Suite.budget is {suite.budget}, in which {options} options in {rungs} rungs get not one step each: raise "
            "it, or name fewer options"
        )


def _scores(cells: Sequence[Cell], options: Sequence[Option]) -> dict[Option, float | None]:
    summaries = {cell.name: found for cell in cells if (found := states.summary_of(cell)) is not None}
    scores = {
        option: score_of([cell for cell in cells if option_of(cell) == option], summaries)
        for option in options
    }
    sign = -1.0 if lower_is_better(summaries) else 1.0
    worth = {option: -math.inf if score is None else sign * score for option, score in scores.items()}
    return {option: scores[option] for option in sorted(options, key=lambda option: -worth[option])}


def _failures(cells: Sequence[Cell]) -> dict[str, str]:
    return {cell.name: failed[0] for cell in cells if (failed := states.failure_of(cell)) is not None}


def _report(root: str, rungs: Sequence[Rung], full_cells: Sequence[Cell]) -> dict[str, Any]:
    """Shows the options by how far they came, and writes down the best one."""
    ranked = list(dict.fromkeys(option for rung in reversed(rungs) for option in rung.scores))
    heads = [f"{rung.steps} steps" for rung in rungs]

    def text_of(score: float | None) -> str:
        return "" if score is None else f"{score:.2f}"

    lines = [[_name(option), *(text_of(rung.scores.get(option)) for rung in rungs)] for option in ranked]
    print_table(["validation", *heads], lines, right=heads)

    best, last = ranked[0], rungs[-1]
    run = next(cell for cell in full_cells if option_of(cell) == best)
    tuned = [
        member["file"]
        for cell in last.cells
        if option_of(cell) == best and (summary := states.summary_of(cell)) is not None
        for member in summary["members"]
    ]
    winner = places.below(root, "winner.gin")
    states.write(winner, run.config_text)
    local = "winner.gin" if is_remote(winner) else winner  # gin files are read on this machine
    train = command("t5x", "train", f"--gin_file={local}")
    row, searched = best
    report = {
        "winner": {"row": row, "settings": dict(searched), "score": last.scores[best], "steps": last.steps},
        "prompts": tuned,
        "file": winner,
        "command": train,
        "rungs": [
            {
                "steps": rung.steps,
                "scores": [
                    {"row": row, "settings": dict(searched), "score": score}
                    for (row, searched), score in rung.scores.items()
                ],
                "failures": _failures(rung.cells),
            }
            for rung in rungs
        ],
    }
    states.write(places.below(root, "choice.json"), json_text.dumps(report, indent=2) + "\n")
    found = f"best: {_name(best)}, {text_of(last.scores[best])} after {last.steps} steps: {tuned[0]}"
    commands = [command("t5x", "report", root, "--output=report.html")]
    if last.steps != (full := run.run.training.steps):
        here = f" once {winner} is copied here" if is_remote(winner) else ""
        found, commands = f"{found}; for all {full} steps as below{here}", [train, *commands]
    show_lines([found], root, ["winner.gin", "choice.json"], commands)
    return report


def _name(option: Option) -> str:
    row, searched = option
    return ", ".join([row, *(f"{name} {value}" for name, value in searched)])
