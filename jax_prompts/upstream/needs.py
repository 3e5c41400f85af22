"""Whether upstream T5X is there: what imports it does so under this."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jax_prompts.errors import ConfigError


@contextlib.contextmanager
def needs_t5x() -> Iterator[None]:
    """Imports of upstream T5X.

    Raises:
      ConfigError: it, or something that it imports, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"upstream T5X cannot be imported ({error}): install it from its repository, as docs/upstream_t5x.md says"
        ) from error
