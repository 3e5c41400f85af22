"""Compiles a run without running it: whether it fits, what it computes and sends, how fast it should be.

The programs are those of a training run, compiled for the chips of a TPU slice by the TPU's own compiler, or for
the devices that are here. Arguments are shapes alone: no weights, no data, no TPU.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jax_prompts import partition
from jax_prompts.display import log, print_table
from jax_prompts.precompile.chips import CHIPS, GIB, Chip, memory_of, open_lines, topology_devices
from jax_prompts.precompile.hlo_statistics import Statistics, statistics
from jax_prompts.precompile.programs import PROGRAMS, programs_of
from jax_prompts.runs import TrainRun
from jax_prompts.setup import set_up

ASSUMPTIONS = (
    "rows are as long as the settings allow, and every answer as long as targets",
    "matrix work and memory traffic at the speed of the compiler's estimate (TPU), else at the chip's peak rates",
    "collectives pass round a ring of links, both ways, or where a group of chips has none along a line, in twice the "
    "time; they wait for the work before them and hold up the work behind",
    "reading data, evaluating and saving cost nothing",
)


def precompile(run: TrainRun, topology: str | None, programs: Sequence[str] = PROGRAMS) -> dict[str, Any]:
    """Compiles the programs of a run for a TPU slice, or for the devices that are here, and reports on each.

    Args:
      run: its settings; rows and lengths are the longest that they allow.
      topology: name of a slice, such as `v5e:8x8`; None: the local devices.
      programs: which of `train` (one step), `eval` (losses of one batch) and `decode` (answers to one batch).

    Returns:
      a report for each program under `programs`, and the first one's (a training step's) at the top: `fits` (there:
      all of them), `bytes_per_chip`, `flops_per_chip` (of matrix multiplications), `collective_bytes_per_chip`,
      `compiler_seconds` (the compiler's estimate of the work between collectives; None where it makes none) and
      `examples_per_second` (under `ASSUMPTIONS`; None for a chip of unknown rates). What does not fit has no
      FLOPs, collectives and times.

    Raises:
      ConfigError: settings that cannot work on these devices; an unknown topology.
      RunError: the TPU compiler is not there.
    """
    devices = jax.devices() if topology is None else topology_devices(topology)
    mesh = partition.mesh_of(run.model, devices)
    kind, hbm = devices[0].device_kind, memory_of(devices[0], len(devices))
    reports = {}
    for name, program in programs_of(set_up(run, mesh)).items():
        if name in programs:
            log(f"compiling {name} for {len(devices)} x {kind}, mesh {_sizes(mesh.shape)}")
            reports[name] = _report(*program, CHIPS.get(kind), hbm)
    found = {
        "topology": topology or "local",
        "chip": kind,
        "chips": len(devices),
        "mesh": dict(mesh.shape),
        "hbm_per_chip": hbm,
        **next(iter(reports.values())),
        "fits": all(report["fits"] for report in reports.values()),
        "programs": reports,
    }
    _show(found)
    return found


def _report(jitted: Any, arguments: tuple, examples: int, chip: Chip | None, hbm: int) -> dict[str, Any]:
    """Report on one program: what it needs, does and takes, on one chip."""
    begun = time.monotonic()
    arguments_bytes = partition.bytes_per_device(arguments)
    mesh = jax.tree.leaves(arguments)[0].sharding.mesh
    stats, seconds = None, None
    try:
        compiled = jitted.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        total = _bytes_refused(error, arguments_bytes)
    else:
        memory = compiled.memory_analysis()
        arguments_bytes, total = memory.argument_size_in_bytes, _peak(memory, mesh.devices.flat[0].platform)
        stats = statistics(compiled.as_text(), mesh.size, open_lines(mesh.devices.flat))
        seconds = _prediction(stats, chip)
    return {
        "fits": stats is not None and total <= hbm,
        "bytes_per_chip": total,
        "argument_bytes": arguments_bytes,
        "temporary_bytes": total - arguments_bytes,
        "flops_per_chip": stats and stats.flops,
        "memory_traffic_bytes": stats and stats.bytes,
        "collective_bytes_per_chip": stats and stats.collective_bytes,
        "collectives": stats and {k: dataclasses.asdict(v) for k, v in stats.collectives.items()},
        "compiler_seconds": stats.cycles / chip.clock if stats and chip and chip.clock else None,
        "predicted_seconds": seconds,
        "examples_per_second": seconds and examples / seconds,
        "loops_of_unknown_length": stats and stats.unknown_loops,
        "compile_wall_seconds": time.monotonic() - begun,
    }


def _peak(memory: Any, platform: str) -> int:
    """Bytes in use at the worst moment. The TPU compiler's `temp_size` adds up more than is alive at once."""
    if platform == "tpu":
        return memory.peak_memory_in_bytes
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


def _bytes_refused(error: jax.errors.JaxRuntimeError, arguments: int) -> int:
    """Bytes of a program that does not fit, from the TPU compiler's message; any other error goes on.

    It either gives up early, on the temporaries alone, or has placed everything.
    """
    early = re.search(r"HLO temporaries \(([\d.]+)([KMG])\)", str(error))
    found = early or re.search(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", str(error))
    if not found:
        raise error
    asked = int(float(found[1]) * 1024 ** ("KMG".index(found[2]) + 1))
    return asked + arguments if early else asked


def _prediction(stats: Statistics, chip: Chip | None) -> float | None:
    """Seconds of one run of a program, under `ASSUMPTIONS`."""
    if chip is None:
        return None
    at_peak = max(stats.flops / chip.flops, stats.bytes / chip.bandwidth)
    work = stats.cycles / chip.clock if chip.clock else at_peak
    return work + sum(each.sent + each.sent_in_lines for each in stats.collectives.values()) / chip.ring


def _show(found: dict[str, Any]) -> None:
    """Prints the report as a table on stderr, a program a column."""
    reports = found["programs"]
    hbm = f"of {found['hbm_per_chip'] / GIB:.2f} GiB"
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("arguments", lambda r: f"{r['argument_bytes'] / GIB:.2f} GiB"),
        ("temporaries", lambda r: f"{r['temporary_bytes'] / GIB:.2f} GiB"),
        ("total", lambda r: f"{r['bytes_per_chip'] / GIB:.2f} {hbm}{'' if r['fits'] else ': does NOT fit'}"),
        ("matrix work", lambda r: _scaled(r["flops_per_chip"], "FLOP")),
        ("memory traffic", lambda r: _scaled(r["memory_traffic_bytes"], "B")),
        ("compiler's estimate", lambda r: _scaled(r["compiler_seconds"], "s")),
        ("predicted", lambda r: _scaled(r["predicted_seconds"], "s")),
        ("predicted, a second", lambda r: _scaled(r["examples_per_second"], "examples")),
        ("compiled in", lambda r: _scaled(r["compile_wall_seconds"], "s")),
    ]
    kinds = sorted({kind for report in reports.values() for kind in report["collectives"] or ()})
    for kind in kinds:
        rows.insert(5, (kind, functools.partial(_collective, kind=kind)))
    print_table(
        ("", *reports),
        ((label, *map(cell, reports.values())) for label, cell in rows),
        title=f"{found['chips']} x {found['chip']}, mesh {_sizes(found['mesh'])}: each chip",
        right=reports,
    )
    log("Predictions assume: " + "; ".join(ASSUMPTIONS) + ".")


def _collective(report: dict[str, Any], kind: str) -> str:
    found = (report["collectives"] or {}).get(kind)
    return f"{found['count']:,} x, {_scaled(found['bytes'], 'B')}" if found else "-"


def _scaled(value: float | None, unit: str) -> str:
    """A number with the prefix of its thousand, to four digits."""
    if value is None:
        return "-"
    scales = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
    scale, prefix = next((found for found in scales if value >= found[0]), (1.0, ""))
    return f"{value / scale:.4g} {prefix}{unit}"


def _sizes(shape: Mapping[str, int]) -> str:
    return " x ".join(f"{name} {size}" for name, size in shape.items())
