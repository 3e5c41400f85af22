"""Quantises the kernels of a frozen model: which, how, and how files keep them (`models/quantized.py` multiplies).

Kernels inside layers are whole numbers times a scale, but for the MLP's last (`wo`), through which a T5's largest
activations pass. Embeddings, norms, biases, logits and heads stay in bfloat16.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import ArraySource, Index, LazyArray
from jax_prompts.models.quantized import KERNEL_SCALE

Tree = Any
Boxed = nn.LogicallyPartitioned

_QUANTIZED = re.compile(r"(?:.*/)?layers(?:_\d+)?/(?!.*\bwo/kernel$).*/kernel")


@dataclasses.dataclass(frozen=True)
class Kind:
    """Whole numbers from -`most` to `most`, of which `run` inputs (None: all) share an output's scale."""

    dtype: np.dtype
    most: int
    run: int | None
    scale_dtype: np.dtype

    def runs(self, inputs: int) -> int:
        """G of a kernel with so many inputs."""
        return 1 if self.run is None else inputs // self.run


KINDS = {
    "int8": Kind(np.dtype(np.int8), 127, None, np.dtype(np.float32)),
    "int4": Kind(np.dtype(ml_dtypes.int4), 7, 64, np.dtype(ml_dtypes.bfloat16)),
}


def rest_dtype(weight_dtype: str) -> np.dtype:
    """The dtype of weights that are not quantised."""
    return np.dtype(ml_dtypes.bfloat16) if weight_dtype in KINDS else jnp.dtype(weight_dtype)


def is_quantized(path: str, weight_dtype: str) -> bool:
    """Whether a weight, of a single layer or a stack, is one of those that this WEIGHT_DTYPE quantises."""
    return weight_dtype in KINDS and _QUANTIZED.fullmatch(path) is not None


def scale_path(path: str) -> str:
    """Where a kernel's scale lies."""
    return f"{path.rpartition('/')[0]}/{KERNEL_SCALE}"


def frozen_shapes(boxed: Tree, weight_dtype: str) -> Tree:
    """A model's weights, abstract and boxed, as they are kept in memory.

    Raises:
      ConfigError: a kernel whose inputs do not divide into runs.
    """
    kept: dict[str, Boxed] = {}
    flat = flax.traverse_util.flatten_dict(boxed, sep="/", is_leaf=lambda _, x: isinstance(x, Boxed))
    for path, box in flat.items():
        shape = box.value.shape
        if not is_quantized(path, weight_dtype):
            kept[path] = box.replace_boxed(jax.ShapeDtypeStruct(shape, rest_dtype(weight_dtype)))
            continue
        kind, (*layers, inputs, outputs) = KINDS[weight_dtype], shape
        if kind.run is not None and inputs % kind.run:
            raise ConfigError(
                f"WEIGHT_DTYPE {weight_dtype!r} has a scale for each {kind.run} inputs, and {path} has {inputs}: set "
                "WEIGHT_DTYPE = 'int8'"
            )
        scale = jax.ShapeDtypeStruct((*layers, kind.runs(inputs), outputs), kind.scale_dtype)
        kept[path] = box.replace_boxed(jax.ShapeDtypeStruct(shape, kind.dtype))
        kept[scale_path(path)] = Boxed(scale, (*box.names[:-2], None, box.names[-1]))
    return flax.traverse_util.unflatten_dict(kept, sep="/")


def quantize(
    kernel_IO: Float[Any, "*n I O"], kind: Kind, xp: Any = np
) -> tuple[Int[Any, "*n I O"], Float[Any, "*n G O"]]:
    """Whole numbers and scales nearest to a kernel's; `xp` is `numpy` or `jax.numpy`, whichever has it.

    The largest number of a run is `most` times its scale, so that what was quantised is, quantised again, the same.
    """
    *layers, inputs, outputs = kernel_IO.shape
    runs = kind.runs(inputs)
    numbers_GIO = kernel_IO.astype(np.float32).reshape(*layers, runs, -1, outputs)
    scale_GO = (xp.abs(numbers_GIO).max(axis=-2) / kind.most).astype(kind.scale_dtype)
    divisor_GO = xp.where(scale_GO > 0, scale_GO, 1).astype(np.float32)
    whole_GIO = xp.clip(xp.round(numbers_GIO / divisor_GO[..., None, :]), -kind.most, kind.most)
    return whole_GIO.reshape(kernel_IO.shape).astype(kind.dtype), scale_GO


