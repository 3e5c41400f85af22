"""Turns errors of tasks, which know nothing of runs, into configuration errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jax_prompts.errors import ConfigError
from tasks.errors import TaskError


@contextlib.contextmanager
def task_errors_as_config_errors() -> Iterator[None]:
    """Raises a TaskError of what is done inside as a ConfigError with the same text."""
    try:
        yield
    except TaskError as error:
        raise ConfigError(str(error)) from error
