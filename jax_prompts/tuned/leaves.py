"""Tuned leaves by path: where they belong in a frozen model, and the two laid together.

Paths name single layers, `encoder/layers_3/mlp/wo/lora_a`, also where the model's layers are stacked for a scan, so
that what is tuned, its optimiser and its file are the same for both. Letters as in `models/t5.py`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jax_prompts.models.row_prompts import ATTENTION, ROUTER

Tree = Any
Boxed = nn.LogicallyPartitioned  # an array, or its shape, with the names of its axes
Weights = Mapping[str, Boxed]  # of a frozen model, by path
Leaves = dict[str, Any]  # arrays by path

_LAYER = re.compile(r"((?:.*/)?)layers_(\d+)(/.*)")
_STACK = re.compile(r"((?:.*/)?)layers(/.*)")
_SCALES = ("/scale", "/input_scale")


def by_path(boxed: Tree) -> dict[str, Boxed]:
    """A model's weights, arrays or shapes, each boxed with the names of its axes; stacks as single layers."""
    is_box = lambda x: isinstance(x, Boxed)  # noqa: E731
    flat = flax.traverse_util.flatten_dict(boxed, sep="/", is_leaf=lambda _, x: is_box(x))
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


def drawn(
    init: Callable[..., Array], key: Array, path: str, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> Boxed:
    """A fresh leaf in float32, a function of the key and its path."""
    own = jax.random.fold_in(key, zlib.crc32(path.encode()))
    return Boxed(init(own, shape, jnp.float32), axes)


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
            flat[path] = leaf
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


def misfits(leaves: Mapping[str, Any], weights: Weights) -> Iterator[str]:
    """What is wrong with leaves as parts of a model: `+ path` it has no place for, `- path` is missing beside another.

    Args:
      leaves: arrays or shapes by path.
      weights: shapes of the model's.
    """
    for path, leaf in leaves.items():
        wanted = _wanted(path, leaf.shape, weights)
        if wanted is None:
            yield f"+ {path}"
        elif wanted != leaf.shape:
            yield f"- {path} {list(wanted)} + {path} {list(leaf.shape)}"
    for path in leaves:
        for end, other in _PAIRS.items():
            beside = path.removesuffix(end) + other
            if path.endswith(end) and beside not in leaves:
                yield f"- {beside}"


_PAIRS = {
    "/lora_a": "/lora_b",
    "/lora_b": "/lora_a",
    "/adapter/down/kernel": "/adapter/up/kernel",
    "/adapter/up/kernel": "/adapter/down/kernel",
    "/adapter/down/bias": "/adapter/down/kernel",
    "/adapter/up/bias": "/adapter/up/kernel",
    "input_router/kernel": "input_router/prompt",
    "input_router/prompt": "input_router/kernel",
    "input_attention/sources": "input_attention/down/kernel",
    "input_attention/down/kernel": "input_attention/up/kernel",
    "input_attention/up/kernel": "input_attention/norm/scale",
    "input_attention/norm/scale": "input_attention/norm/bias",
    "input_attention/norm/bias": "input_attention/sources",
}


def _wanted(path: str, shape: tuple[int, ...], weights: Weights) -> tuple[int, ...] | None:
    """The shape that a model takes at a path, which of a rank or bottleneck is the leaf's own; None: it takes none."""
    if path in weights:
        return weights[path].value.shape
    parent, _, name = path.rpartition("/")
    if path == "decoder/logits_bias":
        return (weights["token_embedder/embedding"].value.shape[0],)
    if parent.partition("/")[0] in (ROUTER, ATTENTION):
        return _wanted_of_rows(path, shape, weights)
    if kernel := weights.get(f"{parent}/kernel"):
        fan_in, fan_out = kernel.value.shape
        return {
            "bias": (fan_out,),
            "scale": (fan_out,),
            "input_scale": (fan_in,),
            "lora_a": (fan_in, *shape[1:2]),
            "lora_b": (*shape[:1], fan_out),
        }.get(name)
    if name == "bias" and (scale := weights.get(f"{parent}/scale")):
        return scale.value.shape
    sublayer, _, place = path.rpartition("/adapter/")
    out = weights.get(f"{sublayer}/out/kernel") or weights.get(f"{sublayer}/wo/kernel")
    if out is None:
        return None
    width = out.value.shape[1]
    return {
        "down/kernel": (width, *shape[1:2]),
        "down/bias": shape[:1],
        "up/kernel": (*shape[:1], width),
        "up/bias": (width,),
    }.get(place)


def _wanted_of_rows(path: str, shape: tuple[int, ...], weights: Weights) -> tuple[int, ...] | None:
    """As `_wanted`, of what makes prompts of each row's own beside a T5's encoder."""
    if "decoder/decoder_norm/scale" not in weights:
        return None
    width = weights["token_embedder/embedding"].value.shape[1]
    return {
        f"{ROUTER}/kernel": (width, *shape[1:2]),
        f"{ROUTER}/prompt": (*shape[:2], width),
        f"{ATTENTION}/down/kernel": (width, *shape[1:2]),
        f"{ATTENTION}/up/kernel": (*shape[:1], width),
        f"{ATTENTION}/norm/scale": (width,),
        f"{ATTENTION}/norm/bias": (width,),
        f"{ATTENTION}/sources": (*shape[:2], width),
    }.get(path)
