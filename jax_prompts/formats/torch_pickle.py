"""PyTorch's pickles read without unpickling: a small machine that knows how tensors are described, and nothing else.

A pickle is a program that may call anything. This machine has no way to call: the few names that describe tensors
stand for plain values, and any other name is refused.
"""

from __future__ import annotations

import dataclasses
import pickletools
from typing import IO, Any

import ml_dtypes
import numpy as np

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_CALLS = {
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
}
_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_WITH_ARGUMENT = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(ValueError):
    """The pickle asks for something that describes no tensor."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers kept beside the pickle, under `key`."""

    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Name:
    text: str


_MARK = object()


def read_pickle(stream: IO[bytes]) -> Any:
    """What one pickle describes: dicts, lists, tuples, text, numbers and `Tensor`s; the stream then stands behind it.

    Raises:
      Refused: it names anything else, which is said.
      ValueError, IndexError, KeyError, TypeError: it is damaged.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = len(stack) - 1 - stack[::-1].index(_MARK)
        found = stack[start + 1 :]
        del stack[start:]
        return found

    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in _PUSHED:
            stack.append(_PUSHED[name])
        elif name in _WITH_ARGUMENT:
            stack.append(argument)
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_allowed(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_allowed(f"{module} {attribute}"))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_described(called, arguments))
        elif name == "BUILD":  # attributes of a dict of tensors, such as version numbers
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise Refused(f"state of a {type(stack[-1]).__name__}")
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else since_mark()
            _of(dict, stack[-1]).update(zip(items[::2], items[1::2], strict=True))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else since_mark()
            _of(list, stack[-1]).extend(items)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"the instruction {name}")
    raise ValueError("it has no end")


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _allowed(name: str) -> _Name:
    storage = name.removeprefix("torch ")
    if name not in _CALLS and storage not in STORAGES:
        raise Refused(name.replace(" ", "."))
    return _Name(name)


def _storage(described: Any) -> Storage:
    kind, storage, key, _, size, *_ = described
    dtype = STORAGES.get(storage.text.removeprefix("torch ")) if isinstance(storage, _Name) else None
    if kind != "storage" or dtype is None:
        raise Refused(f"a stored {kind}")
    return Storage(_of(str, key), np.dtype(dtype), _of(int, size))


def _described(called: Any, arguments: Any) -> Any:
    name = called.text if isinstance(called, _Name) else type(called).__name__
    if name == "collections OrderedDict":
        return dict(*arguments)
    if name == "torch._utils _rebuild_parameter":
        return arguments[0]
    if name == "torch._utils _rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        return Tensor(storage, _of(int, offset), _of(tuple, shape), _of(tuple, strides))
    raise Refused(f"a call of {name}")
