"""Places arrays on devices: the mesh, the table of logical axes, and shardings made from both.

Modules name the axes of their parameters (`("embed", "mlp")`) and of activations between layers; the table
below says which mesh axis each name is split over. The names are T5X's; "prompt", "rank" and "members" are this
project's. The mesh has three axes:

- `data`: rows of a batch are divided, weights are on every device;
- `fsdp`: rows are divided and so are weights, which are gathered layer by layer as they are used;
- `model`: heads, MLP width and vocabulary are divided, every row passes through all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import optax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jax_prompts.base_models.build import make_config
from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError, nearest
from jax_prompts.models.sizes import ModelConfig

Tree = Any

AXES = ("data", "fsdp", "model")
ROWS = ("data", "fsdp")

# A mesh axis is used once in an array, by the name that stands first here.
RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", ROWS),
    ("vocab", "model"),
    ("mlp", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("embed", "fsdp"),
    ("length", None),
    ("relpos_buckets", None),
    ("layers", None),
    ("embed_out", None),
    ("classes", None),
    ("prompt", None),
    ("rank", None),
    ("members", None),
)


def mesh_shape(partitions: Mapping[str, int], devices: int) -> tuple[int, ...]:
    """Devices along each of `AXES`: -1 takes what is left, which without any -1 is `data`, if not set; others are 1.

    Raises:
      ConfigError: an unknown axis, or a product that is not the number of devices.
    """
    for name, number in partitions.items():
        if name not in AXES:
            raise ConfigError(f"PARTITIONS has no axis {name!r}: use {nearest(name, AXES)}")
        if number != -1 and number < 1:
            raise ConfigError(
                f"PARTITIONS {name!r} is {number}: set it to at least 1, or to -1 for all devices that are left"
            )
    sizes = {name: partitions.get(name, 1) for name in AXES}
    if -1 not in sizes.values() and "data" not in partitions:
        sizes["data"] = -1
    rest = [name for name in AXES if sizes[name] == -1]
    if len(rest) > 1:
        raise ConfigError(f"PARTITIONS sets {' and '.join(rest)} to -1: only one axis can take what is left")
    taken = math.prod(number for number in sizes.values() if number != -1)
    product = " x ".join(f"{name} {number}" for name, number in sizes.items() if number != -1)
    if rest and devices % taken:
        fits = _listed(_divisors(devices))
        raise ConfigError(
            f"PARTITIONS {product} = {taken} does not divide {_devices(devices)}: the product must be {fits}"
        )
    if not rest and taken != devices:
        raise ConfigError(
            f"PARTITIONS {product} = {taken} is not the number of devices, {devices}: set one axis to -1"
        )
    return tuple(devices // taken if number == -1 else number for number in sizes.values())


def make_mesh(partitions: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of `devices` (of all), laid out so that `model`, which communicates most, has the nearest neighbours.

    Slices of TPUs or nodes of GPUs, between which the network is slow, are divided over `data` first.
    Auto axis types: Linen's lookups need the compiler to choose shardings.

    Raises:
      ConfigError: as `mesh_shape`.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(partitions, len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        laid_out = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        outer = slices_along(shape, slices)
        inner = [whole // part for whole, part in zip(shape, outer, strict=True)]
        laid_out = mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)
    return Mesh(laid_out, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def slices_along(shape: Sequence[int], slices: int) -> list[int]:
    """Number of slices along each axis of a mesh: as many as possible along the first, and so on."""
    outer = []
    for whole in shape:
        outer.append(math.gcd(whole, slices))
        slices //= outer[-1]
    return outer


def mesh_of(base: BaseModel, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that a run's settings ask for.

    Raises:
      ConfigError: it does not fit the devices or the model; unknown size.
    """
    mesh = make_mesh(base.partitions, devices)
    check_divides(base.name, make_config(base), mesh)
    return mesh


def check_divides(name: str, config: ModelConfig, mesh: Mesh | AbstractMesh) -> None:
    """Raises ConfigError unless the mesh divides every size of the model that it splits."""
    divided = {
        "model": {"heads": config.num_heads, "MLP width": config.mlp_dim, "vocabulary": config.vocab_size},
        "fsdp": {"model width": config.emb_dim},
    }
    for axis, numbers in divided.items():
        for what, number in numbers.items():
            if number % mesh.shape[axis]:
                fits = _listed(_divisors(math.gcd(mesh.size, *numbers.values())))
                raise ConfigError(
                    f"PARTITIONS {axis!r} is {mesh.shape[axis]}, which does not divide the {what} ({number}) of "
                    f"{name}: on {_devices(mesh.size)} it can be {fits}"
                )


def platform_of(mesh: Mesh) -> str:
    """`cpu`, `gpu` or `tpu`."""
    return mesh.devices.flat[0].platform


