"""Statistics of compiled programs, read from their text: matrix FLOPs, memory traffic, collectives, compiler's cycles.

XLA's own cost analysis counts the body of a loop once, however often it runs, so a model that scans over its
layers looks as cheap as one layer. Here every number is multiplied by the trip counts of the loops around it.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from jax_prompts.precompile.hlo_text import Array, Computation, Instruction, parse

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
         "collective-broadcast")  # fmt: skip
# Instructions that name or order arrays without touching them.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
         "replica-id", "opt-barrier", "domain", "while", "conditional", "call")  # fmt: skip


@dataclasses.dataclass
class Collective:
    """All collectives of one kind in one run of a program, on one chip.

    Attributes:
      count: how often such a collective runs.
      bytes: of what it joins or divides: the larger of a chip's operand and result.
      sent: bytes that a chip sends when its group passes them round a ring.
      sent_in_lines: those of groups that have no ring of links.
    """

    count: int = 0
    bytes: int = 0
    sent: float = 0.0
    sent_in_lines: float = 0.0


@dataclasses.dataclass
class Statistics:
    """One run of a program on one chip.

    Attributes:
      flops: of matrix multiplications and convolutions, a multiply-add counted as two.
      bytes: read from and written to main memory by instructions, fused ones counted as one.
      cycles: the compiler's estimates (TPU; 0 elsewhere), collectives not among them.
      collectives: by kind.
      unknown_loops: loops whose trip count the text does not tell; their bodies are counted once.
    """

    flops: float = 0.0
    bytes: float = 0.0
    cycles: float = 0.0
    collectives: dict[str, Collective] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(Collective)
    )
    unknown_loops: int = 0

    @property
    def collective_bytes(self) -> int:
        return sum(found.bytes for found in self.collectives.values())


def statistics(
    text: str, devices: int, is_open_line: Callable[[Sequence[int]], bool] = lambda group: False
) -> Statistics:
    """The statistics of a compiled program, from `compiled.as_text()`.

    Args:
      text: HLO after partitioning and scheduling.
      devices: the program runs on, for groups that the text leaves out.
      is_open_line: whether a group of them lies in a line that is no ring (`chips.open_lines`).
    """
    module, entry = parse(text)
    found = Statistics()
    _Walk(module, devices, is_open_line, found).computation(entry, 1, fused=False)
    found.collectives = dict(sorted(found.collectives.items()))
    return found


class _Walk:
    """Adds up a module, following calls."""

    def __init__(
        self,
        module: dict[str, Computation],
        devices: int,
        is_open_line: Callable[[Sequence[int]], bool],
        found: Statistics,
    ) -> None:
        self.module, self.devices, self.is_open_line, self.found = module, devices, is_open_line, found
        self.fused_channels: set[str] = set()

    def computation(self, name: str, times: int, *, fused: bool) -> None:
        computation = self.module[name]
        for instruction in computation.values():
            opcode = instruction.opcode
            self.found.flops += times * _flops(instruction, computation)
            if opcode.removesuffix("-start") in KINDS:
                # One that runs beside other work stands in several fusions: where it starts, goes on and ends.
                channel = instruction.attribute("channel_id") if fused else ""
                if channel not in self.fused_channels:
                    self._collective(instruction, computation, times)
                self.fused_channels |= {channel} - {""}
            if not fused:
                self.found.bytes += times * self._traffic(instruction, computation)
                if estimate := re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes):
                    self.found.cycles += times * int(estimate[1])
            if opcode == "while":
                trips = _trips(instruction, computation, self.module)
                self.found.unknown_loops += trips is None
                self.computation(instruction.attribute("body"), times * (trips or 1), fused=fused)
            elif opcode in ("fusion", "async-start"):
                self.computation(instruction.attribute("calls"), times, fused=fused or opcode == "fusion")
            elif opcode == "call":
                self.computation(instruction.attribute("to_apply"), times, fused=fused)
            elif opcode == "conditional":  # one branch runs: any of them at most
                branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
                names = branches[1].split(",") if branches else []
                names += [
                    instruction.attribute("true_computation"),
                    instruction.attribute("false_computation"),
                ]
                for branch in filter(None, names):
                    self.computation(branch.strip().removeprefix("%"), times, fused=fused)

    def _collective(self, instruction: Instruction, computation: Computation, times: int) -> None:
        kind = instruction.opcode.removesuffix("-start")
        operand = sum(array.bytes for name in instruction.operands for array in computation[name].result)
        result = sum(array.bytes for array in instruction.result)
        if instruction.opcode.endswith("-start") and kind != "all-reduce":
            result = sum(array.bytes for array in instruction.result[1:2])  # (operand, result, context ...)
        members = _first_group(instruction.attributes, self.devices)
        size, group = max(operand, result), len(members)
        rounds = {"all-reduce": 2 * (group - 1) / group, "collective-permute": 1.0}
        sent = times * size * rounds.get(kind, (group - 1) / group)
        entry = self.found.collectives[kind]
        entry.count += times
        entry.bytes += times * size
        entry.sent += sent
        entry.sent_in_lines += sent * (kind != "collective-permute" and self.is_open_line(members))

    def _traffic(self, instruction: Instruction, computation: Computation) -> int:
        """Bytes of main memory that an instruction reads and writes."""
        if (
            instruction.opcode in _FREE
            or instruction.opcode.endswith("-done")
            or "AllocateBuffer" in instruction.attributes
        ):
            return 0
        if instruction.opcode.endswith("-start") and instruction.opcode != "async-start":
            # The result names both sides; a copy or slice moves the smaller, a collective reads one and writes one.
            sides = instruction.result[:2] if len(instruction.result) > 1 else instruction.result * 2
            moved = [array.bytes for array in sides]
            if instruction.opcode.removesuffix("-start") not in KINDS:
                moved = [min(moved)] * 2
            return sum(size for array, size in zip(sides, moved, strict=True) if not array.on_chip)
        user = {instruction.name: instruction}
        read = sum(
            self._read(name, computation[name].result, user)
            for name in set(instruction.operands)
            if not all(array.on_chip for array in computation[name].result)
        )
        written = self._written(instruction, computation)
        return read + sum(
            size for array, size in zip(instruction.result, written, strict=True) if not array.on_chip
        )

    def _read(self, name: str, arrays: tuple[Array, ...], computation: Computation) -> int:
        """Bytes that a computation reads of what it calls `name`: of an array that it only slices, the slices."""
        whole, parts = sum(array.bytes for array in arrays), 0
        for user in computation.values():
            if name not in user.operands:
                continue
            if user.opcode == "fusion":
                inner = self.module[user.attribute("calls")]
                for place, operand in enumerate(user.operands):
                    if operand == name:
                        parts += self._read(_parameter(inner, place), arrays, inner)
            elif user.opcode == "bitcast":
                parts += self._read(user.name, arrays, computation)
            elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
                parts += sum(array.bytes for array in user.result)
            elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
                return whole
        return min(parts, whole)

    def _written(self, instruction: Instruction, computation: Computation) -> list[int]:
        """Bytes that an instruction writes of each of its results: of one updated in place, the update."""
        if instruction.opcode == "fusion":
            inner = self.module[instruction.attribute("calls")]
            root = next(i for i in inner.values() if i.root)
            made = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
            if len(made) == len(instruction.result):
                return [self._written(i, inner)[0] for i in made]
        if instruction.opcode == "bitcast" and instruction.operands[0] in computation:
            return self._written(computation[instruction.operands[0]], computation)
        if instruction.opcode == "dynamic-update-slice":
            return [computation[instruction.operands[1]].result[0].bytes]
        return [array.bytes for array in instruction.result]


def _parameter(computation: Computation, number: int) -> str:
    return next(i.name for i in computation.values() if i.opcode == "parameter" and int(i.inside) == number)


def _flops(instruction: Instruction, computation: Computation) -> float:
    if instruction.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    elif instruction.opcode == "convolution":
        return _convolution_flops(instruction, computation)
    elif "__cublas$" in instruction.attributes:  # how a dot reads once the GPU's library has it
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^]]*)\]', instruction.attributes)
    else:
        return 0.0
    lhs = computation[instruction.operands[0]].result[0]
    dims = [lhs.dims[int(d)] for d in re.findall(r"\d+", contracted[1])] if contracted else []
    return 2.0 * math.prod(instruction.result[0].dims) * math.prod(dims)


def _convolution_flops(instruction: Instruction, computation: Computation) -> float:
    """Two for each pair of an input element and a kernel element that meet; padding and dilation's holes are free.

    The TPU compiler writes matrix multiplications as convolutions, and their batch axes as dilated windows.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None
    lhs, rhs = (computation[name].result[0].dims for name in instruction.operands[:2])
    out = instruction.result[0].dims
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}
    pairs = 1.0
    for axis in range(len(out) - 2):
        place = str(axis)
        kernel, outputs, inputs = (
            dims[found.index(place)] for dims, found in ((rhs, labels[2]), (out, labels[3]), (lhs, labels[1]))
        )
        stride, hole, spread = (
            int(fields[name].split("x")[axis]) if name in fields else 1
            for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        low = int(fields["pad"].split("x")[axis].split("_")[0]) if "pad" in fields else 0
        at = np.arange(outputs)[:, None] * stride - low + np.arange(kernel)[None] * spread
        pairs *= int(np.count_nonzero((at >= 0) & (at % hole == 0) & (at // hole < inputs)))
    return 2.0 * pairs * out[labels[3].index("b")] * out[labels[3].index("f")] * rhs[labels[2].index("i")]


def _trips(loop: Instruction, around: Computation, module: dict[str, Computation]) -> int | None:
    """How often a loop runs, at most: the compiler's word, else the constant that its counter is compared with.

    Counters start from 0. JAX's go up by 1, those of loops that the compiler makes and unrolls by more.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
        return int(known[1])
    limits: list[int] = []
    body = module[loop.attribute("body")]
    ends = body[next(i.name for i in body.values() if i.root)].operands

    def look(computation: Computation, given: list[int | None]) -> None:
        """Collects the limits in a condition, or in a part of it that is given these numbers."""

        def carried(name: str) -> int | None:
            """Where in the loop's tuple a value stands."""
            value = computation[name]
            is_carried = (
                value.opcode == "get-tuple-element" and computation[value.operands[0]].opcode == "parameter"
            )
            return int(value.attribute("index")) if is_carried else None

        def number(name: str) -> int | None:
            value, place = computation[name], carried(name)
            if value.opcode == "parameter" and given:
                return given[int(value.inside)]
            if place is not None:
                start = around[loop.operands[0]]
                value = around[start.operands[place]] if start.opcode == "tuple" else start
            return _constant(value)

        for test in computation.values():
            if test.opcode == "compare" and "direction=LT" in test.attributes:
                limit, place = number(test.operands[1]), carried(test.operands[0])
                if limit is not None:
                    limits.append(-(-limit // (1 if place is None else _step(body, ends[place]))))
            elif test.opcode == "fusion":
                look(module[test.attribute("calls")], [number(name) for name in test.operands])

    look(module[loop.attribute("condition")], [])
    return min(limits) if limits else None


def _step(body: Computation, counter: str) -> int:
    """What a loop adds to its counter."""
    added = (
        [_constant(body[name]) for name in body[counter].operands] if body[counter].opcode == "add" else []
    )
    return next((number for number in added if number), 1)


def _constant(value: Instruction) -> int | None:
    return int(value.inside) if value.opcode == "constant" and value.inside.isdigit() else None


def _first_group(attributes: str, devices: int) -> list[int]:
    """One group of chips that take part in a collective, of several alike."""
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        shape, order = (_numbers(text or "") for text in found.group(3, 4))
        numbers = np.arange(math.prod(shape)).reshape(shape).transpose(order or range(len(shape)))
        return numbers.reshape(-1)[: int(found[2])].tolist()
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        axes = re.findall(r"'([^']+)'=(\d+)", found[1])
        taken = re.findall(r"'([^']+)'", found[2])
        numbers = np.arange(math.prod(int(size) for _, size in axes)).reshape([int(size) for _, size in axes])
        return numbers[tuple(slice(None) if axis in taken else 0 for axis, _ in axes)].ravel().tolist()
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return _numbers(found[1])
    return list(range(devices))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
