"""The tables of docs/scaling.md, as Markdown: runs compiled for TPU slices.

    python scripts/scaling_table.py --output runs/scaling [--only xxl/residual/v5e:4x4]

Each row is one `t5x precompile` in a process of its own, kept in OUTPUT/rows.jsonl, so that an interrupted table goes
on where it stopped: a training step and, for XXL with Residual, the losses of a batch and the answers to it (with a
folded prompt they are the same programs, whatever the method).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jax_prompts.precompile.chips import GIB

MODELS = {"xxl": "t5_1_1_lm100k_xxl", "xl": "t5_1_1_lm100k_xl", "base": "t5_1_1_lm100k_base"}
PROMPTS = {"residual": "residual", "plain": "prompt_tuning"}
SETTINGS = ("BATCH_SIZE=32", "REMAT=minimal")
Report = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One compilation; `changed` are settings beside `SETTINGS`, 512 tokens and a prompt of 100."""

    model: str
    prompt: str
    topology: str
    partitions: dict[str, int]
    changed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        where = f"{self.model}/{self.prompt}/{self.topology}/{self.partitions}"
        return " ".join([where, *self.changed])

    @property
    def programs(self) -> tuple[str, ...]:
        evaluated = (self.model, self.prompt) == ("xxl", "residual") and self not in LIMITS
        return ("train", "eval", "decode") if evaluated else ("train",)

    def flags(self, settings: Sequence[str]) -> list[str]:
        files = (
            f"models/{MODELS[self.model]}", f"prompts/{PROMPTS[self.prompt]}", "recipes/lester2021", "runs/train",
        )  # fmt: skip
        bindings = (
            "MODEL_DIR=never", "MIXTURE_OR_TASK_NAME=taskless_super_glue_rte_v102", *settings,
            f"PARTITIONS={self.partitions}", *self.changed,
        )  # fmt: skip
        return [
            *(f"--gin_file=gin_configs/{file}.gin" for file in files),
            *(f"--gin.{binding}" for binding in bindings),
        ]


STEPS = [
    *(
        Row(model, prompt, topology, partitions)
        for model in ("xxl", "xl")
        for prompt in PROMPTS
        for topology, partitions in (
            ("v4:2x2x4", {"data": 4, "model": 4}),
            ("v5e:4x4", {"fsdp": 4, "model": 4}),
            ("v5e:8x8", {"fsdp": 16, "model": 4}),
            ("v5p:2x2x4", {"data": 4, "model": 4}),
        )
    ),
    *(
        Row("xxl", "residual", topology, partitions)
        for topology, partitions in (
            ("v4:2x2x4", {"fsdp": -1}),
            ("v4:2x2x4", {"model": 16}),
            ("v4:2x2x4", {"fsdp": 4, "model": 4}),
            ("v5e:4x4", {"fsdp": -1}),
            ("v5e:4x4", {"model": 16}),
            ("v5e:4x4", {"data": 4, "model": 4}),
            ("v5e:8x8", {"data": 16, "model": 4}),
        )
    ),
    # Rows have to divide over 64 chips.
    Row("xxl", "residual", "v5e:8x8", {"fsdp": -1}, ("BATCH_SIZE=64", "EVAL_BATCH_SIZE=64")),
]
LIMITS = [
    Row("xxl", "residual", "v5e:4x4", {"fsdp": 4, "model": 4}, (changed,))
    for changed in (
        "BATCH_SIZE=64", "BATCH_SIZE=128",
        "TASK_FEATURE_LENGTHS={'inputs': 1024, 'targets': 16}", "TASK_FEATURE_LENGTHS={'inputs': 2048, 'targets': 16}",
    )
]  # fmt: skip
WEAK = [
    Row(
        "base", "residual", topology, {"data": -1, "fsdp": 4},
        ("SCAN_LAYERS=True", "ACTIVATION_DTYPE=bfloat16", "WEIGHT_DTYPE=bfloat16", f"BATCH_SIZE={8 * chips}",
         f"EVAL_BATCH_SIZE={chips}"),
    )
    for topology, chips in (("v5e:2x2", 4), ("v5e:4x4", 16), ("v5e:8x8", 64))
]  # fmt: skip


def order(row: Row) -> tuple[Any, ...]:
    model, prompt = list(MODELS).index(row.model), list(PROMPTS).index(row.prompt)
    return model, row.topology, str(row.partitions), prompt, row.changed


