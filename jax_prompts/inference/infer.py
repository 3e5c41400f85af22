"""Answers lines of text, each with the name of a prompt: `t5x infer`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jax_prompts.config import InferRun
from jax_prompts.data.layout import check_lengths
from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.inference.engine import Engine
from jax_prompts.storage import json_text

BYTE_ORDER_MARK = "\ufeff"  # what some programs write first


@dataclasses.dataclass(frozen=True)
class Request:
    """One line of input: which prompt (None: the bare model), and the text."""

    prompt: str | None
    text: str


def read_requests(lines: Iterable[str], names: list[str]) -> Iterator[Request]:
    """Lines of JSON `{"prompt": NAME, "text": ...}`, or of raw text when there is one prompt.

    Raises:
      ConfigError: a line that is neither, or names a prompt that was not given; with the line's number.
    """
    only = names[0] if len(names) == 1 else None
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\n").removesuffix("\r")
        line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if not line.startswith("{"):
            if names and only is None:
                raise ConfigError(
                    f"input line {number} is raw text, but {len(names)} prompts are given; "
                    'write {"prompt": NAME, "text": ...}'
                )
            yield Request(only, line)
            continue
        try:
            row = json_text.loads(line)
            request = Request(row.get("prompt", only), row["text"])
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f'input line {number} is not {{"prompt": NAME, "text": ...}}: {error}'
            ) from error
        if not isinstance(request.text, str):
            raise ConfigError(f"input line {number}: text is no string")
        if request.prompt not in names and not (request.prompt is None and not names):
            raise ConfigError(
                f"input line {number} asks for prompt {request.prompt!r}; given are {', '.join(names) or 'none'}"
            )
        yield request


def _open_lines(source: str) -> contextlib.AbstractContextManager[Iterable[str]]:
    r"""The lines of a file, or of stdin, which end at \n or \r\n alone."""
    if source != "-":
        return open(source, encoding="utf-8", newline="\n")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(newline="\n")
    return contextlib.nullcontext(sys.stdin)


def infer_file(run: InferRun, prompt_files: Mapping[str, str], source: str, target: str) -> dict[str, Any]:
    """Answers the lines of a file (`-`: stdin) into another (`-`: stdout), in order.

    Raises:
      ConfigError: a malformed line, an unknown prompt, a prompt that does not fit the model, a length or a number
        of rows below 1.
      RunError: a file that cannot be read or written.
    """
    check_lengths(run.task_feature_lengths)
    if run.batch_size < 1:
        raise ConfigError(f"EVAL_BATCH_SIZE is {run.batch_size}; it must be at least 1")
    try:
        with _open_lines(source) as lines:
            requests = list(read_requests(lines, list(prompt_files)))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--input {source} cannot be read: {error}") from error
    engine = Engine(
        run.model,
        inputs_length=run.task_feature_lengths["inputs"],
        targets_length=run.task_feature_lengths["targets"],
        batch_size=run.batch_size,
    )
    prompts = {name: engine.load_prompt(path) for name, path in prompt_files.items()}
    started = time.monotonic()
    each = [None if request.prompt is None else prompts[request.prompt] for request in requests]
    answers = engine.predict([request.text for request in requests], each, decoding=run.decoding)
    seconds = time.monotonic() - started
    try:
        with (
            contextlib.nullcontext(sys.stdout)
            if target == "-"
            else open(target, "w", encoding="utf-8") as out
        ):
            for request, text in zip(requests, answers, strict=True):
                row = {"prompt": request.prompt, "text": request.text, "prediction": text}
                out.write(json_text.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise RunError(f"--output {target} cannot be written: {system_reason(error)}") from error
    return {
        "examples": len(requests),
        "examples_per_second": len(requests) / max(seconds, 1e-9),
        "output": target,
    }
