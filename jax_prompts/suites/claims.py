"""Groups that workers have claimed: locks in MODEL_DIR/claims, of a directory or a bucket, that go with their process.

A worker does not wait for a group that another may have, but looks at the next. Of a bucket it remembers when it first
saw a claim as it is: one that is not renewed for a while is of a worker that is no more.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator

from jax_prompts.errors import RunError, system_reason
from jax_prompts.storage import bucket_lock, places, run_lock
from jax_prompts.storage.remote import is_remote, may_pass


class Claims:
    """The claims of one suite, as one worker sees them."""

    def __init__(self, model_dir: str) -> None:
        """Args: the suite's MODEL_DIR."""
        self._folder = places.below(model_dir, "claims")
        self._seen: dict[str, tuple[str, float]] = {}  # version of a claim, and since when it is the same

    @contextlib.contextmanager
    def held(self, group: str) -> Iterator[None]:
        """Keeps a group for this worker while the block runs.

        Raises:
          BusyError: another worker has it, or may have it; nobody knows while the bucket cannot be reached.
          RunError: the bucket or directory cannot be written.
        """
        folder = places.below(self._folder, group)
        with contextlib.ExitStack() as stack:
            try:
                if is_remote(folder):
                    stack.enter_context(bucket_lock.held(folder, self._silent(folder)))
                else:
                    stack.enter_context(run_lock.held(pathlib.Path(folder)))
            except OSError as error:
                # A directory is taken away by the worker that leaves it.
                leaving = not is_remote(folder) and isinstance(error, FileNotFoundError | FileExistsError)
                if leaving or may_pass(error):
                    raise run_lock.BusyError(
                        f"{folder} could not be asked ({system_reason(error)})"
                    ) from error
                raise RunError(
                    f"MODEL_DIR {folder} cannot be claimed ({system_reason(error)}): start again once it can be "
                    "written"
                ) from error
            yield

    def _silent(self, folder: str) -> str | None:
        """The version of a claim whose worker is silent; None where there is no claim. Raises BusyError for others."""
        version = bucket_lock.look(folder)
        if version is None:
            return None
        before, since = self._seen.get(folder, ("", 0.0))
        if version != before:
            self._seen[folder] = version, time.monotonic()
            raise run_lock.BusyError(f"{folder} was claimed by another worker")
        if time.monotonic() - since < bucket_lock.SILENCE_SECONDS:
            raise run_lock.BusyError(f"{folder} may be claimed by another worker")
        return version
