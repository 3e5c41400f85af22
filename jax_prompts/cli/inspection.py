"""Describes a prompt file, a model directory or a MODEL_DIR, for `t5x inspect`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.safetensors import is_whole, open_safetensors
from jax_prompts.prompts import load_prompt


def describe(path: str) -> dict[str, Any]:
    """The numbers and the origin of what lies at `path`; a prompt may lie at a URL.

    Raises:
      ConfigError: nothing that can be described.
      RunError: a damaged file.
    """
    place = pathlib.Path(path)
    if place.suffix == ".safetensors":
        prompt_PD, metadata = load_prompt(path)
        norm_P = np.linalg.norm(prompt_PD, axis=-1)
        return {
            "kind": "prompt",
            "length": prompt_PD.shape[0],
            "width": prompt_PD.shape[1],
            "row_norm": {
                "mean": float(norm_P.mean()),
                "min": float(norm_P.min()),
                "max": float(norm_P.max()),
            },
            **dataclasses.asdict(metadata),
        }
    if (place / "summary.json").is_file():
        return {"kind": "finished run", **json.loads((place / "summary.json").read_text())}
    if (place / "checkpoints").is_dir():
        steps = sorted(int(p.name) for p in (place / "checkpoints").iterdir() if p.name.isdigit())
        return {"kind": "unfinished run", "checkpoints": steps}
    if (place / "config.json").is_file() and list(place.glob("model*.safetensors")):
        return {"kind": "model", **json.loads((place / "config.json").read_text()), "files": _checked(place)}
    raise ConfigError(f"{path} is no prompt file (.safetensors), model directory or MODEL_DIR")


def _checked(model: pathlib.Path) -> dict[str, str]:
    """`whole` or `no checksum` for each weight file.

    Raises:
      RunError: a file is not as it was written.
    """
    said = {True: "whole", None: "no checksum"}
    found = {}
    for file in sorted(model.glob("model*.safetensors")):
        open_safetensors(file)
        whole = is_whole(file)
        if whole is False:
            raise RunError(
                f"{file} is damaged: its numbers are not those that were written; convert the model again"
            )
        found[file.name] = said[whole]
    return found
