"""What is recorded of prompts while they are tuned."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.prompts import PromptTuning, RankProbe
from jax_prompts.prompts.described import describe


def test_prompts_of_known_ranks():
    prompts_EPD = np.stack([np.eye(3, 5), np.ones((3, 5)), np.diag([3.0, 1.0, 0.0]) @ np.eye(3, 5)])
    found = describe(PromptTuning(3), {}, jnp.asarray(prompts_EPD), [4, 5, 7], [4, 5, 7])
    assert list(found) == [4, 5, 7]
    assert [values["rank"] for values in found.values()] == [3, 1, 2]
    assert found[4] == pytest.approx({"rank": 3, "entropy_rank": 3, "norm": 1, "similarity": 0}, abs=1e-6)
    assert found[5] == pytest.approx(
        {"rank": 1, "entropy_rank": 1, "norm": 5**0.5, "similarity": 1}, abs=1e-5
    )
    half = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))  # singular values 3 and 1
    assert found[7]["entropy_rank"] == pytest.approx(np.exp(half))


def test_the_diagonal_of_a_rank_probe_is_counted():
    params_E = {"s": np.array([[1.0, -2.0, 0.0], [1.0, 2.0, 3.0]])}
    found = describe(RankProbe(3), params_E, jnp.ones((2, 3, 4)), [0, 1], [0])
    assert list(found) == [0]  # the other one is not wanted
    assert (found[0]["positive_diagonal"], found[0]["negative_diagonal"]) == (1, 1)


def test_without_prompts_there_is_nothing():
    assert describe(None, None, None, [0], [0]) == {}


def test_a_prompt_that_is_not_finite_is_left_to_its_loss():
    prompts_EPD = jnp.stack([jnp.full((3, 4), jnp.nan), jnp.ones((3, 4))])
    assert list(describe(PromptTuning(3), {}, prompts_EPD, [0, 1], [0, 1])) == [1]
