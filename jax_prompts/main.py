"""The command line `t5x` (also `jax-prompts`), and the only file that knows gin.

The last line on stdout is one JSON object; everything else goes to stderr. Exit status: 0 done, 1 failed,
2 wrong usage or configuration, 75 stopped by SIGTERM after saving.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import logging
import os
import pathlib
import re
import sys
from typing import Any

from jax_prompts import config
from jax_prompts.config import ConfigError, Preempted, RunError, nearest

ROOT = pathlib.Path(__file__).parent.parent  # holds gin_configs/, in a checkout and when installed
DEFAULTS = "gin_configs/defaults.gin"


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow, where a cache is filled, talks a lot
    try:
        print(json.dumps(_COMMANDS[args.command](args)), flush=True)
    except ConfigError as error:
        _fail(args, error, 2)
    except Preempted as error:
        _fail(args, error, 75)
    except KeyboardInterrupt as error:
        _fail(args, error, 130)
    except Exception as error:
        _fail(args, error, 1)


def _fail(args: argparse.Namespace, error: BaseException, status: int) -> None:
    if args.debug:
        raise error
    known = isinstance(error, ConfigError | RunError | Preempted)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = reason if known else f"{type(error).__name__}: {reason} (--debug shows where)"
    print(f"t5x {args.command}: {text}", file=sys.stderr)
    sys.exit(status)


def _parse(argv: list[str]) -> argparse.Namespace:
    gin_flags = [arg for arg in argv if arg.startswith("--gin.")]
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--gin_file", action="append", default=[], metavar="FILE", help="read in order; later wins"
    )
    shared.add_argument(
        "--gin_search_paths", default="", metavar="DIRS", help="comma-separated, for gin files"
    )
    shared.add_argument("--tfds_data_dir", metavar="DIR", help="where TFDS keeps its data")
    shared.add_argument("--debug", action="store_true", help="a traceback for every error")
    parser = argparse.ArgumentParser(
        prog="t5x",
        description="Soft prompts for frozen T5 models. Settings: --gin_file=FILE ... --gin.NAME=VALUE ...",
        epilog="NAME is a macro of gin_configs/defaults.gin (MODEL_DIR, MIXTURE_OR_TASK_NAME, ...) or Class.field.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in {
        "train": "tune a prompt on a task",
        "pretrain": "train every parameter of a model",
        "eval": "score prompt files on a task, each alone and as an ensemble",
        "infer": "answer lines of text with one prompt or several",
        "cache": "fill the token caches of a run",
        "inspect": "describe a prompt file, a model or a MODEL_DIR",
    }.items():
        command = commands.add_parser(name, help=text, description=text, parents=[shared])
        if name in ("train", "pretrain"):
            command.add_argument(
                "--dry_run", action="store_true", help="shapes only: reads no weights and no data"
            )
        if name == "infer":
            command.add_argument(
                "--prompt", action="append", default=[], metavar="NAME=FILE", help="repeatable"
            )
            command.add_argument("--input", required=True, help="lines of text or JSON; - for stdin")
            command.add_argument("--output", required=True, help="JSON lines; - for stdout")
        if name == "inspect":
            command.add_argument("path", metavar="PATH")
    args = parser.parse_args([arg for arg in argv if arg not in gin_flags])
    args.bindings = [flag.removeprefix("--gin.") for flag in gin_flags]
    return args


def _train(args: argparse.Namespace) -> dict[str, Any]:
    run, text = resolve("TrainRun", args)
    from jax_prompts import train

    if args.command == "pretrain" and run.method is not None:
        raise ConfigError("t5x pretrain trains the whole model; leave the prompt out, or use t5x train")
    return train.dry_run(run) if args.dry_run else train.train(run, text)


def _eval(args: argparse.Namespace) -> dict[str, Any]:
    run, _ = resolve("EvalRun", args)
    from jax_prompts.evaluate import evaluate_run

    return evaluate_run(run)


def _infer(args: argparse.Namespace) -> dict[str, Any]:
    prompts = dict(_named_prompt(text) for text in args.prompt)
    run, _ = resolve("InferRun", args)
    from jax_prompts.infer import infer_file

    return infer_file(run, prompts, args.input, args.output)


def _named_prompt(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise ConfigError(f"--prompt {text} is not NAME=FILE")
    return name, file


def _cache(args: argparse.Namespace) -> dict[str, Any]:
    run, _ = resolve("TrainRun", args)
    from jax_prompts.data.cache import open_caches
    from jax_prompts.data.vocabulary import Vocabulary

    vocabulary = Vocabulary(run.model.vocabulary)
    caches = [
        {
            "task": cache.task,
            "split": split,
            "rate": rate,
            "examples": len(cache),
            "directory": str(cache.directory),
        }
        for split in (run.data.train_split, run.data.eval_split)
        for rate, cache in open_caches(run.data, split, vocabulary)
    ]
    return {"caches": caches}


def _inspect(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.inspection import describe

    return describe(args.path)


_COMMANDS = {
    "train": _train,
    "pretrain": _train,
    "eval": _eval,
    "infer": _infer,
    "cache": _cache,
    "inspect": _inspect,
}


def resolve(kind: str, args: argparse.Namespace) -> tuple[Any, str]:
    """The run that gin files and flags describe, and the whole configuration as text.

    Args:
      kind: `TrainRun`, `EvalRun` or `InferRun`.
      args: with `gin_file`, `bindings`, `gin_search_paths` and `tfds_data_dir`.

    Raises:
      ConfigError: a file that is not there, a name gin does not know, a macro that is misspelt or missing.
    """
    import gin

    _register(gin)
    gin.clear_config()
    folders = [*filter(None, args.gin_search_paths.split(",")), os.getcwd(), str(ROOT)]
    gin.config._LOCATION_PREFIXES[:] = folders  # without gin's own "", which looks for Python packages
    if not args.gin_file:
        raise ConfigError(f"no gin file; give --gin_file=FILE, for example one of {', '.join(_ready(ROOT))}")
    for file in args.gin_file:
        if not any((pathlib.Path(folder) / file).is_file() for folder in folders):
            known = [str(path.relative_to(ROOT)) for path in (ROOT / "gin_configs").rglob("*.gin")]
            raise ConfigError(f"gin file {file} is not there; did you mean {nearest(file, known)}?")
    logging.disable(logging.ERROR)  # gin logs every folder in which it did not find a file
    try:
        gin.parse_config_file(DEFAULTS)
        documented = set(_macros(gin))
        for file in args.gin_file:
            gin.parse_config_file(file)
        for binding in args.bindings:
            gin.parse_config(_binding(gin, binding))
        if args.tfds_data_dir:
            gin.bind_parameter("Data.tfds_data_dir", args.tfds_data_dir)
        _check_macros(gin, documented)
        run = gin.get_configurable(kind)()
        _check_complete(gin, run)
    except ConfigError as error:  # gin adds lines to what passes through it
        raise ConfigError(str(error).splitlines()[0]) from error
    except (
        Exception
    ) as error:  # gin raises what it likes: ValueError, TypeError, SyntaxError, AttributeError, ...
        raise ConfigError(_explain(gin, error)) from error
    finally:
        logging.disable(logging.NOTSET)
    return run, gin.config_str()


_NAMES: set[str] = set()  # of what gin can make


def _register(gin: Any) -> None:
    """Makes the settings, methods and initialisers known to gin by their class names."""
    from jax_prompts import prompts

    settings = [config.BaseModel, config.Data, config.Optimizer, config.Decoding, config.Training]
    runs = [config.TrainRun, config.EvalRun, config.InferRun]
    methods = [prompts.PromptTuning, prompts.Residual]
    starts = [prompts.Uniform, prompts.SampledVocabulary, prompts.ClassLabels, prompts.Text, prompts.FromFile]
    for made in (*settings, *runs, *methods, *starts):
        _NAMES.add(made.__name__)
        if made.__name__ not in gin.config._REGISTRY:
            gin.external_configurable(_constructor(made), name=made.__name__)


def _constructor(made: type) -> Any:
    """A plain function that calls a class: gin would subclass it, which a Linen module does not survive."""

    def construct(**fields: Any) -> Any:
        return made(**fields)

    linen = {"parent", "name"} if hasattr(made, "apply") else set()
    own = [p for p in inspect.signature(made).parameters.values() if p.name not in linen]
    construct.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in own])  # type: ignore[attr-defined]
    construct.__name__ = made.__name__
    return construct


def _binding(gin: Any, text: str) -> str:
    """`NAME=VALUE` as gin writes it; a value that is no gin value is taken as a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--gin.{text} has no value; write --gin.{name}=VALUE")
    if value.startswith(("@", "%")):
        return f"{name} = {value}"
    try:
        gin.config.parse_value(value)
        return f"{name} = {value}"
    except Exception:
        return f"{name} = {value!r}"


