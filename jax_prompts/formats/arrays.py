"""Arrays that are read when they are wanted, whole or in part: what every checkpoint reader returns, by name."""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np

Index = tuple[slice, ...]
_MAX_AXES, _MAX_NUMBERS = 64, 1 << 60  # NumPy's own limits, the second in numbers of 8 bytes


@dataclasses.dataclass(frozen=True)
class LazyArray:
    """An array that is kept elsewhere: `array[...]` reads it all, `array[index]` a part.

    Attributes:
      read: a slice for every axis -> those numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]

    def __getitem__(self, index: Index | EllipsisType) -> np.ndarray:
        return self.read(tuple(slice(None) for _ in self.shape) if isinstance(index, EllipsisType) else index)

    @property
    def T(self) -> LazyArray:
        return LazyArray(self.shape[::-1], self.dtype, lambda index: self.read(index[::-1]).T)

    @property
    def exchanged(self) -> LazyArray:
        """The first two axes exchanged."""
        rows, columns, *others = self.shape
        return LazyArray(
            (columns, rows, *others),
            self.dtype,
            lambda index: np.swapaxes(self.read((index[1], index[0], *index[2:])), 0, 1),
        )

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


ArraySource = dict[str, LazyArray]


def in_memory(array: np.ndarray) -> LazyArray:
    """An array that is read already, as a lazy one."""
    return LazyArray(array.shape, array.dtype, lambda index: array[index])


def stacked(layers: Sequence[LazyArray], dtype: np.dtype) -> LazyArray:
    """Layers stacked on axis 0, as `scan_layers` wants them, in `dtype`; read one layer at a time."""
    first = layers[0].shape

    def read(index: Index) -> np.ndarray:
        chosen, inner = layers[index[0]], index[1:]
        out = np.empty((len(chosen), *sides(inner, first)), dtype)
        for i, layer in enumerate(chosen):
            out[i] = layer[inner]
        return out

    return LazyArray((len(layers), *first), dtype, read)


def layers_first(stack: LazyArray, dtype: np.dtype) -> LazyArray:
    """T5X's stack, whose layers are on axis 1, as `stacked` makes it; an eighth at a time is read and exchanged."""
    moved = stack.exchanged

    def read(index: Index) -> np.ndarray:
        layers, rows, *inner = index
        wanted = range(*rows.indices(moved.shape[1]))
        out = np.empty(sides(index, moved.shape), dtype)
        step = -(-len(wanted) // 8)
        for start in range(0, len(wanted), step):
            part = wanted[start : start + step]
            at = slice(part.start, part.stop, part.step)
            out[:, start : start + step] = moved[(layers, at, *inner)]
        return out

    return LazyArray(moved.shape, dtype, read)


def joined(array: LazyArray, heads: int, width: int) -> LazyArray:
    """Axis `heads` and, behind it, axis `width` as one: projections of attention as matrices."""
    head_dim = array.shape[width]
    shape = [
        size * head_dim if axis == heads else size for axis, size in enumerate(array.shape) if axis != width
    ]

    def read(index: Index) -> np.ndarray:
        start, stop, step = index[heads].indices(shape[heads])
        first = start // head_dim
        whole = [*index[:heads], slice(first, -(-stop // head_dim)), *index[heads + 1 :]]
        whole.insert(width, slice(None))
        numbers = np.moveaxis(array.read(tuple(whole)), width, heads + 1)
        numbers = numbers.reshape(*numbers.shape[:heads], -1, *numbers.shape[heads + 2 :])
        return numbers[
            (*[slice(None)] * heads, slice(start - first * head_dim, stop - first * head_dim, step))
        ]

    return LazyArray(tuple(shape), array.dtype, read)


def checked_shape(shape: Sequence[Any]) -> tuple[int, ...]:
    """A shape that a file gives, once it is one: what else may stand there can multiply to any size.

    Raises:
      ValueError: it is no shape that an array can have.
    """
    if len(shape) > _MAX_AXES or not all(type(side) is int and 0 <= side < _MAX_NUMBERS for side in shape):
        raise ValueError(f"a shape of {len(shape)} sides that no array has")
    if math.prod(side or 1 for side in shape) >= _MAX_NUMBERS:
        raise ValueError(f"a shape of more numbers than an array can have: {list(shape)}")
    return tuple(shape)


def sides(index: Index, shape: tuple[int, ...]) -> list[int]:
    """Shape of the part that an index takes."""
    return [len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True)]


def same(one: LazyArray, other: LazyArray) -> bool:
    """Whether two arrays hold the same numbers, bit for bit."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = f"u{one.dtype.itemsize}"
    return np.array_equal(one[...].view(bits), other[...].view(bits))


class MappedFile:
    """A file in virtual memory: arrays are views of it, and what is no longer looked at leaves memory again.

    One mapping for the whole file, since each holds a file descriptor and views may live as long as the model.

    Raises:
      OSError: it cannot be read.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        """`source` is the file's path, or its content where it came from afar."""
        self.bytes: Any = source
        if not isinstance(source, bytes):
            with open(source, "rb") as file:
                empty = not os.fstat(file.fileno()).st_size
                self.bytes = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.size = len(self.bytes)

    def array(self, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> LazyArray:
        """The array that begins `offset` bytes into the file, in C order.

        Raises:
          ValueError: the file ends before it does.
        """
        count = math.prod(shape)
        end = offset + count * dtype.itemsize
        if offset < 0 or min(shape, default=0) < 0 or end > self.size:
            raise ValueError(f"an array should end at byte {end:,}, and the file has {self.size:,}")

        def read(index: Index) -> np.ndarray:
            if not count:
                return np.empty(shape, dtype)[index]
            view = np.frombuffer(self.bytes, dtype, count, offset)
            # Pages that were read count as the process's own memory until they are given back.
            if isinstance(self.bytes, mmap.mmap):
                start = offset - offset % mmap.PAGESIZE
                weakref.finalize(view, self.bytes.madvise, mmap.MADV_DONTNEED, start, end - start)
            return view.reshape(shape)[index]

        return LazyArray(shape, dtype, read)
