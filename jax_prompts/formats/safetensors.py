"""safetensors files, memory-mapped and written one array at a time; the library reads and writes copies.

Format: 8 bytes with the header's length, the header (JSON: name -> dtype, shape, first and last byte), then all
numbers without a gap. The header is filled up with spaces so that they begin at a multiple of 64 bytes: JAX then uses
them where they lie.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import struct
import zlib
from typing import Any

import ml_dtypes
import numpy as np

from jax_prompts.errors import RunError, first_line
from jax_prompts.formats.arrays import ArraySource, MappedFile

ALIGNMENT = 64
_MAX_HEADER_BYTES = 100_000_000  # the library's own limit
_TYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_DTYPES = {name: np.dtype(kind) for name, kind in _TYPES.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def open_safetensors(path: str | os.PathLike[str]) -> ArraySource:
    """The arrays of a file, by name.

    Raises:
      RunError: it cannot be read, or is not whole.
    """
    try:
        file = MappedFile(path)
        (length,) = struct.unpack_from("<Q", file.bytes)
        if length > min(_MAX_HEADER_BYTES, file.size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {file.size:,}")
        header = json.loads(file.bytes[8 : 8 + length])
        header.pop("__metadata__", None)
        entries = sorted((*entry["data_offsets"], name) for name, entry in header.items())
        ends = [0, *(end for _, end, _ in entries)]
        if [begin for begin, _, _ in entries] != ends[:-1] or 8 + length + ends[-1] != file.size:
            raise ValueError("its arrays do not fill it")
        arrays = {}
        for begin, end, name in entries:
            dtype, shape = _DTYPES[header[name]["dtype"]], tuple(header[name]["shape"])
            if math.prod(shape) * dtype.itemsize != end - begin:
                raise ValueError(f"{name} {list(shape)} does not fill its {end - begin:,} bytes")
            arrays[name] = file.array(dtype, shape, 8 + length + begin)
        return arrays
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        reason = first_line(error)
        raise RunError(f"{path} cannot be read as safetensors: {reason}") from error


def write_safetensors(path: pathlib.Path, arrays: ArraySource) -> None:
    """Writes a file, always the same bytes for the same arrays; those of odd sizes last, to keep the others aligned.

    The header carries a checksum of the numbers, which `is_whole` compares. `storage.files.atomic_file` gives a `path`
    under which nobody sees half of it.

    Raises:
      OSError: it cannot be written.
    """
    order = sorted(arrays, key=lambda name: (arrays[name].nbytes % ALIGNMENT != 0, name))
    checksum = 0
    with open(path, "wb") as file:
        file.write(_header(arrays, order, checksum))
        for name in order:
            numbers = np.ascontiguousarray(arrays[name][...]).reshape(-1).view(np.uint8)
            checksum = zlib.crc32(numbers.data, checksum)
            file.write(numbers.data)
        file.seek(0)
        file.write(_header(arrays, order, checksum))


def is_whole(path: pathlib.Path) -> bool | None:
    """Whether the numbers of a file are those that `write_safetensors` wrote; None for a file without a checksum.

    Raises:
      OSError, ValueError, KeyError: it is no safetensors file.
    """
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        written = header.get("__metadata__", {}).get("crc32")
        checksum = 0
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return None if written is None else written == f"{checksum:08x}"


def _header(arrays: ArraySource, order: list[str], checksum: int) -> bytes:
    """Length and text of the header, as long for one checksum as for another."""
    header: dict[str, Any] = {"__metadata__": {"format": "flax", "crc32": f"{checksum:08x}"}}
    begin = 0
    for name in order:
        array = arrays[name]
        end = begin + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
