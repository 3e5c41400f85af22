"""The command line `t5x` (also `jax-prompts`).

The last line on stdout is one JSON object; everything else goes to stderr. Exit status: 0 done, 1 failed,
2 wrong usage or configuration, 75 stopped by SIGTERM after saving.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
import warnings
from typing import Any, NoReturn

from jax_prompts.cli.arguments import parse
from jax_prompts.cpu import restart_with_huge_pages
from jax_prompts.distributed.supervisor import one_of_several, supervise
from jax_prompts.errors import ConfigError, Preempted, RunError, SettingWarning, first_line
from jax_prompts.storage import json_text


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits; without `argv`, the one this process was started with."""
    if argv is None:
        restart_with_huge_pages()
    args = parse(sys.argv[1:] if argv is None else argv)
    args.several = False
    warnings.showwarning = _show_warning
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow, where a cache is filled, talks a lot
    try:
        if one_of_several(args):
            supervise(args)
            args.several = True
            from jax_prompts.distributed.processes import joined
        with joined(args) if args.several else contextlib.nullcontext(True) as printing:
            report = args.run(args)
            if printing:
                print(json_text.dumps(report), flush=True)
    except ConfigError as error:
        _fail(args, error, 2)
    except Preempted as error:
        _fail(args, error, 75)
    except KeyboardInterrupt as error:
        _fail(args, error, 130)
    except Exception as error:
        _fail(args, error, 1)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Prints warnings on settings as one line; others, which are about code, with their place in it."""
    if issubclass(category, SettingWarning):
        print(f"t5x: {message}", file=sys.stderr)
    else:
        _shown_by_python(message, category, *where, **more)


_shown_by_python = warnings.showwarning


def _fail(args: argparse.Namespace, error: BaseException, status: int) -> NoReturn:
    if args.debug:
        traceback.print_exception(error)
    reason = first_line(error)
    if not isinstance(error, ConfigError | RunError | Preempted | KeyboardInterrupt):
        reason = f"{type(error).__name__}: {reason} (--debug shows where)"
    if args.several:
        from jax_prompts.distributed.processes import abandon

        abandon(args.command, error, status, reason)
    print(f"t5x {args.command}: {reason}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
