"""Writes a legacy T5X checkpoint, which T5X itself and this project read."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import flax.serialization
import flax.traverse_util
import numpy as np
import tensorstore as ts

from jax_prompts.errors import RunError, first_line
from jax_prompts.formats.arrays import ArraySource
from jax_prompts.storage.directories import atomic_directory
from jax_prompts.storage.files import write_errors

_VERSION = 3
_ZARR_TYPES = {"bfloat16": "bfloat16"}  # others as numpy writes them
_CHUNK_BYTES = 1 << 26


def write_checkpoint(path: str | os.PathLike[str], arrays: ArraySource, step: int) -> None:
    """Writes the new directory `path`, whole or not at all: matrices as zarr arrays, vectors inside the msgpack.

    Args:
      path: by T5X's habit called `checkpoint_STEP`.
      arrays: by T5X path, read one at a time.
      step: of the optimiser, whose state is left empty.

    Raises:
      ConfigError: there is something at `path`.
      RunError: a disk that cannot be written.
    """
    with write_errors(path), atomic_directory(pathlib.Path(path)) as directory:
        target: dict[str, Any] = {}
        for name, array in arrays.items():
            numbers = np.ascontiguousarray(array[...])
            if len(array.shape) < 2:
                target[name] = numbers
                continue
            stored = f"target.{name.replace('/', '.')}"
            target[name] = write_zarr(directory / stored, numbers)
        tree = flax.traverse_util.unflatten_dict(target, sep="/")
        optimizer = {"target": tree, "state": {"step": np.int32(step), "param_states": {}}}
        content = flax.serialization.msgpack_serialize({"version": _VERSION, "optimizer": optimizer})
        (directory / "checkpoint").write_bytes(content)


def write_zarr(directory: pathlib.Path, numbers: np.ndarray) -> dict[str, Any]:
    """Writes one array and returns what stands for it in the msgpack: a TensorStore spec."""
    rows = max(1, _CHUNK_BYTES * len(numbers) // max(1, numbers.nbytes))
    metadata = {
        "chunks": [min(rows, len(numbers)), *numbers.shape[1:]],
        "compressor": None,  # weights hardly compress
        "dtype": _ZARR_TYPES.get(str(numbers.dtype), numbers.dtype.str),
        "shape": list(numbers.shape),
    }
    kvstore = {"driver": "file", "path": str(directory)}
    try:
        array = ts.open({"driver": "zarr", "kvstore": kvstore, "metadata": metadata}, create=True).result()
        array.write(numbers).result()
    except ValueError as error:  # what TensorStore makes of an OSError
        raise RunError(f"{directory} could not be written: {first_line(error)}") from error
    return {"driver": "zarr", "kvstore": {"driver": "file", "path": directory.name}, "metadata": metadata}
