"""Flax's msgpack files: the tree of arrays, each left in the file until it is wanted."""

from __future__ import annotations

import math
import struct
from typing import Any

import ml_dtypes
import numpy as np

from jax_prompts.errors import first_line
from jax_prompts.formats.arrays import Index, LazyArray, MappedFile, checked_shape

_ARRAY, _SCALAR = 1, 3  # Flax's extension types
_CHUNKED = "__msgpack_chunked_array__"  # what Flax writes for an array of 1 GiB or more
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_LENGTHS = {  # first byte -> (kind, form of the length)
    0xC4: ("bin", ">B"), 0xC5: ("bin", ">H"), 0xC6: ("bin", ">I"),
    0xC7: ("ext", ">B"), 0xC8: ("ext", ">H"), 0xC9: ("ext", ">I"),
    0xD9: ("str", ">B"), 0xDA: ("str", ">H"), 0xDB: ("str", ">I"),
    0xDC: ("list", ">H"), 0xDD: ("list", ">I"),
    0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def read_tree(file: MappedFile) -> Any:
    """The whole file as nested dicts with `LazyArray`s; text and plain numbers are read.

    Raises:
      ValueError: it is damaged, or not of Flax.
    """
    try:
        tree, end = _Reader(file).value(0)
    except (LookupError, struct.error, RecursionError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"damaged msgpack: {first_line(error)}") from error
    if end != file.size:
        raise ValueError(f"damaged msgpack: {file.size - end:,} bytes too many")
    return tree


class _Reader:
    """Reads the value at a position; every method returns it and the position behind it."""

    def __init__(self, file: MappedFile) -> None:
        self.file, self.bytes = file, file.bytes

    def value(self, at: int) -> tuple[Any, int]:
        first, at = self.bytes[at], at + 1
        if first <= 0x7F or first >= 0xE0:
            return first - 256 * (first >= 0xE0), at
        if first <= 0x8F:
            return self.map(first & 15, at)
        if first <= 0x9F:
            return self.list(first & 15, at)
        if first <= 0xBF:
            return self.text(first & 31, at)
        if first in _CONSTANTS:
            return _CONSTANTS[first], at
        if first in _NUMBERS:
            return self.number(_NUMBERS[first], at)
        if first in _FIXED_EXT:
            return self.extension(_FIXED_EXT[first], at)
        if first not in _LENGTHS:
            raise ValueError(f"damaged msgpack: byte {first:#x} at {at - 1:,}")
        kind, form = _LENGTHS[first]
        length, at = self.number(form, at)
        read = {
            "bin": self.binary,
            "ext": self.extension,
            "str": self.text,
            "list": self.list,
            "map": self.map,
        }
        return read[kind](length, at)

    def number(self, form: str, at: int) -> tuple[Any, int]:
        return struct.unpack_from(form, self.bytes, at)[0], at + struct.calcsize(form)

    def text(self, length: int, at: int) -> tuple[str, int]:
        return self.bytes[at : at + length].decode(), at + length

    def list(self, length: int, at: int) -> tuple[list[Any], int]:
        items = []
        for _ in range(length):
            item, at = self.value(at)
            items.append(item)
        return items, at

    def map(self, length: int, at: int) -> tuple[Any, int]:
        found = {}
        for _ in range(length):
            key, at = self.value(at)
            found[key], at = self.value(at)
        return (_joined(found) if _CHUNKED in found else found), at

    def binary(self, length: int, at: int) -> tuple[int, int]:
        """Where the bytes begin: they stay in the file."""
        if at + length > self.file.size:
            raise ValueError("damaged msgpack: it is cut off")
        return at, at + length

    def extension(self, length: int, at: int) -> tuple[Any, int]:
        code, end = self.bytes[at], at + 1 + length
        if code not in (_ARRAY, _SCALAR):
            raise ValueError(f"an extension of type {code}, which is no array")
        (shape, name, start), inner_end = self.value(at + 1)
        shape = checked_shape(shape)
        dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
        if dtype.hasobject or inner_end != end or start + math.prod(shape) * dtype.itemsize != end:
            raise ValueError(f"an array {shape} of {name} that does not fill its {length:,} bytes")
        array = self.file.array(dtype, shape, start)
        return (array if code == _ARRAY else array[...].item()), end


def _joined(found: dict[str, Any]) -> LazyArray:
    """An array that was written in pieces."""
    shape = checked_shape([found["shape"][str(i)] for i in range(len(found["shape"]))])
    chunks = [found["chunks"][str(i)] for i in range(len(found["chunks"]))]
    if sum(math.prod(chunk.shape) for chunk in chunks) != math.prod(shape):
        raise ValueError(f"an array {shape} whose pieces do not fill it")

    def read(index: Index) -> np.ndarray:
        return np.concatenate([chunk[...].reshape(-1) for chunk in chunks]).reshape(shape)[index]

    return LazyArray(shape, chunks[0].dtype, read)
