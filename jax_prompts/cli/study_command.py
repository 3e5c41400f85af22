"""`t5x study` and its actions: a table on stderr for the reader, numbers for scripts and for `t5x report`."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

from jax_prompts.cli.command import Command, check_output, path
from jax_prompts.cli.gin_settings import resolve

_PATHS = "prompt file, URL, MODEL_DIR, or a directory above some"
_MOST_NEIGHBOURS = 100
_MICRO = "for example --gin_file=gin_configs/models/micro.gin"


def _study(
    make: Callable[[argparse.Namespace], dict[str, Any]],
) -> Callable[[argparse.Namespace], dict[str, Any]]:
    """The action of a study: makes it, writes it where `--output` says, and shows it."""

    def run(args: argparse.Namespace) -> dict[str, Any]:
        from jax_prompts.storage import files, json_text
        from jax_prompts.storage.directories import check_possible
        from jax_prompts.studies.tables import show

        if args.output is not None and isinstance(place := files.place_of(args.output), pathlib.Path):
            with files.write_errors(args.output):  # before what may take hours
                check_possible(place.parent)
        from jax_prompts.results.brought import on_this_machine

        with on_this_machine(getattr(args, "paths", ()), folders_alone=True) as places:
            study = make(argparse.Namespace(**{**vars(args), "paths": places}))
        if args.output is not None:
            with files.write_errors(args.output):
                files.write(args.output, json_text.dumps(study, indent=1) + "\n")
        show(study)
        return study

    return run


def _neighbours(args: argparse.Namespace) -> dict[str, Any]:
    base, _ = resolve(args, "BaseModel")
    from jax_prompts.studies.neighbours import neighbours

    options = {name: getattr(args, name) for name in ("k", "seed", "texts", "fields", "background")}
    return neighbours(args.paths, base, **options)


def _similarity(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.results.brought import on_this_machine
    from jax_prompts.studies.similarity import similarity

    with on_this_machine([args.target] if args.target else [], folders_alone=True) as targets:
        return similarity(args.paths, *targets)


def _transfer(args: argparse.Namespace) -> dict[str, Any]:
    run, text = resolve(args, "EvalRun")
    from jax_prompts.studies.transfer import transfer

    return transfer(run, text)


def _copies(args: argparse.Namespace) -> dict[str, Any]:
    run, _ = resolve(args, "EvalRun")
    from jax_prompts.studies.copies import LENGTHS, copies

    return copies(run, args.copies or LENGTHS, args.position)


def _rank(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.studies.rank import rank

    return rank(args.paths)


def _norms(args: argparse.Namespace) -> dict[str, Any]:
    base = resolve(args, "BaseModel")[0] if args.gin_file or args.bindings else None
    from jax_prompts.studies.norms import norms

    return norms(args.paths, base)


def _convergence(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.studies.convergence import convergence

    return convergence(args.paths, args.within)


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.studies.parameters import parameters

    return parameters(args.length or (100,))


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=path, metavar="FILE.json", help="keep the JSON object, for t5x report"
    )


def _paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=path, metavar="PROMPT_OR_DIR", help=_PATHS)
    _output(parser)


def _similarity_arguments(parser: argparse.ArgumentParser) -> None:
    _paths(parser)
    help = "rank the others by how like they are to this prompt: sources to start from"
    parser.add_argument("--target", type=path, metavar="PROMPT_OR_DIR", help=help)


def _check_output(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    check_output(args.output, getattr(args, "paths", ()), parser)


def _neighbours_arguments(parser: argparse.ArgumentParser) -> None:
    _paths(parser)
    add = parser.add_argument
    add("--k", type=int, default=5, metavar="N", help="neighbours of each vector, 5 if not given")
    add("--seed", type=int, default=0, metavar="N", help="of the random vectors beside")
    add(
        "--texts",
        type=path,
        metavar="FILE",
        help="the task's texts, by line or in .jsonl: which words are typical",
    )
    help = "of objects in .jsonl; repeatable; all if not given"
    add("--field", dest="fields", action="append", default=[], metavar="NAME", help=help)
    add("--background", type=path, metavar="FILE", help="general text; else the vocabulary's own frequencies")


def _neighbours_check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    _check_output(args, parser)
    if not 1 <= args.k <= _MOST_NEIGHBOURS:
        parser.error(f"--k {args.k}: look at 1 to {_MOST_NEIGHBOURS} neighbours")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: a seed is at least 0")
    if args.background is not None and args.texts is None:
        parser.error("--background is compared with the task's texts: add --texts=FILE")


def _copies_arguments(parser: argparse.ArgumentParser) -> None:
    _output(parser)
    add = parser.add_argument
    add(
        "--copies", action="append", type=int, metavar="L", help="how often; repeatable; 1 to 10 if not given"
    )
    add("--position", action="append", type=int, metavar="I", help="from 0; repeatable; all if not given")


def _convergence_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=path, metavar="DIR", help="MODEL_DIR, or a directory above some"
    )
    _output(parser)
    parser.add_argument(
        "--within", type=float, default=1.0, metavar="PERCENT", help="of the best, 1 if not given"
    )


def _parameters_arguments(parser: argparse.ArgumentParser) -> None:
    _output(parser)
    help = "virtual tokens; repeatable; 100 if not given"
    parser.add_argument("--length", action="append", type=int, metavar="P", help=help)


STUDY = Command(
    "study",
    "numbers about prompts and runs: the analyses of the papers",
    actions=(
        Command(
            "neighbours",
            f"the words nearest to each vector of prompts of a base model, {_MICRO}",
            _study(_neighbours),
            _neighbours_arguments,
            _neighbours_check,
            reads_gin=True,
        ),
        Command(
            "similarity",
            "cosines within prompts and between them; which are most like another",
            _study(_similarity),
            _similarity_arguments,
            _check_output,
        ),
        Command(
            "transfer",
            "every prompt on every task, by --gin.PROMPT_FILES=\"{'TASK': ('FILE',), ...}\"",
            _study(_transfer),
            _output,
            _check_output,
            reads_gin=True,
            skips_bad_lines=True,
            keeps_programs=True,
        ),
        Command(
            "copies",
            "each position of one prompt alone, copied L times, on a task",
            _study(_copies),
            _copies_arguments,
            _check_output,
            reads_gin=True,
            skips_bad_lines=True,
            keeps_programs=True,
        ),
        Command(
            "rank",
            "singular values and ranks, of runs over training, too",
            _study(_rank),
            _paths,
            _check_output,
        ),
        Command(
            "norms",
            f"norms at every step and position; with a base model, {_MICRO}, beside its own",
            _study(_norms),
            _paths,
            _check_output,
            reads_gin=True,
        ),
        Command(
            "convergence",
            "steps and seconds until runs are near their best",
            _study(_convergence),
            _convergence_arguments,
            _check_output,
        ),
        Command(
            "parameters",
            "tuned parameters of every method on every size of T5, without weights",
            _study(_parameters),
            _parameters_arguments,
            _check_output,
        ),
    ),
)
