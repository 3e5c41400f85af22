"""The command line `t5x` (also `jax-prompts`).

The last line on stdout is one JSON object; everything else goes to stderr. Exit status: 0 done, 1 failed,
2 wrong usage or configuration, 75 stopped by SIGTERM or Ctrl-C after saving, 130 by Ctrl-C at any other moment.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import traceback
import warnings
from typing import Any, NoReturn

from jax_prompts import interrupts
from jax_prompts.cpu import restart_with_huge_pages
from jax_prompts.errors import (
    ConfigError,
    Preempted,
    RunError,
    SettingWarning,
    first_line,
    is_out_of_memory,
    printable,
    system_reason,
)

_STOPPED = "stopped by Ctrl-C"


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits; without `argv`, the one this process was started with."""
    args, interrupted = argparse.Namespace(command="", debug=False, several=False), threading.Event()

    def end_now() -> None:
        _say(args, _STOPPED)
        _end(130)

    try:
        if argv is None:
            interrupts.hold()
            restart_with_huge_pages()
        from jax_prompts.cli.arguments import parse
        from jax_prompts.distributed.restarts import start_again
        from jax_prompts.distributed.supervisor import one_of_several, supervise

        args = parse(sys.argv[1:] if argv is None else argv)
        args.several = False
        if argv is None and args.keeps_programs:
            from jax_prompts.compiled import keep_programs

            keep_programs()
        if argv is None and getattr(args, "restarts", False):
            start_again(args)
        if one_of_several(args):
            supervise(args)
            args.several = True
        with interrupts.obeyed(interrupted, end_now):
            _run(args)
    except SystemExit:
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        status = _fail(args, KeyboardInterrupt() if interrupted.is_set() else error)
        if status == 130 and argv is None:
            _end(status)  # without waiting for threads of libraries
        sys.exit(status)


def _run(args: argparse.Namespace) -> None:
    from jax_prompts.storage import json_text

    warnings.showwarning = _show_warning
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow, where a cache is filled, talks a lot
    if args.several:
        from jax_prompts.distributed.processes import joined
    with joined(args) if args.several else contextlib.nullcontext(True) as printing:
        try:
            report = args.run(args)
        except SystemExit as error:  # nothing of this project ends a command so
            reason = (
                f"code of a task's module ended the program (exit status {error.code}): let it raise an error"
            )
            raise RunError(reason) from error
        if printing:
            _print(json_text.report(report))


def _print(line: str) -> None:
    """Ends stdout with a line, unless a reader such as `head` has had enough.

    Raises:
      RunError: stdout cannot be written.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # what is left would fail again at exit
        if not isinstance(error, BrokenPipeError):
            raise RunError(f"stdout cannot be written: {system_reason(error)}") from error


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Prints warnings on settings and files as one line; others, which are about code, with their place in it."""
    from jax_prompts.compiled import warning_of

    if line := str(message) if issubclass(category, SettingWarning) else warning_of(message):
        print(f"t5x: {printable(line)}", file=sys.stderr)
    else:
        _shown_by_python(message, category, *where, **more)


_shown_by_python = warnings.showwarning


def _fail(args: argparse.Namespace, error: BaseException) -> int:
    """Says why the command failed, to other processes, too; returns the exit status."""
    if args.debug:
        for line in "".join(traceback.format_exception(error)).split("\n"):
            print(printable(line), file=sys.stderr)
    reason, status = printable(first_line(error)), 1
    if isinstance(error, KeyboardInterrupt):
        reason, status = _STOPPED, 130
    elif isinstance(error, Preempted):
        status = 75
    elif isinstance(error, ConfigError):
        status = 2
    elif is_out_of_memory(error):
        reason = f"memory is too small ({reason}): lower BATCH_SIZE, EVAL_BATCH_SIZE, MEMBERS or TASK_FEATURE_LENGTHS"
    elif not isinstance(error, RunError):
        reason = f"{type(error).__name__}: {reason} (--debug shows where)"
    if args.several:
        from jax_prompts.distributed.processes import abandon

        abandon(args.command, error, status, reason)
    _say(args, reason)
    return status


def _say(args: argparse.Namespace, reason: str) -> None:
    print(f"{f't5x {args.command}'.strip()}: {reason}", file=sys.stderr)


def _end(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
