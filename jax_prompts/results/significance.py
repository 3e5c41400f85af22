"""Tests between groups of seeds that answered the same examples, as plain JSON."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_prompts.errors import RunError
from jax_prompts.results.answers import Marked, mark
from jax_prompts.results.paired import bootstrap, holm, mcnemar
from jax_prompts.results.scored import Member
from jax_prompts.results.seed_groups import SeedGroup

MOST_TESTS = 200  # pairs of groups, of which Holm's correction leaves little
_ROLES = (  # whose examples may be the same; those that chose nothing first
    ("test", "test"),
    ("test", "evaluation"),
    ("evaluation", "test"),
    ("evaluation", "evaluation"),
    ("validation", "validation"),
    ("validation", "evaluation"),
    ("evaluation", "validation"),
)

Said = dict[str, Any]


class Marks:
    """Files of predictions, each read once.

    Attributes:
      damaged: those that could not be read, with the reason.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[pathlib.Path, int | None, str], Marked | None] = {}
        self.damaged: dict[pathlib.Path, str] = {}

    def of(self, member: Member, role: str, task: str, key: str) -> Marked | None:
        """Which examples a member has right; None where it has no such predictions, or they are damaged."""
        file = member.predictions.get(role, {}).get(task)
        if file is None:
            return None
        which = (file, member.number, key)
        if which not in self._known:
            try:
                self._known[which] = mark(*which)
            except RunError as error:
                self._known[which] = None
                self.damaged[file] = str(error)
        return self._known[which]


def compared(groups: Sequence[SeedGroup], marks: Marks, *, pairs: bool) -> tuple[list[Said], list[Said]]:
    """Tests of groups with the first of their task, or of all pairs; and what could not be tested, with the reason.

    McNemar's test takes the best member of each group. The bootstrap takes the mean over members of equal seeds, or
    the best of each where no seeds are equal; differences are in points of percent right, the second group's less the
    first's. Holm's correction is over all tests of one kind.

    Args:
      groups: in order.
      marks: of all predictions.
      pairs: whether all pairs are tested.
    """
    tests: list[Said] = []
    untested: list[Said] = []
    by_task: dict[str, list[SeedGroup]] = {}
    for group in groups:
        by_task.setdefault(group.first.task, []).append(group)
    wanted: list[tuple[SeedGroup, SeedGroup]] = []
    for own in by_task.values():
        wanted += itertools.combinations(own, 2) if pairs else [(own[0], other) for other in own[1:]]
    for first, second in wanted[:MOST_TESTS]:
        found, reason = _tests(first, second, marks)
        tests += found
        if reason:
            untested.append({"what": f"{first.name} and {second.name}", "reason": reason})
    if (more := len(wanted) - MOST_TESTS) > 0:
        untested.append(
            {"what": f"{more:,} more pairs", "reason": f"{MOST_TESTS} are tested: name fewer runs"}
        )
    for kind in ("bootstrap", "mcnemar"):
        for test, p in zip(tests, holm([test[kind]["p"] for test in tests]), strict=True):
            test[kind]["p_holm"] = p
    return tests, untested


def _tests(first: SeedGroup, second: SeedGroup, marks: Marks) -> tuple[list[Said], str | None]:
    best = first.best, second.best
    if best[0] is None or best[1] is None:
        return [], "one of them has no score"
    tests, reasons = [], []
    for task in best[0].metrics:
        if task in best[1].metrics:
            test, reason = _test(first, second, task, marks)
            if test is None:
                there = _has_any(first, best[0], task, marks) and _has_any(second, best[1], task, marks)
                what = "of other examples" if there else "not all there"
                reason = f"their predictions of {task} are {what}"
            else:
                tests.append(test)
            if reason is not None:
                reasons.append(reason)
    return tests, "; ".join(reasons) or None


def _has_any(group: SeedGroup, member: Member, task: str, marks: Marks) -> bool:
    return any(marks.of(member, role, task, group.first.answer_key) for role in member.predictions)


def _test(first: SeedGroup, second: SeedGroup, task: str, marks: Marks) -> tuple[Said | None, str | None]:
    """A test, None without predictions of the same examples; and why it is not of all seeds, where it is not."""
    best = first.best, second.best
    assert best[0] is not None and best[1] is not None
    for roles in _ROLES:
        both = _both(first, second, best[0], best[1], roles, task, marks)
        if both is None:
            continue
        seeds = [seed for seed in first.members if seed in second.members] if first.first.settings else []
        paired = [
            _both(first, second, first.members[seed], second.members[seed], roles, task, marks)
            for seed in seeds
            if first.members[seed].score is not None and second.members[seed].score is not None
        ]
        there = [pair for pair in paired if pair is not None and pair[0].examples == both[0].examples]
        together = there if there and len(there) == len(paired) else [both]
        reason = None
        if len(there) < len(paired):
            reason = (
                f"of {len(paired)} pairs of equal seeds {len(there)} have predictions of the same examples of {task}: "
                "the best of each are tested"
            )
        a_MN, b_MN = (np.stack([pair[side].right_N for pair in together]) for side in (0, 1))
        difference = bootstrap(100.0 * (b_MN.mean(axis=0) - a_MN.mean(axis=0)))
        exact = mcnemar(both[0].right_N, both[1].right_N)
        test = {
            "a": first.name,
            "b": second.name,
            "task": task,
            "roles": list(roles),
            "examples": len(both[0].right_N),
            "paired_by": "seed" if together is there else "best member",
            "pairs": len(together),
            "right_a": 100.0 * float(a_MN.mean()),
            "right_b": 100.0 * float(b_MN.mean()),
            "bootstrap": {
                "difference": difference.value,
                "interval": [difference.low, difference.high],
                "p": difference.p,
            },
            "mcnemar": {
                "only_a": exact.b,
                "only_b": exact.c,
                "p": exact.p,
                "seeds": [best[0].seed, best[1].seed],
            },
        }
        return test, reason
    return None, None


def _both(
    first: SeedGroup, second: SeedGroup, a: Member, b: Member, roles: tuple[str, str], task: str, marks: Marks
) -> tuple[Marked, Marked] | None:
    """Answers of two members to the same examples; None where they have none."""
    found = (
        marks.of(a, roles[0], task, first.first.answer_key),
        marks.of(b, roles[1], task, second.first.answer_key),
    )
    if found[0] is None or found[1] is None or found[0].examples != found[1].examples:
        return None
    return found[0], found[1]
