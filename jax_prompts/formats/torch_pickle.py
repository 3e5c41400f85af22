"""PyTorch's pickles, read by Python's own machine with everything taken from it that describes no tensor.

A pickle is a program that may call anything. Here it finds the few names that describe tensors, which stand for plain
values, and no others; instructions that no description needs are refused, so that nothing a file says is executed.
"""

from __future__ import annotations

import dataclasses
import pickle
import pickletools
from collections.abc import Callable, Iterable
from typing import IO, Any, NoReturn

import ml_dtypes
import numpy as np

from jax_prompts.formats.arrays import checked_shape

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
_INSTRUCTIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET "
    "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS SETITEM SETITEMS "
    "GLOBAL STACK_GLOBAL REDUCE PERSID BINPERSID"
).split()
_CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}


class Refused(ValueError):
    """The pickle asks for something that describes no tensor."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of `size` numbers kept beside the pickle, under `key`."""

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


class Named(dict[str, Any]):
    """Things by name: what every dict of a pickle becomes."""

    def __setitem__(self, name: str, value: Any) -> None:
        if type(name) is not str:  # the hash of nested tuples alone may take forever
            raise Refused(f"something under a {type(name).__name__} in place of a name")
        super().__setitem__(name, value)


def read_pickle(stream: IO[bytes]) -> Any:
    """What one pickle describes: `Named`s, lists, tuples, text, numbers, `Tensor`s; the stream then stands behind it.

    Raises:
      Refused: it names anything else, which is said.
      pickle.UnpicklingError, EOFError, OverflowError, ValueError, LookupError, TypeError, AttributeError,
        struct.error: it is damaged.
    """
    return _Reader(stream, encoding="utf-8").load()


class _Instructions(dict[int, Callable[[Any], None]]):
    def __missing__(self, code: int) -> NoReturn:
        names = [name for name, known in _CODES.items() if known == code]
        raise Refused(f"the instruction {names[0] if names else hex(code)}")


# The one that is written in Python: its memo is a dict, where the other makes room for any number that a file says.
class _Reader(pickle._Unpickler):
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for: a dtype, or a function that only looks at what it is given."""
        if module == "torch" and name in STORAGES:
            return np.dtype(STORAGES[name])
        if f"{module} {name}" not in _CALLS:
            raise Refused(f"{module}.{name}")
        return _CALLS[f"{module} {name}"]

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, size, *view = _of(tuple, pid)
        if kind != "storage" or not isinstance(dtype, np.dtype) or any(part is not None for part in view):
            raise Refused("something stored that is no plain run of numbers")
        return Storage(_of(str, key), dtype, *checked_shape((size,)))

    def _begin_dict(self) -> None:
        self.append(Named())

    def _whole_dict(self) -> None:
        items = self.pop_mark()
        self.append(_named(zip(items[::2], items[1::2], strict=True)))

    def _leave_state(self) -> None:
        """Attributes of a dict of tensors, such as version numbers."""
        self.stack.pop()
        if type(self.stack[-1]) is not Named:
            raise Refused(f"state of a {type(self.stack[-1]).__name__}")

    dispatch = _Instructions(
        {_CODES[name]: pickle._Unpickler.dispatch[_CODES[name]] for name in _INSTRUCTIONS}
        | {_CODES["EMPTY_DICT"]: _begin_dict, _CODES["DICT"]: _whole_dict, _CODES["BUILD"]: _leave_state}
    )


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _named(items: Iterable[Any] = ()) -> Named:
    """What `OrderedDict` makes of pairs."""
    found = Named()
    for name, value in items:
        found[name] = value
    return found


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    (offset,) = checked_shape((offset,))
    shape, strides = checked_shape(_of(tuple, shape)), checked_shape(_of(tuple, strides))
    return Tensor(_of(Storage, storage), offset, shape, strides)


_CALLS = {
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "collections OrderedDict": _named,
}
