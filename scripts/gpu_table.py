"""The table of H200 in docs/scaling.md: training steps by accounting, since they are not compiled for a GPU.

    JAX_PLATFORMS=cpu python scripts/gpu_table.py

Weights, what JAX keeps for the backward pass, and the products of the traced step at the chip's matrix rate.
"""

from __future__ import annotations

import jax
from scaling_table import SETTINGS, Row

from jax_prompts import partition
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.precompile.accounting import account
from jax_prompts.precompile.chips import CHIPS
from jax_prompts.setup import set_up

SHARE = 0.75  # of a GPU's memory, which JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise
COLUMNS = ("model", "chips", "weights", "kept, any rows", "kept a row", "in all on a chip", "matrix work a chip",
           "at 790 TFLOP/s", "examples/s at most", "rows a chip at most")  # fmt: skip


def main() -> None:
    chip = CHIPS["NVIDIA H200"]
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for model in ("xxl", "xl"):
        run = resolve(parse(["train", *Row(model, "residual", "", {}).flags(SETTINGS)]), "TrainRun")[0]
        found = account(set_up(run, partition.mesh_of(run.model, jax.devices()[:1])))
        fixed = found.weights + found.kept
        for chips in (1, 8):
            rows, seconds = found.rows // chips, found.flops / chips / chip.flops
            cells = (
                model.upper(), f"{chips}", f"{found.weights / 1e9:.1f} GB", f"{found.kept / 1e9:.1f} GB",
                f"{found.kept_a_row / 1e9:.2f} GB", f"{(fixed + rows * found.kept_a_row) / 1e9:.1f} GB",
                f"{found.flops / chips / 1e12:.1f} TFLOP", f"{seconds * 1e3:.0f} ms", f"{found.rows / seconds:.0f}",
                f"{(SHARE * chip.hbm - fixed) // found.kept_a_row:.0f}",
            )  # fmt: skip
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
