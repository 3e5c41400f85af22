"""Rows of a batch in groups of like length, each padded to one of a few planned lengths.

The examples of a batch and the sum of their gradients stay what they are; columns that would be padding in a whole
group are left out. Lengths are in text tokens, end of sentence included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from jax_prompts.data.layout import static_length
from jax_prompts.errors import ConfigError

LengthGroups = int | tuple[int, ...] | None
MOST_LENGTHS = 8  # each is a program of its own

# Groups at most, and rows of a device in each at least. Measured on CPUs, four rows at a time take no longer a row than
# sixteen; an accelerator needs more to be busy.
_LIMITS = {"cpu": (8, 4)}
_LIMITS_ELSEWHERE = (4, 8)


def group_count(setting: LengthGroups, rows: int, multiple: int, platform: str) -> int:
    """Groups that the rows of a batch are divided into.

    Args:
      setting: LENGTH_GROUPS.
      rows: of a batch.
      multiple: what the rows of each group have to be a multiple of: devices that share rows, times microbatches.
      platform: of the devices.

    Raises:
      ConfigError: a number that does not divide the rows.
    """
    units = rows // multiple
    if isinstance(setting, int):
        fitting = [n for n in range(1, units + 1) if units % n == 0]
        if setting not in fitting:
            raise ConfigError(
                f"LENGTH_GROUPS is {setting}, into which BATCH_SIZE = {rows} cannot be divided in multiples of "
                f"{multiple} rows: it can be {', '.join(map(str, fitting))}"
            )
        return setting
    most, least = _LIMITS.get(platform, _LIMITS_ELSEWHERE)
    return max(n for n in range(1, most + 1) if units % n == 0 and (n == 1 or units // n >= least))


def in_groups(lengths_EB: Int[np.ndarray, "E B"], groups: int) -> Int[np.ndarray, "G E K"]:
    """Places of each member's rows in a batch, shorter ones in earlier groups; as they are where there is one."""
    members, rows = lengths_EB.shape
    if groups == 1:
        return np.broadcast_to(np.arange(rows), (1, members, rows))
    order_EB = np.argsort(lengths_EB, axis=1, kind="stable")
    return order_EB.reshape(members, groups, -1).swapaxes(0, 1)


def plan_lengths(
    setting: LengthGroups,
    needed_N: Int[np.ndarray, " N"],
    longest: int,
    most: int,
    cost: Callable[[int], float],
    program_cost: float,
) -> tuple[int, ...]:
    """The lengths that groups are padded to: those for which a run costs least, in rising order.

    Args:
      setting: LENGTH_GROUPS; 1 asks for one length, and lengths are taken as they are.
      needed_N: the longest row of each group, of all of a run or of a part that stands for it.
      longest: example that there is.
      most: tokens that a row may have.
      cost: of all of the run's groups, were they of this length, in any unit.
      program_cost: of another length, in the same unit.

    Raises:
      ConfigError: lengths without a place for the longest example.
    """
    last = static_length(most, longest)
    if isinstance(setting, tuple):
        return _as_set(setting, min(longest, most), last)
    if setting == 1:
        return (last,)
    lengths = np.array(sorted({static_length(last, int(length)) for length in np.unique(needed_N)} | {last}))
    shares = np.bincount(np.searchsorted(lengths, needed_N), minlength=len(lengths)) / max(1, len(needed_N))
    costs = np.array([cost(int(length)) for length in lengths])
    before = np.concatenate([[0.0], np.cumsum(shares)])
    # least[i]: of all groups of length i or less, the last program of which is that of length i.
    least = before[1:] * costs
    plans: Sequence[tuple[int, ...]] = [(length,) for length in lengths.tolist()]
    best, chosen = least[-1] + program_cost, plans[-1]
    for programs in range(2, MOST_LENGTHS + 1):
        least, plans = _with_another(least, plans, before, costs, lengths)
        if least[-1] + programs * program_cost < best:
            best, chosen = least[-1] + programs * program_cost, plans[-1]
    return chosen


def _with_another(
    least: np.ndarray,
    plans: Sequence[tuple[int, ...]],
    before: np.ndarray,
    costs: np.ndarray,
    lengths: np.ndarray,
) -> tuple[np.ndarray, Sequence[tuple[int, ...]]]:
    """The least costs and their plans with one more program."""
    found, new = np.full(len(lengths), np.inf), [*plans]
    for i in range(1, len(lengths)):
        totals = least[:i] + (before[i + 1] - before[1 : i + 1]) * costs[i]
        j = int(np.argmin(totals))
        found[i], new[i] = totals[j], (*plans[j], int(lengths[i]))
    return found, new


def _as_set(lengths: tuple[int, ...], longest: int, last: int) -> tuple[int, ...]:
    if not lengths or min(lengths) < 1 or len(lengths) > MOST_LENGTHS:
        raise ConfigError(
            f"LENGTH_GROUPS is {lengths}: set it to a number of groups, or to 1 to {MOST_LENGTHS} lengths"
        )
    if max(lengths) < longest:
        raise ConfigError(
            f"LENGTH_GROUPS {lengths} has no place for the longest example, of {longest} tokens: add {last}"
        )
    return tuple(sorted({min(length, last) for length in lengths}))


def planned(lengths: Sequence[int], needed: int) -> int:
    """The shortest of the planned lengths that holds a group."""
    return lengths[int(np.searchsorted(lengths, needed))]
