"""Answers lines of text, each with the name of a prompt: `t5x infer`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import stat
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from jax_prompts import interrupts
from jax_prompts.data.layout import check_lengths
from jax_prompts.display import LineDisplay, log
from jax_prompts.errors import ConfigError, Preempted, RunError, SettingWarning, system_reason
from jax_prompts.inference.bucket_output import bucket_output, copied_input
from jax_prompts.inference.engine import Engine, Prompt
from jax_prompts.inference.output import Output, Row, open_output
from jax_prompts.inference.requests import BadLine, Request, chunks, read_requests
from jax_prompts.prompts.prompt_file import digest
from jax_prompts.runs import InferRun
from jax_prompts.storage.remote import is_remote

CHUNK_BATCHES = 32  # sorted by length together, and written together
SHOWN = 10  # bad lines listed; the rest is counted


def infer_file(
    run: InferRun,
    prompt_files: Mapping[str, str],
    source: str,
    target: str,
    *,
    resume: bool = False,
    skip_bad_lines: bool = False,
) -> dict[str, Any]:
    """Answers the lines of a file (`-`: stdin) into another (`-`: stdout), in order, and counts them.

    Memory does not grow with the lines: they are read and answered in chunks. The lines of a file are looked at before
    the model is loaded, those of a stream as they come.

    Args:
      run: model, lengths and decoding.
      prompt_files: by name.
      source, target: paths.
      resume: go on behind the answers of a run that ended early.
      skip_bad_lines: an error takes the place of the answer to a bad line, which otherwise ends the run.

    Raises:
      ConfigError: a bad line, a prompt that does not fit the model, a length or a number of rows below 1, an output
        that `open_output` refuses.
      RunError: a file that cannot be read or written.
      Preempted: SIGINT or SIGTERM; what was answered is kept.

    Warns:
      SettingWarning: texts that were cut.
    """
    check_lengths(run.task_feature_lengths)
    if run.batch_size < 1:
        raise ConfigError(f"EVAL_BATCH_SIZE is {run.batch_size}; it must be at least 1")
    names = list(prompt_files)
    with contextlib.ExitStack() as closing:
        lines = _opened(source, closing)
        if is_remote(target) and target == source:
            raise ConfigError(f"--output {target} is the file that --input reads: choose another")
        opened = bucket_output if is_remote(target) else open_output
        output = closing.enter_context(opened(target, lines, resume=resume))
        closing.enter_context(_signals(output))
        total = _checked(lines, names, source, skip_bad_lines)
        engine = Engine(
            run.model,
            inputs_length=run.task_feature_lengths["inputs"],
            targets_length=run.task_feature_lengths["targets"],
            batch_size=run.batch_size,
        )
        prompts = {name: engine.load_prompt(path) for name, path in prompt_files.items()}
        output.agree(_settings(run, engine, prompts))
        counts, resumed, seconds = _Counts(), 0, 0.0
        with LineDisplay(total) as display:
            requests = _requests(lines, names, source)
            for number, chunk in enumerate(chunks(requests, run.batch_size * CHUNK_BATCHES)):
                bad = [request for request in chunk if isinstance(request, BadLine)]
                if bad and not skip_bad_lines:
                    raise _refusal(bad[0], output.hint)
                for request in bad[: max(0, SHOWN - counts.bad)]:
                    log(f"input line {request.line} {request.reason}")
                rows = output.standing([request.row for request in chunk])
                if rows is None:
                    started = time.monotonic()
                    rows = _answer(engine, prompts, run, chunk, number, display)
                    output.write(rows)
                    seconds += time.monotonic() - started
                else:
                    resumed += len(rows)
                    display.begin(resumed)
                counts.add(rows)
        output.finish()
    if counts.cut:
        length, examples = run.task_feature_lengths["inputs"], counts.lines - counts.bad
        told = (
            f"TASK_FEATURE_LENGTHS inputs {length} cuts {counts.cut} of {examples} texts; their rows say so"
        )
        warnings.warn(SettingWarning(told), stacklevel=2)
    return {
        "examples": counts.lines - counts.bad,
        "bad_lines": counts.bad,
        "cut": counts.cut,
        "resumed": resumed,
        "examples_per_second": (counts.lines - resumed) / max(seconds, 1e-9),
        "output": target,
    }


def _opened(source: str, closing: contextlib.ExitStack) -> BinaryIO:
    """The bytes of a file, or of stdin."""
    if source == "-":
        return sys.stdin.buffer
    try:
        path = closing.enter_context(copied_input(source)) if is_remote(source) else pathlib.Path(source)
        return closing.enter_context(path.open("rb"))
    except OSError as error:
        raise ConfigError(f"--input {source} cannot be read: {system_reason(error)}") from error


@contextlib.contextmanager
def _signals(output: Output) -> Iterator[None]:
    """Lets SIGTERM end the block as SIGINT does, in one line."""
    try:
        with interrupts.by_sigterm():
            yield
    except KeyboardInterrupt as error:
        if output.hint:
            raise Preempted(f"stopped{output.hint}") from error
        raise KeyboardInterrupt("stopped; no answers are kept") from error


def _requests(lines: BinaryIO, names: Sequence[str], source: str) -> Iterator[Request | BadLine]:
    try:
        yield from read_requests(lines, names)
    except OSError as error:
        raise RunError(f"--input {source} cannot be read: {system_reason(error)}") from error


def _checked(lines: BinaryIO, names: Sequence[str], source: str, skip_bad_lines: bool) -> int | None:
    """The number of a file's lines, which are looked at; None of a stream, which can be read only once."""
    try:
        start = lines.tell() if stat.S_ISREG(os.fstat(lines.fileno()).st_mode) else None
    except io.UnsupportedOperation:  # what a program has put in place of stdin
        start = None
    if start is None:
        return None
    total = 0
    for request in _requests(lines, names, source):
        if isinstance(request, BadLine) and not skip_bad_lines:
            raise _refusal(request)
        total += 1
    lines.seek(start)
    return total


