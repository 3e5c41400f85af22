"""Parses the command line: a command, its flags and `--gin.NAME=VALUE`, without any heavy import."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import NoReturn

from jax_prompts.cli.command import Command
from jax_prompts.cli.commands import COMMANDS
from jax_prompts.cli.macros import read_macros
from jax_prompts.errors import nearest, printable

_SETTINGS = (
    "Settings: --gin_file=FILE ... --gin.NAME=VALUE ..., where NAME is a macro of gin_configs/defaults.gin "
    "(MODEL_DIR, MIXTURE_OR_TASK_NAME, ...) or Class.field; later ones win."
)


class _Parser(argparse.ArgumentParser):
    """Flags in full, and one line for a mistake."""

    def __init__(self, **settings) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)} ({self.prog} --help shows the usage)\n")


def parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of a command line: `run` and `keeps_programs` of the command, its name, its flags and `bindings`.

    `bindings` are `NAME=VALUE` of every `--gin.NAME=VALUE`, in order.
    Exits with status 2 and one line on stderr when they make no sense.
    """
    bindings = [arg.removeprefix("--gin.") for arg in argv if arg.startswith("--gin.")]
    rest = [arg for arg in argv if not arg.startswith("--gin.")]
    parser = _Parser(prog="t5x", description="Soft prompts for frozen T5 and BERT models.", epilog=_SETTINGS)
    parsers = _add_commands(parser, "command", COMMANDS)
    if rest and not rest[0].startswith("-") and rest[0] not in parsers:
        parser.error(f"no command {rest[0]}; did you mean {nearest(rest[0], parsers)}?")
    for binding in bindings:
        name, equals, _ = binding.partition("=")
        if not (name and equals):
            parsers.get(" ".join(rest[:1]), parser).error(f"--gin.{binding} is not --gin.NAME=VALUE")
    args, unknown = parser.parse_known_args(rest)
    command, its_parser = args.chosen
    del args.chosen
    if unknown:
        its_parser.error(_unknown(unknown[0], its_parser))
    args.run, args.keeps_programs, args.bindings = command.run, command.keeps_programs, bindings
    command.check_arguments(args, its_parser)
    return args


def _add_commands(parser: _Parser, what: str, commands: Iterable[Command]) -> dict[str, _Parser]:
    """Makes a parser for each command, or `what` it is, and for its actions; those of the commands, by name."""
    subparsers = parser.add_subparsers(dest=what, required=True, metavar=what.upper())
    parsers = {}
    for command in commands:
        parsers[command.name] = own = subparsers.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            epilog=_SETTINGS if command.reads_gin else None,
        )
        if command.actions:
            _add_commands(own, "action", command.actions)
        else:
            command.add_arguments(own)
            own.set_defaults(chosen=(command, own))
    return parsers


def _unknown(argument: str, parser: argparse.ArgumentParser) -> str:
    if argument.endswith(".gin") and not argument.startswith("-"):
        return f"unknown argument {argument}; did you mean --gin_file={argument}?"
    name, equals, value = argument.lstrip("-").partition("=")
    flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    setting = _setting(name, flags) if "--gin_file" in flags else None
    likely = f"--gin.{setting}{equals}{value}" if setting else nearest(argument.partition("=")[0], flags)
    return f"unknown argument {argument}; did you mean {likely}?"


def _setting(name: str, flags: Iterable[str]) -> str | None:
    """The macro or field that a flag without `--gin.` was meant for; None where a flag is more like it."""
    if re.fullmatch(r"[A-Z]\w*\.\w+", name):
        return name
    meant = {macro.name.lower(): macro.name for macro in read_macros()}
    names = [*meant, *(flag.lstrip("-") for flag in flags)]
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.8)
    return meant.get(found[0]) if found and f"--{found[0]}" not in flags else None
