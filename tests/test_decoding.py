"""Decoding against T5X's own results, against exhaustive search, and against probabilities."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jax_prompts.config import Decoding
from jax_prompts.decoding import _keep_likely, beam_search, check, decode, greedy, sample
from jax_prompts.errors import ConfigError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def golden():
    return load_file(Path(__file__).parent / "goldens/decoding_t5x/golden.safetensors")


def by_table(tokens_B, table_BVV, position):
    """Logits that depend on the previous token alone; each row has its own table, kept in the cache."""
    return table_BVV[jnp.arange(len(tokens_B)), tokens_B], table_BVV


def same_logits(logits_V):
    """A model that gives the same logits at every position."""
    return lambda tokens_B, cache, position: (
        jnp.tile(jnp.asarray(logits_V, jnp.float32), (len(tokens_B), 1)),
        cache,
    )


def by_history(tokens_B, cache, position):
    """Logits that depend on every earlier token, through the cache alone; an early end is unlikely."""
    seen_BV = cache["seen"] * 0.7 + jax.nn.one_hot(tokens_B, 5)
    haste_V = jax.nn.one_hot(1, 5) * 2.0 * jnp.maximum(3 - position, 0)
    return jnp.einsum("bv,bvw->bw", seen_BV, cache["weights"]) - haste_V[None], {**cache, "seen": seen_BV}


def history_cache(batch_size, seed=0):
    weights = jax.random.normal(jax.random.key(seed), (batch_size, 5, 5))
    return {"seen": jnp.zeros((batch_size, 5)), "weights": weights}


def history_log_probability(cache, row, ids):
    """Sum of log-probabilities of `ids` up to its end, fed one by one."""
    cache = jax.tree.map(lambda x: x[row : row + 1], cache)
    step, total, previous = jax.jit(by_history), 0.0, 0
    for position, token in enumerate(ids):
        logits, cache = step(jnp.array([previous]), cache, position)
        total += float(jax.nn.log_softmax(logits)[0, token])
        previous = token
    return total


@pytest.mark.parametrize("k", [1, 2, 4])
def test_beam_search_equals_t5x(golden, k):
    table = jnp.asarray(golden["logits_table"])
    search = jax.jit(lambda table: beam_search(by_table, table, len(table), 10, k, alpha=0.6))
    together, alone = search(table), [search(table[n : n + 1]) for n in range(7)]
    expected = golden[f"beam{k}.scores"]
    used = expected > -1e6
    for ids_BKU, scores_BK in (together, [jnp.concatenate(x) for x in zip(*alone, strict=True)]):
        np.testing.assert_allclose(scores_BK, expected, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(ids_BKU)[used], golden[f"beam{k}.ids"][used])
        assert not np.asarray(ids_BKU)[~used].any()


def test_greedy_equals_t5x(golden):
    table = jnp.asarray(golden["logits_table"])
    search = jax.jit(lambda table: greedy(by_table, table, len(table), 10))
    np.testing.assert_array_equal(search(table), golden["greedy.ids"][:, 0])
    for n in range(7):
        np.testing.assert_array_equal(search(table[n : n + 1]), golden["greedy.ids"][n])


def test_one_beam_is_not_argmax_where_the_end_is_a_close_second(golden):
    table = jnp.asarray(golden["logits_table"])
    beam = beam_search(by_table, table, 7, 10, 1)[0][:, -1]
    differ = (np.asarray(beam) != greedy(by_table, table, 7, 10)).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(differ), [3, 6])


def test_all_agree_when_one_token_leads_by_far():
    table = 30.0 * jax.nn.one_hot(jnp.array([[2, 0, 3, 4, 1], [4, 0, 1, 2, 3]]), 5)
    expected = [[2, 3, 4, 1, 0, 0], [4, 3, 2, 1, 0, 0]]
    for settings in (
        Decoding(),
        Decoding("sample", temperature=0.0),
        Decoding("sample", top_k=1),
        Decoding("beam"),
        Decoding("beam", num_decodes=3),
    ):
        ids_BU = jax.jit(lambda t, s=settings: decode(by_table, t, s, 2, 6, KEY))(table)
        assert ids_BU.dtype == jnp.int32
        np.testing.assert_array_equal(ids_BU, expected)


@pytest.mark.parametrize(("k", "batch_axis"), [(2, 0), (3, 0), (4, 0), (3, -1)])
def test_caches_follow_their_hypotheses(k, batch_axis):
    cache = history_cache(3)

    def moved(cache, start, end):
        return jax.tree.map(lambda x: jnp.moveaxis(x, start, end), cache)

    def step(tokens_B, cache, position):
        logits_BV, cache = by_history(tokens_B, moved(cache, batch_axis, 0), position)
        return logits_BV, moved(cache, 0, batch_axis)

    kept = moved(cache, 0, batch_axis)
    ids_BKU, scores_BK = beam_search(step, kept, 3, 6, k, alpha=0.6, batch_axis=batch_axis)
    assert (np.diff(scores_BK) >= 0).all()
    assert (np.asarray(ids_BKU)[:, :, 3] > 0).any()  # long enough for places to change
    for row, slot in itertools.product(range(3), range(k)):
        ids, score = np.asarray(ids_BKU[row, slot]).tolist(), float(scores_BK[row, slot])
        if score == -1e7:
            continue
        if 1 in ids:
            ids = ids[: ids.index(1) + 1]
            score *= ((5 + len(ids)) / 6) ** 0.6
        np.testing.assert_allclose(history_log_probability(cache, row, ids), score, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_wide_beams_find_the_best_of_all_answers(seed):
    cache = history_cache(1, seed)
    answers = [(*a, 1) for n in range(3) for a in itertools.product((0, 2, 3, 4), repeat=n)]
    scores = [
        history_log_probability(cache, 0, answer) / ((5 + len(answer)) / 6) ** 0.6 for answer in answers
    ]
    order = np.argsort(scores)[-4:]
    ids_BKU, scores_BK = beam_search(by_history, cache, 1, 3, 25, alpha=0.6)
    np.testing.assert_allclose(scores_BK[0, -4:], np.array(scores)[order], atol=1e-4)
    for ids_U, n in zip(np.asarray(ids_BKU[0, -4:]), order, strict=True):
        np.testing.assert_array_equal(ids_U, np.pad(answers[n], (0, 3 - len(answers[n]))))


def test_more_beams_than_tokens_make_no_ghosts():
    """With 3 tokens and 4 beams the first step has fewer hypotheses than slots."""
    ids_BKU, scores_BK = beam_search(same_logits([0.0, 1.0, 2.0]), jnp.zeros((1, 1)), 1, 1, 4)
    log_p = np.log(np.exp(1.0) / np.exp([0.0, 1.0, 2.0]).sum())
    np.testing.assert_allclose(scores_BK[0], [-1e7, -1e7, -1e7, log_p], rtol=1e-5)
    np.testing.assert_array_equal(ids_BKU[0, :, 0], [0, 0, 0, 1])


def test_unfinished_rows_return_live_hypotheses_with_plain_scores():
    logits = np.array([0.0, -1e9, 2.0, 1.0])
    ids_BKU, scores_BK = beam_search(same_logits(logits), jnp.zeros((1, 1)), 1, 3, 2)
    log_p = logits - np.log(np.exp(logits).sum())
    np.testing.assert_array_equal(ids_BKU[0, 1], [2, 2, 2])
    np.testing.assert_allclose(scores_BK[0], [2 * log_p[2] + log_p[3], 3 * log_p[2]], rtol=1e-5)


def test_search_goes_on_while_a_longer_answer_can_still_win():
    """The plain log-probability of the live hypothesis is the lower one, its score at the end the higher."""

    def long_winded(tokens_B, cache, position):
        now = jnp.log(jnp.array([1e-9, 0.55, 0.45]))
        later = jnp.where(position < 4, jnp.array([0.0, 0.0, 90.0]), jnp.array([0.0, 90.0, 0.0]))
        return jnp.tile(jnp.where(position == 0, now, later), (len(tokens_B), 1)), cache

    ids_BKU, scores_BK = beam_search(long_winded, jnp.zeros((1, 1)), 1, 5, 1, alpha=1.0)
    np.testing.assert_array_equal(ids_BKU[0, 0], [2, 2, 2, 2, 1])
    np.testing.assert_allclose(scores_BK[0, 0], np.log(0.45) / (10 / 6), rtol=1e-5)


@pytest.mark.parametrize("way", ["greedy", "sample", "beam"])
def test_stops_when_all_rows_have_ended(way):
    def counting(tokens_B, calls_B, position):
        logits_V = jnp.where(position < 2, jnp.array([0.0, 0, 90, 0]), jnp.array([0.0, 90, 0, 0]))
        jax.debug.callback(lambda: calls.append(1))
        return jnp.tile(logits_V, (len(tokens_B), 1)), calls_B

    calls = []
    ids_BU = decode(counting, jnp.zeros(2), Decoding(way), 2, 50, KEY)
    jax.effects_barrier()
    np.testing.assert_array_equal(ids_BU[:, :4], [[2, 2, 1, 0]] * 2)
    assert not ids_BU[:, 4:].any() and len(calls) == 3


def test_ended_rows_stay_ended_while_others_go_on():
    table = 30.0 * jax.nn.one_hot(jnp.array([[1, 3, 3, 3], [2, 0, 3, 1]]), 4)
    np.testing.assert_array_equal(greedy(by_table, table, 2, 4), [[1, 0, 0, 0], [2, 3, 1, 0]])


LOGITS = np.array([0.3, -1.0, 1.2, 0.9, 2.0, -0.4], np.float32)


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 0.0, [0, 1, 2, 3, 4, 5]),
        (1, 0.0, [4]),
        (3, 0.0, [2, 3, 4]),
        (100, 0.0, [0, 1, 2, 3, 4, 5]),
        (0, 1e-6, [4]),
        (0, 0.45, [4]),  # probabilities in order: 0.47 0.21 0.16 0.09 0.04 0.02
        (0, 0.6, [2, 4]),
        (0, 0.7, [2, 3, 4]),
        (0, 1.0, [0, 1, 2, 3, 4, 5]),
        (3, 0.8, [2, 4]),  # 0.56 0.25 0.19 among the three
        (2, 1.0, [2, 4]),
    ],
)
def test_unlikely_tokens_are_cut(top_k, top_p, kept):
    cut_BV = _keep_likely(jnp.stack([LOGITS, LOGITS[::-1]]), top_k, top_p)
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(cut_BV[0])), kept)
    np.testing.assert_array_equal(cut_BV[1], cut_BV[0, ::-1])
    np.testing.assert_array_equal(cut_BV[0, np.array(kept)], LOGITS[kept])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"temperature": 2.0, "top_k": 3}, [2, 3, 4]),
        ({"temperature": 3.0, "top_p": 0.6}, [2, 3, 4]),
    ],
)
def test_samples_have_the_stated_probabilities(settings, kept):
    expected = np.zeros(6)
    expected[kept] = np.exp(LOGITS[kept] / settings.get("temperature", 1.0))
    expected /= expected.sum()
    draws = 20_000
    ids_BU = sample(same_logits(LOGITS), jnp.zeros((draws, 1)), draws, 1, KEY, **settings)
    frequency = np.bincount(np.asarray(ids_BU[:, 0]), minlength=6) / draws
    assert not frequency[expected == 0].any()
    deviation = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(frequency - expected) <= 4.5 * deviation).all()


def test_positions_and_keys_draw_independently():
    logits = np.where(np.arange(6) == 1, -1e9, LOGITS)
    draw = jax.jit(lambda key: sample(same_logits(logits), jnp.zeros((500, 1)), 500, 3, key))
    ids_BU = np.asarray(draw(KEY))
    np.testing.assert_array_equal(ids_BU, draw(KEY))
    assert (ids_BU != draw(jax.random.key(1))).mean() > 0.5
    assert abs(np.corrcoef(ids_BU.T)[np.triu_indices(3, 1)]).max() < 0.2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": "beem"}, "beam"),
        ({"name": "greedy", "num_decodes": 4}, "num_decodes"),
        ({"name": "beam", "temperature": 0.5}, "temperature"),
        ({"name": "sample", "temperature": -1.0}, "temperature"),
        ({"name": "sample", "temperature": "hot"}, "temperature"),
        ({"name": "sample", "top_k": -1}, "top_k"),
        ({"name": "sample", "top_k": 2.5}, "top_k"),
        ({"name": "sample", "top_p": 1.1}, "top_p"),
        ({"name": "beam", "num_decodes": 0}, "num_decodes"),
        ({"name": "beam", "alpha": float("nan")}, "alpha"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named) as error:
        check(Decoding(**settings))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError):
        decode(by_table, jnp.zeros((1, 3, 3)), Decoding(**settings), 1, 2, KEY)
