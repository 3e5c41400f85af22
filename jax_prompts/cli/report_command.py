"""The command of pictures: `report`."""

from __future__ import annotations

import argparse
from typing import Any

from jax_prompts.cli.command import Command, check_output, path


def _report(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.report.report import make_report
    from jax_prompts.results.brought import on_this_machine

    with on_this_machine(args.paths) as places:
        return make_report(places, args.output, args.figures)


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", type=path, metavar="DIR", help="runs, suites, evaluations, prompt or study files")
    add(
        "--output",
        type=path,
        default="report.html",
        metavar="FILE",
        help="the page; report.html if not given",
    )
    add("--figures", type=path, metavar="DIR", help="each figure as PNG and SVG, too")


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    check_output(args.output, args.paths, parser)


REPORT = Command(
    "report",
    "show runs, suites, prompts and studies as pictures in one offline page",
    _report,
    _arguments,
    _check,
)
