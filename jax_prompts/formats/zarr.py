"""Opens checkpoints' zarr arrays and the files beside them, here or in a `gs://` bucket.

Both come from a bucket through TensorStore, so that what opens one opens the other; public ones need no credentials.
"""

from __future__ import annotations

import pathlib
import socket
import urllib.request
from collections.abc import Mapping
from typing import Any

import fsspec
import numpy as np
import tensorstore as ts

from jax_prompts.errors import RunError, first_line, system_reason
from jax_prompts.formats.arrays import ArraySource, Index, LazyArray, MappedFile
from jax_prompts.storage.remote import TIMEOUT_SECONDS

_GCS = "storage.googleapis.com"
_CONTEXT = ts.Context({"gcs_request_retries": {"max_retries": 3}, "cache_pool": {"total_bytes_limit": 0}})


def key_value_store(path: str) -> dict[str, Any]:
    """TensorStore's description of the directory `path`."""
    scheme, _, rest = path.rpartition("://")
    if scheme == "gs":
        bucket, _, key = rest.partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": f"{key.rstrip('/')}/"}
    return {"driver": "file", "path": f"{pathlib.Path(fsspec.core.strip_protocol(path)).absolute()}/"}


def open_file(path: str) -> MappedFile | None:
    """A file of a checkpoint; None where there is none. One in a bucket is read now, and should be small.

    Raises:
      RunError: it cannot be read, or its place cannot be reached.
    """
    if not path.startswith("gs://"):
        try:
            return MappedFile(fsspec.core.strip_protocol(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise RunError(f"{path} cannot be read: {system_reason(error)}") from error
    check_reachable(path)
    folder, _, name = path.rpartition("/")
    store = wait(ts.KvStore.open(key_value_store(folder), context=_CONTEXT), path)
    found = wait(store.read(name), path)
    return MappedFile(bytes(found.value)) if found.state == "value" else None


def check_reachable(path: str) -> None:
    """Raises RunError where there is no network to a bucket, at once and before TensorStore tries for long."""
    if not urllib.request.getproxies():
        try:
            socket.create_connection((_GCS, 443), TIMEOUT_SECONDS).close()
        except OSError as error:
            raise RunError(
                f"{path} could not be reached ({system_reason(error)}): use a local copy of its directory"
            ) from error


def list_keys(store: dict[str, Any], path: str) -> list[str]:
    """The files of a key-value store.

    Raises:
      RunError: `path`, where it is, cannot be reached.
    """
    opened = wait(ts.KvStore.open(store, context=_CONTEXT), path)
    return [key.decode() for key in wait(opened.list(), path)]


def open_arrays(stores: Mapping[str, dict[str, Any]], driver: str, path: str) -> ArraySource:
    """Arrays by name, each from its own key-value store; all are opened at once, for a bucket is far away.

    Raises:
      RunError: one is missing or cannot be read, now or later; or is uint16, as old T5X wrote bfloat16.
    """
    opened = {
        name: ts.open({"driver": driver, "kvstore": store}, open=True, read=True, context=_CONTEXT)
        for name, store in stores.items()
    }
    return {name: _lazy(wait(array, f"{path}: {name}"), f"{path}: {name}") for name, array in opened.items()}


def wait(future: Any, what: str) -> Any:
    """The result of one of TensorStore's futures, or a RunError of one line."""
    try:
        return future.result(timeout=TIMEOUT_SECONDS)
    except TimeoutError as error:
        raise RunError(f"{what} could not be reached: no answer in {TIMEOUT_SECONDS:.0f} s") from error
    except (ValueError, OSError) as error:
        raise RunError(f"{what} cannot be read: {first_line(error)[:200]}") from error


def _lazy(array: ts.TensorStore, what: str) -> LazyArray:
    dtype = np.dtype(array.dtype.numpy_dtype)
    if dtype == np.uint16:
        raise RunError(
            f"{what} is uint16: an old T5X wrote bfloat16 so, and which numbers they are is not said; "
            "write the checkpoint again with a T5X of 2022 or later, or use a float32 one"
        )

    def read(index: Index) -> np.ndarray:
        # No time limit: a large array from far away may take minutes.
        try:
            return array[index].read().result() if index else np.asarray(array.read().result())
        except (ValueError, OSError) as error:
            raise RunError(f"{what} cannot be read: {first_line(error)[:200]}") from error

    return LazyArray(tuple(array.shape), dtype, read)
