"""Describes a prompt file, a model directory or a MODEL_DIR, for `t5x inspect`."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from jax_prompts.base_models import open as models
from jax_prompts.base_models import t5x
from jax_prompts.base_models.build import vocabulary_beside
from jax_prompts.base_models.finite import check_all_finite
from jax_prompts.data.vocabularies.tokenizer_config import tokenizer_files
from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.formats.safetensors import is_whole, open_safetensors
from jax_prompts.interop import npy
from jax_prompts.models.sizes import ModelConfig
from jax_prompts.prompts.prompt_file import load_file
from jax_prompts.records import MAX_BYTES, read_summary, summary_of
from jax_prompts.storage import buckets, places


def describe(path: str) -> dict[str, Any]:
    """The numbers and the origin of what lies at `path`: of a prompt a file or URL, of a model what `open_model` takes.

    Raises:
      ConfigError: nothing that can be described.
      RunError: a damaged file, or one that cannot be read.
    """
    try:
        return _described(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {system_reason(error)}") from error


def _described(path: str) -> dict[str, Any]:
    place = pathlib.Path(path)
    if place.suffix == ".safetensors":
        prompt_PD, leaves, metadata = load_file(path)
        inside = {"leaves": {name: list(leaf.shape) for name, leaf in leaves.items()}} if leaves else {}
        return {
            "kind": "prompt" if len(prompt_PD) else "leaves inside the model",
            **(_rows(prompt_PD) if len(prompt_PD) else {}),
            "parameters": prompt_PD.size + sum(leaf.size for leaf in leaves.values()),
            **inside,
            **dataclasses.asdict(metadata),
        }
    if path.startswith("gs://") and (run := _run_in_bucket(path)) is not None:
        return run
    located = models.locate(path)
    place = pathlib.Path(located)
    if npy.is_array(place):
        return {"kind": "NumPy array of a prompt", **_rows(npy.read_array(place).prompt_PD)}
    if (summary := read_summary(place / "summary.json")) is not None:
        return {"kind": "finished run", **summary}
    if (place / "checkpoints").is_dir():
        steps = sorted(int(p.name) for p in (place / "checkpoints").iterdir() if p.name.isdigit())
        return {"kind": "unfinished run", "checkpoints": steps}
    if (place / "config.json").is_file():
        found = models.open_model(path)
        if found.kind == "native":
            return {"kind": "model", **found.described, "files": _checked(place)}
        return _model(path, place, found)
    if t5x.open_checkpoint(located) is not None or any(
        place.glob("*.safetensors")
    ):  # which is said to lack something
        return _model(path, place, models.open_model(path))
    if "://" not in located and not place.exists():
        raise ConfigError(f"{path} does not exist: check the path")
    raise ConfigError(
        f"{path} is no prompt file (.safetensors), NumPy array, model directory, T5X checkpoint or MODEL_DIR"
    )


def _run_in_bucket(url: str) -> dict[str, Any] | None:
    """What a MODEL_DIR in a bucket holds; None of what is none."""
    if places.read(places.below(url, "config.gin"), MAX_BYTES) is None:
        return None
    if (content := places.read(places.below(url, "summary.json"), MAX_BYTES)) is not None:
        return {"kind": "finished run", **summary_of(content, f"{url}/summary.json")}
    steps = {name.partition("/")[0] for name in buckets.stored(places.below(url, "checkpoints"))}
    return {"kind": "unfinished run", "checkpoints": sorted(int(step) for step in steps if step.isdigit())}


def _rows(prompt_PD: np.ndarray) -> dict[str, Any]:
    norm_P = np.linalg.norm(prompt_PD, axis=-1)
    return {
        "length": prompt_PD.shape[0],
        "width": prompt_PD.shape[1],
        "row_norm": {"mean": float(norm_P.mean()), "min": float(norm_P.min()), "max": float(norm_P.max())},
    }


def _model(path: str, place: pathlib.Path, found: models.Checkpoint) -> dict[str, Any]:
    """Of a model in another form than the native one.

    Raises:
      ConfigError: its vocabulary has ids that the model has no rows for.
      RunError: a number is not finite, which is said, or something cannot be read.
    """
    arrays, files = found.arrays, _checked(place)
    if not files:
        check_all_finite(path, arrays)
    return {
        "kind": f"model ({found.kind})",
        **models.describe(found.config),
        "parameters": sum(array.nbytes // array.dtype.itemsize for array in arrays.values()),
        "dtypes": sorted({str(array.dtype) for array in arrays.values()}),
        "files": files,
        "vocabulary": None if found.vocabulary is None else _vocabulary(found.vocabulary, found.config),
    }


def _vocabulary(path: str, config: ModelConfig) -> dict[str, Any]:
    """The file that is used of those beside a model, what it holds, and what else there is obeyed."""
    path, vocabulary = vocabulary_beside(path, config)
    return {
        "file": path,
        "ids": vocabulary.size,
        "fingerprint": vocabulary.fingerprint,
        "obeyed": [file.name for file in tokenizer_files(path)],
    }


def _checked(model: pathlib.Path) -> dict[str, str]:
    """`whole` or `no checksum` for each weight file.

    Raises:
      RunError: a file is not as it was written, or a number in it is not finite.
    """
    said = {True: "whole", None: "no checksum"}
    found = {}
    for file in sorted(model.glob("model*.safetensors")):
        arrays = open_safetensors(file)
        whole = is_whole(file)
        if whole is False:
            raise RunError(
                f"{file} is damaged: its numbers are not those that were written; convert the model again"
            )
        check_all_finite(file, arrays)
        found[file.name] = said[whole]
    return found
