"""Gives each cell of a group the files of its member, as a run by itself leaves them."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from jax_prompts.scoring.summary import of_member
from jax_prompts.storage import files, json_text
from jax_prompts.storage.files import atomic_file
from jax_prompts.suites import states
from jax_prompts.suites.cells import Cell
from jax_prompts.watching.hparams import session_name
from jax_prompts.watching.tensorboard import FOLDER as TENSORBOARD


def hand_out(summary: dict[str, Any], directory: pathlib.Path, cells: Sequence[Cell]) -> None:
    """Writes the directories of cells whose members one run has trained; the summary of each last of all.

    Args:
      summary: of that run.
      directory: of that run.
      cells: in the order of its members.
    """
    for member, cell in enumerate(cells):
        own = summary["members"][member]
        if "failed" in own:
            states.fail(cell, own["failed"])
            continue
        files.write(cell.directory / "config.gin", cell.config_text)
        for folder in ("metrics", "predictions"):
            for file in sorted((directory / folder).glob("*.jsonl")):
                files.write(cell.directory / folder / file.name, _lines_of(member, file, len(cells)))
        prompt = _copied(pathlib.Path(own["file"]), cell.directory)
        _move_session(directory / TENSORBOARD, member, cell.directory / TENSORBOARD)
        part = of_member(summary, member)
        part["members"][0]["file"] = str(prompt)
        files.write(cell.directory / "summary.json", json_text.dumps(part, indent=2) + "\n")


def _copied(best: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """A copy of a member's prompt file, or of the directory with its prompts of each task, by the name of one's own."""
    target = directory / ("prompts" if best.is_dir() else "prompt.safetensors")
    copies = {target / file.name: file for file in best.iterdir()} if best.is_dir() else {target: best}
    for copy, file in copies.items():
        with atomic_file(copy) as temporary:
            shutil.copyfile(file, temporary)
    return target


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
    for line in file.read_text().split("\n")[:-1]:
        row = json.loads(line)
        untuned = file.stem.endswith("-0") if predictions else file.stem == "eval" and row["step"] == 0
        if file.stem == "seconds":
            row = {name: value if name == "step" else value / members for name, value in row.items()}
        if row.pop("member", member) == member or untuned:
            kept.append(json_text.dumps(row, ensure_ascii=False) + "\n")
    return "".join(kept)
