"""A prompt that several tuned ones have in common, up to a rank-1 matrix of each, by alternating least squares.

It stands in for the first stage of multitask prompt tuning (Wang et al. 2023), and is not that: the paper tunes shared
prompt and factors on the source tasks' own losses and on those of distillation, for which it needs their examples and
runs the model. Here the model is not asked; what is kept is what source prompts have in common as matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_SWEEPS = 100
_ENOUGH = 1e-7  # of the sources' squared norm: a sweep that gains less is the last


class SharedPrompt(NamedTuple):
    """What approximates source prompt k: shared_PD * u_KP[k][:, None] * v_KD[k][None].

    Attributes:
      shared_PD: the shared prompt.
      u_KP, v_KD: factors of each source; u_KP[k] and v_KD[k] have the same root mean square, the sum of u_KP[k] is
        not negative.
      explained: 1 - squared error / squared norm of the sources, from 0 to 1; 1 of one source.
    """

    shared_PD: Float[np.ndarray, "P D"]
    u_KP: Float[np.ndarray, "K P"]
    v_KD: Float[np.ndarray, "K D"]
    explained: float

    @property
    def start_PD(self) -> Float[np.ndarray, "P D"]:
        """The shared prompt times the mean factors, where the paper starts a target task."""
        return self.shared_PD * self.u_KP.mean(0)[:, None] * self.v_KD.mean(0)[None]


def decompose(sources_KPD: Float[np.ndarray, "K P D"]) -> SharedPrompt:
    """The shared prompt and rank-1 factors with the least squared error, from factors of one on: a local optimum.

    Each of the three updates of a sweep is a least-squares solution in closed form, so that the error never grows; the
    first gives the mean of the sources.
    """
    sources_KPD = np.asarray(sources_KPD, np.float64)
    K, P, D = sources_KPD.shape
    u_KP, v_KD = np.ones((K, P)), np.ones((K, D))
    whole = float(np.square(sources_KPD).sum())
    explained = 0.0
    for _ in range(_SWEEPS):
        scale_KPD = u_KP[:, :, None] * v_KD[:, None]
        shared_PD = _ratio((scale_KPD * sources_KPD).sum(0), np.square(scale_KPD).sum(0))
        along_KPD = shared_PD[None] * v_KD[:, None]
        u_KP = _ratio((along_KPD * sources_KPD).sum(2), np.square(along_KPD).sum(2))
        along_KPD = shared_PD[None] * u_KP[:, :, None]
        v_KD = _ratio((along_KPD * sources_KPD).sum(1), np.square(along_KPD).sum(1))
        error = float(np.square(sources_KPD - along_KPD * v_KD[:, None]).sum())
        before, explained = explained, 1 - _number_ratio(error, whole)
        if explained - before < _ENOUGH:
            break
    balance_K = np.sqrt(_ratio(_size(v_KD), _size(u_KP))) * np.where(u_KP.sum(1) < 0, -1.0, 1.0)
    return SharedPrompt(
        shared_PD,
        u_KP * balance_K[:, None],
        _ratio(v_KD, np.broadcast_to(balance_K[:, None], v_KD.shape)),
        explained,
    )


def _size(x_KN: Float[np.ndarray, "K N"]) -> Float[np.ndarray, " K"]:
    return np.sqrt(np.square(x_KN).mean(1))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; 0 where b is 0, of which least squares says nothing."""
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def _number_ratio(a: float, b: float) -> float:
    return a / b if b else 0.0