def row_parts(mesh: Mesh | AbstractMesh) -> int:
    """Number of parts that the rows of a batch are divided into."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def check_batch(name: str, rows: int, mesh: Mesh | AbstractMesh, microbatches: int = 1) -> None:
    """Raises ConfigError unless there are `rows`, and the mesh divides them, in each microbatch."""
    if rows < 1:
        raise ConfigError(f"{name} is {rows}; it must be at least 1")
    parts = row_parts(mesh)
    multiple = f"use a multiple of {parts * microbatches}"
    if rows % parts:
        raise ConfigError(
            f"{name} = {rows} does not divide over {_devices(parts)}; {multiple}, "
            "or give PARTITIONS 'model' more of them"
        )
    if rows // parts % microbatches:
        raise ConfigError(
            f"MICROBATCHES = {microbatches} does not divide the rows of {name} = {rows} that each device has, "
            f"{rows // parts}: it can be {_listed(_divisors(rows // parts))}; or {multiple} rows"
        )


def spec(names: Iterable[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Division of an array with these logical axes; a side that its mesh axis does not divide stays whole.

    Sides of frozen weights have passed `check_divides`; what stays whole is a side of a tuned parameter, such
    as a bottleneck of 1.
    """
    axes = nn.logical_to_mesh_axes(tuple(names), RULES) or ()
    return PartitionSpec(*(
        axis if axis is not None and side % mesh.shape[axis] == 0 else None
        for axis, side in zip(axes, shape, strict=True)
    ))  # fmt: skip


def sharded_shapes(
    boxed: Tree, mesh: Mesh | AbstractMesh, *, members: int | None = None, dtype: Any = None
) -> Tree:
    """Shape, dtype and sharding of every parameter of a boxed tree, abstract or not, by its logical axes.

    With `members` each has that axis in front; `dtype` replaces its own.

    Raises:
      ValueError: a parameter whose axes are not all named, or not as in `RULES`.
    """
    front = () if members is None else (members,)

    def place(path: Any, array: Any, names: PartitionSpec) -> jax.ShapeDtypeStruct:
        if len(names) != len(array.shape) or not {*names} <= {None, *dict(RULES)}:
            raise ValueError(
                f"parameter {jax.tree_util.keystr(path, simple=True, separator='/')} {[*array.shape]} has the axes "
                f"{[*names]}: name each by nn.with_logical_partitioning, as in partition.RULES"
            )
        shape = (*front, *array.shape)
        axes = spec((*("members" for _ in front), *names), shape, mesh)
        sharding = NamedSharding(mesh, axes)
        return jax.ShapeDtypeStruct(shape, dtype or array.dtype, sharding=sharding)

    return jax.tree.map_with_path(place, nn.meta.unbox(boxed), nn.get_partition_spec(boxed))


def state_shapes(optimizer: optax.GradientTransformation, tuned: Tree) -> Tree:
    """Shape, dtype and sharding of the state, for all members, that `optimizer` keeps of a tree of `sharded_shapes`.

    What has a parameter's shape is split as the parameter is; the rest, small, is on every device.
    """
    everywhere = replicated(jax.tree.leaves(tuned)[0].sharding.mesh)

    def absent(array: Any) -> bool:
        """A parameter that one of several optimisers leaves to another."""
        return isinstance(array, optax.MaskedNode)

    def place(array: Any, like: Any = None) -> Any:
        if absent(array):
            return array
        sharding = like.sharding if like is not None and like.shape == array.shape else everywhere
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

    state = jax.eval_shape(jax.vmap(optimizer.init), tuned)
    return optax.tree.map_params(optimizer, place, state, tuned, transform_non_params=place, is_leaf=absent)


def shardings(shapes: Tree) -> Tree:
    """The shardings alone, for `jax.device_put` and `jax.jit`."""
    return jax.tree.map(lambda x: x.sharding, shapes)


def parameter_shardings(boxed: Tree, mesh: Mesh) -> Tree:
    """The sharding of every parameter of a boxed tree, abstract or not."""
    return shardings(sharded_shapes(boxed, mesh))


def parameter_count(tree: Tree) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def byte_count(tree: Tree) -> int:
    """Bytes of a tree of arrays or shapes, on all devices together."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def bytes_by_part(tree: dict[str, Tree]) -> dict[str, dict[str, int]]:
    """Bytes of each of a tree's parts, by dtype: `{"encoder": {"int8": 18874368, "bfloat16": ...}, ...}`."""
    parts: dict[str, dict[str, int]] = {}
    for part, leaves in tree.items():
        by_dtype = parts.setdefault(part, {})
        for leaf in jax.tree.leaves(leaves):
            by_dtype[leaf.dtype.name] = by_dtype.get(leaf.dtype.name, 0) + byte_count(leaf)
    return parts


def bytes_per_device(shapes: Tree) -> int:
    """Bytes that one device holds of a tree of `sharded_shapes`."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh | AbstractMesh, *, members: bool) -> NamedSharding:
    """Rows over `data` and `fsdp`; training batches have the members axis in front."""
    return NamedSharding(mesh, PartitionSpec(None, ROWS) if members else PartitionSpec(ROWS))


def on(mesh: Mesh | None, function: Callable) -> Callable:
    """`function`, for `jax.jit`, with the constraints inside the model (`nn.with_logical_constraint`) on this mesh."""
    if mesh is None:
        return function

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(RULES):
            return function(*args, **kwargs)

    return traced


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _devices(number: int) -> str:
    return "1 device" if number == 1 else f"{number} devices"


def _listed(numbers: list[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
