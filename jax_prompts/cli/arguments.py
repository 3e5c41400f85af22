"""What the user typed: commands, flags and `--gin.NAME=VALUE`, without any heavy import."""

from __future__ import annotations

import argparse
from typing import NoReturn

from jax_prompts.errors import nearest

COMMANDS = {
    "train": "tune a prompt on a task",
    "pretrain": "train every parameter of a model",
    "eval": "score prompt files on a task, each alone and as an ensemble",
    "infer": "answer lines of text with one prompt or several",
    "cache": "fill the token caches of a run",
    "precompile": "compile a run for a TPU slice without one, or for this machine: does it fit, how fast",
    "convert": "bring a base model, or a prompt of another system, into the project's native form",
    "export": "take a prompt out: to PEFT, a NumPy array or a T5X checkpoint",
    "inspect": "describe a prompt file, a model or a MODEL_DIR",
    "store": "keep prompts: list, find, add, remove, verify",
    "tasks": "list the tasks: source, splits and sizes, labels, metrics, lengths",
}

STORE_ACTIONS = {
    "list": "every prompt",
    "find": "prompts that meet every condition, the highest score first; texts may hold * and ?",
    "add": "store copies of prompt files",
    "remove": "take prompts out",
    "verify": "read every file and compare it with its entry; status 1 if any is not as it was added",
}

_WITHOUT_GIN = ("convert", "export", "inspect", "store", "tasks")
_SETTINGS = (
    "Settings: --gin_file=FILE ... --gin.NAME=VALUE ..., where NAME is a macro of gin_configs/defaults.gin "
    "(MODEL_DIR, MIXTURE_OR_TASK_NAME, ...) or Class.field; later ones win."
)


