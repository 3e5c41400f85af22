"""Weights & Biases shows the numbers of a run; whatever fails there, the run goes on.

Where its server or a key for it is missing, everything is kept in MODEL_DIR/wandb, and `wandb sync` sends it later.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax_prompts.display import log
from jax_prompts.errors import ConfigError, first_line
from jax_prompts.storage import files
from jax_prompts.watching.hparams import Session, Settings

FOLDER = "wandb"
_PROJECT = "jax_prompts"
_MODES = ("online", "offline", "disabled", "shared")
_SECONDS_TO_BEGIN, _SECONDS_TO_END = 30, 60  # a network that hangs holds a run up no longer


def check_usable() -> None:
    """Raises ConfigError where the package is missing, or a variable of its has no meaning."""
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # a folder of that name, such as W&B itself makes, is none
        raise ConfigError(
            "WANDB is True and wandb is not installed: in the checkout, pip install -e '.[wandb]', or set it to False"
        )
    mode = os.environ.get("WANDB_MODE")
    if mode is not None and mode not in _MODES:
        raise ConfigError(
            f"the variable WANDB_MODE is {mode!r}: set it to {' or '.join(_MODES)}, or do not set it"
        )


class WeightsAndBiases:
    """The numbers of a run at Weights & Biases; a resumed run goes on with the same run there."""

    def __init__(self, directory: pathlib.Path, settings: Settings) -> None:
        """Args: MODEL_DIR; every setting of the run."""
        self._folder = directory / FOLDER
        self._run: Any = None
        try:
            self._run = self._begin(directory, settings)
        except Exception as error:
            log(f"Weights & Biases failed ({first_line(error)}): the run goes on without it")

    def _begin(self, directory: pathlib.Path, settings: Settings) -> Any:
        import wandb

        quiet: dict[str, Any] = {
            "silent": True,
            "console": "off",
            "disable_git": True,
            "x_disable_meta": True,  # the command line, in which URLs may show who asks
            "init_timeout": _SECONDS_TO_BEGIN,
            "finish_timeout": _SECONDS_TO_END,
            "x_graphql_timeout_seconds": 10,
            "x_graphql_retry_max": 1,
        }
        mode: Any = wandb.setup(settings=wandb.Settings(**quiet)).settings.mode
        if mode == "online" and (reason := _unreachable(wandb)):
            mode = "offline"
            log(f"Weights & Biases: {reason}; kept for later: wandb sync {self._folder}/offline-run-*")
        run = wandb.init(
            dir=str(directory),
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=os.environ.get("WANDB_NAME", "/".join(directory.absolute().parts[-2:])),
            id=self._id(),
            resume="allow" if mode == "online" else None,
            config=dict(settings),
            mode=mode,
            settings=wandb.Settings(**quiet, reinit="create_new"),
        )
        run.define_metric(
            "*", step_metric="step"
        )  # W&B's own counter refuses steps that a resumed run repeats
        if run.url:
            log(f"Weights & Biases: {run.url}")
        return run

    def _id(self) -> str:
        """The run's name at W&B, which a resumed run finds in MODEL_DIR."""
        file = self._folder / "run_id"
        known = file.read_text(errors="replace").strip() if file.is_file() else ""
        if re.fullmatch(r"\w{1,64}", known):
            return known
        new = uuid.uuid4().hex[:12]
        self._folder.mkdir(exist_ok=True)
        files.write(file, new + "\n")
        return new

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Sends numbers by name."""
        self._do(lambda run: run.log({"step": step, **values}))

    def flush(self) -> None:
        """Does nothing: W&B's own process writes by itself, every 15 seconds."""

    def finish(self, sessions: Sequence[Session], summary: Mapping[str, Any]) -> None:
        """Sends the scores of each member and the summary."""
        single = len(sessions) == 1
        metrics = {
            name if single else f"{session.name}/{name}": value
            for session in sessions
            for name, value in session.metrics.items()
        }
        self._do(lambda run: run.summary.update({**summary, **metrics}))

    def close(self, *, failed: bool) -> None:
        """Waits, a minute at most, until everything has arrived."""
        self._do(lambda run: run.finish(exit_code=int(failed)))
        self._run = None

    def _do(self, act: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            act(self._run)
        except Exception as error:
            self._run = None
            log(f"Weights & Biases failed ({first_line(error)}): the run goes on without it")


def _unreachable(wandb: Any) -> str | None:
    """Why nothing can be sent; None where it can. Nobody is asked for a key."""
    try:
        return None if wandb.login(prompt=False, verify=True) else "no key (wandb login makes one known)"
    except Exception as error:
        return first_line(error)
