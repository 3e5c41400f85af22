"""Where arrays live: the device mesh, the table of logical axes, and shardings made from both.

Modules name the axes of their parameters (`("embed", "mlp")`); the table below says which mesh axis each
name is split over. The names are T5X's; "prompt" and "members" are this project's.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jax_prompts.config import ConfigError

Tree = Any

RULES: tuple[tuple[str, str | None], ...] = (
    ("batch", "data"),
    ("vocab", "model"),
    ("mlp", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("embed", None),
    ("relpos_buckets", None),
    ("layers", None),
    ("prompt", None),
    ("members", None),
)


def make_mesh() -> Mesh:
    """All devices on the `data` axis. Auto axis types: Linen's lookups need the compiler to choose shardings."""
    return jax.make_mesh((jax.device_count(), 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def parameter_shardings(boxed: Tree, mesh: Mesh) -> Tree:
    """The sharding of every parameter of a boxed tree, abstract or not, by its logical axes."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, members: bool) -> NamedSharding:
    """Rows over `data`; training batches have the members axis in front."""
    return NamedSharding(mesh, PartitionSpec(None, "data") if members else PartitionSpec("data"))


def check_batch(name: str, rows: int, mesh: Mesh) -> None:
    """Raises ConfigError unless `rows` can be split over the mesh."""
    if rows % mesh.shape["data"]:
        raise ConfigError(
            f"{name} = {rows} does not divide over {mesh.shape['data']} devices; "
            f"use a multiple of {mesh.shape['data']}"
        )