def _refusal(bad: BadLine, hint: str = "") -> ConfigError:
    return ConfigError(
        f"input line {bad.line} {bad.reason}; correct it, or answer the others with --skip_bad_lines{hint}"
    )


def _answer(
    engine: Engine,
    prompts: Mapping[str, Prompt],
    run: InferRun,
    chunk: Sequence[Request | BadLine],
    seed: int,
    display: LineDisplay,
) -> list[Row]:
    """The rows of a chunk with their answers."""
    rows = [request.row for request in chunk]
    asked = [(row, request) for row, request in zip(rows, chunk, strict=True) if isinstance(request, Request)]
    each = [None if request.prompt is None else prompts[request.prompt] for _, request in asked]
    texts = [request.text for _, request in asked]
    for answer in engine.answers(texts, each, decoding=run.decoding, seed=seed):
        row, _ = asked[answer.number]
        row["prediction"] = answer.text
        if answer.cut:
            row["cut"] = True
        display.advance(1)
    display.advance(len(rows) - len(asked))
    return rows


def _settings(run: InferRun, engine: Engine, prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """All that answers depend on, under the names that users know."""
    return {
        "model": engine.fingerprints["model_fingerprint"],
        "vocabulary": engine.fingerprints["tokenizer_fingerprint"],
        **{
            f"prompt {name}": digest(prompt.array, prompt.metadata, prompt.leaves)
            for name, prompt in prompts.items()
        },
        "TASK_FEATURE_LENGTHS": run.task_feature_lengths,
        "EVAL_BATCH_SIZE": run.batch_size,
        "BaseModel.activation_dtype": run.model.activation_dtype,
        "BaseModel.weight_dtype": run.model.weight_dtype,
        "Decoding": dataclasses.asdict(run.decoding),
    }


@dataclasses.dataclass
class _Counts:
    """Lines that have a row in the output, and of them those that are bad and those that were cut."""

    lines: int = 0
    bad: int = 0
    cut: int = 0

    def add(self, rows: Sequence[Row]) -> None:
        self.lines += len(rows)
        self.bad += sum("error" in row for row in rows)
        self.cut += sum("cut" in row for row in rows)
