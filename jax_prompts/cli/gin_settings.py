"""Makes the settings of a run (`runs.py`) of gin files and flags: the only module that knows gin."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import logging
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from jax_prompts import config, runs
from jax_prompts.cli import t5x_words
from jax_prompts.cli.gin_bindings import bound_to, check_macros, check_set, macros_of, setting_of
from jax_prompts.cli.macros import DEFAULTS, GIN_CONFIGS
from jax_prompts.errors import ConfigError, SettingWarning, first_line, nearest
from jax_prompts.storage.home import with_home

ROOT = GIN_CONFIGS.parent


def resolve(args: argparse.Namespace, *kinds: str) -> tuple[Any, str]:
    """The run that gin files and flags describe, and every setting it uses as the text of one gin file.

    Args:
      args: with `command`, `gin_file`, `bindings`, `gin_search_paths` and `tfds_data_dir`.
      kinds: `TrainRun`, `EvalRun`, `InferRun`, `InferTaskRun`; the first that the files describe is made.

    Raises:
      ConfigError: a file that is not there or cannot be read, a name gin does not know, a macro that is
        misspelt or missing, a value of the wrong type.
    """
    import gin

    register()
    logging.disable(logging.ERROR)  # gin logs every folder in which it did not find a file
    try:
        _read(gin, args)
        kind = next((kind for kind in kinds if bound_to(gin, kind).keys() & _needed(kind)), None)
        if kind is None:
            own = f"gin_configs/runs/{args.command}.gin"
            others = f"gin_configs/runs/{kinds[0].removesuffix('Run').lower()}.gin"
            run_file = own if (ROOT / own).is_file() else others
            raise ConfigError(f"no gin file describes this command's run; add --gin_file={run_file} last")
        _leave_out_prompt(gin)
        check_set(gin, kind)
        with _one_line(gin):
            run = gin.get_configurable(kind)()
        _check_types(gin, run)
        if args.command == "train" and isinstance(run, runs.TrainRun):
            _warn_of_left_out(gin, run)
        text = _resolved_text(gin)
        if getattr(run, "sweep", None) is not None:
            run = _with_variants(gin, run)
    finally:
        logging.disable(logging.NOTSET)
    return run, text


def _check_types(gin: Any, run: Any) -> None:
    from jax_prompts.field_types import type_errors

    for field, value, wanted in type_errors(run):
        raise _wrong_type(setting_of(gin, field), value, wanted)


def _wrong_type(setting: str, value: Any, wanted: str) -> ConfigError:
    shown = " ".join(repr(value).split())[:80]
    return ConfigError(f"{setting} is {shown}: set it to {wanted}")


def _read(gin: Any, args: argparse.Namespace) -> None:
    """Reads defaults, gin files and flags; later ones win."""
    gin.clear_config()
    searched = [with_home(folder) for folder in args.gin_search_paths.split(",") if folder]
    folders = [*searched, os.getcwd(), str(ROOT)]
    gin.config._LOCATION_PREFIXES[:] = folders  # without gin's own "", which looks for Python packages
    gin.config._FILE_READERS[:] = [(_open, os.path.isfile)]
    if not args.gin_file:
        ready = [file for file in _known([]) if file.count("/") == 1 and file != "gin_configs/defaults.gin"]
        raise ConfigError(f"no gin file; give --gin_file=FILE, for example one of {', '.join(ready)}")
    gin.config._CONFIG.update({key: dict(values) for key, values in _defaults(gin).items()})
    documented = set(macros_of(gin))
    for file in args.gin_file:
        if not any(os.path.isfile(os.path.join(folder, file)) for folder in folders):
            raise ConfigError(
                f"gin file {file} is not there; did you mean {nearest(file, _known(searched))}?"
            )
        before = macros_of(gin)
        with _one_line(gin, f"{file}: "):
            gin.parse_config_file(file)
        for name, value in t5x_words.of_file(args.command, file, before, macros_of(gin)).items():
            _bind(gin, name, value)
    flags = t5x_words.of_flags(args.command, args.bindings)
    for binding in flags:
        with _one_line(gin, f"--gin.{binding}: "):
            gin.parse_config(_statement(binding))
    _check_epochs(flags, macros_of(gin))
    documented |= t5x_words.macros_for(args.command)
    t5x_words.check_known(macros_of(gin).keys() - documented)
    if args.tfds_data_dir:
        gin.bind_parameter("Data.tfds_data_dir", args.tfds_data_dir)
    check_macros(gin, documented)


def _check_epochs(flags: Sequence[str], macros: Mapping[str, Any]) -> None:
    """Raises ConfigError for epochs that a flag asks for and steps of a file overrule."""
    asked = any(flag.startswith("TRAIN_EPOCHS=") for flag in flags)
    if asked and macros["TRAIN_EPOCHS"] is not None and macros["TRAIN_STEPS"] is not None:
        raise ConfigError(
            f"TRAIN_STEPS is {macros['TRAIN_STEPS']}, and counts before TRAIN_EPOCHS: add --gin.TRAIN_STEPS=None"
        )


@functools.cache
def _defaults(gin: Any) -> dict[Any, dict[str, Any]]:
    """What the package's defaults bind: read once, for suites make many runs."""
    gin.parse_config_file(str(DEFAULTS))
    return {key: dict(values) for key, values in gin.config._CONFIG.items()}


