"""Adds up training metrics between the lines of metrics/train.jsonl."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax


class MetricAccumulator:
    """Sums of the training metrics since the last line of metrics/train.jsonl, one a member.

    `sums` is plain JSON and part of every checkpoint, so that a line which spans an interruption is the
    same as without it.
    """

    def __init__(self, members: int) -> None:
        self._members = members
        self._pending: list[tuple[Sequence[int], dict[str, jax.Array]]] = []
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, Any] = {"steps": 0}

    def add(self, members: Sequence[int], metrics: dict[str, jax.Array]) -> None:
        """Takes one step's metrics of these members, still on the device; the host runs two steps ahead at most."""
        self._pending.append((members, metrics))
        if len(self._pending) > 2:
            jax.block_until_ready(self._pending[-3][1])

    def fetch(self) -> list[int]:
        """Brings what is pending to the host; returns the members whose loss is not finite."""
        for members, metrics in jax.device_get(self._pending):
            self.sums["steps"] += 1
            for name, values in metrics.items():
                sums = self.sums.setdefault(name, [0.0] * self._members)
                for member, value in zip(members, values, strict=True):
                    sums[member] += float(value)
        self._pending.clear()
        losses = self.sums.get("loss_sum", ())
        return [member for member, loss in enumerate(losses) if not math.isfinite(loss)]

    def lines(self, members: Sequence[int]) -> dict[int, dict[str, Any]]:
        """These members' means since the last line.

        Loss (nats) and accuracy (%) a target token, accuracy (%) a row, where every token counts; all else a step.
        """
        self.fetch()
        lines = {}
        for member in members:
            sums = {name: values[member] for name, values in self.sums.items() if name != "steps"}
            line: dict[str, Any] = {"member": member} if self._members > 1 else {}
            tokens = sums.pop("tokens")
            line["loss"] = sums.pop("loss_sum") / tokens
            line["token_accuracy"] = 100 * sums.pop("correct") / tokens
            line["answer_accuracy"] = 100 * sums.pop("answered") / sums.pop("rows")
            lines[member] = line | {name: value / self.sums["steps"] for name, value in sums.items()}
        return lines