def _macros(gin: Any) -> dict[str, Any]:
    """Every macro that is defined, with its value."""
    return {
        scope: values.get("value")
        for (scope, selector), values in gin.config._CONFIG.items()
        if selector == "gin.macro"
    }


def _used_macros(value: Any) -> set[str]:
    """Names of the macros a bound value refers to."""
    if isinstance(value, dict):
        return set().union(*map(_used_macros, value.values()), *map(_used_macros, value.keys()))
    if isinstance(value, list | tuple):
        return set().union(*map(_used_macros, value))
    scoped = getattr(value, "config_key", None)
    return {scoped[0]} if scoped and scoped[1] == "gin.macro" else set()


def _check_macros(gin: Any, documented: set[str]) -> None:
    """gin ignores a macro that nothing uses and fails late on one that is missing; say so here."""
    defined = _macros(gin)
    used = set().union(*(_used_macros(values) for values in gin.config._CONFIG.values()))
    for name in sorted(set(defined) - used - documented):
        raise ConfigError(f"macro {name} is unknown; did you mean {nearest(name, documented | used)}?")
    for name in sorted(used - set(defined)):
        raise ConfigError(f"macro {name} is used but has no value; set it, for example --gin.{name}=VALUE")


def _check_complete(gin: Any, made: Any) -> None:
    """Raises ConfigError for a field whose macro still waits for a value."""
    bound = {selector: values for (_, selector), values in gin.config._CONFIG.items()}
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        if value is gin.REQUIRED:
            macros = _used_macros(bound.get(type(made).__name__, {}).get(field.name))
            name = macros.pop() if macros else f"{type(made).__name__}.{field.name}"
            raise ConfigError(f"{name} is not set; add a gin file that sets it, or --gin.{name}=VALUE")
        if dataclasses.is_dataclass(value):
            _check_complete(gin, value)


def _explain(gin: Any, error: Exception) -> str:
    """gin's error in one line: the macro or field to set, or the nearest name."""
    text = " ".join(str(error).split())
    if found := re.search(r"(\w+)\.__init__\(\) missing .* argument:? '(\w+)'", text):
        return f"{found[1]}.{found[2]} is not set; add a recipe, or --gin.{found[1]}.{found[2]}=VALUE"
    if found := re.search(r"Configurable '(\w+)' doesn't have a parameter named '(\w+)'", text):
        fields = inspect.signature(gin.get_configurable(found[1])).parameters
        return f"{found[1]} has no field {found[2]}; did you mean {nearest(found[2], fields)}?"
    if found := re.search(r"No configurable matching '([\w.]+)'", text):
        return f"{found[1]} is unknown; did you mean {nearest(found[1], _NAMES)}?"
    return text


def _ready(root: pathlib.Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for path in (root / "gin_configs").glob("*.gin")
        if path.name != "defaults.gin"
    )


if __name__ == "__main__":
    main()