def _known(folders: list[str]) -> list[str]:
    """The gin files of the package and of folders."""
    known = [str(path.relative_to(ROOT)) for path in sorted(GIN_CONFIGS.rglob("*.gin"))]
    return known + [path.name for folder in folders for path in pathlib.Path(folder).glob("*.gin")]


def _warn_of_left_out(gin: Any, run: runs.TrainRun) -> None:
    """Warns of leaves that have settings and are not tuned: of two files that set TUNED the later one wins."""
    from jax_prompts.tuned import KINDS

    tuned = [type(kind) for kind in run.leaves]
    for kind in KINDS:
        if kind not in tuned and (fields := bound_to(gin, kind.__name__)):
            both = ", ".join(f"@{each.__name__}()" for each in (*tuned, kind))
            value = f"({both})" if tuned else both
            words = (
                f"{kind.__name__}.{next(iter(fields))} is set and TUNED does not have {kind.__name__}: to tune "
                f"{'both' if tuned else 'it'} set TUNED = {value}"
            )
            warnings.warn(words, SettingWarning, stacklevel=2)


_OF_T5X = re.compile(r"^\s*from __gin__ import", re.MULTILINE)  # as files that bind classes of T5X do
_including: list[str] = []  # gin files that are being read, each included by the one before


@contextlib.contextmanager
def _open(file: str) -> Iterator[TextIO]:
    """A gin file, with or without a byte order mark, while gin reads it and what it includes.

    Raises:
      ConfigError: it is included by itself, or written for upstream T5X.
    """
    same = os.path.realpath(file)
    if same in _including:
        way = " includes ".join([*_including[_including.index(same) :], same])
        raise ConfigError(f"{way}: gin files cannot include each other in a circle; take one include out")
    _including.append(same)
    try:
        with open(file, encoding="utf-8-sig") as opened:
            text = opened.read()
        if _OF_T5X.search(text):
            raise ConfigError(
                f"{file} is a gin file for upstream T5X's own programs, such as python -m t5x.train "
                "(docs/upstream_t5x.md), and this is t5x of jax_prompts: leave out `from __gin__ import` and what is "
                "of classes of T5X (docs/configuration.md has the names of their fields)"
            )
        yield io.StringIO(text)
    finally:
        _including.pop()


def _needed(kind: str) -> set[str]:
    """Fields of a run that have no default, which a file that describes one sets; a flag alone may set others."""
    fields = dataclasses.fields(getattr(runs, kind))
    return {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}


_REGISTERED: set[str] = set()


def register() -> None:
    """Makes the settings, methods and initialisers known to gin by their class names, once."""
    import gin

    from jax_prompts import prompts, tuned

    settings = [
        config.BaseModel,
        config.Data,
        config.OwnTask,
        config.PromptDesign,
        config.Optimizer,
        config.Decoding,
        config.Training,
    ]
    whole = [runs.TrainRun, runs.EvalRun, runs.InferRun, runs.InferTaskRun, runs.Suite]
    parts = [*prompts.METHODS, *prompts.INITIALIZERS, *tuned.KINDS]
    for made in (*settings, *whole, *parts):
        if made.__name__ not in _REGISTERED:  # gin refuses a second registration
            gin.external_configurable(_constructor(gin, made, typed=made in parts), name=made.__name__)
            _REGISTERED.add(made.__name__)


def _constructor(gin: Any, made: type, *, typed: bool) -> Any:
    """A plain function that calls a class: gin would subclass it, which a Linen module does not survive.

    With `typed` it checks types of fields; those of a run and its settings are checked where all of it is made.
    """

    def construct(**fields: Any) -> Any:
        if typed:
            from jax_prompts.field_types import field_errors

            for field, value, wanted in field_errors(made, fields):
                raise _wrong_type(setting_of(gin, field), value, wanted)
        # A list of gin's is a tuple: what is static to the compiler is hashed.
        return made(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        )

    unbound = {"parent", "name"} if hasattr(made, "apply") else {"variants"}  # set by code, not by gin
    own = [p for p in inspect.signature(made).parameters.values() if p.name not in unbound]
    construct.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in own])  # type: ignore[attr-defined]
    construct.__name__ = construct.__qualname__ = made.__name__
    return construct


def _statement(binding: str) -> str:
    """`NAME=VALUE` as a line of gin; a value that is none of gin's is taken as a string."""
    name, _, value = binding.partition("=")
    if value.startswith(("@", "%")) or re.match(r"[\[({].*[@%]", value):
        return f"{name} = {value}"
    try:
        literal = repr(ast.literal_eval(value.strip()))
        ast.literal_eval(literal)  # 1e999 is a literal, and what Python shows of it is not
        return f"{name} = {literal}"
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return f"{name} = {value!r}"