def quantized_tree(weights: Tree, weight_dtype: str) -> Tree:
    """Weights in floating point, inside a program, as they are kept in memory."""
    kept: dict[str, Array] = {}
    for path, array in flax.traverse_util.flatten_dict(weights, sep="/").items():
        if is_quantized(path, weight_dtype):
            kept[path], kept[scale_path(path)] = quantize(array, KINDS[weight_dtype], jnp)
        else:
            kept[path] = array.astype(rest_dtype(weight_dtype))
    return flax.traverse_util.unflatten_dict(kept, sep="/")


def narrowed(arrays: ArraySource, weight_dtype: str) -> ArraySource:
    """What a file keeps of single layers: whole numbers, two of 4 bits in a byte, and scales; the rest in bfloat16."""
    kind, rest = KINDS[weight_dtype], rest_dtype(weight_dtype)
    kept: ArraySource = {}
    for path, array in arrays.items():
        if not is_quantized(path, weight_dtype):
            read = functools.partial(_read_as, array, rest)
            kept[path] = LazyArray(array.shape, rest, read)
            continue
        inputs, outputs = array.shape
        packed = kind.dtype != np.int8
        rows, dtype = (inputs // 2, np.dtype(np.uint8)) if packed else (inputs, kind.dtype)
        kept[path] = LazyArray((rows, outputs), dtype, functools.partial(_read_whole, array, kind, packed))
        read_scale = functools.partial(_read_scale, array, kind)
        kept[scale_path(path)] = LazyArray((kind.runs(inputs), outputs), kind.scale_dtype, read_scale)
    return kept


def widened(arrays: ArraySource, weight_dtype: str) -> ArraySource:
    """The numbers in float32 that a file of `narrowed` arrays stands for; the rest as it is.

    Raises:
      RunError: a kernel without scales, or with others than it has inputs and outputs for.
    """
    kind, wide = KINDS[weight_dtype], dict(arrays)
    for path in [path for path in arrays if is_quantized(path, weight_dtype)]:
        packed, scale = kind.dtype != np.int8, wide.pop(scale_path(path), None)
        rows, outputs = arrays[path].shape if len(arrays[path].shape) == 2 else (0, 0)
        inputs = rows * (2 if packed else 1)
        fits = arrays[path].dtype == (np.uint8 if packed else np.int8) and inputs % (kind.run or 1) == 0
        if scale is None or not fits or scale.shape != (kind.runs(inputs), outputs):
            raise RunError(f"config.json says {weight_dtype}, and {path} is not: convert the model again")
        read = functools.partial(_read_wide, arrays[path], scale, packed)
        wide[path] = LazyArray((inputs, outputs), np.dtype(np.float32), read)
    return wide


def _read_as(array: LazyArray, dtype: np.dtype, index: Index) -> np.ndarray:
    return array[index].astype(dtype)


def _read_whole(array: LazyArray, kind: Kind, packed: bool, index: Index) -> np.ndarray:
    whole_IO = quantize(array[slice(None), index[1]], kind)[0]  # a scale is of all inputs
    if packed:
        low_IO, high_IO = (whole_IO[i::2].astype(np.int8).view(np.uint8) & 15 for i in range(2))
        whole_IO = low_IO | high_IO << 4
    return whole_IO[index[0]]


def _read_scale(array: LazyArray, kind: Kind, index: Index) -> np.ndarray:
    return quantize(array[slice(None), index[1]], kind)[1][index[0]]


def _read_wide(array: LazyArray, scale: LazyArray, packed: bool, index: Index) -> np.ndarray:
    whole_IO = array[slice(None), index[1]]
    if packed:
        nibbles_I2O = np.stack([whole_IO & 15, whole_IO >> 4], axis=1).astype(np.int8)
        whole_IO = np.where(nibbles_I2O > 7, nibbles_I2O - 16, nibbles_I2O).reshape(-1, whole_IO.shape[1])
    scale_GO = scale[slice(None), index[1]].astype(np.float32)
    wide_GIO = whole_IO.reshape(len(scale_GO), -1, whole_IO.shape[1]).astype(np.float32) * scale_GO[:, None]
    return wide_GIO.reshape(whole_IO.shape)[index[0]]
