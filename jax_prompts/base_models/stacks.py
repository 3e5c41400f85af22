"""Stacks and unstacks the layers of a T5, on axis 1 in files, as T5X has a scanned model's, on axis 0 in the model."""

from __future__ import annotations

import dataclasses
import math
import re
import threading

import numpy as np

from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import ArraySource, Index, LazyArray, layers_first, sides, stacked
from jax_prompts.models.sizes import SIZES
from jax_prompts.models.t5 import T5Config

RELPOS = "relpos_bias/rel_embedding"
_LAYER = re.compile(r"(.*/)layers_(\d+)(/.*)")
_STACK = re.compile(r"(.*/)layers(/.*)")


def is_stack(name: str) -> bool:
    return _STACK.fullmatch(name) is not None


def in_layers(arrays: ArraySource) -> ArraySource:
    """A file's stacks, where there are some, as single layers: `encoder/layers/...` -> `encoder/layers_0/...`."""
    # Parts of stacks, each kept until all its layers were asked for, and together no more than the largest stack.
    held: dict[tuple[str, str], tuple[np.ndarray, set[int]]] = {}
    most = max((array.nbytes for name, array in arrays.items() if is_stack(name)), default=0)
    turn = threading.Lock()  # small arrays are read by several threads

    def layer(name: str, stack: LazyArray, i: int) -> LazyArray:
        def read(index: Index) -> np.ndarray:
            whole = (index[0], slice(None), *index[1:])
            part = name, str(whole)
            with turn:
                if part not in held:
                    size = math.prod(sides(whole, stack.shape)) * stack.dtype.itemsize
                    while held and size + sum(numbers.nbytes for numbers, _ in held.values()) > most:
                        del held[next(iter(held))]
                    held[part] = stack[whole], set(range(stack.shape[1]))
                numbers, waiting = held[part]
                waiting.discard(i)
                if not waiting:
                    del held[part]
                return numbers[:, i]

        return LazyArray((stack.shape[0], *stack.shape[2:]), stack.dtype, read)

    single = {}
    for name, array in arrays.items():
        if (found := _STACK.fullmatch(name)) and len(array.shape) > 1:
            for i in range(array.shape[1]):
                single[f"{found[1]}layers_{i}{found[2]}"] = layer(name, array, i)
        else:
            single[name] = array
    return single


def in_stacks(arrays: ArraySource, dtype: np.dtype) -> ArraySource:
    """The model's stacks in `dtype`, of a file's stacks or single layers."""
    layers: dict[str, dict[int, LazyArray]] = {}
    scanned = {}
    for name, array in arrays.items():
        if found := _LAYER.fullmatch(name):
            layers.setdefault(f"{found[1]}layers{found[3]}", {})[int(found[2])] = array
        elif is_stack(name) and len(array.shape) > 1:
            scanned[name] = layers_first(array, dtype)
        else:
            scanned[name] = array
    for name, parts in layers.items():
        if set(parts) == set(range(len(parts))) and len({part.shape for part in parts.values()}) == 1:
            scanned[name] = stacked([parts[i] for i in range(len(parts))], dtype)
        else:  # left as they are, to be listed as unknown
            scanned |= {name.replace("/layers/", f"/layers_{i}/"): part for i, part in parts.items()}
    return scanned


def by_parameter(name: str) -> str:
    """Sorts the layers of one parameter next to each other."""
    return re.sub(r"/layers_\d+/", "/layers/", name)


def layer_count(arrays: ArraySource, stack: str) -> int:
    """How many layers there are, as the highest `layers_N` at the beginning of a path behind `stack` says.

    Raises:
      RunError: a number that no model has, whose layers, each given a place, would fill the memory.
    """
    path = re.compile(rf"{stack}layers_(\d+)/")
    numbers = {found[1] for name in arrays if (found := path.match(name))}
    if far := [number for number in numbers if len(number) > 4]:
        raise RunError(f"its arrays name {stack}layers_{far[0][:20]}: it is no whole model; copy it again")
    return max(map(int, numbers), default=-1) + 1


