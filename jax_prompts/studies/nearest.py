"""Nearest rows of a vocabulary by cosine, and what is alike among their pieces (Lester et al. 2021, section 7)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jax_prompts.prompts.geometry import cosines
from jax_prompts.studies.base_vocabulary import MARK
from jax_prompts.studies.cosines import groups

SHORTEST_STEM = 4  # letters
_ROWS = 1 << 14  # of the vocabulary at once, so that memory holds no second copy of it


class Nearest(NamedTuple):
    """The K nearest rows of each of N vectors, the nearest first.

    Attributes:
      ids_NK: their numbers.
      cosines_NK: with the vector.
    """

    ids_NK: Int[np.ndarray, "N K"]
    cosines_NK: Float[np.ndarray, "N K"]


def nearest(
    x_ND: Float[np.ndarray, "N D"],
    embedding_VD: Float[np.ndarray, "V D"],
    allowed_V: Bool[np.ndarray, " V"],
    k: int,
) -> Nearest:
    """The `k` nearest of the allowed rows by cosine, fewer where there are fewer; of equal ones the first is first."""
    ids_NK = np.zeros((len(x_ND), 0), np.int64)
    cosines_NK = np.zeros((len(x_ND), 0))
    numbers = np.flatnonzero(allowed_V)
    for start in range(0, len(numbers), _ROWS):
        part = numbers[start : start + _ROWS]
        cosines_NK = np.concatenate([cosines_NK, cosines(x_ND, embedding_VD[part])], axis=1)
        ids_NK = np.concatenate([ids_NK, np.broadcast_to(part, (len(x_ND), len(part)))], axis=1)
        order_NK = np.argsort(-cosines_NK, axis=1, kind="stable")[:, :k]
        ids_NK = np.take_along_axis(ids_NK, order_NK, 1)
        cosines_NK = np.take_along_axis(cosines_NK, order_NK, 1)
    return Nearest(ids_NK, cosines_NK)


def random_vectors(
    prompt_PD: Float[np.ndarray, "P D"], rows_VD: Float[np.ndarray, "V D"], seed: int
) -> Float[np.ndarray, "P D"]:
    """As many random vectors of the same norms, drawn from the embedding space.

    Each number is drawn from the normal distribution with the mean and the deviation of its column of the embedding.
    """
    mean_D, deviation_D = rows_VD.mean(axis=0, dtype=np.float64), rows_VD.std(axis=0, dtype=np.float64)
    drawn_PD = np.random.default_rng(seed).normal(mean_D, deviation_D, prompt_PD.shape)
    norm_P1 = np.linalg.norm(prompt_PD.astype(np.float64), axis=-1, keepdims=True)
    return drawn_PD * norm_P1 / np.maximum(np.linalg.norm(drawn_PD, axis=-1, keepdims=True), 1e-30)


def alike(one: str, other: str) -> bool:
    """Whether two pieces are forms of one word, by their letters alone.

    They are where they are equal but for case and the mark of a space, or begin with the same letters, four at least
    and at least half of the longer piece: `▁Technology`, `technologies`; not `▁international`, `▁interest`.
    """
    a, b = (piece.lstrip(MARK).removeprefix("##").lower() for piece in (one, other))
    if a == b:
        return bool(a)
    stem = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    return a[:stem].isalpha() and stem >= SHORTEST_STEM and 2 * stem >= max(len(a), len(b))


def clusters(pieces: Sequence[str]) -> list[list[str]]:
    """Groups of pieces that are alike, directly or by way of others."""
    pairs = [(i, j) for i, j in itertools.combinations(range(len(pieces)), 2) if alike(pieces[i], pieces[j])]
    return [[pieces[number] for number in group] for group in groups(len(pieces), pairs)]


def near_duplicates(prompt_PD: Float[np.ndarray, "P D"], above: float) -> list[list[int]]:
    """Groups of positions whose vectors have a cosine above this, directly or by way of others."""
    i, j = np.nonzero(np.triu(cosines(prompt_PD, prompt_PD) > above, 1))
    return groups(len(prompt_PD), zip(i.tolist(), j.tolist(), strict=True))
