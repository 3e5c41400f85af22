"""`t5x tasks`: lists every task, as a table on stderr and as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jax_prompts.cli.command import Command, path

if TYPE_CHECKING:
    from jax_prompts.display import Cell

_HEADS = (
    "task",
    "family",
    "source",
    "metrics",
    "split",
    "examples",
    "labels",
    "input tokens",
    "target tokens",
)


def _tasks(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.data.task_statistics import describe_tasks, task_names
    from jax_prompts.display import log, print_table

    if args.names:
        names = task_names(args.task, args.family)
        if not args.json:
            for name in names:
                log(name)
        return {"names": names}
    found = describe_tasks(
        args.task,
        args.data_dir,
        args.vocabulary,
        {"inputs": args.inputs_length, "targets": args.targets_length},
        args.family,
    )
    if not args.json:
        mixtures = [
            (name, "", "mixture of", "", "", "", parts, "", "") for name, parts in found["mixtures"].items()
        ]
        print_table(_HEADS, *map(_rows, found["tasks"]), mixtures)
    return found


def _rows(task: dict[str, Any]) -> list[tuple[Cell, ...]]:
    """A row for each split, the first with what holds for all."""
    first = ([task["task"], *task["forms"]], task["family"], task["source"], task["metrics"])
    return [
        (*(4 * ("",) if number else first), split, *_counts(facts, task["labels"]))
        for number, (split, facts) in enumerate(task["splits"].items())
    ]


def _counts(facts: dict[str, Any], labels: Sequence[str] | None) -> tuple[Cell, ...]:
    """The last four columns of a split."""
    if "missing" in facts:
        return ("not available", list(labels or ()), "", "")
    from jax_prompts.data.task_statistics import HIDDEN

    counts, examples = facts["labels"], facts["examples"]
    shares = [f"{label} {100 * count / examples:.1f} %" for label, count in counts.items()]
    if counts.get(HIDDEN) == examples:
        shares = [HIDDEN]
    lengths = [_lengths(**facts[side]) for side in ("inputs", "targets")]
    return (f"{examples:,}", shares, *lengths)


def _lengths(mean: float, p99: int, cut: int | None = None) -> str:
    return f"{mean:.1f}, 99 %: {p99}" + ("" if cut is None else f", {cut:,} cut")


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--task",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only what fits, such as '*rte*'; one that is named in full is counted wherever its data is; repeatable",
    )
    add(
        "--family",
        action="append",
        default=[],
        metavar="NAME",
        help="only tasks of a module of tasks/, such as qa; repeatable",
    )
    add("--names", action="store_true", help="only names, one a line on stderr, and as JSON")
    add("--data_dir", type=path, metavar="DIR", help="official files, to be counted")
    add("--vocabulary", type=path, metavar="FILE", help="SentencePiece model, or bytes, to count with")
    add(
        "--inputs_length",
        type=int,
        metavar="TOKENS",
        help="count the inputs that TASK_FEATURE_LENGTHS would cut",
    )
    add("--targets_length", type=int, metavar="TOKENS", help="the same of the targets")
    add("--json", action="store_true", help="no table, only JSON")


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    for flag in ("inputs_length", "targets_length"):
        length = getattr(args, flag)
        if length is not None and length < 1:
            parser.error(f"--{flag} {length}: a text is cut to at least 1 token")
        if length is not None and args.vocabulary is None:
            parser.error(f"--{flag} is in tokens: add --vocabulary=sentencepiece.model, or asset:micro")
    if args.names and (args.vocabulary or args.data_dir):
        parser.error("--names counts nothing: leave --vocabulary and --data_dir out")


TASKS = Command(
    "tasks",
    "list the tasks: source, splits and sizes, labels, metrics, lengths",
    _tasks,
    _arguments,
    _check,
)
