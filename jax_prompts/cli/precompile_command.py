"""`t5x precompile`: a run compiled for a TPU slice or for this machine."""

from __future__ import annotations

import argparse
from typing import Any

from jax_prompts.cli.command import Command
from jax_prompts.cli.gin_settings import resolve


def _precompile(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.precompile.chips import check_topology

    if args.topology is not None:
        check_topology(args.topology)  # before JAX is imported
    run, _ = resolve(args, "TrainRun")
    from jax_prompts.precompile.programs import PROGRAMS
    from jax_prompts.precompile.report import precompile

    return precompile(run, args.topology, args.program or PROGRAMS)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topology",
        metavar="NAME",
        help="TPU slice, for example v5e:8x8; without it, this machine",
    )
    parser.add_argument(
        "--program",
        action="append",
        choices=("train", "eval", "decode"),
        help="only this one; repeatable",
    )


PRECOMPILE = Command(
    "precompile",
    "compile a run for a TPU slice without one, or for this machine: does it fit, how fast",
    _precompile,
    _arguments,
    reads_gin=True,
)
