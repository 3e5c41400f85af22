"""TensorBoard's files of a run: its numbers while it trains, and at its end a row of the HPARAMS tab a member."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from jax_prompts.watching.hparams import Session

FOLDER = "tensorboard"


class TensorBoard:
    """The numbers of a run in MODEL_DIR/tensorboard."""

    def __init__(self, directory: pathlib.Path, first_step: int) -> None:
        """Args: MODEL_DIR; the step from which on earlier numbers, of a run that was stopped, do not count."""
        self._folder = directory / FOLDER
        self._writer = SummaryWriter(str(self._folder), purge_step=first_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Brings to disk what an ended process would lose."""
        self._writer.flush()

    def finish(self, sessions: Sequence[Session], summary: Mapping[str, Any]) -> None:
        """Writes settings and scores of each member, in a folder of its own: in the place of what may be there.

        `SummaryWriter.add_hparams` would also say which settings and metrics there are at all, and TensorBoard takes
        the first such list that it finds for that of all runs. Without any it looks at every run.
        """
        for session in sessions:
            folder = self._folder / session.name
            shutil.rmtree(folder, ignore_errors=True)
            _, begin, end = hparams(session.settings, session.metrics)
            with SummaryWriter(str(folder)) as writer:
                writer.file_writer.add_summary(begin)
                writer.file_writer.add_summary(end)
                for name, value in session.metrics.items():
                    writer.add_scalar(name, value, summary["last_step"])

    def close(self, *, failed: bool) -> None:
        """Ends the files."""
        self._writer.close()
