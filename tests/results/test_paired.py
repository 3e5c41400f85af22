"""Tests of paired answers against values computed by hand, by scipy and by drawing examples one by one."""

import numpy as np
import pytest
import scipy.stats

from jax_prompts.results.intervals import student, wilson
from jax_prompts.results.paired import bootstrap, holm, mcnemar


def two(both, only_first, only_second, none):
    """Which examples two systems have right, given how often each of four cases comes."""
    counts = (both, only_first, only_second, none)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (0, 5, 2 / 2**5),
        (1, 5, 2 * (1 + 6) / 2**6),
        (5, 1, 2 * (1 + 6) / 2**6),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
    ],
)
def test_mcnemar_is_the_two_sided_binomial_test_of_the_discordant_pairs(b, c, p):
    found = mcnemar(*two(7, b, c, 3))
    assert (found.b, found.c) == (b, c)
    assert found.p == pytest.approx(p)


def test_the_bootstrap_draws_examples_as_drawing_them_one_by_one_does():
    first_N, second_N = two(60, 12, 25, 13)
    differences_N = second_N.astype(float) - first_N
    found = bootstrap(differences_N, draws=40_000)
    other = scipy.stats.bootstrap(
        (differences_N,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.value == pytest.approx(13 / 110)
    assert found.low == pytest.approx(other.low, abs=0.011)  # of means that are 1/110 apart
    assert found.high == pytest.approx(other.high, abs=0.011)
    # With N examples the difference has variance ((b + c) / N - ((c - b) / N)^2) / N: nearly normal.
    error = np.sqrt((37 / 110 - (13 / 110) ** 2) / 110)
    assert found.p == pytest.approx(2 * scipy.stats.norm.sf((13 / 110 - 0.5 / 110) / error), rel=0.1)


def test_the_bootstrap_of_values_that_members_share_is_that_of_their_means():
    differences_N = np.array([0.0, 1 / 3, 2 / 3, -1 / 3] * 25)
    found = bootstrap(differences_N)
    half = 1.96 * differences_N.std() / 10
    assert found.value == pytest.approx(1 / 6)
    assert (found.low, found.high) == pytest.approx((1 / 6 - half, 1 / 6 + half), abs=0.01)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_differences_that_are_all_equal_have_no_spread(value):
    found = bootstrap(np.full(9, value), draws=999)
    assert (found.value, found.low, found.high) == (value, value, value)
    assert found.p == (1.0 if value == 0 else 2 / 1000)


def test_the_same_seed_gives_the_same_numbers():
    differences_N = np.array([1.0, 0.0, -1.0, 1.0, 1.0])
    assert bootstrap(differences_N) == bootstrap(differences_N)
    assert bootstrap(differences_N) != bootstrap(differences_N, seed=1)


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm(ps, corrected):
    assert holm(ps) == pytest.approx(corrected)


@pytest.mark.parametrize(("right", "examples"), [(0, 10), (387, 400), (10, 10), (1, 1)])
def test_wilson_is_its_formula(right, examples):
    z, share = 1.959963984540054, right / examples
    centre = (share + z**2 / (2 * examples)) / (1 + z**2 / examples)
    half = z / (1 + z**2 / examples) * np.sqrt(share * (1 - share) / examples + z**2 / (4 * examples**2))
    assert wilson(right, examples) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_student_is_the_mean_and_its_error_times_the_quantile():
    # Quantile of t with 2 degrees of freedom at 97.5 %: 4.302653 (any table).
    assert student([96.0, 97.0, 98.0]) == pytest.approx((97 - 4.302653 / 3**0.5, 97 + 4.302653 / 3**0.5))
    assert student([5.0, 5.0]) == (5.0, 5.0)
    assert student([5.0]) is None
