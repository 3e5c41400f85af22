import itertools

import jax.numpy as jnp
import numpy as np

from jax_prompts.prompts.geometry import (
    entropy_rank,
    matrix_rank,
    mean_norm,
    mean_similarity,
    singular_values,
)


def test_means_over_vectors_and_pairs():
    prompt_PD = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    cosine = lambda a, b: a @ b / (np.linalg.norm(a) * np.linalg.norm(b))  # noqa: E731
    pairs = [cosine(a, b) for a, b in itertools.combinations(prompt_PD, 2)]
    np.testing.assert_allclose(mean_similarity(jnp.asarray(prompt_PD)), np.mean(pairs), atol=1e-6)
    np.testing.assert_allclose(
        mean_norm(jnp.asarray(prompt_PD)), np.mean([np.linalg.norm(v) for v in prompt_PD]), rtol=1e-6
    )


def test_equal_vectors_and_very_long_ones():
    copies_PD = jnp.full((3, 4), 1e15)
    np.testing.assert_allclose(mean_similarity(copies_PD), 1.0, rtol=1e-6)
    np.testing.assert_allclose(mean_similarity(copies_PD[:1]), 1.0)
    np.testing.assert_allclose(mean_norm(copies_PD), 2e15, rtol=1e-6)


def test_vectors_of_zeros_are_like_no_other():
    for length in (2, 10):
        assert mean_similarity(jnp.zeros((length, 4))) == 0
    half_PD = jnp.zeros((4, 3)).at[:2].set(1.0)  # of six pairs one is equal
    np.testing.assert_allclose(mean_similarity(half_PD), 1 / 6, rtol=1e-6)


def test_rank_of_known_matrices():
    orthogonal_PD = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 5)))[0].T * 3
    assert matrix_rank(singular_values(orthogonal_PD), orthogonal_PD.shape) == 5
    np.testing.assert_allclose(singular_values(orthogonal_PD), np.full(5, 3.0))
    np.testing.assert_allclose(entropy_rank(singular_values(orthogonal_PD)), 5.0)
    copies_PD = np.tile(np.arange(1.0, 7.0, dtype=np.float32), (4, 1))
    assert matrix_rank(singular_values(copies_PD), copies_PD.shape) == 1
    np.testing.assert_allclose(entropy_rank(singular_values(copies_PD)), 1.0, rtol=1e-6)
    # Shares 3/4 and 1/4: the entropy by hand.
    np.testing.assert_allclose(entropy_rank(singular_values(np.diag([3.0, 1.0]))), 4 / 3**0.75)


def test_rank_is_numpy_s_of_float32():
    rng = np.random.default_rng(0)
    product_PD = (rng.normal(size=(20, 3)) @ rng.normal(size=(3, 30))).astype(np.float32)
    assert (
        matrix_rank(singular_values(product_PD), product_PD.shape) == np.linalg.matrix_rank(product_PD) == 3
    )
    assert matrix_rank(singular_values(product_PD.astype(np.float64)), product_PD.shape) == 3


def test_rank_of_zeros():
    assert matrix_rank(singular_values(np.zeros((3, 4))), (3, 4)) == 0
    assert entropy_rank(singular_values(np.zeros((3, 4)))) == 0.0
