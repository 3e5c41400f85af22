"""safetensors files, memory-mapped and written one array at a time; the library reads and writes copies.

The library also gives metadata another order at every call; these files are the same bytes for the same content.

Format: 8 bytes with the header's length, the header (JSON: name -> dtype, shape, first and last byte), then all
numbers without a gap. The header is filled up with spaces so that they begin at a multiple of 64 bytes: JAX then uses
them where they lie.
"""

from __future__ import annotations

import io
import json
import math
import os
import pathlib
import struct
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from jax_prompts.errors import RunError, first_line
from jax_prompts.formats.arrays import ArraySource, MappedFile, checked_shape, in_memory

ALIGNMENT = 64
CHECKSUM = "crc32"  # entry of the metadata
_MAX_HEADER_BYTES = 100_000_000  # the library's own limit
_TYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_DTYPES = {name: np.dtype(kind) for name, kind in _TYPES.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error)


def open_safetensors(path: str | os.PathLike[str]) -> ArraySource:
    """The arrays of a file, by name.

    Raises:
      RunError: it cannot be read, or is not whole.
    """
    try:
        file = MappedFile(path)
        header, length = _header_of(file)
        header.pop("__metadata__", None)
        entries = sorted((*checked_shape(entry["data_offsets"]), name) for name, entry in header.items())
        ends = [0, *(end for _, end, _ in entries)]
        if [begin for begin, _, _ in entries] != ends[:-1] or 8 + length + ends[-1] != file.size:
            raise ValueError("its arrays do not fill it")
        arrays = {}
        for begin, end, name in entries:
            dtype, shape = _DTYPES[header[name]["dtype"]], checked_shape(header[name]["shape"])
            if math.prod(shape) * dtype.itemsize != end - begin:
                raise ValueError(f"{name} {list(shape)} does not fill its {end - begin:,} bytes")
            arrays[name] = file.array(dtype, shape, 8 + length + begin)
        return arrays
    except _UNREADABLE as error:
        reason = first_line(error)
        raise RunError(f"{path} cannot be read as safetensors: {reason}") from error


def metadata_of(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts in a file's header, but for its checksum; what is no text is left out.

    Raises:
      RunError: it cannot be read.
    """
    try:
        found = _header_of(MappedFile(path))[0].get("__metadata__")
    except _UNREADABLE as error:
        raise RunError(f"{path} cannot be read as safetensors: {first_line(error)}") from error
    texts = found.items() if isinstance(found, dict) else ()
    return {name: text for name, text in texts if isinstance(text, str) and name != CHECKSUM}


def write_safetensors(path: pathlib.Path, arrays: ArraySource) -> None:
    """Writes a file, always the same bytes for the same arrays; those of odd sizes last, to keep the others aligned.

    The header carries a checksum of the numbers, which `is_whole` compares. `storage.files.atomic_file` gives a `path`
    under which nobody sees half of it.

    Raises:
      OSError: it cannot be written.
    """
    with open(path, "wb") as file:
        _write(file, arrays, {"format": "flax"})


def to_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A file as `write_safetensors` writes it, with metadata of its own."""
    file = io.BytesIO()
    _write(file, {name: in_memory(array) for name, array in arrays.items()}, metadata)
    return file.getvalue()


def is_whole(source: pathlib.Path | bytes) -> bool | None:
    """Whether the numbers of a file are those that were written into it; None for a file without a checksum.

    Args:
      source: the file's path, or its content where it came from afar.

    Raises:
      OSError, ValueError, KeyError: it is no safetensors file.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        written = (header.get("__metadata__") or {}).get(CHECKSUM)
        checksum = 0
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return None if written is None else written == f"{checksum:08x}"


def _header_of(file: MappedFile) -> tuple[Any, int]:
    """The header, and its length in bytes."""
    (length,) = struct.unpack_from("<Q", file.bytes)
    if length > min(_MAX_HEADER_BYTES, file.size - 8):
        raise ValueError(f"a header of {length:,} bytes in a file of {file.size:,}")
    header = json.loads(file.bytes[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, length


def _write(file: BinaryIO, arrays: ArraySource, metadata: Mapping[str, str]) -> None:
    order = sorted(arrays, key=lambda name: (arrays[name].nbytes % ALIGNMENT != 0, name))
    checksum = 0
    file.write(_header(arrays, order, metadata, checksum))
    for name in order:
        numbers = np.ascontiguousarray(arrays[name][...]).reshape(-1).view(np.uint8)
        checksum = zlib.crc32(numbers.data, checksum)
        file.write(numbers.data)
    file.seek(0)
    file.write(_header(arrays, order, metadata, checksum))


def _header(arrays: ArraySource, order: list[str], metadata: Mapping[str, str], checksum: int) -> bytes:
    """Length and text of the header, as long for one checksum as for another."""
    header: dict[str, Any] = {"__metadata__": dict(sorted({**metadata, CHECKSUM: f"{checksum:08x}"}.items()))}
    begin = 0
    for name in order:
        array = arrays[name]
        end = begin + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