def _leave_out_prompt(gin: Any) -> None:
    """Without a word on PROMPT, a run that tunes leaves inside the model has none."""
    macros = macros_of(gin)
    if macros.get("TUNED") is not None and repr(macros["PROMPT"]) == "%gin.REQUIRED":
        for name in ("PROMPT", "INITIALIZER"):
            _bind(gin, name, None)


@contextlib.contextmanager
def _one_line(gin: Any, where: str = "") -> Iterator[None]:
    """Turns what gin raises (ValueError, TypeError, SyntaxError, ...) into a ConfigError of one line."""
    try:
        yield
    except ConfigError as error:  # gin adds lines to what passes through it
        raise ConfigError(first_line(error)) from error
    except Exception as error:
        raise ConfigError(where + _explain(gin, error)) from error


def _explain(gin: Any, error: Exception) -> str:
    """Reason of an error of gin: the field to set, the nearest name, or the line that gin cannot read."""
    if isinstance(error, RecursionError):
        return "a value in it is nested without end"
    text = " ".join(str(error).split())
    text = re.sub(
        r" In call to configurable '(\w+)' \(<.*", r" (in \1)", text
    )  # gin adds addresses of functions
    if isinstance(error, SyntaxError):
        return f"line {error.lineno} is not gin: {error.msg.rstrip('.').lower()}"
    if found := re.search(r"(\w+)\.__init__\(\) missing .* arguments?: '(\w+)'", text):
        recipe = "--gin_file=gin_configs/recipes/lester2021.gin, or " if found[1] == "Optimizer" else ""
        value = "%PROMPT_LENGTH" if found[2] == "length" else "VALUE"
        return (
            f"{found[1]}.{found[2]} is not set; add for example {recipe}--gin.{found[1]}.{found[2]}={value}"
        )
    if found := re.search(r"Configurable '(\w+)' doesn't have a parameter named '(\w+)'", text):
        fields = inspect.signature(gin.get_configurable(found[1])).parameters
        return f"{found[1]} has no field {found[2]}; did you mean {nearest(found[2], fields)}?"
    if found := re.search(r"No configurable matching (?:reference )?'@?([\w./]+)", text):
        likely = nearest(found[1].rpartition(".")[2], _REGISTERED)
        return t5x_words.said_of_class(found[1]) or f"{found[1]} is unknown; did you mean {likely}?"
    if found := re.search(r"Unable to open file: (\S+)\.", text):
        return f"includes {found[1]}, which is not there"
    return text


def _with_variants(gin: Any, run: runs.TrainRun) -> runs.TrainRun:
    """A run with the members of its sweep, each as what gin makes of its settings.

    Raises:
      ConfigError: a sweep that names no setting, or sets some otherwise than members can have them.
    """
    from jax_prompts.sweep import Variant, combinations  # with NumPy: not for --help

    if run.training.members != 1:
        raise ConfigError(
            f"MEMBERS is {run.training.members} and SWEEP is set: leave MEMBERS out, and name the seeds in SWEEP, "
            f"'RANDOM_SEED': {tuple(range(run.training.members))}"
        )
    given = macros_of(gin)["SWEEP"] if "SWEEP" in macros_of(gin) else bound_to(gin, "TrainRun")["sweep"]
    # Not copied deeply: to copy a reference is to call what it refers to.
    bindings, variants = {key: dict(values) for key, values in gin.config._CONFIG.items()}, []
    for settings in combinations(given):
        gin.config._CONFIG.clear()
        gin.config._CONFIG.update({key: dict(values) for key, values in bindings.items()})
        for name, value in {**settings, "TrainRun.sweep": None}.items():
            _bind(gin, name, value)
        with _one_line(gin, "SWEEP: "):
            member = gin.get_configurable("TrainRun")()
            _check_types(gin, member)
        plain = {name: _plain(value) for name, value in settings.items()}
        variants.append(Variant(plain, member))
    training = dataclasses.replace(run.training, members=len(variants))
    return dataclasses.replace(run, training=training, variants=tuple(variants))


def _bind(gin: Any, name: str, value: Any) -> None:
    """Sets a macro or a field of a class; raises ConfigError where there is none of that name."""
    macros = macros_of(gin)
    if name in macros:
        gin.bind_parameter((name, "gin.macro", "value"), value)
        return
    if "." not in str(name):
        raise ConfigError(
            f"SWEEP names {name!r}, which is no macro; did you mean {nearest(str(name), macros)}?"
        )
    with _one_line(gin, "SWEEP: "):
        gin.bind_parameter(name, value)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: what gin refers to is its text."""
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _resolved_text(gin: Any) -> str:
    """Every setting that the run uses, defaults too, a line each."""
    used = gin.config._OPERATIVE_CONFIG.values()
    longest = max(len(repr(value)) for values in used for value in values.values())
    text = gin.operative_config_str(max_line_length=longest + 200)  # each value on one line, with its name
    text = re.sub(r"^# =+\n", "", text, flags=re.MULTILINE)  # underlines as long as the longest line
    # What a macro refers to is made in a scope of the macro's name; without it the text can be overridden.
    return re.sub(r"^((?:# Parameters for )?)[A-Z_]+/", r"\1", text, flags=re.MULTILINE)
