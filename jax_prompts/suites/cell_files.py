"""Gives each cell of a group the files of its member, as a run by itself leaves them."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from jax_prompts.errors import RunError, system_reason
from jax_prompts.scoring.summary import of_member
from jax_prompts.storage import buckets, files, json_text, places
from jax_prompts.storage.files import atomic_file
from jax_prompts.storage.remote import is_remote
from jax_prompts.suites import states
from jax_prompts.suites.cells import Cell
from jax_prompts.watching.hparams import session_name
from jax_prompts.watching.tensorboard import FOLDER as TENSORBOARD

_SUMMARY = "summary.json"  # which makes a cell a finished one


def hand_out(summary: dict[str, Any], model_dir: str, cells: Sequence[Cell]) -> None:
    """Writes the directories of cells whose members one run has trained; the summary of each last of all.

    Args:
      summary: of that run.
      model_dir: of that run; of one in a bucket, where the cells are, too, a copy is read.
      cells: in the order of its members.
    """
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(model_dir)
        if is_remote(model_dir):
            directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with _errors(model_dir):
                _fetch(model_dir, directory)
        for member, cell in enumerate(cells):
            own = summary["members"][member]
            if "failed" in own:
                states.fail(cell, own["failed"])
                continue
            best = directory / own["file"].rpartition("/")[2]
            part = of_member(summary, member)
            part["members"][0]["file"] = places.below(cell.address, _name_of(best))
            if not is_remote(cell.address):
                _write(cell, member, len(cells), directory, best, part, pathlib.Path(cell.address))
                continue
            with tempfile.TemporaryDirectory() as made, _errors(cell.address):
                _write(cell, member, len(cells), directory, best, part, pathlib.Path(made))
                _publish(pathlib.Path(made), cell.address)


def _write(
    cell: Cell,
    member: int,
    members: int,
    directory: pathlib.Path,
    best: pathlib.Path,
    summary: dict[str, Any],
    target: pathlib.Path,
) -> None:
    """The files of a cell, of those that the run of all members left in a directory."""
    files.write(target / "config.gin", cell.config_text)
    for folder in ("metrics", "predictions"):
        for file in sorted((directory / folder).glob("*.jsonl")):
            files.write(target / folder / file.name, _lines_of(member, file, members))
    _copy(best, target / _name_of(best))
    _move_session(directory / TENSORBOARD, member, target / TENSORBOARD)
    files.write(target / _SUMMARY, json_text.dumps(summary, indent=2) + "\n")


def _fetch(url: str, directory: pathlib.Path) -> None:
    """Copies what a run left in a bucket, but for its checkpoints."""
    for name, there in buckets.stored(url).items():
        if not name.startswith("checkpoints/"):
            buckets.download(f"{url}/{name}", directory / name, there)


def _publish(made: pathlib.Path, url: str) -> None:
    names = [str(path.relative_to(made)) for path in sorted(made.rglob("*")) if path.is_file()]
    for name in sorted(names, key=lambda name: (name == _SUMMARY, name)):
        buckets.upload(made / name, f"{url}/{name}")


@contextlib.contextmanager
def _errors(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{address} could not be brought up to date ({system_reason(error)}): start again once the bucket can be "
            "reached"
        ) from error


def _name_of(best: pathlib.Path) -> str:
    """What a run by itself calls a member's prompt file, or the directory with its prompts of each task."""
    return "prompts" if best.is_dir() else "prompt.safetensors"


def _copy(best: pathlib.Path, target: pathlib.Path) -> None:
    copies = {target / file.name: file for file in best.iterdir()} if best.is_dir() else {target: best}
    for copy, file in copies.items():
        with atomic_file(copy) as temporary:
            shutil.copyfile(file, temporary)


def _move_session(source: pathlib.Path, member: int, target: pathlib.Path) -> None:
    """Gives a cell its row of TensorBoard's HPARAMS tab, which would else show it under the group's name."""
    if (own := source / session_name(member)).is_dir():
        shutil.rmtree(target / session_name(), ignore_errors=True)
        target.mkdir(parents=True, exist_ok=True)
        own.rename(target / session_name())


def _lines_of(member: int, file: pathlib.Path, members: int) -> str:
    """One member's lines, as a run by itself writes them; those of nobody, and of the bare model, are everyone's.

    Seconds are divided among all members, as those of the summary are.
    """
    predictions = file.parent.name == "predictions"
    kept = []
    for line in file.read_text("utf-8").split("\n")[:-1]:
        row = json.loads(line)
        untuned = file.stem.endswith("-0") if predictions else file.stem == "eval" and row["step"] == 0
        if file.stem == "seconds":
            row = {name: value if name == "step" else value / members for name, value in row.items()}
        if row.pop("member", member) == member or untuned:
            kept.append(json_text.dumps(row, ensure_ascii=False) + "\n")
    return "".join(kept)
