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
from jax_prompts.models import quantized
from jax_prompts.models.quantized import KERNEL_PACKED, KERNEL_SCALE

Tree = Any
Boxed = nn.LogicallyPartitioned

_QUANTIZED = re.compile(r"(?:.*/)?layers(?:_\d+)?/(?!.*\bwo/kernel$).*/kernel")


@dataclasses.dataclass(frozen=True)
class Kind:
    """Whole numbers from -`most` to `most`, of which `run` inputs (None: all) share an output's scale.

    Attributes:
      packed: two numbers in a byte, `models/quantized.py` says which.
    """

    most: int
    run: int | None
    scale_dtype: np.dtype
    packed: bool

    def runs(self, inputs: int) -> int:
        """G of a kernel with so many inputs."""
        return 1 if self.run is None else inputs // self.run

    def rows(self, inputs: int) -> int:
        """Bytes of an output."""
        return inputs // 2 if self.packed else inputs

    def inputs(self, rows: int) -> int:
        """I of so many bytes of an output."""
        return rows * 2 if self.packed else rows

    def whole_path(self, path: str) -> str:
        """Where a kernel's whole numbers lie."""
        return _beside(path, KERNEL_PACKED) if self.packed else path


KINDS = {
    "int8": Kind(127, None, np.dtype(np.float32), packed=False),
    "int4": Kind(7, 64, np.dtype(ml_dtypes.bfloat16), packed=True),
}


def rest_dtype(weight_dtype: str) -> np.dtype:
    """The dtype of weights that are not quantised."""
    return np.dtype(ml_dtypes.bfloat16) if weight_dtype in KINDS else jnp.dtype(weight_dtype)


def is_quantized(path: str, weight_dtype: str) -> bool:
    """Whether a weight, of a single layer or a stack, is one of those that this WEIGHT_DTYPE quantises."""
    return weight_dtype in KINDS and _QUANTIZED.fullmatch(path) is not None


def scale_path(path: str) -> str:
    """Where a kernel's scale lies."""
    return _beside(path, KERNEL_SCALE)


def _beside(path: str, name: str) -> str:
    return f"{path.rpartition('/')[0]}/{name}"


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
        _check_runs(path, inputs, weight_dtype)
        scale = jax.ShapeDtypeStruct((*layers, kind.runs(inputs), outputs), kind.scale_dtype)
        whole = jax.ShapeDtypeStruct((*layers, kind.rows(inputs), outputs), np.int8)
        kept[kind.whole_path(path)] = box.replace_boxed(whole)
        kept[scale_path(path)] = Boxed(scale, (*box.names[:-2], None, box.names[-1]))
    return flax.traverse_util.unflatten_dict(kept, sep="/")


def frozen_count(frozen: Tree) -> int:
    """Numbers that a model's weights stand for, arrays or shapes as they are kept in memory."""
    flat = flax.traverse_util.flatten_dict(frozen, sep="/")
    numbers = {path: x.size for path, x in flat.items() if not path.endswith(f"/{KERNEL_SCALE}")}
    return sum(size * (2 if path.endswith(f"/{KERNEL_PACKED}") else 1) for path, size in numbers.items())


def _check_runs(path: str, inputs: int, weight_dtype: str) -> None:
    run = KINDS[weight_dtype].run
    if run is not None and inputs % run:
        raise ConfigError(
            f"{weight_dtype} has a scale for each {run} inputs, and {path} has {inputs}: use int8, which any number of "
            "inputs fits"
        )


def quantize(
    kernel_IO: Float[Any, "*n I O"], kind: Kind, xp: Any = np
) -> tuple[Int[Any, "*n R O"], Float[Any, "*n G O"]]:
    """Whole numbers and scales nearest to a kernel's, as they are kept.

    The largest number of a run is `most` times its scale, so that what was quantised is, quantised again, the same.

    Args:
      kernel_IO: of one layer or several.
      kind: how.
      xp: `numpy` or `jax.numpy`, whichever has the kernel.
    """
    *layers, inputs, outputs = kernel_IO.shape
    numbers_GIO = kernel_IO.astype(np.float32).reshape(*layers, kind.runs(inputs), -1, outputs)
    scale_GO = (xp.abs(numbers_GIO).max(axis=-2) / kind.most).astype(kind.scale_dtype)
    divisor_GO = xp.where(scale_GO > 0, scale_GO, 1).astype(np.float32)
    whole_GIO = xp.clip(xp.round(numbers_GIO / divisor_GO[..., None, :]), -kind.most, kind.most).astype(
        np.int8
    )
    if kind.packed:
        low_GIO, high_GIO = xp.split(whole_GIO, 2, axis=-2)
        whole_GIO = (low_GIO & 15) | (high_GIO << 4)
    return whole_GIO.reshape(*layers, kind.rows(inputs), outputs), scale_GO


