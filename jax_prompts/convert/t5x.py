"""Legacy T5X checkpoints: one msgpack file beside zarr arrays, as all released T5X models are stored.

The file `checkpoint` holds the tree {optimizer: {target, state}}; small arrays (norm scales, relative
position biases) are inside it, each large one is a zarr directory called `target.` and its dotted path.
The stores that the msgpack names are those of the machine that wrote it, so arrays are found by name.
"""

from __future__ import annotations

import flax.serialization
import flax.traverse_util
import fsspec
import numpy as np
import tensorstore as ts

from jax_prompts.config import RunError
from jax_prompts.convert.source import ArraySource, lazy
from jax_prompts.data.vocabulary import read_bytes


def open_checkpoint(path: str) -> ArraySource:
    """The model's arrays of a T5X checkpoint directory (local or `gs://`), optimiser slots left out.

    Raises:
      RunError: the checkpoint cannot be reached or is not a T5X checkpoint.
    """
    file = f"{path.rstrip('/')}/checkpoint"
    try:
        tree = flax.serialization.msgpack_restore(read_bytes(file, "INITIAL_CHECKPOINT_PATH"))
        target = tree["optimizer"]["target"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is not a T5X checkpoint ({error})") from error

    def read(name_and_value: tuple[str, object]) -> np.ndarray:
        name, value = name_and_value
        if isinstance(value, np.ndarray):
            return value
        directory = f"{path.rstrip('/')}/target.{name.replace('/', '.')}"
        return _read_zarr(directory)

    leaves = flax.traverse_util.flatten_dict(target, sep="/", is_leaf=_is_placeholder)
    return {name: lazy(read, (name, value)) for name, value in leaves.items()}


def _is_placeholder(_: tuple[str, ...], value: object) -> bool:
    """Whether a node of the tree stands for an array kept outside: a TensorStore spec."""
    return isinstance(value, dict) and "driver" in value


def _read_zarr(directory: str) -> np.ndarray:
    scheme, _, rest = directory.rpartition("://")
    if scheme == "gs":
        bucket, _, key = rest.partition("/")
        kvstore = {"driver": "gcs", "bucket": bucket, "path": key}
    else:
        kvstore = {"driver": "file", "path": fsspec.core.strip_protocol(directory)}
    try:
        return ts.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True).result().read().result()
    except ValueError as error:
        raise RunError(f"{directory} cannot be read as a zarr array: {str(error).splitlines()[0]}") from error
