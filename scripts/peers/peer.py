"""Another system in an environment of its own, which takes its steps in turns with ours."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent


class Peer:
    """A worker of this folder: one JSON object a line there, one back."""

    def __init__(self, worker: str, python: str, args: argparse.Namespace) -> None:
        """Args: `peft` or `t5x`; the Python of an environment that has it; what a benchmark was told to compute."""
        self._name, self.peak_rss_gigabytes = worker, 0.0
        settings = {**vars(args), "threads": os.cpu_count()}
        self._process = subprocess.Popen(
            [python, HERE / f"{worker}_worker.py", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._answer()

    def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        """What the worker's function returns, the `seconds` it took, and the worker's `peak_rss_gigabytes`."""
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        return self._answer()

    def step(self, texts: list[list[int]], targets: list[list[int]]) -> float:
        """Takes a training step; the seconds."""
        answer = self.ask("step", texts=texts, targets=targets)
        self.peak_rss_gigabytes = answer["peak_rss_gigabytes"]
        return answer["seconds"]

    def close(self) -> int:
        """Ends the worker; its exit status."""
        self._process.stdin.close()
        self._process.stdout.close()
        return self._process.wait()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print, too
                return json.loads(line)
        raise SystemExit(f"{self._name} ended with {self.close()}: see above")


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
