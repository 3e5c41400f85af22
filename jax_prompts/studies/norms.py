"""Norms of prompts at every step and position (EPT, section 3.2, equation 4, figures 2 and 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_prompts.config import BaseModel
from jax_prompts.studies.curves import curves_of, runs_in
from jax_prompts.studies.prompt_inputs import read_prompts, short_names

_TRAINING = {"prompt_norm": "norm", "prompt_similarity": "similarity"}  # as metrics/train.jsonl calls them


def norms(paths: Sequence[str], base: BaseModel | None = None) -> dict[str, Any]:
    """Norms of the prompts of files and MODEL_DIRs, of the latter over training, too, beside their similarity.

    Args:
      paths: prompt files and directories.
      base: the base model, with whose rows the prompts are compared; None: with none.

    Raises:
      ConfigError, RunError: as `read_prompts` and `open_vocabulary`.
    """
    runs = runs_in(paths)
    prompts = read_prompts(paths)
    names = short_names([run.name for run in runs])
    training = []
    for name, run in zip(names, runs, strict=True):
        steps = [
            {_TRAINING.get(key, key): value for key, value in line.items()} for line in run.lines("train")
        ]
        training.append(
            {
                "name": name,
                "directory": run.name,
                "members": curves_of(steps, tuple(_TRAINING.values())),
                "evaluated": curves_of(run.lines("prompt"), tuple(_TRAINING.values())),
            }
        )
    return {
        "study": "norms",
        "vocabulary": None if base is None else _of_vocabulary(base),
        "prompts": [
            {**prompt.described(), **_spread(np.linalg.norm(prompt.prompt_PD.astype(np.float64), axis=-1))}
            for prompt in prompts
        ],
        "training": training,
    }


def _spread(norm_N: np.ndarray, *, every: bool = True) -> dict[str, Any]:
    """Mean, least and largest, and of positions every one."""
    found: dict[str, Any] = {
        "mean": float(norm_N.mean()),
        "min": float(norm_N.min()),
        "max": float(norm_N.max()),
    }
    return found | ({"positions": norm_N.tolist()} if every else {})


def _of_vocabulary(base: BaseModel) -> dict[str, Any]:
    from jax_prompts.studies.base_vocabulary import open_vocabulary

    found = open_vocabulary(base)
    rows_ND = found.embedding_VD[found.ordinary_V].astype(np.float64)
    return {
        "model": base.name,
        "rows": len(rows_ND),
        **_spread(np.linalg.norm(rows_ND, axis=-1), every=False),
    }
