"""Commands of models and prompts as files: `convert` brings them in, `export` takes them out, `inspect` looks."""

from __future__ import annotations

import argparse
from typing import Any

from jax_prompts.cli.command import Command, path
from jax_prompts.errors import ConfigError


def _convert(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.interop.exchange import convert_prompt, is_prompt

    prompt = is_prompt(args.source, args.target)
    flags = ("vocabulary", "weight_dtype") if prompt else ("prompt_only", "task")
    for flag in flags:
        if getattr(args, flag) not in (None, False):
            raise ConfigError(f"--{flag} says nothing of a {'prompt' if prompt else 'model'}: leave it out")
    if prompt:
        return convert_prompt(args.source, args.target, prompt_only=args.prompt_only, task=args.task)
    from jax_prompts.base_models.convert import convert_model

    return convert_model(args.source, args.target, args.vocabulary, args.weight_dtype)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source",
        type=path,
        metavar="SOURCE",
        help="model: directory, gs://, hf://ORGANISATION/NAME or asset:NAME; "
        "prompt: PEFT's or AdapterHub's adapter folder, NumPy array or T5X checkpoint",
    )
    add("target", type=path, metavar="TARGET", help="model: directory to write; prompt: NEW.safetensors")
    add("--vocabulary", type=path, metavar="FILE", help="model: in place of the one beside SOURCE")
    add(
        "--weight_dtype",
        choices=("int8", "int4"),
        help="model: quantise kernels of layers; the rest is bfloat16",
    )
    add("--prompt_only", action="store_true", help="prompt: without what was tuned beside it")
    help = "prompt: of a PEFT adapter for several tasks, from 0"
    add("--task", type=int, metavar="NUMBER", help=help)


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.interop.exchange import export_prompt

    return export_prompt(
        args.file, args.target, to=args.to, base_model=args.base_model, unfolded=args.unfolded
    )


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=path, metavar="PROMPT", help="prompt file")
    add("target", type=path, metavar="TARGET", help="directory (peft, t5x, model) or file (npy)")
    add(
        "--to",
        required=True,
        choices=("peft", "npy", "t5x", "model"),
        help="the other system's format; model: LoRA or IA3 merged into weights",
    )
    add(
        "--base_model",
        type=path,
        metavar="NAME",
        help="peft: Hugging Face name or folder; t5x: the model to prompt; model: whose weights take what was tuned",
    )
    add(
        "--unfolded",
        action="store_true",
        help="peft: a P-Tuning or MPT prompt as PEFT's own type, with what made it",
    )


def _inspect(args: argparse.Namespace) -> dict[str, Any]:
    from jax_prompts.cli.inspection import describe

    return describe(args.path)


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=path, metavar="PATH")


CONVERT = Command(
    "convert",
    "bring a base model, or a prompt of another system, into the project's native form",
    _convert,
    _convert_arguments,
)
EXPORT = Command(
    "export",
    "take a prompt file out: to PEFT, a NumPy array, a T5X checkpoint, or merged into a model",
    _export,
    _export_arguments,
)
INSPECT = Command("inspect", "describe a prompt, a model or a MODEL_DIR", _inspect, _inspect_arguments)
