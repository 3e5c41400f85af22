"""The command of a table of runs: `suite`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from jax_prompts.cli.command import Command
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.errors import ConfigError

if TYPE_CHECKING:
    from jax_prompts.suites.cells import Cell

_LAUNCHERS = ("slurm", "local")


def _suite(args: argparse.Namespace) -> dict[str, Any]:
    suite, _ = resolve(args, "Suite")
    from jax_prompts.suites.cells import cells_of

    def make_run(files: Any, bindings: Any) -> Any:
        return resolve(
            argparse.Namespace(**{**vars(args), "gin_file": files, "bindings": bindings}), "TrainRun"
        )

    def cells_at(directory: str, steps: int) -> list[Cell]:
        at = dataclasses.replace(suite, model_dir=directory)
        return cells_of(at, args.gin_file, [*args.bindings, f"TRAIN_STEPS={steps}"], make_run)

    cells = cells_of(suite, args.gin_file, args.bindings, make_run)
    if suite.budget and args.cells != (1, 1):
        raise ConfigError(
            "--cells and Suite.budget: workers of a search wait for each other; start the same command in each, "
            "without --cells"
        )
    from jax_prompts.suites.halving import choose
    from jax_prompts.suites.suite import finish, run_suite, show

    if args.dry_run:
        return show(suite, cells)
    if args.launcher is not None:
        from jax_prompts.suites.launch import launch

        launch(args.launcher, args.jobs, suite.model_dir, _worker_arguments(), args.launcher_parameters)
        if not suite.budget:
            return finish(suite, cells)
    return choose(suite, cells, cells_at) if suite.budget else run_suite(suite, cells, args.cells)


def _worker_arguments() -> list[str]:
    """This command without what starts workers."""
    own = ("--launcher", "--jobs", "--launcher_parameter")
    kept, skip = [], False
    for argument in sys.argv[1:]:
        name, equals, _ = argument.partition("=")
        if not skip and name not in own:
            kept.append(argument)
        skip = not skip and name in own and not equals
    return kept


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dry_run", action="store_true", help="list the cells with their cost, and check them; run nothing")
    add("--cells", default="1/1", metavar="I/N", help="of N shares of the cells number I alone, from 1")
    add("--launcher", choices=_LAUNCHERS, help="start workers through submitit, and wait for them")
    add("--jobs", type=int, default=1, metavar="N", help="workers that --launcher starts")
    add(
        "--launcher_parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of submitit's executor, such as slurm_partition=gpu; repeatable",
    )


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    number, slash, count = args.cells.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        parser.error(f"--cells {args.cells} is not I/N, a share from 1 to N")
    args.cells = int(number), int(count)
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: start at least one")
    if args.launcher is None and (args.jobs != 1 or args.launcher_parameter):
        parser.error("--jobs and --launcher_parameter need --launcher=slurm or --launcher=local")
    args.launcher_parameters = {}
    for text in args.launcher_parameter:
        name, equals, value = text.partition("=")
        if not (name and equals):
            parser.error(f"--launcher_parameter {text} is not NAME=VALUE")
        args.launcher_parameters[name] = int(value) if value.isdecimal() else value


SUITE = Command(
    "suite",
    "run every cell of a table, and show it beside published numbers",
    _suite,
    _arguments,
    _check,
    reads_gin=True,
    skips_bad_lines=True,
    keeps_programs=True,
)
