"""Mean length and mean similarity of a prompt's vectors: the two curves of the EPT paper's analysis."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_norm(prompt_PD: Float[Array, "P D"]) -> Float[Array, ""]:
    """Mean Euclidean norm of the vectors (EPT, section 3: it grows where prompts are reparameterised)."""
    return jnp.mean(jnp.linalg.norm(prompt_PD, axis=-1))


def mean_similarity(prompt_PD: Float[Array, "P D"]) -> Float[Array, ""]:
    """Mean cosine of all pairs of different vectors (EPT, section 3: near 1 after reparameterisation); 1 for P = 1."""
    P = prompt_PD.shape[0]
    if P == 1:
        return jnp.ones(())
    # Norms first: squares of very large rows would overflow.
    unit_PD = prompt_PD / jnp.maximum(jnp.linalg.norm(prompt_PD, axis=-1, keepdims=True), 1e-30)
    return (jnp.sum(jnp.square(jnp.sum(unit_PD, axis=0))) - P) / (P * (P - 1))
