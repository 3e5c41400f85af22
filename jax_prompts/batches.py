"""Batches of a training run, in groups of like length that lie on its devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import jax

from jax_prompts import partition
from jax_prompts.data.layout import SpecialTokens
from jax_prompts.data.sampler import Mixture, train_batches
from jax_prompts.distributed import global_arrays
from jax_prompts.length_plan import LengthPlan
from jax_prompts.setup import Setup

Groups = list[dict[str, jax.Array]]


def batches_of(
    setup: Setup, plan: LengthPlan, special_tokens: SpecialTokens
) -> Callable[..., Iterator[Groups]]:
    """`make(mixtures_E, seeds, start_step)`: the batches of `train_batches`, of which each process makes its rows."""
    data, sharding = setup.run.data, partition.batch_sharding(setup.mesh, members=True)
    rows = data.batch_size // plan.groups

    def make(mixtures_E: Sequence[Mixture], seeds: Sequence[int], start_step: int = 0) -> Iterator[Groups]:
        batches = train_batches(
            mixtures_E,
            seeds=seeds,
            batch_size=data.batch_size,
            inputs_length=setup.inputs_length,
            targets_length=setup.targets_length,
            prompt_ids_TP=setup.prompt_ids_TP,
            special_tokens=special_tokens,
            start_step=start_step,
            groups=plan.groups,
            lengths=plan.lengths,
            rows_here_K=global_arrays.rows_here(sharding, rows, axis=1),
        )
        return (
            [global_arrays.put_batch(group, sharding, rows, axis=1) for group in batch] for batch in batches
        )

    return make
