"""A compiled program's text, `compiled.as_text()`, as instructions."""

from __future__ import annotations

import dataclasses
import math
import re

_BITS = {"pred": 8, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = ")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")


@dataclasses.dataclass(frozen=True)
class Array:
    dtype: str
    dims: tuple[int, ...]
    on_chip: bool  # in a memory space of its own, such as a TPU's VMEM

    @property
    def bytes(self) -> int:
        bits = _BITS[self.dtype] if self.dtype in _BITS else int(re.findall(r"\d+", self.dtype)[0])
        return math.prod(self.dims) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line, `name = result opcode(inside), attributes`."""

    name: str
    opcode: str
    result: tuple[Array, ...]
    operands: tuple[str, ...]
    inside: str  # between the parentheses: operands, or a constant's value
    attributes: str
    root: bool

    def attribute(self, name: str) -> str:
        """A name or number behind `name=`; empty where there is none."""
        found = re.search(rf"\b{name}=%?([\w.-]+)", self.attributes)
        return found[1] if found else ""


Computation = dict[str, Instruction]


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Every computation by name, and the entry's name."""
    module: dict[str, Computation] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if heading := _COMPUTATION.match(line):
            current = module[heading[1]] = {}
            entry = heading[1] if line.startswith("ENTRY") else entry
        elif begun := _INSTRUCTION.match(line):
            instruction = _instruction(begun[1], line[begun.end() :], line.lstrip().startswith("ROOT "))
            current[instruction.name] = instruction
    return module, entry


def _instruction(name: str, text: str, root: bool) -> Instruction:
    """One line after `name = `: shape, opcode(operands), attributes."""
    end = _closing(text) if text.startswith("(") else text.index(" ")
    arrays = tuple(
        Array(dtype, tuple(int(d.strip("<=")) for d in dims.split(",") if d), "S(" in (layout or ""))
        for dtype, dims, layout in _SHAPE.findall(text[:end])
    )
    opcode, _, rest = text[end:].lstrip().partition("(")
    close = _closing("(" + rest) - 1
    inside = rest[: close - 1]
    operands = tuple(re.findall(r"%([\w.-]+)", inside))
    return Instruction(name, opcode, arrays, operands, inside, rest[close:], root)


def _closing(text: str) -> int:
    """The index behind the parenthesis that closes the first one of `text`."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return index + 1
    return len(text)
