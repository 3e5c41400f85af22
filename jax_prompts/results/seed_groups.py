"""Prompts that are the same but for their seed, of one run or of several, taken together."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jax_prompts.results.intervals import student
from jax_prompts.results.scored import Member, Scored
from jax_prompts.results.settings import value_of, without_seeds
from jax_prompts.scoring.averages import deviation


@dataclasses.dataclass
class SeedGroup:
    """Attributes:
    name: of its first line.
    lines: numbers of the lines of the comparison that it takes together.
    members: by seed, in the order of the lines; of an evaluation by number, its prompts.
    first: the first of its lines, with which the others have all but their seeds in common.
    """

    name: str
    lines: list[int]
    members: dict[Any, Member]
    first: Scored

    @property
    def best(self) -> Member | None:
        """The member with the best score; None where none has one."""
        sign = 1.0 if self.first.higher else -1.0
        scored = [
            (sign * member.score, member) for member in self.members.values() if member.score is not None
        ]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None


def seed_groups(names: Sequence[str], lines: Sequence[Scored]) -> list[SeedGroup]:
    """Finished lines in groups; a line whose seeds are in a group already makes another, as does an evaluation.

    Args:
      names: of each line.
      lines: those of a comparison.
    """
    groups: list[SeedGroup] = []
    alike: dict[Any, list[SeedGroup]] = {}
    for number, (name, line) in enumerate(zip(names, lines, strict=True)):
        if line.state != "finished":
            continue
        members: dict[Any, Member]
        if line.settings:
            members = {_seed_of(line.settings, member): member for member in line.members}
            known = alike.setdefault((line.task, line.metric, without_seeds(line.settings)), [])
        else:
            members, known = dict(enumerate(line.members)), []
        group = next((group for group in known if not group.members.keys() & members.keys()), None)
        if group is None:
            group = SeedGroup(name, [], {}, line)
            groups.append(group)
            known.append(group)
        group.lines.append(number)
        group.members.update(members)
    return groups


def summed_up(group: SeedGroup, names: Sequence[str]) -> dict[str, Any]:
    """Mean, sample deviation and Student's 95 % interval over the seeds of a group, as plain JSON.

    Args:
      group: the group.
      names: of the lines of the comparison.
    """
    return {
        "name": group.name,
        "runs": [names[number] for number in group.lines],
        "task": group.first.task,
        "metric": group.first.metric,
        "score": over_members([member.score for member in group.members.values()]),
        "test": over_members([member.test for member in group.members.values()]),
    }


def over_members(values: Sequence[float | None]) -> dict[str, Any] | None:
    """`mean`, sample `deviation`, `count` and Student's `interval` of the mean; None where there are no values."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return {
        "mean": statistics.fmean(there),
        "deviation": deviation(there),
        "count": len(there),
        "interval": student(there),
    }


def _seed_of(settings: Mapping[str, str], member: Member) -> tuple[int | None, str]:
    return member.seed, repr(value_of(settings, "Data.subset_seed"))
