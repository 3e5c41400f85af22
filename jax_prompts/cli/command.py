"""A command of `t5x` as one small object, and the flags that several commands share."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jax_prompts.errors import ConfigError
from jax_prompts.storage.home import with_home


@dataclasses.dataclass(frozen=True)
class Command:
    """One command, or one action of a command; `commands.py` lists them.

    Attributes:
      name: what is typed.
      help: what it does, in one line.
      run: does it and returns the JSON object that ends stdout; imports what is heavy only then. None: `actions` do.
      arguments: adds its own flags to its parser.
      check: exits through the parser's `error` where its flags make no sense, and may give them another form.
      reads_gin: takes gin files and `--gin.NAME=VALUE`.
      skips_bad_lines: takes `--skip_bad_lines`.
      several_processes: may be one of several processes.
      keeps_programs: takes compiled programs of earlier starts, and keeps its own.
      actions: what is typed after it, each with flags of its own.
    """

    name: str
    help: str
    run: Callable[[argparse.Namespace], dict[str, Any]] | None = None
    arguments: Callable[[argparse.ArgumentParser], None] | None = None
    check: Callable[[argparse.Namespace, argparse.ArgumentParser], None] | None = None
    reads_gin: bool = False
    skips_bad_lines: bool = False
    several_processes: bool = False
    keeps_programs: bool = False
    actions: tuple[Command, ...] = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds shared flags and its own."""
        parser.add_argument("--debug", action="store_true", help="a traceback for every error")
        if self.reads_gin:
            _add_gin(parser)
        if self.skips_bad_lines:
            parser.add_argument(
                "--skip_bad_lines",
                action="store_true",
                help="leave out bad lines of data files, and list them",
            )
        if self.several_processes:
            _add_processes(parser)
        if self.arguments:
            self.arguments(parser)

    def check_arguments(self, args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        """Exits with status 2 and one line on stderr where flags make no sense together."""
        if args.bindings and not self.reads_gin:
            parser.error(f"--gin.{args.bindings[0]} means nothing here")
        if self.skips_bad_lines and args.skip_bad_lines:
            args.bindings.append("SKIP_BAD_LINES=True")
        if self.several_processes:
            _check_processes(args, parser)
        if self.check:
            self.check(args, parser)


def path(text: str) -> str:
    """The type of a flag that names a file or a directory."""
    try:
        return with_home(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def check_output(output: str | None, inputs: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Exits where a file that a command writes is a directory, or one of those that it reads."""
    if output is None:
        return
    if os.path.isdir(output) or output.endswith("/"):  # in a bucket, too
        parser.error(f"--output {output} is a directory: name a file")
    if any(
        os.path.exists(output) and os.path.exists(name) and os.path.samefile(output, name) for name in inputs
    ):
        parser.error(f"--output {output} is read, too: name another file")


def named_files(texts: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, str]:
    """`NAME=FILE` of each text as `{NAME: FILE}`, in order; exits where one is not, or a name comes twice."""
    files: dict[str, str] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            parser.error(f"prompt {text} is not NAME=FILE")
        if name in files:
            parser.error(f"prompt {name} is given twice; use another name for {file}")
        files[name] = with_home(file)
    return files


class _HelpMacros(argparse.Action):
    """Like `--help`: prints the macros and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from jax_prompts.cli.macros import help_text

        try:
            print(help_text(), flush=True)
        except BrokenPipeError:  # `| head` has read enough; what is left would fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        parser.exit()


def _add_gin(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--gin_file", action="append", default=[], type=path, metavar="FILE", help="read in order; later wins"
    )
    add("--gin_search_paths", default="", metavar="DIRS", help="comma-separated, for gin files")
    add("--tfds_data_dir", type=path, metavar="DIR", help="where TFDS keeps its data")
    add("--help_macros", action=_HelpMacros, nargs=0, help="show every macro with its default and exit")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--multiprocess_gpu", action="store_true", help="one of several processes, on any device")
    add("--coordinator_address", metavar="HOST:PORT", help="where process 0 runs, and a free port there")
    add("--process_count", type=int, metavar="N", help="how many processes there are")
    add("--process_index", type=int, metavar="I", help="which of them this is, from 0")
    add(
        "--initialization_timeout",
        type=int,
        default=90,
        metavar="S",
        help="seconds for all to appear, 90 if not given",
    )
    add(
        "--restarts",
        type=int,
        default=0,
        metavar="N",
        help="start again up to N times after a preemption, a failure or a death, to go on from what is saved",
    )


def _check_processes(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    address, count, index = args.coordinator_address, args.process_count, args.process_index
    if count is not None and count < 1:
        parser.error(f"--process_count {count}: there is at least one process")
    if index is not None and index < 0:
        parser.error(f"--process_index {index}: processes are numbered from 0")
    if index is not None and count is not None and index >= count:
        parser.error(f"--process_index {index}: {count} processes are numbered 0 to {count - 1}")
    host, _, port = (address or "HOST:1").rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        parser.error(f"--coordinator_address {address} is not HOST:PORT, with a port from 1 to 65535")
    if args.initialization_timeout < 1:
        parser.error(f"--initialization_timeout {args.initialization_timeout}: give seconds, at least 1")
    if args.restarts < 0:
        parser.error(f"--restarts {args.restarts}: give how many starts may follow the first, at least 0")
