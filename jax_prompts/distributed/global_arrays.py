"""Arrays over the devices of all processes: made of the rows that each process has, and brought to every host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int


def rows_here(sharding: jax.sharding.Sharding | None, rows: int, axis: int = 0) -> Int[np.ndarray, " K"]:
    """Which of a batch's `rows`, its axis `axis`, lie on this process's devices."""
    if sharding is None:
        return np.arange(rows)
    shape = (1,) * axis + (rows,)
    indices = sharding.addressable_devices_indices_map(shape).values()
    return np.unique(np.concatenate([np.arange(rows)[index[axis]] for index in indices if index is not None]))


def put_batch(
    batch: Mapping[str, np.ndarray], sharding: jax.sharding.Sharding | None, rows: int, axis: int = 0
) -> dict[str, jax.Array]:
    """A batch of `rows` on the devices of all processes, from the rows that each of them made."""
    if sharding is None:
        return jax.device_put(dict(batch))
    return {
        name: jax.make_array_from_process_local_data(
            sharding, array, (*array.shape[:axis], rows, *array.shape[axis + 1 :])
        )
        for name, array in batch.items()
    }


def gathered(tree: Any) -> Any:
    """Host copies of arrays, also of those that lie on the devices of several processes; all have to ask."""

    def gather(array: Any) -> np.ndarray:
        if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
            return np.asarray(array)
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(gather, tree)
