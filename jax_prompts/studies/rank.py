"""Rank of prompts, at the end and over training (Xiao et al. 2023, section 2, figures 3 and 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.prompts.geometry import entropy_rank, matrix_rank, singular_values, stable_rank
from jax_prompts.studies.curves import curves_of, runs_in
from jax_prompts.studies.prompt_inputs import read_prompts, short_names

CURVES = ("rank", "entropy_rank", "positive_diagonal", "negative_diagonal")


def rank(paths: Sequence[str]) -> dict[str, Any]:
    """Singular values and ranks of the prompts of files and MODEL_DIRs, of the latter over training, too.

    Raises:
      ConfigError, RunError: as `read_prompts`.
    """
    prompts = read_prompts(paths)
    runs = runs_in(paths)
    names = short_names([run.name for run in runs])
    return {
        "study": "rank",
        "prompts": [{**prompt.described(), **ranks(prompt.prompt_PD)} for prompt in prompts],
        "training": [
            {"name": name, "directory": run.name, "members": curves_of(run.lines("prompt"), CURVES)}
            for name, run in zip(names, runs, strict=True)
        ],
    }


def ranks(prompt_PD: Float[np.ndarray, "P D"]) -> dict[str, Any]:
    """Numerical rank, entropy rank, stable rank and the singular values behind them."""
    values_S = singular_values(prompt_PD)
    return {
        "rank": matrix_rank(values_S, prompt_PD.shape),
        "entropy_rank": entropy_rank(values_S),
        "stable_rank": stable_rank(values_S),
        "singular_values": values_S.tolist(),
    }