def quantized_tree(weights: Tree, weight_dtype: str) -> Tree:
    """Weights in floating point, inside a program, as they are kept in memory."""
    kept: dict[str, Array] = {}
    for path, array in flax.traverse_util.flatten_dict(weights, sep="/").items():
        if is_quantized(path, weight_dtype):
            kind = KINDS[weight_dtype]
            kept[kind.whole_path(path)], kept[scale_path(path)] = quantize(array, kind, jnp)
        else:
            kept[path] = array.astype(rest_dtype(weight_dtype))
    return flax.traverse_util.unflatten_dict(kept, sep="/")


def narrowed(arrays: ArraySource, weight_dtype: str) -> ArraySource:
    """What a file keeps of single layers: whole numbers and scales, and the rest in bfloat16.

    Raises:
      ConfigError: a kernel whose inputs do not divide into runs.
    """
    kind, rest = KINDS[weight_dtype], rest_dtype(weight_dtype)
    kept: ArraySource = {}
    for path, array in arrays.items():
        if not is_quantized(path, weight_dtype):
            read = functools.partial(_read_as, array, rest)
            kept[path] = LazyArray(array.shape, rest, read)
            continue
        inputs, outputs = array.shape
        _check_runs(path, inputs, weight_dtype)
        shapes = (kind.rows(inputs), outputs), (kind.runs(inputs), outputs)
        for part, name in enumerate((kind.whole_path(path), scale_path(path))):
            dtype = kind.scale_dtype if part else np.dtype(np.int8)
            kept[name] = LazyArray(shapes[part], dtype, functools.partial(_read_part, array, kind, part))
    return kept


def widened(arrays: ArraySource, weight_dtype: str) -> ArraySource:
    """The numbers in float32 that a file of `narrowed` arrays stands for; the rest as it is.

    Raises:
      RunError: a kernel without scales, scales without one, or others than it has inputs and outputs for.
    """
    kind, wide = KINDS[weight_dtype], dict(arrays)
    ends = ("/kernel", f"/{KERNEL_PACKED}", f"/{KERNEL_SCALE}")
    kernels = {_beside(path, "kernel") for path in arrays if path.endswith(ends)}
    for path in sorted(kernel for kernel in kernels if is_quantized(kernel, weight_dtype)):
        whole, scale = wide.pop(kind.whole_path(path), None), wide.pop(scale_path(path), None)
        if whole is None or scale is None or not _fit(whole, scale, kind):
            raise RunError(f"config.json says {weight_dtype}, and {path} is not: convert the model again")
        shape = kind.inputs(whole.shape[0]), whole.shape[1]
        read = functools.partial(_read_wide, whole, scale, kind)
        wide[path] = LazyArray(shape, np.dtype(np.float32), read)
    return wide


def _fit(whole: LazyArray, scale: LazyArray, kind: Kind) -> bool:
    if (whole.dtype, scale.dtype) != (np.int8, kind.scale_dtype) or len(whole.shape) != 2:
        return False
    inputs = kind.inputs(whole.shape[0])
    return inputs % (kind.run or 1) == 0 and scale.shape == (kind.runs(inputs), whole.shape[1])


def _read_as(array: LazyArray, dtype: np.dtype, index: Index) -> np.ndarray:
    return array[index].astype(dtype)


def _read_part(array: LazyArray, kind: Kind, part: int, index: Index) -> np.ndarray:
    return quantize(array[slice(None), index[1]], kind)[part][index[0]]  # a scale is of all inputs


def _read_wide(whole: LazyArray, scale: LazyArray, kind: Kind, index: Index) -> np.ndarray:
    columns = slice(None), index[1]
    with np.errstate(invalid="ignore"):  # a scale that is not finite is named where its numbers are checked
        wide = quantized.widened(whole[columns], scale[columns], np.float32, packed=kind.packed, xp=np)
    return wide[index[0]]
