"""Runs the cells of a suite: one group after another, each by one worker, whoever else works on the same suite.

Workers share nothing but the suite's directory, or folder of a bucket. Who holds the lock of a group runs it; a lock
goes with its process, so that a killed worker's group is taken on by another, from its last checkpoint. No clock is
compared.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Sequence
from typing import Any

import jax

from jax_prompts import memory, partition
from jax_prompts.base_models.build import make_vocabulary
from jax_prompts.data import protocols
from jax_prompts.data.roles import open_roles
from jax_prompts.display import log
from jax_prompts.errors import ConfigError, Preempted, RunError, first_line, is_out_of_memory
from jax_prompts.results.endings import number_text
from jax_prompts.runs import Suite, TrainRun
from jax_prompts.scoring.task_evaluator import check_metric_of
from jax_prompts.setup import set_up
from jax_prompts.storage import places, run_lock
from jax_prompts.storage.remote import is_remote
from jax_prompts.suites import states, table
from jax_prompts.suites.cell_files import hand_out
from jax_prompts.suites.cells import Cell, Group, groups_of
from jax_prompts.suites.claims import Claims
from jax_prompts.suites.untuned import evaluate_untuned
from jax_prompts.sweep import Variant
from jax_prompts.train import train

_POLL_SECONDS = 2.0
_REMOTE_POLL_SECONDS = 10.0  # each asks a bucket of every open cell


def work(suite: Suite, cells: Sequence[Cell], share: tuple[int, int] = (1, 1)) -> None:
    """Runs all cells that are not finished, and waits for those that other workers run.

    A cell that cannot be run is written down as failed, and the others go on; it is tried again by the next command.

    Args:
      suite: the suite.
      cells: all of them.
      share: (I, N): of N shares of the groups, number I alone, from 1; the others are not waited for.

    Raises:
      ConfigError: another suite's directory, or data that a cell needs and that are not there.
      Preempted: SIGTERM or Ctrl-C arrived; everything is saved.
    """
    root = suite.model_dir
    states.check_same_suite(root, cells)
    claims = Claims(root)
    groups = groups_of(cells, suite.members)[share[0] - 1 :: share[1]]
    _check_data(suite, [cell for group in groups for cell in group.cells])
    before = {cell.name: states.failure_of(cell) for cell in cells}

    def ended(group: Group) -> bool:
        """Whether each cell is finished, or has failed since this worker began."""
        return all(
            states.summary_of(cell) is not None or states.failure_of(cell) not in (None, before[cell.name])
            for cell in group.cells
        )

    begun, done_here, waiting = time.monotonic(), 0, [group for group in groups if not ended(group)]
    while waiting:
        busy: list[Group] = []
        for number, group in enumerate(waiting):
            try:
                with claims.held(group.name):
                    if ended(group):
                        continue
                    _log_progress(root, cells, begun, done_here, len(waiting) - number + len(busy))
                    _run(group, root)
                    done_here += 1
            except run_lock.BusyError:
                busy.append(group)
        waiting = [group for group in busy if not ended(group)]
        if waiting:
            time.sleep(_REMOTE_POLL_SECONDS if is_remote(root) else _POLL_SECONDS)


def _log_progress(root: str, cells: Sequence[Cell], begun: float, done_here: int, left: int) -> None:
    finished = states.finished_of(root, cells)
    time_left = f", {(time.monotonic() - begun) / done_here * left / 60:.0f} min left" if done_here else ""
    log(f"suite: {finished} of {len(cells)} cells finished{time_left}")


def _check_data(suite: Suite, cells: Sequence[Cell]) -> None:
    """Opens the data of every open cell, which fills their caches, and looks for the metrics that are to be shown.

    Raises:
      ConfigError: some are missing; all that is wrong is said at once.
    """
    needs: list[tuple[Any, list[Cell]]] = []
    for cell in cells:
        if states.summary_of(cell) is None:
            run = cell.run
            own = (run.model.vocabulary, run.model.checkpoint, run.data, run.tunes_nothing)
            sharing = next((sharing for known, sharing in needs if known == own), None)
            if sharing is None:
                needs.append((own, [cell]))
            else:
                sharing.append(cell)
    wrong: dict[str, list[str]] = {}
    for _, sharing in needs:
        run = sharing[0].run
        try:
            wanted = protocols.ROLES[1:] if run.tunes_nothing else protocols.ROLES
            roles = open_roles(run.data, make_vocabulary(run.model), wanted)
            caches = [cache for _, cache in roles.get("test", roles["validation"])]
            for column in dict.fromkeys(cell.column for cell in sharing):
                task, name = table.wanted(suite, column)
                with table.naming(column):
                    for cache in caches:
                        if task in (None, cache.task):
                            check_metric_of(name, cache, ranked=run.data.rank_classification)
        except (ConfigError, RunError) as error:
            wrong.setdefault(first_line(error), []).extend(cell.name for cell in sharing)
    states.refuse(wrong)


def _run(group: Group, root: str) -> None:
    """Runs the cells of a group side by side, and writes down why one could not be run."""
    group = _open(group, root)
    for cell in group.cells:
        log(f"cell {cell.name}")
        states.forget_failure(cell)
        states.write(places.below(cell.address, "command.txt"), shlex.join(cell.command()) + "\n")
    try:
        for part in _that_fit(group):
            _run_together(part, root)
    except (Preempted, run_lock.BusyError):  # in a bucket, one who lost a claim may still be at it
        raise
    except Exception as error:
        known = isinstance(error, ConfigError | RunError)
        reason = first_line(error) if known else f"{type(error).__name__}: {first_line(error)}"
        for cell in group.cells:
            if states.summary_of(cell) is None:
                states.fail(cell, reason)
        log(f"failed: {reason}")
    else:
        for cell in group.cells:
            if (summary := states.summary_of(cell)) is not None:
                log(
                    f"finished {cell.name}: {summary.get('metric', 'score')} {number_text(summary['best_metric'])}"
                )
    finally:
        jax.clear_caches()  # programs of one group are of no use to another


def _open(group: Group, root: str) -> Group:
    """The group; where it has not begun, and an earlier one has finished some of its cells, without these."""
    left = [cell for cell in group.cells if states.summary_of(cell) is None]
    if len(left) in (0, len(group.cells)) or states.is_there(places.below(root, f"groups/{group.name}")):
        return group
    (rest,) = groups_of(left, len(left))
    return rest


def _that_fit(group: Group) -> list[Group]:
    """The group, in as many parts as memory is known to ask for."""
    if len(group.cells) == 1:
        return [group]
    run, _ = _together(group.cells, group.cells[0].run.model_dir)
    try:
        memory.check_training(set_up(run, partition.mesh_of(run.model)))
    except ConfigError:
        return [part for half in _halves(group) for part in _that_fit(half)]
    return [group]


def _halves(group: Group) -> list[Group]:
    return groups_of(group.cells, -(-len(group.cells) // 2))


def _run_together(group: Group, root: str) -> None:
    if all(states.summary_of(cell) is not None for cell in group.cells):
        return
    if len(group.cells) == 1:
        (cell,) = group.cells
        (evaluate_untuned if cell.run.tunes_nothing else train)(cell.run, cell.config_text)
        return
    run, text = _together(group.cells, places.below(root, f"groups/{group.name}"))
    try:
        summary = train(run, text)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log(f"{len(group.cells)} cells together need more memory than there is: half of them at once")
        jax.clear_caches()
        for half in _halves(group):
            _run_together(half, root)
    else:
        hand_out(summary, run.model_dir, group.cells)


def _together(cells: Sequence[Cell], directory: str) -> tuple[TrainRun, str]:
    """One run with a member for each cell, and the text of its settings."""
    first = cells[0]
    variants = tuple(Variant(cell.settings, cell.run) for cell in cells)
    training = dataclasses.replace(first.run.training, members=len(cells))
    run = dataclasses.replace(first.run, model_dir=directory, training=training, variants=variants)
    members = "".join(f"# member {cell.name}: {json.dumps(cell.settings, default=str)}\n" for cell in cells)
    return run, first.config_text.replace(first.run.model_dir, directory) + members
