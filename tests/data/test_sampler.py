"""The order of examples: a function of (seed, step), every example once an epoch, mixtures by rate."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import Batch, RaggedTokens
from jax_prompts.data.sampler import eval_batches, needed_lengths, train_batches
from jax_prompts.errors import ConfigError

PROMPT = np.arange(1000, 1003, dtype=np.int32)


class FakeCache(TokenCache):
    """Example i is the tokens [first + i] * (i % 5 + 1) and an end of sentence."""

    def __init__(self, count: int, first: int = 10) -> None:
        self.task, self.split = "fake", "train"
        self.count, self.first = count, first
        self.longest_inputs, self.longest_targets = 6, 2

    def __len__(self) -> int:
        return self.count

    @property
    def input_lengths_N(self) -> np.ndarray:
        return np.arange(self.count) % 5 + 2

    def rows(self, index_B: np.ndarray) -> tuple[RaggedTokens, RaggedTokens]:
        return (
            RaggedTokens.of([self.first + i] * (i % 5 + 1) + [1] for i in index_B),
            RaggedTokens.of([self.first + i, 1] for i in index_B),
        )


def train(*caches: FakeCache, rates=(1.0,), seeds=(0,), batch_size=4, start_step=0) -> Iterator[Batch]:
    return one_group(
        [list(zip(rates, caches, strict=True))] * len(seeds),
        seeds=seeds,
        batch_size=batch_size,
        inputs_length=64,
        targets_length=8,
        prompt_ids_TP=PROMPT[None],
        start_step=start_step,
    )


def one_group(*args, **settings) -> Iterator[Batch]:
    """`train_batches` whose batches are not divided."""
    batches = train_batches(*args, **settings)
    return (batch for (batch,) in batches)


def take(batches: Iterator[Batch], count: int) -> list[Batch]:
    return list(itertools.islice(batches, count))


def same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def examples(batches: list[Batch], member: int = 0) -> list[int]:
    return [int(i) for batch in batches for i in batch["decoder_target_tokens"][member, :, 0]]


def test_arrays_have_t5x_names_and_static_shapes() -> None:
    for batch in take(train(FakeCache(11), seeds=(0, 1)), 5):
        shapes = {name: array.shape for name, array in batch.items()}
        # 8 is the longest example rounded up, not the 64 tokens asked for.
        assert shapes == {
            "encoder_input_tokens": (2, 4, 3 + 8),
            "decoder_input_tokens": (2, 4, 8),
            "decoder_target_tokens": (2, 4, 8),
            "decoder_loss_weights": (2, 4, 8),
        }
        assert (batch["encoder_input_tokens"][..., :3] == PROMPT).all()
        np.testing.assert_array_equal(
            batch["encoder_input_tokens"][..., 3], batch["decoder_target_tokens"][..., 0]
        )


def test_rows_of_each_cache_read_the_prompt_of_their_own() -> None:
    words, more = FakeCache(12), FakeCache(9, first=200)
    mixtures_E = [[(1.0, words), (2.0, more)], [(1.0, words), (2.0, more)]]
    settings = {"seeds": (0, 1), "batch_size": 6, "inputs_length": 64, "targets_length": 8}
    ids_TP = np.stack([PROMPT, PROMPT + 3])
    batches = take(one_group(mixtures_E, **settings, prompt_ids_TP=ids_TP), 9)
    for batch in batches:
        which_EB = (batch["decoder_target_tokens"][..., 0] >= 200).astype(int)
        np.testing.assert_array_equal(batch["encoder_input_tokens"][..., :3], ids_TP[which_EB])
    assert 0 < np.mean([batch["encoder_input_tokens"][..., 0] == PROMPT[0] for batch in batches]) < 0.5
    for batch, alike in zip(
        batches, take(one_group(mixtures_E, **settings, prompt_ids_TP=PROMPT[None]), 9), strict=True
    ):
        np.testing.assert_array_equal(
            batch["encoder_input_tokens"][..., 3:], alike["encoder_input_tokens"][..., 3:]
        )


def test_each_example_once_an_epoch_in_a_new_order() -> None:
    order = examples(take(train(FakeCache(12)), 9))
    epochs = [order[i : i + 12] for i in (0, 12, 24)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10, 22))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_nothing_is_lost_where_epochs_cut_batches() -> None:
    order = examples(take(train(FakeCache(7), batch_size=3), 14))
    assert collections.Counter(order) == {i: 6 for i in range(10, 17)}


def test_a_restart_in_the_middle_continues_the_same_batches() -> None:
    whole = take(train(FakeCache(7), seeds=(3, 4)), 20)
    for start in (1, 6, 13):
        same(take(train(FakeCache(7), seeds=(3, 4), start_step=start), 20 - start), whole[start:])


def test_members_are_separate_runs() -> None:
    together = take(train(FakeCache(30), seeds=(0, 1, 2)), 12)
    for member, seed in enumerate((0, 1, 2)):
        alone = take(train(FakeCache(30), seeds=(seed,)), 12)
        same(
            [{name: array[member : member + 1] for name, array in batch.items()} for batch in together], alone
        )


def test_equal_seeds_equal_streams_and_other_seeds_other_ones() -> None:
    batches = take(train(FakeCache(40), seeds=(5, 5, 6)), 20)
    same(
        [{name: array[0] for name, array in batch.items()} for batch in batches],
        [{name: array[1] for name, array in batch.items()} for batch in batches],
    )
    first, second = examples(batches, 0), examples(batches, 2)
    # Nor is an epoch of one seed another epoch of its neighbour.
    epochs = [tuple(order[i : i + 40]) for order in (first, second) for i in (0, 40)]
    assert len(set(epochs)) == 4


def test_orders_are_uniform() -> None:
    places = np.zeros((4, 4))
    for seed in range(300):
        for place, example in enumerate(examples(take(train(FakeCache(4), seeds=(seed,)), 1))):
            places[place, example - 10] += 1
    assert abs(places - 75).max() < 32  # over 4 standard deviations of Binomial(300, 1/4)


def test_mixtures_keep_their_rates_in_every_stretch() -> None:
    small, large = FakeCache(5, first=10), FakeCache(900, first=100)
    batches = take(train(small, large, rates=(3.0, 1.0), batch_size=8), 50)
    for batch in batches:
        from_small = (batch["decoder_target_tokens"][0, :, 0] < 100).sum()
        assert from_small == 6
    order = [i for i in examples(batches) if i < 100]
    assert collections.Counter(order) == {i: 60 for i in range(10, 15)}
    seen = [i for i in examples(batches) if i >= 100]
    assert len(set(seen)) == len(seen) == 100  # far from a whole epoch: no repetition yet


def test_a_mixture_restarts_in_the_middle() -> None:
    caches = FakeCache(5, first=10), FakeCache(9, first=100)
    whole = take(train(*caches, rates=(0.3, 1.0), seeds=(1,)), 30)
    same(take(train(*caches, rates=(0.3, 1.0), seeds=(1,), start_step=17), 13), whole[17:])


def test_evaluation_has_all_examples_in_order_and_marks_what_it_adds() -> None:
    cache = FakeCache(10)
    options = {"batch_size": 4, "inputs_length": 64, "prompt_ids_EP": PROMPT[None]}
    batches = list(eval_batches(cache, targets_length=8, **options))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]
    assert [batch["encoder_input_tokens"].shape for batch in batches] == [(4, 11)] * 3
    real = [int(i) for b in batches for i in b["decoder_target_tokens"][b["index"] >= 0, 0]]
    assert real == list(range(10, 20))
    assert batches[2]["decoder_loss_weights"].sum(axis=1).tolist() == [2, 2, 0, 0]
    assert (batches[2]["encoder_input_tokens"][2:] > 0).any(axis=1).all()
    assert list(next(eval_batches(cache, **options))) == ["index", "encoder_input_tokens"]


def test_every_example_stands_behind_every_prompt_as_it_does_behind_that_alone() -> None:
    cache, prompts_EP = FakeCache(5), np.stack([PROMPT, PROMPT + 10, PROMPT + 20])
    settings = {"inputs_length": 64, "targets_length": 8}
    together = list(eval_batches(cache, batch_size=4, prompt_ids_EP=prompts_EP, **settings))
    index = np.concatenate([batch["index"] for batch in together])
    assert index.tolist() == [*range(15), -1]
    for prompt, prompt_P in enumerate(prompts_EP):
        (alone,) = eval_batches(cache, batch_size=5, prompt_ids_EP=prompt_P[None], **settings)
        for name in alone.keys() - {"index"}:
            rows = np.concatenate([batch[name] for batch in together])[:15]
            np.testing.assert_array_equal(rows[prompt::3], alone[name])


def test_evaluation_of_some_examples_begins_at_any_row() -> None:
    cache, wanted_N = FakeCache(9), np.array([1, 4, 8])
    settings = {
        "batch_size": 2,
        "inputs_length": 64,
        "targets_length": 8,
        "prompt_ids_EP": np.stack([PROMPT] * 2),
    }
    whole = list(eval_batches(cache, examples_N=wanted_N, **settings))
    assert [batch["decoder_target_tokens"][:, 0].tolist() for batch in whole] == [
        [11] * 2,
        [14] * 2,
        [18] * 2,
    ]
    rest = list(eval_batches(cache, examples_N=wanted_N, start=4, **settings))
    same(rest, whole[2:])


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(ConfigError, match="fake has no examples in split train"):
        train(FakeCache(0))
    with pytest.raises(ConfigError, match="fake has mixing rate 0"):
        train(FakeCache(3), FakeCache(3), rates=(1.0, 0.0))
    with pytest.raises(ConfigError, match="BATCH_SIZE is 0"):
        train(FakeCache(3), batch_size=0)
    with pytest.raises(ConfigError, match="no examples"):
        list(eval_batches(FakeCache(0), batch_size=1, inputs_length=8, prompt_ids_EP=PROMPT[None]))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_made_apart_are_the_batch_whatever_their_number(parts):
    def made(rows_here_K=None, **more):
        settings = {"seeds": [0, 1], "batch_size": 8, "inputs_length": 64, "targets_length": 8}
        batches = one_group(
            [[(1.0, FakeCache(37))]] * 2,
            **settings,
            prompt_ids_TP=PROMPT[None],
            rows_here_K=rows_here_K,
            **more,
        )
        return take(batches, 6)

    whole = made()
    apart = [made(rows_K) for rows_K in np.split(np.arange(8), parts)]
    joined = [
        {name: np.concatenate([part[name] for part in step], axis=1) for name in step[0]}
        for step in zip(*apart, strict=True)
    ]
    same(joined, whole)
    same(made(np.arange(2, 4), start_step=3)[:3], [{k: x[:, 2:4] for k, x in b.items()} for b in whole[3:]])


def test_evaluation_rows_made_apart_are_the_batch():
    settings = {"batch_size": 8, "inputs_length": 64, "prompt_ids_EP": PROMPT[None], "targets_length": 8}
    whole = list(eval_batches(FakeCache(13), **settings))
    apart = [list(eval_batches(FakeCache(13), **settings, rows_here_K=k)) for k in np.split(np.arange(8), 2)]
    for name in whole[0]:
        for first, second, both in zip(*apart, whole, strict=True):
            joined = first[name] if name == "index" else np.concatenate([first[name], second[name]])
            np.testing.assert_array_equal(joined, both[name])


def test_members_may_train_on_caches_of_their_own():
    """Each member's batches are those of a run by itself, whatever the others train on."""
    few, many = FakeCache(5), FakeCache(37)
    mixtures_E = [[(1.0, few)], [(1.0, many)], [(0.3, few), (0.7, many)]]
    settings = {"batch_size": 4, "inputs_length": 64, "targets_length": 8, "prompt_ids_TP": PROMPT[None]}
    together = take(one_group(mixtures_E, seeds=[0, 1, 2], **settings), 6)
    for member, mixture in enumerate(mixtures_E):
        alone = take(one_group([mixture], seeds=[member], **settings), 6)
        for both, own in zip(together, alone, strict=True):
            for name, rows_1B in own.items():
                wide = both[name][member]
                np.testing.assert_array_equal(wide[:, : rows_1B.shape[-1]], rows_1B[0])
                assert not wide[:, rows_1B.shape[-1] :].any()  # padding to the longest of all


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_are_the_batch_by_length(groups):
    settings = {"seeds": [0, 1], "batch_size": 8, "inputs_length": 64, "targets_length": 8}
    mixtures_E = [[(1.0, FakeCache(37))]] * 2
    whole = take(one_group(mixtures_E, **settings, prompt_ids_TP=PROMPT[None]), 6)
    divided = take(
        train_batches(mixtures_E, **settings, prompt_ids_TP=PROMPT[None], groups=groups, lengths=(2, 4, 6)), 6
    )
    for batch, parts in zip(whole, divided, strict=True):
        assert len(parts) == groups
        for member in (0, 1):
            rows = [row.tolist() for part in parts for row in part["decoder_target_tokens"][member]]
            assert sorted(rows) == sorted(batch["decoder_target_tokens"][member].tolist())
        for part in parts:
            text = part["encoder_input_tokens"][..., len(PROMPT) :]
            longest = (text > 0).sum(-1).max()
            assert text.shape == (2, 8 // groups, min(length for length in (2, 4, 6) if length >= longest))
        lengths = [(part["encoder_input_tokens"][0] > 0).sum(-1) for part in parts]
        assert all(a.max() <= b.min() for a, b in itertools.pairwise(lengths))
    needed = needed_lengths(
        mixtures_E, seeds=[0, 1], batch_size=8, inputs_length=64, groups=groups, steps=range(6)
    )
    for lengths, parts in zip(needed, divided, strict=True):
        found = [(part["encoder_input_tokens"][..., len(PROMPT) :] > 0).sum(-1).max() for part in parts]
        assert found == lengths.tolist()


def test_groups_made_apart_are_the_group():
    settings = {"seeds": [0], "batch_size": 8, "inputs_length": 64, "targets_length": 8, "groups": 2}
    mixtures_E, lengths = [[(1.0, FakeCache(37))]], {"lengths": (2, 4, 6)}
    whole, *apart = (
        take(
            train_batches(mixtures_E, **settings, **lengths, prompt_ids_TP=PROMPT[None], rows_here_K=rows_K),
            6,
        )
        for rows_K in (None, np.arange(2), np.arange(2, 4))
    )
    for groups, *parts in zip(whole, *apart, strict=True):
        for group, *halves in zip(groups, *parts, strict=True):
            same([{name: np.concatenate([half[name] for half in halves], axis=1) for name in group}], [group])


def test_evaluation_is_padded_by_batch():
    cache, order_N = FakeCache(13), np.argsort(-FakeCache(13).input_lengths_N, kind="stable")
    settings = {"batch_size": 4, "inputs_length": 64, "prompt_ids_EP": PROMPT[None], "examples_N": order_N}
    widths = [b["encoder_input_tokens"].shape[1] for b in eval_batches(cache, **settings, lengths=(2, 4, 6))]
    assert widths == [3 + 6, 3 + 4, 3 + 4, 3 + 2]
