"""Norms, similarity and rank of a prompt's vectors, as the EPT and the Decomposed papers look at them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def mean_norm(prompt_PD: Float[Array, "P D"]) -> Float[Array, ""]:
    """Mean Euclidean norm of the vectors (EPT, section 3: it grows where prompts are reparameterised)."""
    return jnp.mean(jnp.linalg.norm(prompt_PD, axis=-1))


def mean_similarity(prompt_PD: Float[Array, "P D"]) -> Float[Array, ""]:
    """Mean cosine of all pairs of different vectors (EPT, section 3: near 1 after reparameterisation); 1 for P = 1.

    The cosine with a vector of zeros is 0.
    """
    P = prompt_PD.shape[0]
    if P == 1:
        return jnp.ones(())
    # Norms first: squares of very large rows would overflow.
    unit_PD = prompt_PD / jnp.maximum(jnp.linalg.norm(prompt_PD, axis=-1, keepdims=True), 1e-30)
    of_itself = jnp.sum(jnp.square(unit_PD))  # 1 each, but 0 of vectors of zeros
    return (jnp.sum(jnp.square(jnp.sum(unit_PD, axis=0))) - of_itself) / (P * (P - 1))


def singular_values(prompt_PD: Float[np.ndarray, "P D"]) -> Float[np.ndarray, " S"]:
    """Singular values in float64, the largest first, S = min(P, D)."""
    return np.linalg.svd(np.asarray(prompt_PD, np.float64), compute_uv=False)


def matrix_rank(values_S: Float[np.ndarray, " S"], shape: tuple[int, int]) -> int:
    """Numerical rank: singular values above the largest, times max(P, D), times the spacing of float32.

    That is `numpy.linalg.matrix_rank` of a float32 prompt, which is what files hold; 0 of a prompt of zeros.

    Args:
      values_S: `singular_values` of a prompt.
      shape: (P, D) of the prompt.
    """
    tolerance = values_S[0] * max(shape) * np.finfo(np.float32).eps
    return int(np.count_nonzero(values_S > tolerance))


def entropy_rank(values_S: Float[np.ndarray, " S"]) -> float:
    """Exponential of the entropy of the singular values, divided by their sum; from 1 to S, 0 of a prompt of zeros.

    (Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".) It falls smoothly where
    a few directions come to dominate, while the numerical rank stays.
    """
    if values_S[0] == 0:
        return 0.0
    share_S = values_S[values_S > 0] / values_S.sum()
    return float(np.exp(-np.sum(share_S * np.log(share_S))))


def stable_rank(values_S: Float[np.ndarray, " S"]) -> float:
    """Sum of the squared singular values over the largest's square; 0 of a prompt of zeros."""
    return float(np.sum(np.square(values_S / values_S[0]))) if values_S[0] else 0.0


def unit_rows(x_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Rows of length 1, in float64; a row of zeros stays."""
    x_ND = np.asarray(x_ND, np.float64)
    norm_N = np.linalg.norm(x_ND, axis=-1, keepdims=True)
    return x_ND / np.where(norm_N == 0, 1.0, norm_N)


def cosines(a_MD: Float[np.ndarray, "M D"], b_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "M N"]:
    """The cosine of every row of one with every row of the other; 0 with a row of zeros."""
    return np.clip(unit_rows(a_MD) @ unit_rows(b_ND).T, -1.0, 1.0)
