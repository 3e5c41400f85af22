"""PyTorch's `.bin` files (`pytorch_model.bin`, `adapter_model.bin`), in both forms that `torch.save` has written.

Since PyTorch 1.6 a file is a zip archive, not compressed: `data.pkl` describes the tensors, `data/KEY` holds numbers.
Before, it was a sequence: four pickles, then one with the storages' keys, then each storage with its size in front.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import zipfile
import zlib
from typing import Any

from jax_prompts.errors import RunError, first_line
from jax_prompts.formats.arrays import ArraySource, LazyArray, MappedFile
from jax_prompts.formats.torch_pickle import Named, Refused, Storage, Tensor, read_pickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Far above any model's: a tensor takes some 200 bytes of the description.
_MAX_PICKLE_BYTES, _MAX_ENTRIES, _MAX_NAME = 1 << 24, 1 << 17, 1000
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
        return {name: _array(file, name, tensor, offsets) for name, tensor in _tensors(described).items()}
    except Refused as error:
        named = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path} holds {named}, and only arrays are read from a PyTorch file: nothing of it was used; "
            "save it again as safetensors where you trust it"
        ) from error
    except (
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        NotImplementedError,
        pickle.UnpicklingError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        reason = first_line(error)
        raise RunError(f"{path} is not a whole PyTorch file ({reason})") from error


def _of_zip(path: str | os.PathLike[str], file: MappedFile) -> tuple[Any, dict[str, int]]:
    """The description, and where each storage begins."""
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: archive.getinfo(name) for name in archive.namelist()}
    if "byteorder" in entries and _content(file, entries["byteorder"]) != b"little":
        raise Refused("big-endian numbers")
    described = read_pickle(io.BytesIO(_content(file, entries["data.pkl"])))
    return described, {
        key: _start(file, entry)
        for folder, _, key, entry in ((*name.partition("/"), entry) for name, entry in entries.items())
        if folder == "data"
    }


def _start(file: MappedFile, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise Refused(f"{entry.filename} compressed")
    header = file.bytes[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
    signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise ValueError(f"{entry.filename} is not where it should be")
    return entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length


def _content(file: MappedFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > _MAX_PICKLE_BYTES:
        raise ValueError(f"{entry.filename} of {entry.file_size:,} bytes is too large")
    start = _start(file, entry)
    content = file.bytes[start : start + entry.file_size]
    if zlib.crc32(content) != entry.CRC:
        raise ValueError(f"{entry.filename} is not as it was written")
    return content


def _of_sequence(file: MappedFile) -> tuple[Any, dict[str, int]]:
    stream = io.BytesIO(file.bytes[:_MAX_PICKLE_BYTES])
    if read_pickle(stream) != _LEGACY_MAGIC:
        raise ValueError("it does not begin as one")
    read_pickle(stream)  # version of the form
    if not read_pickle(stream).get("little_endian", True):
        raise Refused("big-endian numbers")
    described, keys = read_pickle(stream), read_pickle(stream)
    sizes = {tensor.storage.key: tensor.storage for tensor in _tensors(described).values()}
    offsets, position = {}, stream.tell()
    for key in keys:
        (count,) = struct.unpack_from("<q", file.bytes, position)
        if type(key) is not str:
            raise ValueError("a storage without a key")
        if key not in sizes or count != sizes[key].size:
            raise ValueError(f"storage {key} is not of the size described")
        offsets[key] = position + 8
        position += 8 + count * sizes[key].dtype.itemsize
    return described, offsets


def _tensors(described: Any) -> dict[str, Tensor]:
    """By name, nested names joined by dots; the limits are for dicts that hold one another many times over."""
    if not isinstance(described, Named):
        raise Refused(f"a {type(described).__name__} in place of named arrays")
    found: dict[str, Tensor] = {}
    waiting, entries = [("", described)], 0
    while waiting:
        prefix, part = waiting.pop()
        entries += len(part)
        if entries > _MAX_ENTRIES:
            raise ValueError(f"more than {_MAX_ENTRIES:,} names")
        for last, value in part.items():
            name = prefix + last
            if len(name) > _MAX_NAME:
                raise ValueError(f"a name of {len(name):,} characters")
            if isinstance(value, Named):
                waiting.append((f"{name}.", value))
            elif not isinstance(value, Tensor):
                raise Refused(f"{name} ({type(value).__name__})")
            elif name in found:
                raise ValueError(f"two arrays called {name}")
            else:
                found[name] = value
    return found


def _array(file: MappedFile, name: str, tensor: Tensor, offsets: dict[str, int]) -> LazyArray:
    storage: Storage = tensor.storage
    numbers = math.prod(tensor.shape)
    if tensor.offset + numbers > storage.size:
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
