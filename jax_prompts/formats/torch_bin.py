"""PyTorch's `.bin` files (`pytorch_model.bin`, `adapter_model.bin`), in both forms that `torch.save` has written.

Since PyTorch 1.6 a file is a zip archive, not compressed: `data.pkl` describes the tensors, `data/KEY` holds numbers.
Before, it was a sequence: four pickles, then one with the storages' keys, then each storage with its size in front.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

from jax_prompts.errors import RunError, first_line
from jax_prompts.formats.arrays import ArraySource, LazyArray, MappedFile
from jax_prompts.formats.torch_pickle import Refused, Storage, Tensor, read_pickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE_BYTES = 1 << 28
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip entry: signature, lengths of name and extra field


def open_bin(path: str | os.PathLike[str]) -> ArraySource:
    """The arrays of a PyTorch file by name, nested names joined by dots; nothing in it is executed.

    Raises:
      RunError: it cannot be read, is damaged, or holds anything but arrays, which is named.
    """
    try:
        file = MappedFile(path)
        is_zip = file.bytes[:4] == b"PK\x03\x04"
        described, offsets = _of_zip(path, file) if is_zip else _of_sequence(file)
        if not isinstance(described, dict):
            raise Refused(f"a {type(described).__name__} in place of named arrays")
        return {name: _array(file, name, tensor, offsets) for name, tensor in _leaves(described)}
    except Refused as error:
        named = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path} holds {named}, and only arrays are read from a PyTorch file: nothing of it was used; "
            "save it again as safetensors where you trust it"
        ) from error
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        reason = first_line(error)
        raise RunError(f"{path} is not a whole PyTorch file ({reason})") from error


def _of_zip(path: str | os.PathLike[str], file: MappedFile) -> tuple[Any, dict[str, int]]:
    """The description, and where each storage begins."""
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: archive.getinfo(name) for name in archive.namelist()}
        if entries["data.pkl"].file_size > _MAX_PICKLE_BYTES:
            raise ValueError("its description is too large")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise Refused("big-endian numbers")
        described = read_pickle(io.BytesIO(archive.read(entries["data.pkl"])))
    offsets = {}
    for name, entry in entries.items():
        folder, _, key = name.partition("/")
        if folder == "data":
            if entry.compress_type != zipfile.ZIP_STORED:
                raise Refused(f"{name} compressed")
            header = file.bytes[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            if signature != b"PK\x03\x04":
                raise ValueError(f"{name} is not where it should be")
            offsets[key] = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    return described, offsets


def _of_sequence(file: MappedFile) -> tuple[Any, dict[str, int]]:
    stream = io.BytesIO(file.bytes) if isinstance(file.bytes, bytes) else file.bytes
    stream.seek(0)
    if read_pickle(stream) != _LEGACY_MAGIC:
        raise ValueError("it does not begin as one")
    read_pickle(stream)  # version of the form
    if not read_pickle(stream).get("little_endian", True):
        raise Refused("big-endian numbers")
    described, keys = read_pickle(stream), read_pickle(stream)
    sizes = {tensor.storage.key: tensor.storage for _, tensor in _leaves(described)}
    offsets, position = {}, stream.tell()
    for key in keys:
        offsets[key] = position + 8
        (count,) = struct.unpack_from("<q", file.bytes, position)
        if key not in sizes or count != sizes[key].size:
            raise ValueError(f"storage {key} is not of the size described")
        position += 8 + count * sizes[key].dtype.itemsize
    return described, offsets


def _leaves(described: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in described.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            raise Refused(f"{prefix}{name} ({type(value).__name__})")


def _array(file: MappedFile, name: str, tensor: Tensor, offsets: dict[str, int]) -> LazyArray:
    storage: Storage = tensor.storage
    numbers = math.prod(tensor.shape)
    if tensor.offset < 0 or tensor.offset + numbers > storage.size:
        raise ValueError(f"{name} reaches past its storage")
    start = offsets[storage.key] + tensor.offset * storage.dtype.itemsize
    if tensor.strides == _strides(tensor.shape) or not numbers:
        return file.array(storage.dtype, tensor.shape, start)
    if tensor.strides[::-1] == _strides(tensor.shape[::-1]):
        return file.array(storage.dtype, tensor.shape[::-1], start).T
    raise Refused(f"{name} with strides {tensor.strides}")


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of an array in C order, in numbers."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