def scaled(field: str, unit: str, scale: float, digits: int) -> Callable[[Row, Report], str]:
    """A column of the training step; a dash where it does not fit."""

    def cell(row: Row, found: Report) -> str:
        value = found["programs"]["train"][field]
        return "-" if value is None else f"{value / scale:.{digits}f} {unit}".strip()

    return cell


def milliseconds(program: str) -> Callable[[Row, Report], str]:
    def cell(row: Row, found: Report) -> str:
        seconds = found["programs"].get(program, {}).get("predicted_seconds")
        return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"

    return cell


def memory(row: Row, found: Report) -> str:
    train = found["programs"]["train"]
    needed = f"{train['bytes_per_chip'] / GIB:.2f} of {found['hbm_per_chip'] / GIB:.2f} GiB"
    return needed if train["fits"] else f"{needed}: does not fit"


def mesh(row: Row, found: Report) -> str:
    return ", ".join([f"`{row.partitions}`", *(f"`{setting}`" for setting in row.changed)])


WHERE: dict[str, Callable[[Row, Report], str]] = {
    "model": lambda row, found: row.model.upper(),
    "prompt": lambda row, found: {"residual": "Residual"}.get(row.prompt, row.prompt),
    "slice": lambda row, found: row.topology,
    "chips": lambda row, found: str(math.prod(int(n) for n in row.topology.partition(":")[2].split("x"))),
    "PARTITIONS": mesh,
}
WHAT = {
    "memory of a chip": memory,
    "matrix work": scaled("flops_per_chip", "TFLOP", 1e12, 2),
    "memory traffic": scaled("memory_traffic_bytes", "GB", 1e9, 1),
    "collectives": scaled("collective_bytes_per_chip", "GB", 1e9, 2),
    "compiler's estimate": scaled("compiler_seconds", "ms", 1e-3, 0),
    "predicted step": milliseconds("train"),
    "predicted examples/s": scaled("examples_per_second", "", 1, 1),
}
EVALUATED = {"losses of a batch": milliseconds("eval"), "answers to a batch": milliseconds("decode")}
CHANGED = {"changed": lambda row, found: ", ".join(f"`{setting}`" for setting in row.changed)}
TABLES = {
    "Steps": (STEPS, WHERE | WHAT | EVALUATED),
    "Limits": (LIMITS, CHANGED | WHAT),
    "Weak scaling": (WEAK, {name: WHERE[name] for name in ("slice", "chips")} | WHAT),
}


def compiled(row: Row, limit: float) -> Report:
    """The JSON line of `t5x precompile` for one row, or what stopped it."""
    command = [sys.executable, "-m", "jax_prompts.main", "precompile", f"--topology={row.topology}"]
    command += [*(f"--program={program}" for program in row.programs), *row.flags(SETTINGS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"row": row.name, "error": f"not compiled in {limit:.0f} s"}
    if done.returncode:
        return {"row": row.name, "error": done.stderr.splitlines()[-1]}
    return {"row": row.name, **json.loads(done.stdout.splitlines()[-1])}


def kept_rows(file: pathlib.Path) -> dict[str, Report]:
    """The rows of an earlier call; ends the program where they lack a column of today's tables."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for line in lines:
        programs = line.get("programs")
        if not programs or not all(
            "sent_in_lines" in c for p in programs.values() for c in (p["collectives"] or {}).values()
        ):
            sys.exit(f"{file} has rows of an earlier version of this script: give another --output")
    return {line["row"]: line for line in lines}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="rows whose name or settings hold this text")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one compilation")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    kept = args.output / "rows.jsonl"
    found = kept_rows(kept)
    for row in sorted([row for rows, _ in TABLES.values() for row in rows], key=order):
        if row.name not in found and args.only in row.name:
            report = compiled(row, args.limit)
            if "error" in report:
                print(f"{row.name}: {report['error']}", file=sys.stderr)
                continue
            found[row.name] = report
            with kept.open("a") as file:
                file.write(json.dumps(report) + "\n")
            print(f"{row.name}: {WHAT['predicted step'](row, report)}", file=sys.stderr)
    for title, (rows, columns) in TABLES.items():
        print(f"\n{title}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
        for row in sorted(rows, key=order):
            if row.name in found:
                print(f"| {' | '.join(cell(row, found[row.name]) for cell in columns.values())} |")


if __name__ == "__main__":
    main()
