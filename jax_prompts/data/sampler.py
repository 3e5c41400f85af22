"""Batches in order: training batch s of a member is a function of (seed, s) alone.

So there is no position to save: a resumed run asks for batch s and gets what an uninterrupted one got.
"""

from __future__ import annotations

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
    prompt_ids: Int[np.ndarray, " P"],
    special_tokens: SpecialTokens = T5_SPECIAL_TOKENS,
    start_step: int = 0,
    rows_here_K: Int[np.ndarray, " K"] | None = None,
) -> Iterator[Batch]:
    """Batches `start_step`, `start_step + 1`, ... for ever, arrays [E, B, ...], made in background threads.

    Every cache is shuffled anew each epoch and each of its examples seen once an epoch; a mixture interleaves
    its caches in proportion to their rates. Members with equal mixtures and seeds see equal batches.

    Args:
      mixtures_E: (rate, cache) pairs of each member.
      seeds: one of each member.
      batch_size: B, rows of each member.
      inputs_length: text tokens of a row at most; the prompt comes on top. Rows are as long as this or the
        longest example (`static_length`).
      targets_length: target tokens of a row at most.
      prompt_ids: virtual tokens in front of every row; empty for no prompt.
      special_tokens: what the vocabulary puts around texts.
      start_step: number of the first batch.
      rows_here_K: which of a batch's rows are made, [E, K, ...], where other processes make the rest; None: all.

    Raises:
      ConfigError: a cache without examples, a rate or a batch size that is not positive.
    """
    for mixture in mixtures_E:
        _check(mixture, batch_size)
    caches = list({id(cache): cache for mixture in mixtures_E for _, cache in mixture}.values())
    first_rows = np.cumsum([0, *map(len, caches)])
    first_row_of = {id(cache): int(first) for cache, first in zip(caches, first_rows, strict=False)}
    lengths = _lengths(caches, len(prompt_ids), inputs_length, targets_length)
    members = [
        _row_numbers(mixture, [first_row_of[id(cache)] for _, cache in mixture], seed, batch_size)
        for mixture, seed in zip(mixtures_E, seeds, strict=True)
    ]

    def batch(step: int) -> Batch:
        rows_EB = np.stack([rows_B[step] for rows_B in members])
        rows_EK = rows_EB if rows_here_K is None else rows_EB[:, rows_here_K]
        inputs, targets = _gather(caches, first_rows, rows_EK.ravel())
        arrays = {
            "encoder_input_tokens": encoder_tokens(inputs, prompt_ids, lengths[0], special_tokens),
            **decoder_arrays(targets, lengths[1]),
        }
        return {name: array.reshape(*rows_EK.shape, -1) for name, array in arrays.items()}

    steps = grain.MapDataset.range(start_step, sys.maxsize)
    return iter(steps.map(batch).to_iter_dataset(_READING))


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
    rows_here_K: Int[np.ndarray, " K"] | None = None,
) -> Iterator[Batch]:
    """Examples in order, each behind every prompt once, arrays [B, ...]; without `targets_length` no decoder arrays.

    Row n E + e is example n behind prompt e, and `index` [B] says its number. The last batch is filled up with copies
    of the last row, which have index -1 and loss weights 0. With `rows_here_K` all arrays but `index` have those rows
    alone.

    Args:
      cache: of the examples.
      batch_size: B.
      inputs_length, special_tokens, targets_length, rows_here_K: as for `train_batches`.
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
    lengths = _lengths([cache], prompt_length, inputs_length, targets_length or 1)
    for first in range(start, rows, batch_size):
        index_B = np.arange(first, first + batch_size)
        index_K = index_B if rows_here_K is None else index_B[rows_here_K]
        example_K, prompt_K = np.divmod(np.minimum(index_K, rows - 1), prompts)
        inputs, targets = cache.rows(wanted_N[example_K])
        prompts_K = RaggedTokens(
            prompt_ids_EP[prompt_K].ravel(), np.arange(len(prompt_K) + 1) * prompt_length
        )
        batch = {
            "index": np.where(index_B < rows, index_B, -1).astype(np.int32),
            "encoder_input_tokens": encoder_tokens(inputs, prompts_K, lengths[0], special_tokens),
        }
        if targets_length is not None:
            batch |= decoder_arrays(targets, lengths[1])
            batch["decoder_loss_weights"] *= (index_K < rows)[:, None]
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


def _row_numbers(mixture: Mixture, first_rows: Sequence[int], seed: int, batch_size: int) -> grain.MapDataset:
    """Step -> numbers of the batch's rows [B], counted through all caches."""
    streams = [
        grain.MapDataset.source(_Shuffled(first_rows[i], len(cache), seed, i))
        for i, (_, cache) in enumerate(mixture)
    ]
    return grain.MapDataset.mix(streams, [rate for rate, _ in mixture]).batch(batch_size)


def _gather(
    caches: Sequence[TokenCache], first_rows: np.ndarray, rows_N: Int[np.ndarray, " N"]
) -> tuple[RaggedTokens, RaggedTokens]:
    if len(caches) == 1:
        return caches[0].rows(rows_N)
    which_N = np.searchsorted(first_rows, rows_N, side="right") - 1
    found = [caches[i].rows([int(row - first_rows[i])]) for i, row in zip(which_N, rows_N, strict=True)]
    inputs, targets = zip(*found, strict=True)
    return RaggedTokens.of(rows.values_N for rows in inputs), RaggedTokens.of(
        rows.values_N for rows in targets
    )


def _lengths(
    caches: Sequence[TokenCache], prompt_length: int, inputs_length: int, targets_length: int
) -> tuple[int, int]:
    """Static encoder length, prompt included, and decoder length."""
    inputs = static_length(inputs_length, max(cache.longest_inputs for cache in caches))
    return prompt_length + inputs, static_length(
        targets_length, max(cache.longest_targets for cache in caches)
    )


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
