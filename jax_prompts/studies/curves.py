"""Curves of runs, by member, from the lines of their metrics."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from jax_prompts.results.run_files import Line, RunFiles
from jax_prompts.studies.prompt_inputs import read_runs


def runs_in(paths: Sequence[str]) -> list[RunFiles]:
    """The runs in those of the paths that are directories; none where all are files."""
    directories = [path for path in paths if os.path.isdir(path)]
    return read_runs(directories) if directories else []


def curves_of(lines: Sequence[Line], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each member `{"member", "step": [...], NAME: [...]}`, lists of one length; names that no line has left out.

    A number that a line lacks, or that was not finite, is None.
    """
    numbers = sorted({line["member"] for line in lines if "member" in line}) or [0]
    members = {member: [line for line in lines if line.get("member", member) == member] for member in numbers}
    return [
        {
            "member": member,
            "step": [line["step"] for line in own],
            **{
                name: [number_of(line, name) for line in own]
                for name in names
                if any(name in line for line in own)
            },
        }
        for member, own in members.items()
        if own
    ]


def number_of(line: Mapping[str, Any], name: str) -> float | None:
    """A number of a line; None where it is none."""
    value = line.get(name)
    return value if isinstance(value, int | float) else None
