"""Tasks of a mixture that choose the prompt, where not all of them do."""

from __future__ import annotations

from collections.abc import Sequence

_CHOOSING: dict[str, tuple[str, ...]] = {}


def choose_by(mixture: str, tasks: Sequence[str]) -> None:
    """Says which tasks of a mixture choose the prompt; the scores of the others are reported alone."""
    _CHOOSING[mixture] = tuple(tasks)


def chooses(mixture: str, task: str) -> bool:
    """Whether the scores of a task count where a prompt is chosen on a mixture."""
    return task in _CHOOSING.get(mixture, (task,))
