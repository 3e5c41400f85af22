"""Groups of like length: which divisions there are, which lengths cost least, what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_prompts.data.layout import static_length
from jax_prompts.data.length_groups import MOST_LENGTHS, group_count, in_groups, plan_lengths, planned
from jax_prompts.errors import ConfigError


@pytest.mark.parametrize(
    ("rows", "multiple", "platform", "groups"),
    [
        (32, 1, "cpu", 8),
        (16, 1, "cpu", 4),
        (8, 1, "cpu", 2),
        (3, 1, "cpu", 1),
        (20, 1, "cpu", 5),
        (32, 4, "cpu", 2),  # four devices, or microbatches
        (32, 32, "cpu", 1),
        (32, 1, "gpu", 4),
        (256, 64, "tpu", 1),
    ],
)
def test_as_many_groups_as_leave_enough_rows(rows, multiple, platform, groups):
    assert group_count(None, rows, multiple, platform) == groups
    assert group_count((64, 128), rows, multiple, platform) == groups


def test_groups_that_do_not_divide_the_rows_are_refused_with_those_that_do():
    assert group_count(4, 32, 2, "cpu") == 4
    with pytest.raises(
        ConfigError, match=r"LENGTH_GROUPS is 3, .* multiples of 2 rows: it can be 1, 2, 4, 8, 16"
    ):
        group_count(3, 32, 2, "cpu")
    with pytest.raises(ConfigError, match="LENGTH_GROUPS is 0"):
        group_count(0, 32, 2, "cpu")


def test_rows_are_divided_by_length_and_none_is_lost():
    lengths_EB = np.array([[5, 1, 9, 3, 3, 8], [2, 2, 2, 1, 7, 6]])
    places_GEK = in_groups(lengths_EB, 3)
    assert places_GEK.tolist() == [[[1, 3], [3, 0]], [[4, 0], [1, 2]], [[5, 2], [5, 4]]]
    assert in_groups(lengths_EB, 1).tolist() == [[[*range(6)]] * 2]  # as they were


needed = st.lists(st.integers(1, 100), min_size=1, max_size=40)


@given(needed, st.integers(0, 20), st.floats(0, 300))
def test_the_plan_costs_least(lengths, beyond, program_cost):
    longest, quadratic = max(lengths) + beyond, lambda length: 5 * length + length**2 / 10
    found = plan_lengths(None, np.array(lengths), longest, 104, quadratic, program_cost)

    def cost(plan):
        padded = [quadratic(planned(plan, length)) for length in lengths]
        return sum(padded) / len(padded) + len(plan) * program_cost

    last = static_length(104, longest)
    assert found[-1] == last and list(found) == sorted(set(found))
    candidates = sorted({static_length(last, length) for length in lengths} - {last})
    others = itertools.chain(*(itertools.combinations(candidates, n) for n in range(min(3, MOST_LENGTHS))))
    assert all(cost(found) <= cost((*other, last)) + 1e-6 for other in others)


def test_one_group_has_one_length_and_short_runs_compile_little():
    lengths = np.array([8, 16, 100, 100])
    assert plan_lengths(1, lengths, 100, 512, float, 0.0) == (104,)
    assert plan_lengths(None, lengths, 100, 512, float, 0.0) == (8, 16, 104)
    assert plan_lengths(None, lengths, 100, 512, float, 1e9) == (104,)
    assert plan_lengths(4, lengths, 600, 512, float, 0.0) == (8, 16, 104, 512)  # the longest has a place


def test_given_lengths_are_taken_and_have_to_hold_the_longest():
    lengths = np.array([8, 16])
    assert plan_lengths((64, 32, 600), lengths, 100, 512, float, 0.0) == (32, 64, 104)
    assert plan_lengths((64, 512), lengths, 900, 512, float, 0.0) == (64, 512)
    with pytest.raises(ConfigError, match="no place for the longest example, of 100 tokens: add 104"):
        plan_lengths((32, 64), lengths, 100, 512, float, 0.0)
    for bad in ((), (0, 128), tuple(range(100, 109))):
        with pytest.raises(ConfigError, match="set it to a number of groups, or to 1 to 8 lengths"):
            plan_lengths(bad, lengths, 100, 512, float, 0.0)
