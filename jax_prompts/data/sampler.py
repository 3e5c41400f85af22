"""Batches in order: training batch s of a member is a function of (seed, s) alone.

So there is no position to save: a resumed run asks for batch s and gets what an uninterrupted one got.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from jaxtyping import Int

from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import (
    T5_SPECIAL_TOKENS,
    Batch,
    RaggedTokens,
    SpecialTokens,
    decoder_arrays,
    encoder_tokens,
    static_length,
)
from jax_prompts.data.length_groups import in_groups, planned
from jax_prompts.data.random_order import random_order
from jax_prompts.errors import ConfigError

# Batches are small and quick to make; a few ahead hide the jitter of disk and scheduler.
_READING = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)


Mixture = Sequence[tuple[float, TokenCache]]


def train_batches(
    mixtures_E: Sequence[Mixture],
    *,
    seeds: Sequence[int],
    batch_size: int,
    inputs_length: int,
    targets_length: int,
    prompt_ids_TP: Int[np.ndarray, "T P"],
    special_tokens: SpecialTokens = T5_SPECIAL_TOKENS,
    start_step: int = 0,
    groups: int = 1,
    lengths: Sequence[int] = (),
    rows_here_K: Int[np.ndarray, " K"] | None = None,
) -> Iterator[list[Batch]]:
    """Batches `start_step`, `start_step + 1`, ... for ever, in groups of like length, made in background threads.

    Every cache is shuffled anew each epoch and each of its examples seen once an epoch; a mixture interleaves
    its caches in proportion to their rates. Members with equal mixtures and seeds see equal batches. Arrays of a
    group are [E, B / groups, ...].

    Args:
      mixtures_E: (rate, cache) pairs of each member.
      seeds: one of each member.
      batch_size: B, rows of each member.
      inputs_length: text tokens of a row at most; the prompt comes on top.
      targets_length: target tokens of a row at most.
      prompt_ids_TP: virtual tokens in front of a row, of each of a mixture's caches or (T = 1) of all; [1, 0] for no
        prompt.
      special_tokens: what the vocabulary puts around texts.
      start_step: number of the first batch.
      groups: parts of a batch, its shorter rows in the earlier ones.
      lengths: of `plan_lengths`, to the shortest of which that holds it a group is padded; empty: to as long as
        `inputs_length` or the longest example (`static_length`).
      rows_here_K: which of a group's rows are made, [E, K, ...], where other processes make the rest; None: all.

    Raises:
      ConfigError: a cache without examples, a rate or a batch size that is not positive.
    """
    stream = _Stream.of(mixtures_E, seeds, batch_size)
    longest, decoder_length = _lengths(stream.caches, inputs_length, targets_length)
    lengths, prompt_length = lengths or (longest,), prompt_ids_TP.shape[1]
    ids_FP = prompt_ids_TP[stream.places if len(prompt_ids_TP) > 1 else np.zeros_like(stream.places)]

    def batch(step: int) -> list[Batch]:
        rows_EB = stream.rows_EB(step)
        lengths_EB = np.minimum(stream.lengths_N[rows_EB], inputs_length)
        made = []
        for places_EK in in_groups(lengths_EB, groups):
            needed = int(np.take_along_axis(lengths_EB, places_EK, 1).max())
            length = prompt_length + planned(lengths, needed)
            rows_EK = np.take_along_axis(rows_EB, places_EK, 1)
            rows_EK = rows_EK if rows_here_K is None else rows_EK[:, rows_here_K]
            inputs, targets = stream.gather(rows_EK.ravel())
            prompts = RaggedTokens.of_one_length(ids_FP[stream.caches_of(rows_EK.ravel())])
            arrays = {
                "encoder_input_tokens": encoder_tokens(inputs, prompts, length, special_tokens),
                **decoder_arrays(targets, decoder_length),
            }
            made.append({name: array.reshape(*rows_EK.shape, -1) for name, array in arrays.items()})
        return made

    steps = grain.MapDataset.range(start_step, sys.maxsize)
    return iter(steps.map(batch).to_iter_dataset(_READING))


def needed_lengths(
    mixtures_E: Sequence[Mixture],
    *,
    seeds: Sequence[int],
    batch_size: int,
    inputs_length: int,
    groups: int,
    steps: Sequence[int] | Int[np.ndarray, " S"],
) -> Int[np.ndarray, "S G"]:
    """Text tokens of the longest row in each group of `train_batches`, of all members, at these steps.

    Raises:
      ConfigError: as `train_batches`.
    """
    stream = _Stream.of(mixtures_E, seeds, batch_size)
    needed = []
    for step in steps:
        lengths_EB = np.minimum(stream.lengths_N[stream.rows_EB(int(step))], inputs_length)
        places_GEK = in_groups(lengths_EB, groups)
        needed.append([int(np.take_along_axis(lengths_EB, places_EK, 1).max()) for places_EK in places_GEK])
    return np.array(needed, dtype=np.int64).reshape(-1, groups)


def eval_batches(
    cache: TokenCache,
    *,
    batch_size: int,
    inputs_length: int,
    prompt_ids_EP: Int[np.ndarray, "E P"],
    special_tokens: SpecialTokens = T5_SPECIAL_TOKENS,
    targets_length: int | None = None,
    examples_N: Int[np.ndarray, " N"] | None = None,
    start: int = 0,
    lengths: Sequence[int] = (),
    rows_here_K: Int[np.ndarray, " K"] | None = None,
) -> Iterator[Batch]:
    """Examples in order, each behind every prompt once, arrays [B, ...]; without `targets_length` no decoder arrays.

    Row n E + e is example n behind prompt e, and `index` [B] says its number. The last batch is filled up with copies
    of the last row, which have index -1 and loss weights 0. With `rows_here_K` all arrays but `index` have those rows
    alone.

    Args:
      cache: of the examples.
      batch_size: B.
      inputs_length, special_tokens, targets_length, lengths, rows_here_K: as for `train_batches`.
      prompt_ids_EP: virtual tokens of E prompts; [1, 0] for no prompt.
      examples_N: numbers of those that are wanted; None: all.
      start: the row that the first batch begins with.

    Raises:
      ConfigError: no examples, or a batch size that is not positive.
    """
    _check([(1.0, cache)], batch_size)
    prompts, prompt_length = prompt_ids_EP.shape
    wanted_N = np.arange(len(cache)) if examples_N is None else examples_N
    rows = len(wanted_N) * prompts
    longest, decoder_length = _lengths([cache], inputs_length, targets_length or 1)
    lengths = lengths or (longest,)
    for first in range(start, rows, batch_size):
        index_B = np.arange(first, first + batch_size)
        example_B, prompt_B = np.divmod(np.minimum(index_B, rows - 1), prompts)
        needed = int(cache.input_lengths_N[wanted_N[example_B]].max())
        length = prompt_length + planned(lengths, min(needed, inputs_length))
        here = slice(None) if rows_here_K is None else rows_here_K
        inputs, targets = cache.rows(wanted_N[example_B[here]])
        prompts_K = RaggedTokens.of_one_length(prompt_ids_EP[prompt_B[here]])
        batch = {
            "index": np.where(index_B < rows, index_B, -1).astype(np.int32),
            "encoder_input_tokens": encoder_tokens(inputs, prompts_K, length, special_tokens),
        }
        if targets_length is not None:
            batch |= decoder_arrays(targets, decoder_length)
            batch["decoder_loss_weights"] *= (index_B[here] < rows)[:, None]
        yield batch


class _Shuffled:
    """Row numbers `first`, ..., `first + count - 1` in a new random order each epoch, for ever.

    (Grain's own shuffle takes 0.2 ms an example on data sets of a few hundred, and epoch k of its seed s is
    epoch 0 of s + k.)
    """

    def __init__(self, first: int, count: int, seed: int, stream: int) -> None:
        @functools.lru_cache(maxsize=2)  # prefetching reads across the end of an epoch
        def order(epoch: int) -> Int[np.ndarray, " N"]:
            return first + random_order(count, [seed % 2**64, stream, epoch])

        self._order, self._count = order, count

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._count)
        return int(self._order(epoch)[place])


@dataclasses.dataclass(frozen=True)
class _Stream:
    """The rows that members train on, numbered through all of their caches.

    Attributes:
      caches: each once.
      places: of each one in the mixtures that it is part of.
      first_rows: number of each one's first row, and of all rows.
      members: step -> numbers [B] of a member's rows.
      lengths_N: text tokens of each row.
    """

    caches: list[TokenCache]
    places: Int[np.ndarray, " F"]
    first_rows: Int[np.ndarray, " F+1"]
    members: list[grain.MapDataset]
    lengths_N: Int[np.ndarray, " N"]

    @classmethod
    def of(cls, mixtures_E: Sequence[Mixture], seeds: Sequence[int], batch_size: int) -> _Stream:
        for mixture in mixtures_E:
            _check(mixture, batch_size)
        places = {id(cache): place for mixture in mixtures_E for place, (_, cache) in enumerate(mixture)}
        caches = list({id(cache): cache for mixture in mixtures_E for _, cache in mixture}.values())
        first_rows = np.cumsum([0, *map(len, caches)])
        first_row_of = {id(cache): int(first) for cache, first in zip(caches, first_rows, strict=False)}
        members = [
            _row_numbers(mixture, [first_row_of[id(cache)] for _, cache in mixture], seed, batch_size)
            for mixture, seed in zip(mixtures_E, seeds, strict=True)
        ]
        return cls(
            caches,
            np.array([places[id(cache)] for cache in caches]),
            first_rows,
            members,
            np.concatenate([cache.input_lengths_N for cache in caches]),
        )

    def rows_EB(self, step: int) -> Int[np.ndarray, "E B"]:
        return np.stack([rows_B[step] for rows_B in self.members])

    def caches_of(self, rows_N: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """Numbers of the caches that rows are in."""
        return np.searchsorted(self.first_rows, rows_N, side="right") - 1

    def gather(self, rows_N: Int[np.ndarray, " N"]) -> tuple[RaggedTokens, RaggedTokens]:
        """Inputs and targets of rows."""
        if len(self.caches) == 1:
            return self.caches[0].rows(rows_N)
        which_N = self.caches_of(rows_N)
        found = [
            self.caches[i].rows([int(row - self.first_rows[i])])
            for i, row in zip(which_N, rows_N, strict=True)
        ]
        inputs, targets = zip(*found, strict=True)
        return RaggedTokens.of(rows.values_N for rows in inputs), RaggedTokens.of(
            rows.values_N for rows in targets
        )


def _row_numbers(mixture: Mixture, first_rows: Sequence[int], seed: int, batch_size: int) -> grain.MapDataset:
    """Step -> numbers of the batch's rows [B], counted through all caches."""
    streams = [
        grain.MapDataset.source(_Shuffled(first_rows[i], len(cache), seed, i))
        for i, (_, cache) in enumerate(mixture)
    ]
    return grain.MapDataset.mix(streams, [rate for rate, _ in mixture]).batch(batch_size)


def _lengths(caches: Sequence[TokenCache], inputs_length: int, targets_length: int) -> tuple[int, int]:
    """Lengths that hold every example: of inputs and of targets."""
    inputs = static_length(inputs_length, max(cache.longest_inputs for cache in caches))
    return inputs, static_length(targets_length, max(cache.longest_targets for cache in caches))


def _check(mixture: Mixture, batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"BATCH_SIZE is {batch_size}: set it to at least 1")
    for rate, cache in mixture:
        if not len(cache):
            raise ConfigError(
                f"{cache.task} has no examples in split {cache.split}: choose another task or split"
            )
        if not rate > 0:
            raise ConfigError(f"{cache.task} has mixing rate {rate}: rates must be above 0")
