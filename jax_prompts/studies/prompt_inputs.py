"""Prompts and runs as studies take them: files and directories, under names that tell them apart."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.prompts.prompt_file import PromptMetadata, load_prompt
from jax_prompts.results.find import find
from jax_prompts.results.run_files import RunFiles

T, R = TypeVar("T"), TypeVar("R")


@dataclasses.dataclass(frozen=True)
class NamedPrompt:
    """One prompt of a study.

    Attributes:
      name: short, and no other prompt's.
      file: path or URL.
      prompt_PD: its rows; of a kind at every layer they have W numbers.
      metadata: where it came from.
    """

    name: str
    file: str
    prompt_PD: Float[np.ndarray, "P D"]
    metadata: PromptMetadata

    def described(self) -> dict[str, Any]:
        """What every study says of a prompt first."""
        about = self.metadata
        P, width = self.prompt_PD.shape
        return {
            "name": self.name,
            "file": self.file,
            "task": about.task,
            "method": about.method,
            "prompt_kind": about.prompt_kind,
            "length": P,
            "width": width,
        }


def read_prompts(paths: Sequence[str], *, leaves_alone: bool = False) -> list[NamedPrompt]:
    """Prompts of files, URLs, and of runs in directories or below them, in order.

    Args:
      paths: of them.
      leaves_alone: whether files without a prompt are wanted, too, whose leaves are inside the model; else they are
        left out, and said.

    Raises:
      ConfigError: nothing there, a directory without any prompt, a file that is named twice, no file with a prompt.
      RunError: no file but damaged ones; others are left out, and said.
    """
    files = [file for path in paths for file in _files(path)]
    check_different(files)
    files, read = readable(files, load_prompt)
    names = short_names(files)
    found = [NamedPrompt(name, file, *both) for name, file, both in zip(names, files, read, strict=True)]
    return found if leaves_alone else _with_prompts(found)


def _with_prompts(found: Sequence[NamedPrompt]) -> list[NamedPrompt]:
    prompts = [each for each in found if len(each.prompt_PD)]
    for each in found:
        if not len(each.prompt_PD):
            words = f"{each.file} holds leaves inside the model ({each.metadata.method}) and no prompt"
            if not prompts:
                raise ConfigError(f"{words}, which this study looks at: name the file of a prompt")
            log(f"left out: {words}")
    return prompts


def read_runs(paths: Sequence[str]) -> list[RunFiles]:
    """Runs in directories, or below them, those of suites, too.

    Raises:
      ConfigError: no such directory, or one without a run.
      RunError: no run but damaged ones; others are left out, and said.
    """
    runs = find(paths).all_runs
    if not runs:
        raise ConfigError(f"{', '.join(paths)} holds no run: name a MODEL_DIR, or a directory above some")
    check_different([run.name for run in runs])
    return readable(runs, _read)[0]


def readable(things: Sequence[T], read: Callable[[T], R]) -> tuple[list[T], list[R]]:
    """Those that can be read, and what reading them gives; the others are left out, with a line on stderr each.

    Raises:
      RunError: none of them can be read.
    """
    found: list[tuple[T, R]] = []
    errors: list[RunError] = []
    for thing in things:
        try:
            found.append((thing, read(thing)))
        except RunError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    for error in errors:
        log(f"left out: {error}")
    return [thing for thing, _ in found], [result for _, result in found]


def _read(run: RunFiles) -> None:
    """Reads what studies look at; what is read once is kept."""
    for part in ("train", "eval", "prompt", "seconds"):
        run.lines(part)
    run.own_settings  # noqa: B018  (a property, which reads summary.json or config.gin)


def check_different(places: Sequence[str]) -> None:
    """Raises ConfigError where two of these are one file or directory."""
    seen: set[str] = set()
    for place in places:
        real = place if "://" in place else os.path.realpath(place)
        if real in seen:
            raise ConfigError(f"{place} is named twice: leave one out")
        seen.add(real)


def only_at_the_input(prompts: Sequence[NamedPrompt], study: str) -> None:
    """Raises ConfigError for a prompt at every layer, whose rows are no vectors of the embedding space."""
    for prompt in prompts:
        if (kind := prompt.metadata.prompt_kind) != "input":
            raise ConfigError(
                f"{prompt.file} is a prompt of kind {kind}: its rows stand at every layer and are no vectors of the "
                f"embedding space, which t5x study {study} looks at; leave it out"
            )


def short_names(files: Sequence[str]) -> list[str]:
    """The last parts of each path, as few as tell all apart; `prompt.safetensors` is called as its directory.

    Paths that are the same are given the same name.
    """
    parts = [_parts(file) for file in files]
    most = max((len(each) for each in parts), default=1)
    for count in range(1, most + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(set(files)):
            return names
    return list(files)


def _files(path: str) -> list[str]:
    if "://" in path or not os.path.isdir(path):
        return [path]
    found = [str(file) for run in read_runs([path]) for file in run.prompt_files]
    if not found:
        raise ConfigError(f"{path} holds no prompt yet: name a run that has evaluated one, or a prompt file")
    return found


def _parts(file: str) -> list[str]:
    *folders, last = [part for part in file.split("/") if part not in ("", ".")] or [file]
    stem = last.removesuffix(".safetensors")
    return folders if stem == "prompt" and folders else [*folders, stem]
