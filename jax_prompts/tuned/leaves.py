"""Tuned leaves by path: where they belong in a frozen model, and the two laid together.

Paths name single layers, `encoder/layers_3/mlp/wo/lora_a`, also where the model's layers are stacked for a scan, so
that what is tuned, its optimiser and its file are the same for both. Letters as in `models/t5.py`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array

Tree = Any
Initializer = nn.initializers.Initializer
Boxed = nn.LogicallyPartitioned  # an array, or its shape, with the names of its axes
Weights = Mapping[str, Boxed]  # of a frozen model, by path
Leaves = dict[str, Any]  # arrays by path

INPUT_OFFSET = "input_offset"  # in front of leaves that `models/input_offset.py` reads

_LAYER = re.compile(r"((?:.*/)?)layers_(\d+)(/.*)")
_STACK = re.compile(r"((?:.*/)?)layers(/.*)")
_SCALES = ("/scale", "/input_scale")


def by_path(boxed: Tree) -> dict[str, Boxed]:
    """A model's weights, arrays or shapes, each boxed with the names of its axes; stacks as single layers."""
    flat = flax.traverse_util.flatten_dict(boxed, sep="/", is_leaf=lambda _, x: isinstance(x, Boxed))
    single: dict[str, Boxed] = {}
    for path, box in flat.items():
        if (found := _STACK.fullmatch(path)) is None:
            single[path] = box
            continue
        for i in range(box.value.shape[0]):
            single[f"{found[1]}layers_{i}{found[2]}"] = Boxed(_layer(box.value, i), box.names[1:])
    return single


def _layer(stack: Any, i: int) -> Any:
    if isinstance(stack, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(stack.shape[1:], stack.dtype)
    return stack[i]


def layer_of(path: str) -> int | None:
    """The number of the layer that a path lies in."""
    found = _LAYER.fullmatch(path)
    return int(found[2]) if found else None


def projections(weights: Weights) -> dict[str, Boxed]:
    """The kernels [I, O] of a model's projections by the path of each, `encoder/layers_0/attention/query`."""
    return {path.removesuffix("/kernel"): box for path, box in weights.items() if path.endswith("/kernel")}


def input_width(weights: Weights) -> int | None:
    """D of a T5, the numbers of an embedding of its encoder's input; None of a model that is none."""
    if "decoder/decoder_norm/scale" not in weights:
        return None
    return weights["token_embedder/embedding"].value.shape[1]


def drawn(
    init: Initializer, key: Array, path: str, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> Boxed:
    """A fresh leaf in float32, a function of the key and its path."""
    own = jax.random.fold_in(key, zlib.crc32(path.encode()))
    return Boxed(init(own, shape, jnp.float32), axes)


def network(
    path: str, key: Array, width: int, hidden: int, *, down: Initializer, up: Initializer
) -> dict[str, Boxed]:
    """A fresh network x W_down + b_down, f, W_up + b_up from `width` numbers to `hidden` and back; biases are 0."""
    zeros = nn.initializers.zeros
    parts: tuple[tuple[str, Initializer, tuple[int, ...], tuple[str, ...]], ...] = (
        ("down/kernel", down, (width, hidden), ("embed", "rank")),
        ("down/bias", zeros, (hidden,), ("rank",)),
        ("up/kernel", up, (hidden, width), ("rank", "embed")),
        ("up/bias", zeros, (width,), ("embed",)),
    )
    return {
        f"{path}/{name}": drawn(init, key, f"{path}/{name}", shape, axes) for name, init, shape, axes in parts
    }


def lay_in(frozen: Tree, leaves: Leaves) -> Tree:
    """The model's parameters: the frozen ones, with the leaves beside them or in their place.

    Where layers are stacked, so are their leaves; a layer that has none takes the frozen weight in whose place others
    have one, or what does nothing: 1 of a scale, 0 of all else.
    """
    if not leaves:
        return frozen
    flat = flax.traverse_util.flatten_dict(frozen, sep="/")
    counts = {found[1]: len(stack) for path, stack in flat.items() if (found := _STACK.fullmatch(path))}
    stacks: dict[str, dict[int, Array]] = {}
    for path, leaf in leaves.items():
        found = _LAYER.fullmatch(path)
        if found and found[1] in counts:
            stacks.setdefault(f"{found[1]}layers{found[3]}", {})[int(found[2])] = leaf
        else:
            flat[path] = jnp.asarray(leaf)  # on the device once, not with every batch
    for path, layers in stacks.items():
        found = _STACK.fullmatch(path)
        assert found is not None
        rows = [
            layers[i] if i in layers else _neutral(path, flat.get(path), i, next(iter(layers.values())))
            for i in range(counts[found[1]])
        ]
        flat[path] = jnp.stack(rows)
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _neutral(path: str, frozen: Array | None, i: int, like: Array) -> Array:
    if frozen is not None:
        return frozen[i].astype(like.dtype)
    return jnp.ones_like(like) if path.endswith(_SCALES) else jnp.zeros_like(like)


def flat(tree: Tree) -> Leaves:
    """Leaves by path, of a tree of them."""
    return flax.traverse_util.flatten_dict(tree, sep="/")


def nested(leaves: Mapping[str, Any]) -> Tree:
    """The tree of leaves by path."""
    return flax.traverse_util.unflatten_dict(dict(leaves), sep="/")
