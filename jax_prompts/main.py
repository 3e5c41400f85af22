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

from jax_prompts import config
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.cpu import restart_with_huge_pages
from jax_prompts.distributed.supervisor import several, supervise
from jax_prompts.errors import ConfigError, Preempted, RunError, SettingWarning
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
        if several(args):
            supervise(args)
            args.several = True
            from jax_prompts.distributed.processes import joined
        with joined(args) if args.several else contextlib.nullcontext(True) as printing:
            report = _COMMANDS[args.command](args)
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
    """Warnings on settings as one line; others, which are about code, with their place in it."""
    if issubclass(category, SettingWarning):
        print(f"t5x: {message}", file=sys.stderr)
    else:
        _shown_by_python(message, category, *where, **more)


_shown_by_python = warnings.showwarning


def _fail(args: argparse.Namespace, error: BaseException, status: int) -> NoReturn:
    if args.debug:
        traceback.print_exception(error)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not isinstance(error, ConfigError | RunError | Preempted | KeyboardInterrupt):
        reason = f"{type(error).__name__}: {reason} (--debug shows where)"
    if args.several:
        from jax_prompts.distributed.processes import abandon

        abandon(args.command, error, status, reason)
    print(f"t5x {args.command}: {reason}", file=sys.stderr)
    sys.exit(status)


def _train(args: argparse.Namespace) -> dict[str, Any]:
    run, text = resolve(args, "TrainRun")
    if args.command == "pretrain" and run.method is not None:
        raise ConfigError(
            "t5x pretrain trains the whole model, and PROMPT is set; "
            "add --gin_file=gin_configs/runs/pretrain.gin, or use t5x train"
        )
    if args.dry_run:
        from jax_prompts.dry_run import dry_run

        return dry_run(run)
    from jax_prompts.train import train

    return train(run, text)


def _eval(args: argparse.Namespace) -> dict[str, Any]:
    run, text = resolve(args, "EvalRun")
    from jax_prompts.evaluate import evaluate_run

    return evaluate_run(run, text)


def _infer(args: argparse.Namespace) -> dict[str, Any]:
    run, _ = resolve(args, "InferRun")
    from jax_prompts.inference.infer import infer_file

    return infer_file(run, args.prompt, args.input, args.output)


def _cache(args: argparse.Namespace) -> dict[str, Any]:
    run, _ = resolve(args, "TrainRun", "EvalRun")
    from jax_prompts.base_models.build import make_vocabulary
    from jax_prompts.data.protocols import ROLES
    from jax_prompts.data.roles import open_roles, split_of

    vocabulary = make_vocabulary(run.model)
    roles = ROLES if isinstance(run, config.TrainRun) else [run.role]
    caches = [
        {
            "task": cache.task,
            "split": split_of(run.data, role),
            "rate": rate,
            "examples": len(cache),
            "bad_lines": cache.bad_lines["count"],
            "directory": str(cache.directory),
        }
        for role, found in open_roles(run.data, vocabulary, roles).items()
        for rate, cache in found
    ]
    return {"caches": caches}


def _precompile(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.precompile.chips import check_topology

    if args.topology is not None:
        check_topology(args.topology)  # before JAX is imported
    run, _ = resolve(args, "TrainRun")
    from jax_prompts.precompile.programs import PROGRAMS
    from jax_prompts.precompile.report import precompile

    return precompile(run, args.topology, args.program or PROGRAMS)


def _convert(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.interop.exchange import convert_prompt, is_prompt

    prompt = is_prompt(args.source, args.target)
    unused = ("--vocabulary", args.vocabulary) if prompt else ("--prompt_only", args.prompt_only)
    if unused[1]:
        raise ConfigError(f"{unused[0]} says nothing of a {'prompt' if prompt else 'model'}: leave it out")
    if prompt:
        return convert_prompt(args.source, args.target, prompt_only=args.prompt_only)
    from jax_prompts.base_models.convert import convert_model

    return convert_model(args.source, args.target, args.vocabulary)


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.interop.exchange import export_prompt

    return export_prompt(
        args.file, args.target, to=args.to, base_model=args.base_model, unfolded=args.unfolded
    )


def _inspect(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.cli.inspection import describe

    return describe(args.path)


def _store(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.cli.store_command import run

    return run(args)


def _tasks(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.data.task_table import describe_tasks, show

    found = describe_tasks(args.task, args.data_dir, args.vocabulary)
    if not args.json:
        show(found)
    return found


_COMMANDS = {
    "train": _train,
    "pretrain": _train,
    "eval": _eval,
    "infer": _infer,
    "cache": _cache,
    "precompile": _precompile,
    "convert": _convert,
    "export": _export,
    "inspect": _inspect,
    "store": _store,
    "tasks": _tasks,
}


if __name__ == "__main__":
    main()