def t5_config(
    arrays: ArraySource, mlp_activations: tuple[str, ...] | None = None, max_distance: int = 128
) -> T5Config:
    """The sizes of a T5 from its own arrays, unscanned and under T5X's paths.

    Args:
      mlp_activations: None: those of the public model of these sizes, else v1.1's where there are two input kernels
        and v1.0's where there is one.
      max_distance: beyond which relative positions are one; no array tells.

    Raises:
      RunError: they are no T5, or relative position biases differ in shape.
    """
    try:
        vocab_size, emb_dim = arrays["token_embedder/embedding"].shape
        in_layers = f"encoder/{RELPOS}" not in arrays
        relpos = f"encoder/layers_0/{RELPOS}" if in_layers else f"encoder/{RELPOS}"
        _check_relpos(arrays, relpos)
        num_heads, relpos_buckets = arrays[relpos].shape
        check_buckets(relpos, relpos_buckets, max_distance)
        gated = "encoder/layers_0/mlp/wi_0/kernel" in arrays
        wi = arrays[f"encoder/layers_0/mlp/{'wi_0' if gated else 'wi'}/kernel"]
        joined = arrays["encoder/layers_0/attention/query/kernel"].shape[1]
        if joined % num_heads:
            raise RunError(
                f"{relpos} is {arrays[relpos].shape}, of {num_heads} heads that attention of width {joined} cannot "
                "have: it is no T5"
            )
        config = T5Config(
            vocab_size=vocab_size,
            emb_dim=emb_dim,
            num_heads=num_heads,
            num_encoder_layers=_layers(arrays, "encoder"),
            num_decoder_layers=_layers(arrays, "decoder"),
            head_dim=joined // num_heads,
            mlp_dim=wi.shape[1],
            mlp_activations=mlp_activations or (("gelu", "linear") if gated else ("relu",)),
            logits_via_embedding="decoder/logits_dense/kernel" not in arrays,
            relpos_buckets=relpos_buckets,
            relpos_max_distance=max_distance,
            relpos_in_layers=in_layers,
        )
        return config if mlp_activations else _as_public(config)
    except (LookupError, ValueError, ZeroDivisionError) as error:
        raise RunError(f"its arrays are not a T5's ({error})") from error


def check_buckets(what: str, buckets: int, max_distance: int) -> None:
    """Raises RunError where `models.layers.relative_position_bucket` has no room for both kinds of buckets."""
    if buckets < 4 or max_distance <= buckets // 2:
        raise RunError(f"{what} has {buckets} buckets for distances up to {max_distance}: it is no T5")


def _check_relpos(arrays: ArraySource, first: str) -> None:
    """Raises RunError unless all relative position biases have the shape of the one called `first`."""
    for name, array in arrays.items():
        if name.endswith(RELPOS) and (array.shape != arrays[first].shape or len(array.shape) != 2):
            raise RunError(
                f"{name} is {array.shape} and {first} {arrays[first].shape}, where all relative position biases of a "
                "T5 are (heads, buckets): it is no whole model; copy it again"
            )


def _as_public(config: T5Config) -> T5Config:
    """The public model that differs in activations alone, which no array tells; else the same."""
    public = (known for known in SIZES.values() if isinstance(known, T5Config))
    gates = len(config.mlp_activations)
    alike = (
        known
        for known in public
        if len(known.mlp_activations) == gates
        and dataclasses.replace(known, mlp_activations=config.mlp_activations) == config
    )
    return next(alike, config)


def _layers(arrays: ArraySource, stack: str) -> int:
    count = layer_count(arrays, f"{stack}/")
    if not count:
        other = "encoder" if stack == "decoder" else "decoder"
        raise RunError(f"it has no {stack}: an {other} alone (as of T5EncoderModel) is no T5 that answers")
    return count
