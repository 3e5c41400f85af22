"""Claims MODEL_DIR for one run, before data and weights are read: usable, of the same run, and nobody else's."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterator

from jax_prompts import optim, records, run_folder
from jax_prompts.distributed.processes import primary
from jax_prompts.errors import ConfigError, RunError, first_line, system_reason
from jax_prompts.run_folder import RunFolder
from jax_prompts.runs import TrainRun
from jax_prompts.storage import run_lock
from jax_prompts.storage.directories import check_possible, instead_of_directory
from jax_prompts.storage.home import local_path
from jax_prompts.storage.remote import is_remote

_PARTS = ("checkpoints", "metrics", "predictions", "tensorboard", "wandb")
_OF_SUITES = ("cells", "rungs")
_ADDRESS = ("MODEL_DIR", "TrainRun.model_dir")
PLACEMENT = ("PARTITIONS", "BaseModel.partitions")  # other devices give the same numbers up to rounding
_LENGTH = ("TRAIN_STEPS", "Training.steps", "TRAIN_EPOCHS", "Training.epochs")
WATCHING = ("WANDB", "Training.wandb", "PROFILE_STEPS", "Training.profile_steps")  # change no number
_SHOWN = 200  # characters of a line in a message
_TEXT = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")


@contextlib.contextmanager
def claimed(run: TrainRun, config_text: str) -> Iterator[RunFolder]:
    """Keeps MODEL_DIR for this run while the block runs; of several processes the primary one does.

    Yields:
      Where this process works in it.

    Raises:
      ConfigError: it cannot be written, holds a run with another configuration, or one that cannot have these steps.
      RunError: another process has it, or something in it is damaged.
    """
    directory = _place(run.model_dir)
    with contextlib.ExitStack() as stack:
        with _usable(directory):
            folder = _locked(directory, stack)
            if primary():
                _check_run(run, folder, config_text)
        yield folder


@contextlib.contextmanager
def for_evaluation(path: str, part: str) -> Iterator[RunFolder]:
    """Keeps MODEL_DIR for one evaluation while the block runs; of several processes the primary one does.

    Args:
      path: directory or `gs://` folder.
      part: of a directory, the one below it that is locked.

    Raises:
      ConfigError: it cannot be written.
      RunError: another process has it.
    """
    directory = _place(path)
    with contextlib.ExitStack() as stack:
        with _usable(directory):
            folder = _locked(directory, stack, part)
        yield folder


def _place(path: str) -> pathlib.Path | str:
    """A directory, or the URL of a folder in a bucket."""
    return path if is_remote(path) else local_path(path, "MODEL_DIR")


def _locked(directory: pathlib.Path | str, stack: contextlib.ExitStack, part: str = "") -> RunFolder:
    """Where this process works in MODEL_DIR, locked by the primary one until the stack ends: of a directory `part`."""
    if isinstance(directory, str):
        return stack.enter_context(run_folder.opened(directory))
    if primary():
        check_possible(directory)
        stack.enter_context(run_lock.held(directory / part))
    return RunFolder(directory)


def _check_run(run: TrainRun, folder: RunFolder, config_text: str) -> None:
    """Raises ConfigError or RunError where something in MODEL_DIR is not of this run."""
    directory = folder.path
    _check_parts(directory)
    records.check(directory)
    if any((directory / name).exists() for name in _OF_SUITES):
        raise ConfigError(f"MODEL_DIR {directory} holds a suite: choose another MODEL_DIR")
    if (config := directory / "config.gin").exists():
        _check_same_run(run, folder, _text_of(config), config_text)
    elif folder.steps():
        raise ConfigError(
            f"MODEL_DIR {directory} holds checkpoints, and no config.gin that says of which run: bring it "
            "back, or choose another MODEL_DIR"
        )


def check_usable(path: str) -> None:
    """Raises ConfigError where a run could not begin in a directory, whichever run it is; writes nothing."""
    if is_remote(path):
        run_folder.check_kind(path)  # what is there a run finds out
        return
    directory = local_path(path, "MODEL_DIR")
    with _usable(directory):
        check_possible(directory)
        _check_parts(directory)


def check_same_run(run: TrainRun, before: str, now: str) -> None:
    """Raises ConfigError where MODEL_DIR holds a run that this one cannot go on with.

    Args:
      run: the run.
      before, now: texts of the config.gin that is there, and of this run's.
    """
    remote = is_remote(run.model_dir)
    folder = RunFolder(pathlib.Path(run.model_dir), run.model_dir if remote else None)
    _check_same_run(run, folder, before, now)


def check_same_length(model_dir: str, before: str, now: str) -> None:
    """Raises ConfigError where the config.gin in MODEL_DIR, `before`, is of a longer or a shorter run than `now`."""
    there, here = settings_of(before), settings_of(now)
    if changed := [name for name in _LENGTH if there.get(name) != here.get(name)]:
        raise ConfigError(
            f"MODEL_DIR {model_dir} holds a finished run with {changed[0]} = {there.get(changed[0])}, and here it is "
            f"{here.get(changed[0])}: choose another MODEL_DIR"
        )


def check_steps(model_dir: str, steps: int, trained: int) -> None:
    """Raises ConfigError unless a run that has trained for some steps, towards another number, has some left."""
    if steps <= trained:
        raise ConfigError(
            f"MODEL_DIR {model_dir} holds a run that has trained for {trained} steps, and this one has {steps}: "
            f"set TRAIN_STEPS above {trained}, or choose another MODEL_DIR"
        )


@contextlib.contextmanager
def _usable(directory: pathlib.Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = system_reason(error)
        if isinstance(directory, str):
            absent = isinstance(error, FileNotFoundError)
            raise (ConfigError if absent or isinstance(error, PermissionError) else RunError)(
                f"MODEL_DIR {directory} cannot be used ({'there is no such bucket' if absent else reason}): set it to "
                "a bucket that can be reached and written"
            ) from error
        raise ConfigError(
            f"MODEL_DIR {directory} cannot be used ({reason}): set it to a directory that can be written"
        ) from error


def _check_parts(directory: pathlib.Path) -> None:
    for name in _PARTS:
        _check_part(directory / name)


def _check_part(part: pathlib.Path) -> None:
    if os.path.lexists(part) and not part.is_dir():
        raise ConfigError(
            f"{part} is {instead_of_directory(part)}, and a run keeps a directory of that name: move it away, or "
            "choose another MODEL_DIR"
        )
    if part.exists() and not os.access(part, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{part.name} in it cannot be written")


def _text_of(config: pathlib.Path) -> str:
    try:
        return records.read_file(config).decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RunError(
            f"{config} cannot be read ({first_line(error)}): bring it back, or choose another MODEL_DIR"
        ) from error


def _check_same_run(run: TrainRun, folder: RunFolder, before: str, now: str) -> None:
    """Raises ConfigError unless a run may go on with these settings: those that the numbers depend on are the same."""
    directory = folder.url or folder.path
    there, here = _comparable(before), _comparable(now)
    if there != here:
        raise ConfigError(
            f"MODEL_DIR {directory} holds a run with another configuration "
            f"({_first_difference(there, here)}); choose another MODEL_DIR, or remove it to start again"
        )
    old, new = settings_of(before), settings_of(now)
    changed = [name for name in _LENGTH if old.get(name) != new.get(name)]
    trained = max(folder.steps(), default=None) if changed else None
    if trained is None:
        return
    if run.training.steps is not None:
        check_steps(run.model_dir, run.training.steps, trained)
    if reason := optim.depends_on_steps(run.optimizer):
        was = ", ".join(f"{name} = {old.get(name)}" for name in changed)
        other = "another run from its prompt, with INITIALIZER = @FromFile()" if run.method else "another run"
        raise ConfigError(
            f"MODEL_DIR {directory} holds a run whose learning rates depend on its number of steps ({reason}): "
            f"leave it at {was}, or start {other}"
        )


def _lines(config_text: str) -> list[str]:
    return config_text.removesuffix("\n").split("\n")  # other characters that end lines may stand in values


def settings_of(config_text: str) -> dict[str, str]:
    """Values by name, as text."""
    lines = (line.partition(" = ") for line in _lines(config_text))
    return {name: value for name, equals, value in lines if equals}


def _comparable(config_text: str) -> list[str]:
    """Lines of the settings that must agree, in which paths inside MODEL_DIR do not say where that is."""
    settings = settings_of(config_text)
    addresses = [text.strip("'\"") for name in _ADDRESS if (text := settings.get(name)) and text[0] in "'\""]
    root = _absolute(addresses[0]) if addresses else None

    def relative(found: re.Match[str]) -> str:
        path = found[0][1:-1]
        if root is None or "/" not in path or "://" in path:
            return found[0]
        inside = os.path.relpath(_absolute(path), root)
        return found[0] if inside.split(os.sep)[0] == os.pardir else repr(os.path.join("MODEL_DIR", inside))

    free = (*_ADDRESS, *PLACEMENT, *_LENGTH, *WATCHING)
    lines = [line for line in _lines(config_text) if line.partition(" = ")[0] not in free]
    return [_TEXT.sub(relative, line) for line in lines]


def _shown(line: str) -> str:
    return repr(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...")


def _absolute(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))


def _first_difference(there: list[str], here: list[str]) -> str:
    for before, now in zip(there, here, strict=False):
        if before != now:
            return f"there {_shown(before)}, here {_shown(now)}"
    return "one is longer than the other"
