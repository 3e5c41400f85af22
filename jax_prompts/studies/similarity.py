"""Cosines between positions of a prompt, and between prompts (EPT, section 3.2, figure 3, appendices A.2 and C).

With a target also which of the prompts are most like it, the sources that SPoT starts from (Vu et al. 2022).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.errors import ConfigError
from jax_prompts.prompts.from_files import check_same_origin
from jax_prompts.prompts.geometry import cosines
from jax_prompts.studies.cosines import mean_off_diagonal, rounded
from jax_prompts.studies.prompt_inputs import NamedPrompt, read_prompts


def similarity(paths: Sequence[str], target: str | None = None) -> dict[str, Any]:
    """Cosines within and between the prompts of files and MODEL_DIRs; `docs/studies.md` says what the keys mean.

    Args:
      paths: of the prompts.
      target: a prompt file or MODEL_DIR with one prompt, which the others are ranked by.

    Raises:
      ConfigError: a target with several prompts, among the others, or not comparable with one of them; as
        `read_prompts`.
      RunError: as `read_prompts`.
    """
    prompts = read_prompts(paths)
    ranked = {} if target is None else _ranked(prompts, target)
    return {
        "study": "similarity",
        "prompts": [{**prompt.described(), **within(prompt.prompt_PD)} for prompt in prompts],
        "between": {
            name: [[_compared(measure, a, b) for b in prompts] for a in prompts]
            for name, measure in BETWEEN.items()
        },
        **ranked,
    }


def _ranked(prompts: Sequence[NamedPrompt], path: str) -> dict[str, Any]:
    """`target` and `ranking`: prompts by the cosine of their mean vectors with the target's, the largest first."""
    found = read_prompts([path])
    if len(found) > 1:
        raise ConfigError(f"--target {path} holds {len(found)} prompts: name the file of one")
    (target,) = found
    for prompt in prompts:
        if os.path.realpath(prompt.file) == os.path.realpath(target.file):
            raise ConfigError(f"{prompt.file} is the target and among the others: leave it out there")
        check_same_origin(target.file, target.metadata, prompt.file, prompt.metadata)
        if (width := prompt.prompt_PD.shape[1]) != (own := target.prompt_PD.shape[1]):
            raise ConfigError(
                f"{target.file} has width {own} and {prompt.file} {width}: use prompts of one base model"
            )
    measures = {name: BETWEEN[name] for name in ("mean_vectors", "mean_of_pairs")}
    rows = [
        {
            **prompt.described(),
            **{name: _compared(measure, prompt, target) for name, measure in measures.items()},
        }
        for prompt in prompts
    ]
    return {"target": target.described(), "ranking": sorted(rows, key=lambda row: -row["mean_vectors"])}


def within(prompt_PD: Float[np.ndarray, "P D"]) -> dict[str, Any]:
    """The cosine of every position with every other, and their mean; of one position alone there is none."""
    cosine_PP = cosines(prompt_PD, prompt_PD)
    mean = mean_off_diagonal(cosine_PP)
    return {"mean_off_diagonal": mean, "positions": rounded(cosine_PP)}


def of_means(a_PD: Float[np.ndarray, "P D"], b_QD: Float[np.ndarray, "Q D"]) -> float:
    """Cosine of the mean vectors, whatever the lengths; of EPT* prompts, whose rows are equal, of these rows."""
    means = [np.mean(np.asarray(x, np.float64), axis=0, keepdims=True) for x in (a_PD, b_QD)]
    return float(cosines(*means)[0, 0])


def mean_of_pairs(a_PD: Float[np.ndarray, "P D"], b_QD: Float[np.ndarray, "Q D"]) -> float:
    """Mean cosine of every position of one with every position of the other, whatever the lengths."""
    return float(cosines(a_PD, b_QD).mean())


def position_wise(a_PD: Float[np.ndarray, "P D"], b_PD: Float[np.ndarray, "P D"]) -> float | None:
    """Mean cosine of position i with position i; None of other lengths."""
    return float(np.diagonal(cosines(a_PD, b_PD)).mean()) if len(a_PD) == len(b_PD) else None


def flattened(a_PD: Float[np.ndarray, "P D"], b_PD: Float[np.ndarray, "P D"]) -> float | None:
    """Cosine of the prompts as one vector of P * D numbers each; None of other lengths."""
    return float(cosines(a_PD.reshape(1, -1), b_PD.reshape(1, -1))[0, 0]) if len(a_PD) == len(b_PD) else None


BETWEEN = {
    "mean_vectors": of_means,
    "mean_of_pairs": mean_of_pairs,
    "position_wise": position_wise,
    "flattened": flattened,
}


def _compared(measure: Any, a: NamedPrompt, b: NamedPrompt) -> float | None:
    """None where the prompts are of other kinds or widths, whose numbers mean other things."""
    if a.metadata.prompt_kind != b.metadata.prompt_kind or a.prompt_PD.shape[1] != b.prompt_PD.shape[1]:
        return None
    value = measure(a.prompt_PD, b.prompt_PD)
    return None if value is None else round(value, 6)
