"""Turns errors of tasks, which know nothing of runs, and of what they are made with into those of one line."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from jax_prompts.errors import ConfigError, RunError, first_line
from tasks.errors import TaskError

CORRECT_TASK = "correct its source or its preprocessors"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextlib.contextmanager
def task_errors_as_config_errors() -> Iterator[None]:
    """Raises a TaskError of what is done inside as a ConfigError with the same text."""
    try:
        yield
    except TaskError as error:
        raise ConfigError(str(error)) from error


@contextlib.contextmanager
def in_one_line(task: str, otherwise: str = CORRECT_TASK) -> Iterator[None]:
    """Errors of TensorFlow, TFDS and a task's own code as one line with their reason.

    Args:
      task: its name.
      otherwise: what can be done.

    Raises:
      ConfigError, RunError: of the block, and for what else it raises.
    """
    try:
        yield
    except (ConfigError, RunError, TaskError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        # TensorFlow wraps what Python code raised inside a dataset; the reason is still in its text.
        own = re.search(r"(ConfigError|TaskError|BadLine|RunError): (.+)", str(error))
        if own:
            raise (RunError if own[1] == "RunError" else ConfigError)(own[2]) from error
        raise RunError(f"{task} cannot be read ({_reason(error)}): {otherwise}") from error


def _reason(error: Exception) -> str:
    """What a message begins with; of code that TensorFlow traces, where the lines of that code come first, its end."""
    traced = str(error).startswith("in user code:")
    return str(error).strip().rpartition("\n")[2].strip() if traced else first_line(error)
