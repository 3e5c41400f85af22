"""Commands of a run that gin files describe: `train`, `pretrain`, `eval`, `infer` and `cache`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from jax_prompts.cli.command import Command, named_files, path
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError
from jax_prompts.runs import TrainRun


def _train(args: argparse.Namespace) -> dict[str, Any]:
    run, text = resolve(args, "TrainRun")
    if args.command == "pretrain" and not run.tunes_model:
        raise ConfigError(
            "t5x pretrain trains the whole model, and PROMPT is set; "
            "add --gin_file=gin_configs/runs/pretrain.gin, or use t5x train"
        )
    if args.dry_run:
        from jax_prompts.dry_run import dry_run

        return dry_run(run)
    from jax_prompts.results.end_of_run import end_of_run
    from jax_prompts.train import train

    summary = train(run, text)
    end_of_run(summary, run.model_dir).show()
    return summary


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry_run", action="store_true", help="shapes only: reads no weights and no data")


def _eval(args: argparse.Namespace) -> dict[str, Any]:
    run, text = resolve(args, "EvalRun")
    _warn_of_random(run.model)
    if not any(run.files_by_task.values()):
        _check_bare(run.model)
    from jax_prompts.evaluate import evaluate_run
    from jax_prompts.results.end_of_evaluation import end_of_evaluation

    report = evaluate_run(run, text)
    end_of_evaluation(report, run.output_dir).show()
    return report


def _infer(args: argparse.Namespace) -> dict[str, Any]:
    if args.input is None:
        return _infer_task(args)
    if args.several:
        raise ConfigError(
            "lines of --input are answered by one process: start one, or leave --input out and answer a task's split"
        )
    run, _ = resolve(args, "InferRun")
    _warn_of_random(run.model)
    prompts = _prompts(args.prompt, run.prompt_files)
    if not prompts:
        _check_bare(run.model)
    from jax_prompts.inference.infer import infer_file

    return infer_file(
        run, prompts, args.input, args.output, resume=args.resume, skip_bad_lines=args.skip_bad_lines
    )


def _infer_task(args: argparse.Namespace) -> dict[str, Any]:
    if args.shard_id is not None:
        args.bindings.append(f"InferTaskRun.shard_id={args.shard_id}")
    if args.skip_bad_lines:
        args.bindings.append("SKIP_BAD_LINES=True")
    try:
        run, text = resolve(args, "InferTaskRun")
    except ConfigError as error:
        if "INFER_OUTPUT_DIR" in str(error) and "not set" in str(error):
            raise ConfigError(f"{error}; or, to answer lines, --input=FILE --output=FILE") from error
        raise
    _warn_of_random(run.model)
    prompts = _prompts(args.prompt, run.prompt_files)
    if not prompts:
        _check_bare(run.model)
    from jax_prompts.inference.task_split import infer_task

    return infer_task(run, text, prompts)


def _warn_of_random(model: BaseModel) -> None:
    """Says where what answers has learnt nothing, as nobody may have meant."""
    if model.checkpoint is None:
        from jax_prompts.display import log

        log(
            "warning: INITIAL_CHECKPOINT_PATH (T5X's CHECKPOINT_PATH) is None: the weights that answer are random"
        )


def _check_bare(model: BaseModel) -> None:
    """Raises ConfigError where the bare model is asked, and the checkpoint is one of a model with a prompt."""
    from jax_prompts.interop.t5x_prompt import check_without_prompt

    check_without_prompt(model.checkpoint)


def _prompts(named: dict[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """Files of prompts by name: as `--prompt` has them, or PROMPT_FILES, each by its path."""
    if named and patterns:
        raise ConfigError(
            f"--prompt names {', '.join(named)}, and PROMPT_FILES (T5X's PROMPT_FILE or CHECKPOINT_PATH) is "
            f"{tuple(patterns)!r}: leave one out"
        )
    from jax_prompts.prompts.prompt_paths import prompt_paths

    return named or {file: file for file in prompt_paths("PROMPT_FILES", patterns)}


def _infer_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--prompt", action="append", default=[], metavar="NAME=FILE", help="repeatable")
    add(
        "--input",
        type=path,
        metavar="FILE",
        help="lines of text or JSON; - for stdin; none: the split of a task",
    )
    add("--output", type=path, metavar="FILE", help="JSON lines; - for stdout")
    add("--resume", action="store_true", help="go on behind the answers of a run that ended early")
    add(
        "--skip_bad_lines",
        action="store_true",
        help="an error in place of the answer to each bad line; of a task's files such lines are left out",
    )
    add(
        "--shard_id",
        type=int,
        metavar="I",
        help="of a split: the only shard to make, from 0; all if not given",
    )


def _infer_check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    args.prompt = named_files(args.prompt, parser)
    if (args.input is None) != (args.output is None):
        parser.error(
            "--input and --output go together; without both a task's split is answered, into INFER_OUTPUT_DIR"
        )
    if args.input is None and args.resume:
        parser.error("--resume is of --output: a task's split is gone on with by itself")
    if args.input is not None and args.shard_id is not None:
        parser.error("--shard_id is of a task's split: leave out --input and --output")
    if args.resume and args.output == "-":
        parser.error("--resume needs a file: --output - keeps nothing to go on from")


def _cache(args: argparse.Namespace) -> dict[str, Any]:
    run, _ = resolve(args, "TrainRun", "EvalRun")
    from jax_prompts.base_models.build import make_vocabulary
    from jax_prompts.data.protocols import ROLES
    from jax_prompts.data.roles import open_roles, split_of

    vocabulary = make_vocabulary(run.model)
    roles = ROLES if isinstance(run, TrainRun) else [run.role]
    tasks = [run.data.task] if isinstance(run, TrainRun) else run.files_by_task
    datas = [dataclasses.replace(run.data, task=task) for task in tasks]
    caches = [
        {
            "task": cache.task,
            "split": split_of(data, role),
            "rate": rate,
            "examples": len(cache),
            "bad_lines": cache.bad_lines["count"],
            "cut": cache.cut(),
            "directory": str(cache.directory),
        }
        for data in datas
        for role, found in open_roles(data, vocabulary, roles).items()
        for rate, cache in found
    ]
    return {"caches": caches}


TRAIN = Command(
    "train",
    "tune a prompt on a task",
    _train,
    _train_arguments,
    reads_gin=True,
    skips_bad_lines=True,
    several_processes=True,
    keeps_programs=True,
)
PRETRAIN = Command(
    "pretrain",
    "train every parameter of a model",
    _train,
    _train_arguments,
    reads_gin=True,
    skips_bad_lines=True,
    several_processes=True,
    keeps_programs=True,
)
EVAL = Command(
    "eval",
    "score prompt files on one task or several, each alone and as an ensemble",
    _eval,
    reads_gin=True,
    skips_bad_lines=True,
    several_processes=True,
    keeps_programs=True,
)
INFER = Command(
    "infer",
    "answer lines of text, or a task's split, with one prompt or several",
    _infer,
    _infer_arguments,
    _infer_check,
    reads_gin=True,
    several_processes=True,
    keeps_programs=True,
)
CACHE = Command("cache", "fill the token caches of a run", _cache, reads_gin=True, skips_bad_lines=True)
