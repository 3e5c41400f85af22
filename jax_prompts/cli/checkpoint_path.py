"""What T5X's CHECKPOINT_PATH names: a base model, a prompt file, or a run of this project.

In T5X it is the checkpoint that is evaluated, with all weights in it. Here a run leaves a prompt of a base model, so
that a run stands for its prompts, and the base model is named by a model's gin file.
"""

from __future__ import annotations

import re
from typing import Any

from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.storage.home import with_home

_MAX_BYTES = 1 << 26  # of a config.gin
_CHECKPOINTS = re.compile(r"(.+)/checkpoints(?:/\d+)?")
_PROMPT = re.compile(r"prompt(?:-(\d+))?\.safetensors")


def meaning_of_checkpoint(word: str, path: str) -> tuple[str, Any]:
    """The setting that a CHECKPOINT_PATH stands for, and its value.

    Args:
      word: what it was called.
      path: of a base model in any form, a run's MODEL_DIR or a prompt file; a directory or a URL.

    Raises:
      ConfigError: a checkpoint inside a run, or a run that has no prompt yet.
      RunError: it cannot be read.
    """
    path = with_home(path)
    if path.endswith(".safetensors"):
        return "PROMPT_FILES", (path,)
    if path.startswith(("hf://", "asset:", "http://", "https://")):
        return "INITIAL_CHECKPOINT_PATH", path
    root = path.rstrip("/")
    inside = _CHECKPOINTS.fullmatch(root)
    if inside and _is_run(word, inside[1]):
        raise ConfigError(
            f"{word} {path} is of checkpoints inside a run, which only that run goes on from: name the run, "
            f"{inside[1]}, whose best prompt is taken"
        )
    if not _is_run(word, root):
        return "INITIAL_CHECKPOINT_PATH", path
    names = _listed(word, root)
    found = {name: _PROMPT.fullmatch(name) for name in names}
    prompts = sorted((int(match[1] or 0), name) for name, match in found.items() if match)
    if prompts:
        return "PROMPT_FILES", tuple(f"{root}/{name}" for _, name in prompts)
    if _read(word, f"{root}/model/config.json") is not None:  # the whole model was tuned
        return "INITIAL_CHECKPOINT_PATH", f"{root}/model"
    raise ConfigError(
        f"{word} {path} is a run that has no prompt file yet: wait for its first evaluation, or, of one with a prompt "
        "of each task, name one, prompts/TASK.safetensors"
    )


def _is_run(word: str, root: str) -> bool:
    """Whether a config.gin lies there that is of a run of this project, and not T5X's."""
    content = _read(word, f"{root}/config.gin")
    return content is not None and b"TrainRun." in content


def _read(word: str, file: str) -> bytes | None:
    from jax_prompts.storage import files

    try:
        return files.read(file, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"{word} {file} cannot be read: {system_reason(error)}") from error


def _listed(word: str, root: str) -> set[str]:
    from jax_prompts.storage import files

    try:
        return files.listing(root)
    except OSError as error:
        raise RunError(f"{word} {root} cannot be read: {system_reason(error)}") from error
