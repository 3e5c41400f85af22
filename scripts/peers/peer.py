"""Another system in an environment of its own, which takes its steps in turns with ours."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent


class Peer:
    """A worker of this folder: one JSON object a line there, one back."""

    def __init__(self, worker: str, python: str, **settings: Any) -> None:
        """Args: `peft` or `t5x`; the Python of an environment that has it; what the worker is to make."""
        self._name = worker
        self._process = subprocess.Popen(
            [python, HERE / f"{worker}_worker.py", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.facts = self._answer()

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """What the worker's function `what` returns, and the `seconds` it took."""
        self._process.stdin.write(json.dumps([what, arguments]) + "\n")
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print, too
                return json.loads(line)
        raise SystemExit(f"{self._name} ended with {self._process.wait()}: see above")


def rows_of(groups: list[dict[str, Any]], vocab_size: int) -> dict[str, list[list[int]]]:
    """The texts and targets of a batch of one member, without prompts and padding."""
    texts, targets = [], []
    for group in groups:
        tokens_BL, targets_BU, weights_BU = (
            np.asarray(group[name])[0]
            for name in ("encoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights")
        )
        texts += [row[(row > 0) & (row < vocab_size)].tolist() for row in tokens_BL]
        targets += [row[weights > 0].tolist() for row, weights in zip(targets_BU, weights_BU, strict=True)]
    return {"texts": texts, "targets": targets}