class _Parser(argparse.ArgumentParser):
    """Flags in full, and one line for a mistake."""

    def __init__(self, **settings) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help shows the usage)\n")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command and its flags: `bindings` are `NAME=VALUE` of every `--gin.NAME=VALUE`, in order, and
    `prompt` of `infer` and `store add` maps each NAME to its FILE.

    Exits with status 2 and one line on stderr when they make no sense.
    """
    bindings = [arg.removeprefix("--gin.") for arg in argv if arg.startswith("--gin.")]
    rest = [arg for arg in argv if not arg.startswith("--gin.")]
    parser, commands = _parser()
    if rest and not rest[0].startswith("-") and rest[0] not in COMMANDS:
        parser.error(f"no command {rest[0]}; did you mean {nearest(rest[0], COMMANDS)}?")
    for binding in bindings:
        name, equals, _ = binding.partition("=")
        if not (name and equals):
            commands[rest[0]].error(f"--gin.{binding} is not --gin.NAME=VALUE")
    args, unknown = parser.parse_known_args(rest)
    command = commands[f"store {args.action}" if args.command == "store" else args.command]
    if unknown:
        command.error(_unknown(unknown[0], command))
    if bindings and args.command in _WITHOUT_GIN:
        command.error(f"--gin.{bindings[0]} means nothing here")
    if args.command in ("train", "pretrain", "eval"):
        _check_processes(args, command)
    args.bindings = [*bindings, *(["SKIP_BAD_LINES=True"] if getattr(args, "skip_bad_lines", False) else [])]
    if args.command == "infer" or command is commands["store add"]:
        args.prompt = _named_files(args.prompt, command)
    return args


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="t5x",
        description="Soft prompts for frozen T5 models.",
        epilog=_SETTINGS,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = {
        name: subparsers.add_parser(
            name, help=text, description=text, epilog=None if name in _WITHOUT_GIN else _SETTINGS
        )
        for name, text in COMMANDS.items()
    }
    actions = _store_parsers(commands["store"])
    for name, command in commands.items():
        if name == "store":  # its actions have the flags
            continue
        add = command.add_argument
        add("--debug", action="store_true", help="a traceback for every error")
        if name == "inspect":
            add("path", metavar="PATH")
        if name == "convert":
            add(
                "source",
                metavar="SOURCE",
                help="model: directory, gs://, hf://ORGANISATION/NAME or asset:NAME; "
                "prompt: PEFT adapter's folder, NumPy array or T5X checkpoint",
            )
            add("target", metavar="TARGET", help="model: directory to write; prompt: NEW.safetensors")
            add("--vocabulary", metavar="FILE", help="model: in place of the one beside SOURCE")
            add("--prompt_only", action="store_true", help="prompt: without what was tuned beside it")
        if name == "export":
            add("file", metavar="PROMPT", help="prompt file")
            add("target", metavar="TARGET", help="directory (peft, t5x) or file (npy)")
            add("--to", required=True, choices=("peft", "npy", "t5x"), help="the other system's format")
            add(
                "--base_model",
                metavar="NAME",
                help="peft: Hugging Face name or folder; t5x: the model to prompt",
            )
            add(
                "--unfolded",
                action="store_true",
                help="peft: a P-Tuning prompt as P_TUNING, with its encoder",
            )
        if name == "tasks":
            add("--task", action="append", default=[], metavar="NAME", help="only this one; repeatable")
            add("--data_dir", metavar="DIR", help="official files, to be counted")
            add("--vocabulary", metavar="FILE", help="SentencePiece model that lengths are counted with")
            add("--json", action="store_true", help="no table, only JSON")
        if name in _WITHOUT_GIN:
            continue
        add("--gin_file", action="append", default=[], metavar="FILE", help="read in order; later wins")
        add("--gin_search_paths", default="", metavar="DIRS", help="comma-separated, for gin files")
        add("--tfds_data_dir", metavar="DIR", help="where TFDS keeps its data")
        if name in ("train", "pretrain", "eval", "cache"):
            add(
                "--skip_bad_lines",
                action="store_true",
                help="leave out bad lines of data files, and list them",
            )
        if name in ("train", "pretrain", "eval"):
            add("--multiprocess_gpu", action="store_true", help="one of several processes, on any device")
            add(
                "--coordinator_address",
                metavar="HOST:PORT",
                help="where process 0 runs, and a free port there",
            )
            add("--process_count", type=int, metavar="N", help="how many processes there are")
            add("--process_index", type=int, metavar="I", help="which of them this is, from 0")
            add(
                "--initialization_timeout",
                type=int,
                default=90,
                metavar="S",
                help="seconds for all to appear, 90 if not given",
            )
        if name in ("train", "pretrain"):
            add("--dry_run", action="store_true", help="shapes only: reads no weights and no data")
        if name == "precompile":
            add("--topology", metavar="NAME", help="TPU slice, for example v5e:8x8; without it, this machine")
            add(
                "--program",
                action="append",
                choices=("train", "eval", "decode"),
                help="only this one; repeatable",
            )
        if name == "infer":
            add("--prompt", action="append", default=[], metavar="NAME=FILE", help="repeatable")
            add("--input", required=True, metavar="FILE", help="lines of text or JSON; - for stdin")
            add("--output", required=True, metavar="FILE", help="JSON lines; - for stdout")
    return parser, {**commands, **actions}


def _store_parsers(store: _Parser) -> dict[str, _Parser]:
    subparsers = store.add_subparsers(dest="action", required=True, metavar="ACTION")
    parsers = {}
    for action, text in STORE_ACTIONS.items():
        parsers[f"store {action}"] = parser = subparsers.add_parser(action, help=text, description=text)
        add = parser.add_argument
        add("store", metavar="STORE", help="a folder, or a URL such as gs://bucket/prompts")
        add("--debug", action="store_true", help="a traceback for every error")
        if action == "find":
            add("--task", default="*", metavar="TEXT")
            add("--model", default="*", metavar="TEXT", help="the base model's size, or its full name")
            add("--metric", default="*", metavar="TEXT", help="the metric that chose the prompt")
            add("--method", default="*", metavar="TEXT")
            add("--fingerprint", default="*", metavar="TEXT", help="of the base model's weights")
            add("--min_score", type=float, metavar="NUMBER")
        if action == "add":
            add("prompt", nargs="+", metavar="NAME=FILE", help="a prompt file or its URL")
            add("--replace", action="store_true", help="in place of a prompt of that name")
        if action == "remove":
            add("names", nargs="+", metavar="NAME")
    return parsers


def _named_files(prompts: list[str], command: argparse.ArgumentParser) -> dict[str, str]:
    files: dict[str, str] = {}
    for text in prompts:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            command.error(f"prompt {text} is not NAME=FILE")
        if name in files:
            command.error(f"prompt {name} is given twice; use another name for {file}")
        files[name] = file
    return files


def _check_processes(args: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    address, count, index = args.coordinator_address, args.process_count, args.process_index
    if count is not None and count < 1:
        command.error(f"--process_count {count}: there is at least one process")
    if index is not None and index < 0:
        command.error(f"--process_index {index}: processes are numbered from 0")
    if index is not None and count is not None and index >= count:
        command.error(f"--process_index {index}: {count} processes are numbered 0 to {count - 1}")
    host, _, port = (address or "HOST:1").rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        command.error(f"--coordinator_address {address} is not HOST:PORT, with a port from 1 to 65535")
    if args.initialization_timeout < 1:
        command.error(f"--initialization_timeout {args.initialization_timeout}: give seconds, at least 1")


def _unknown(argument: str, command: argparse.ArgumentParser) -> str:
    if argument.endswith(".gin") and not argument.startswith("-"):
        return f"unknown argument {argument}; did you mean --gin_file={argument}?"
    flags = [flag for action in command._actions for flag in action.option_strings if flag.startswith("--")]
    return f"unknown argument {argument}; did you mean {nearest(argument.partition('=')[0], flags)}?"
