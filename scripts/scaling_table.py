"""The tables of docs/scaling.md: training steps compiled for TPU slices, and H200 by accounting.

    python scripts/scaling_table.py --output runs/scaling [--only xxl/residual/v5e:4x4]

Each row is one `t5x precompile` in a process of its own, kept in OUTPUT/rows.jsonl, so that an interrupted table goes
on where it stopped. H200 is not compiled for: its table adds up weights and what JAX keeps for the backward pass, and
divides the products of the traced step by the matrix rate.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import math
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from jax_prompts.precompile.chips import CHIPS, GIB

MODELS = {"base": "t5_1_1_lm100k_base", "xl": "t5_1_1_lm100k_xl", "xxl": "t5_1_1_lm100k_xxl"}
PROMPTS = {"residual": "residual", "plain": "prompt_tuning"}
SETTINGS = ("BATCH_SIZE=32", "REMAT=minimal")

# model/prompt/topology: settings beside BATCH_SIZE = 32, 512 tokens, a prompt of 100, REMAT = 'minimal'.
TABLE = [
    (f"{model}/{prompt}/{topology}", f"PARTITIONS={partitions}")
    for model in ("xxl", "xl")
    for prompt in ("residual", "plain")
    for topology, partitions in (
        ("v4:2x2x4", {"data": 4, "model": 4}),
        ("v5e:4x4", {"fsdp": 4, "model": 4}),
        ("v5e:8x8", {"fsdp": 16, "model": 4}),
        ("v5p:2x2x4", {"data": 4, "model": 4}),
    )
]
MESHES = [
    (f"xxl/residual/{topology}", f"PARTITIONS={partitions}")
    for topology in ("v5e:4x4", "v4:2x2x4")
    for partitions in ({"fsdp": 16}, {"model": 16}, {"fsdp": 4, "model": 4}, {"data": 4, "model": 4})
]  # fmt: skip
LIMITS = [
    ("xxl/residual/v5e:4x4", "PARTITIONS={'fsdp': 4, 'model': 4}", setting)
    for setting in ("BATCH_SIZE=64", "BATCH_SIZE=128", "BATCH_SIZE=256",
                    "TASK_FEATURE_LENGTHS={'inputs': 1024, 'targets': 16}",
                    "TASK_FEATURE_LENGTHS={'inputs': 2048, 'targets': 16}")
]  # fmt: skip
WEAK = [
    (f"base/residual/{topology}", "SCAN_LAYERS=True", "ACTIVATION_DTYPE=bfloat16", "WEIGHT_DTYPE=bfloat16",
     "PARTITIONS={'data': -1, 'fsdp': 4}", f"BATCH_SIZE={8 * chips}", f"EVAL_BATCH_SIZE={chips}")
    for topology, chips in (("v5e:2x2", 4), ("v5e:4x4", 16), ("v5e:8x8", 64))
]  # fmt: skip


def flags(model: str, prompt: str, settings: Sequence[str]) -> list[str]:
    files = f"models/{MODELS[model]}", f"prompts/{PROMPTS[prompt]}", "recipes/lester2021", "runs/train"
    return [
        *(f"--gin_file=gin_configs/{file}.gin" for file in files),
        "--gin.MODEL_DIR=never", "--gin.MIXTURE_OR_TASK_NAME=taskless_super_glue_rte_v102",
        *(f"--gin.{setting}" for setting in settings),
    ]  # fmt: skip


def compiled(row: tuple[str, ...], limit: float) -> dict[str, Any]:
    """The JSON line of `t5x precompile` for one row, or what stopped it."""
    (model, prompt, topology), settings = row[0].split("/"), (*SETTINGS, *row[1:])
    command = [
        sys.executable, "-m", "jax_prompts.main", "precompile", f"--topology={topology}", "--program=train",
        *flags(model, prompt, settings),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"row": row, "error": f"not compiled in {limit:.0f} s"}
    if done.returncode:
        return {"row": row, "error": done.stderr.splitlines()[-1]}
    found = json.loads(done.stdout.splitlines()[-1])
    return {"row": row, **{name: value for name, value in found.items() if name != "programs"}}


def shown(found: dict[str, Any]) -> str:
    """One row of Markdown."""
    name, settings = found["row"][0].replace("/", " "), ", ".join(found["row"][1:])
    if "error" in found:
        return f"| {name} | {settings} | {found['error']} |" + " |" * 6
    memory = f"{found['bytes_per_chip'] / GIB:.2f} of {found['hbm_per_chip'] / GIB:.2f} GiB"
    if not found["fits"]:
        return f"| {name} | {settings} | does not fit: {memory} |" + " |" * 6
    return " | ".join([
        f"| {name}", settings, memory, f"{found['flops_per_chip'] / 1e12:.2f}",
        f"{found['memory_traffic_bytes'] / 1e9:.1f}", f"{found['collective_bytes_per_chip'] / 1e9:.2f}",
        f"{found['compiler_seconds'] * 1e3:.0f}", f"{found['predicted_seconds'] * 1e3:.0f}",
        f"{found['examples_per_second']:.1f} |",
    ])  # fmt: skip


def accounted(model: str, prompt: str) -> list[str]:
    """Rows of Markdown for 1 and 8 H200: weights, what is kept for the backward pass, and products at the peak rate."""
    import jax
    from jax.ad_checkpoint import print_saved_residuals

    from jax_prompts import partition, step
    from jax_prompts.arguments import parse
    from jax_prompts.base import make_model
    from jax_prompts.gin_settings import resolve
    from jax_prompts.precompile.programs import programs_of
    from jax_prompts.prompts import for_model

    run = resolve(parse(["train", *flags(model, prompt, SETTINGS)]), "TrainRun")[0]
    step_program, arguments, rows = programs_of(run, partition.mesh_of(run.model, jax.devices()[:1]))["train"]
    flops = matrix_flops(step_program.trace(*arguments).jaxpr.jaxpr)
    tuned, _, frozen, batch, key = arguments
    tuned, batch, key = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (tuned, batch, key)
    )
    module = make_model(run.model)
    method = for_model(run.method, module.config.prompt_width)

    def loss(tuned: Any, frozen: Any, batch: Any, key: Any) -> jax.Array:
        params, prompt_PD = step.assemble(module, method, tuned, frozen)
        return step.loss_sums(module, params, prompt_PD, batch, key, run.training.z_loss)["loss_sum"]

    listing = io.StringIO()
    with contextlib.redirect_stdout(listing):
        print_saved_residuals(loss, tuned, frozen, batch, key)
    kept = sum(
        math.prod(int(side) for side in sides.split(",") if side) * int(bits) // 8
        for bits, sides, origin in re.findall(r"^[a-z]+(\d+)\[([\d,]*)\](.*)", listing.getvalue(), re.M)
        if "from the argument" not in origin
    )
    weights = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(frozen))
    chip = CHIPS["NVIDIA H200"]
    return [
        f"| {model} | {prompt} | {chips} | {weights / 1e9:.1f} GB | {kept / chips / 1e9:.1f} GB | "
        f"{flops / chips / 1e12:.1f} | {flops / chips / chip.flops * 1e3:.0f} | "
        f"{rows * chips * chip.flops / flops:.0f} |"
        for chips in (1, 8)
    ]


def matrix_flops(jaxpr: Any, times: int = 1) -> int:
    """Of all products in a traced program, those in a scan as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            sides = [equation.invars[0].aval.shape[axis] for axis in contracted]
            total += 2 * times * equation.outvars[0].aval.size * math.prod(sides)
        runs = times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            total += matrix_flops(inner, runs) if hasattr(inner, "eqns") else 0
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="rows whose name or settings hold this text")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one compilation")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    kept = args.output / "rows.jsonl"
    found = {}
    if kept.exists():
        lines = [json.loads(line) for line in kept.read_text().splitlines()]
        found = {tuple(line["row"]): line for line in lines}
    tables = {"Steps": TABLE, "Meshes": MESHES, "Limits": LIMITS, "Weak scaling": WEAK}
    for row in dict.fromkeys(row for rows in tables.values() for row in rows):
        if row not in found and args.only in " ".join(row):
            found[row] = compiled(row, args.limit)
            if "error" not in found[row]:
                with kept.open("a") as file:
                    file.write(json.dumps(found[row]) + "\n")
            print(shown(found[row]), file=sys.stderr)
    columns = "step, settings, memory a chip, TFLOP, traffic GB, collectives GB, compiler ms, predicted ms, examples/s"
    head = f"| {columns.replace(', ', ' | ')} |"
    for title, rows in tables.items():
        print(f"\n{title}\n\n{head}\n{'|---' * 9}|")
        for row in rows:
            if row in found:
                print(shown(found[row]))
    print("\nH200, by accounting\n")
    print(
        "| model | prompt | chips | weights | kept for backward | TFLOP a chip | ms at 790 TFLOP/s | examples/s |"
    )
    print(f"{'|---' * 8}|")
    for model, prompt in itertools.product(("xxl", "xl"), PROMPTS):
        print("\n".join(accounted(model, prompt)))


if __name__ == "__main__":
    main()
