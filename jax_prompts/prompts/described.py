"""Describes prompts while they are tuned, for metrics/prompt.jsonl."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Float

from jax_prompts.prompts.decomposed import RankProbe
from jax_prompts.prompts.geometry import (
    entropy_rank,
    matrix_rank,
    mean_norm,
    mean_similarity,
    singular_values,
)

if TYPE_CHECKING:
    from jax_prompts.prompts import Method


def describe(
    method: Method | None,
    params_E: Any,
    prompts_EPD: Float[Array, "E P D"] | None,
    members: Sequence[int],
    wanted: Collection[int],
) -> dict[int, dict[str, float]]:
    """`rank`, `entropy_rank`, `norm` and `similarity` (`geometry.py`) of prompts, by member; without prompts none.

    Of a rank probe also how many entries of its diagonal are positive and negative, `positive_diagonal` and
    `negative_diagonal` (Xiao et al. 2023, figures 3 and 9).

    Args:
      method: that makes the prompts; None: the whole model is tuned.
      params_E: of the method, of each member.
      prompts_EPD: what it makes of them.
      members: numbers of these members.
      wanted: those that are described.
    """
    if method is None or prompts_EPD is None:
        return {}
    found: dict[int, dict[str, float]] = {}
    for place, member in enumerate(members):
        if member not in wanted:
            continue
        prompt_PD = prompts_EPD[place]
        values_PD = np.asarray(prompt_PD)
        if not np.isfinite(values_PD).all():  # its loss will not be, either
            continue
        values_S = singular_values(values_PD)
        found[member] = {
            "rank": matrix_rank(values_S, values_PD.shape),
            "entropy_rank": entropy_rank(values_S),
            "norm": float(mean_norm(prompt_PD)),
            "similarity": float(mean_similarity(prompt_PD)),
        }
        if isinstance(method, RankProbe):
            s_P = np.asarray(params_E["s"][place])
            found[member] |= {
                "positive_diagonal": int(np.count_nonzero(s_P > 0)),
                "negative_diagonal": int(np.count_nonzero(s_P < 0)),
            }
    return found
