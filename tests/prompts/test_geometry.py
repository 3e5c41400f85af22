import itertools

import jax.numpy as jnp
import numpy as np

from jax_prompts.prompts.geometry import mean_norm, mean_similarity


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
