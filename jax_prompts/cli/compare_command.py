"""`t5x compare`: runs, suites and evaluations side by side, as tables on stderr and as JSON."""

from __future__ import annotations

import argparse
from typing import Any

from jax_prompts.cli.command import Command, path


def _compare(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.cli.compare_tables import show
    from jax_prompts.results.brought import on_this_machine
    from jax_prompts.results.comparison import compare
    from jax_prompts.results.find import find

    with on_this_machine(args.directories) as places:
        directories = [find([directory]) for directory in places]
        comparison = compare(directories, sort=args.sort, limit=args.limit, pairs=args.pairs)
    if not args.json:
        show(comparison, args.limit)
    return comparison


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "directories", nargs="+", type=path, metavar="DIR", help="of runs, suites, evaluations, or above some"
    )
    add("--pairs", action="store_true", help="test every pair, not only each with the first that is named")
    add(
        "--sort",
        default="score",
        metavar="NAME",
        help="score, test, seconds, parameters, name, given, or a setting such as LEARNING_RATE",
    )
    add(
        "--limit",
        type=int,
        default=50,
        metavar="N",
        help="of each task show and test the first N, 50 if not given",
    )
    add("--json", action="store_true", help="no tables, only JSON")


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if args.limit < 1:
        parser.error(f"--limit {args.limit}: show at least one")


COMPARE = Command(
    "compare",
    "show runs, suites and evaluations side by side, and whether they differ",
    _compare,
    _arguments,
    _check,
)
