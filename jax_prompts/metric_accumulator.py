"""Adds up training metrics between the lines of metrics/train.jsonl."""

from __future__ import annotations

import math
from typing import Any

import jax

from jax_prompts.errors import RunError


class MetricAccumulator:
    """Sums of the training metrics since the last line of metrics/train.jsonl, one a member.

    `sums` is plain JSON and part of every checkpoint, so that a line which spans an interruption is the
    same as without it.
    """

    def __init__(self, members: int) -> None:
        self._members = members
        self._pending: list[dict[str, jax.Array]] = []
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, Any] = {"steps": 0}

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Takes one step's metrics, still on the device; lets the host run at most two steps ahead of it."""
        self._pending.append(metrics)
        if len(self._pending) > 2:
            jax.block_until_ready(self._pending[-3])

    def fetch(self, step: int) -> None:
        """Brings what is pending to the host.

        Raises:
          RunError: a loss is not finite.
        """
        for metrics in jax.device_get(self._pending):
            self.sums["steps"] += 1
            for name, values in metrics.items():
                sums = self.sums.get(name, [0.0] * self._members)
                self.sums[name] = [total + float(value) for total, value in zip(sums, values, strict=True)]
        self._pending.clear()
        if not all(math.isfinite(value) for value in self.sums.get("loss_sum", ())):
            raise RunError(f"the loss is not finite at or before step {step}; lower the learning rate")

    def lines(self, step: int) -> list[dict[str, Any]]:
        """The members' means since the last line: loss (nats) and accuracy (%) a target token, all else a step."""
        self.fetch(step)
        lines = []
        for member in range(self._members):
            sums = {name: values[member] for name, values in self.sums.items() if name != "steps"}
            line: dict[str, Any] = {"member": member} if self._members > 1 else {}
            tokens = sums.pop("tokens")
            line["loss"] = sums.pop("loss_sum") / tokens
            line["token_accuracy"] = 100 * sums.pop("correct") / tokens
            lines.append(line | {name: value / self.sums["steps"] for name, value in sums.items()})
        return lines
