"""Answers from next-token logits: greedy, sampling and beam search, with early stop.

All work on `logits_fn(tokens_B, cache, position) -> (logits_BV, cache)`: given the token at `position` (an
int32 scalar counting from 0; the token there is 0, the decoder's start) and what the model remembers of the
earlier ones, it returns float32 logits of the token that follows. Whatever differs between rows (encoder output,
masks) belongs into the cache, every array of which has the batch as its axis `batch_axis`: beam search calls
`logits_fn` with `num_decodes` rows for each row, and moves rows when hypotheses change places.

K hypotheses of a row, J = 2K candidates for them, U tokens at most, W = U + 1 with the start token.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jax_prompts.errors import ConfigError

if TYPE_CHECKING:
    from jax_prompts.config import Decoding

Cache = Any  # a pytree of arrays
LogitsFn = Callable[[Int[Array, " B"], Cache, Int[Array, ""]], tuple[Float[Array, "B V"], Cache]]
EOS = 1  # of every T5 vocabulary
UNUSED = -1e7  # score of a hypothesis that does not exist, as T5X reports it


def decode(
    logits_fn: LogitsFn,
    cache: Cache,
    settings: Decoding,
    batch_size: int,
    max_length: int,
    key: Key[Array, ""],
    eos: int = EOS,
    batch_axis: int = 0,
) -> Int[Array, "B U"]:
    """The best answer of each row by `settings`, 0 after `eos`. The key is used by `sample` alone.

    Raises:
      ConfigError: as `check`.
    """
    check(settings)
    if settings.name == "beam":
        beams = settings.num_decodes, settings.alpha
        return beam_search(logits_fn, cache, batch_size, max_length, *beams, eos, batch_axis)[0][:, -1]
    if settings.name == "sample":
        cut = settings.temperature, settings.top_k, settings.top_p
        return sample(logits_fn, cache, batch_size, max_length, key, *cut, eos=eos)
    return greedy(logits_fn, cache, batch_size, max_length, eos=eos)


def check(settings: Decoding) -> None:
    """Raises ConfigError if a setting is out of range, or means nothing to the chosen way of decoding."""
    known = {"greedy": (), "sample": ("temperature", "top_k", "top_p"), "beam": ("num_decodes", "alpha")}
    default = {field.name: field.default for field in dataclasses.fields(settings)}
    for way, fields in known.items():
        for field in fields:
            if way != settings.name and getattr(settings, field) != default[field]:
                raise ConfigError(
                    f"Decoding.{field} = {getattr(settings, field)!r} means nothing to {settings.name}; "
                    f"leave it out or set Decoding.name = {way!r}"
                )
    for field, least, most, kind in (
        ("temperature", 0.0, float("inf"), (int, float)),
        ("top_k", 0, float("inf"), int),
        ("top_p", 0.0, 1.0, (int, float)),
        ("num_decodes", 1, float("inf"), int),
        ("alpha", 0.0, float("inf"), (int, float)),
    ):
        value = getattr(settings, field)
        if not isinstance(value, kind) or not least <= value <= most:
            raise ConfigError(f"Decoding.{field} = {value!r} must be a number from {least} to {most}")


def greedy(
    logits_fn: LogitsFn, cache: Cache, batch_size: int, max_length: int, eos: int = EOS
) -> Int[Array, "B U"]:
    """The most probable token at each position, 0 after `eos`; ends when every row has."""
    return _one_by_one(
        logits_fn, cache, batch_size, max_length, eos, lambda logits_BV, _: logits_BV.argmax(-1)
    )


def sample(
    logits_fn: LogitsFn,
    cache: Cache,
    batch_size: int,
    max_length: int,
    key: Key[Array, ""],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 0.0,
    eos: int = EOS,
) -> Int[Array, "B U"]:
    """Tokens drawn from softmax(logits / temperature), 0 after `eos`; temperature 0 is `greedy`.

    `top_k` draws among the k most probable tokens, `top_p` among the fewest that have that much probability
    together (Holtzman et al. 2020, arXiv:1904.09751), of what `top_k` left; 0 is off. Tokens exactly as
    probable as the last one kept are kept.
    """
    if temperature == 0.0:
        return greedy(logits_fn, cache, batch_size, max_length, eos)

    def draw(logits_BV: Float[Array, "B V"], position: Int[Array, ""]) -> Int[Array, " B"]:
        logits_BV = _keep_likely(logits_BV / temperature, top_k, top_p)
        return jax.random.categorical(jax.random.fold_in(key, position), logits_BV)

    return _one_by_one(logits_fn, cache, batch_size, max_length, eos, draw)


def beam_search(
    logits_fn: LogitsFn,
    cache: Cache,
    batch_size: int,
    max_length: int,
    num_decodes: int,
    alpha: float = 0.6,
    eos: int = EOS,
    batch_axis: int = 0,
) -> tuple[Int[Array, "B K U"], Float[Array, "B K"]]:
    """The K = `num_decodes` best finished hypotheses of each row, the best LAST, and their scores; as in T5X.

    The score of a hypothesis that ended with `eos` is its log-probability over ((5 + length) / 6)^alpha, the
    length counting `eos` (Wu et al. 2016, arXiv:1609.08144, eq. 14). Each step looks at the 2K best
    continuations of the K live hypotheses, so that K go on even if K end. The search stops when no live one
    can beat the worst of K finished ones, or at `max_length`. A row in which nothing finished returns its
    live hypotheses with their plain log-probabilities; a slot never filled has score -1e7 and ids 0.

    One beam is not argmax: whenever `eos` is the second best token it finishes a hypothesis, and the best
    finished one is returned even though argmax would have gone on. T5X evaluates so by default.
    """
    B, K, J = batch_size, num_decodes, 2 * num_decodes

    def penalty(length: int | Array) -> Float[Array, ""]:
        return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha

    def unsettled(state: tuple) -> Array:
        position, _, live_BK, _, score_BK, _ = state
        bound_B = live_BK[:, -1] / penalty(max_length)  # log-probabilities only fall
        return (position < max_length) & ~jnp.all(score_BK[:, 0] > bound_B)

    def step(state: tuple) -> tuple:
        position, live_ids_BKW, live_BK, ids_BKW, score_BK, cache = state
        logits, cache = logits_fn(live_ids_BKW[:, :, position].reshape(B * K), cache, position)
        V = logits.shape[-1]
        log_p_BKV = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(B, K, V) + live_BK[..., None]
        log_p_BJ, index_BJ = jax.lax.top_k(log_p_BKV.reshape(B, K * V), J)
        parent_BJ, token_BJ = index_BJ // V, index_BJ % V
        ids_BJW = _pick(live_ids_BKW, parent_BJ).at[:, :, position + 1].set(token_BJ)
        ends_BJ = token_BJ == eos

        ended_BJ = log_p_BJ / penalty(position + 1)
        ended_BJ = jnp.where(ends_BJ & (ended_BJ > UNUSED), ended_BJ, -jnp.inf)
        score_BK, kept_BK = _best(jnp.concatenate([score_BK, ended_BJ], axis=1), K)
        ids_BKW = _pick(jnp.concatenate([ids_BKW, ids_BJW], axis=1), kept_BK)

        live_BK, kept_BK = _best(jnp.where(ends_BJ, -jnp.inf, log_p_BJ), K)
        live_ids_BKW = _pick(ids_BJW, kept_BK)
        if K > 1:  # one hypothesis never changes places, and moving a cache is not free
            cache = _pick_rows(cache, _pick(parent_BJ, kept_BK), batch_axis)
        return position + 1, live_ids_BKW, live_BK, ids_BKW, score_BK, cache

    none_BKW = jnp.zeros((B, K, max_length + 1), jnp.int32)
    never_BK = jnp.full((B, K), -jnp.inf)
    first_BK = never_BK.at[:, -1].set(0.0)  # K equal hypotheses would stay equal
    cache = jax.tree.map(lambda x: jnp.repeat(x, K, axis=batch_axis), cache)
    start = jnp.int32(0), none_BKW, first_BK, none_BKW, never_BK, cache
    _, live_ids_BKW, live_BK, ids_BKW, score_BK, _ = jax.lax.while_loop(unsettled, step, start)

    found_B1 = jnp.isfinite(score_BK[:, -1:])
    score_BK = jnp.where(found_B1, score_BK, live_BK)
    ids_BKW = jnp.where(found_B1[..., None], ids_BKW, live_ids_BKW)
    ids_BKW = jnp.where(jnp.isfinite(score_BK)[..., None], ids_BKW, 0)
    return ids_BKW[:, :, 1:], jnp.maximum(score_BK, UNUSED)


def _one_by_one(
    logits_fn: LogitsFn,
    cache: Cache,
    batch_size: int,
    max_length: int,
    eos: int,
    choose: Callable[[Float[Array, "B V"], Int[Array, ""]], Int[Array, " B"]],
) -> Int[Array, "B U"]:
    def unfinished(state: tuple) -> Array:
        position, _, running_B, _ = state
        return (position < max_length) & running_B.any()

    def step(state: tuple) -> tuple:
        position, ids_BW, running_B, cache = state
        logits_BV, cache = logits_fn(ids_BW[:, position], cache, position)
        chosen_B = jnp.where(running_B, choose(logits_BV.astype(jnp.float32), position), 0)
        ids_BW = ids_BW.at[:, position + 1].set(chosen_B)
        return position + 1, ids_BW, running_B & (chosen_B != eos), cache

    ids_BW = jnp.zeros((batch_size, max_length + 1), jnp.int32)
    start = jnp.int32(0), ids_BW, jnp.ones(batch_size, bool), cache
    return jax.lax.while_loop(unfinished, step, start)[1][:, 1:]


def _keep_likely(logits_BV: Float[Array, "B V"], top_k: int, top_p: float) -> Float[Array, "B V"]:
    """Logits with those outside the `top_k` and then outside the `top_p` nucleus at minus infinity."""
    if top_k:
        least_B1 = jax.lax.top_k(logits_BV, min(top_k, logits_BV.shape[-1]))[0][:, -1:]
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    if top_p:
        sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        p_BV = jax.nn.softmax(sorted_BV)
        before_BV = jnp.cumsum(p_BV, axis=-1) - p_BV  # probability of all better tokens
        least_B1 = jnp.min(jnp.where(before_BV < top_p, sorted_BV, jnp.inf), axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    return logits_BV


def _best(score_BN: Float[Array, "B N"], k: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k largest scores in ascending order, and where they were."""
    best_BK, index_BK = jax.lax.top_k(score_BN, k)
    return best_BK[:, ::-1], index_BK[:, ::-1]


def _pick(x: Array, index_BK: Int[Array, "B K"], axis: int = 0) -> Array:
    """For each row, which are along `axis`, its entries `index_BK` along the axis behind it."""
    take = functools.partial(jnp.take, axis=axis, mode="clip")
    return jax.vmap(take, in_axes=(axis, 0), out_axes=axis)(x, index_BK)


def _pick_rows(cache: Cache, index_BK: Int[Array, "B K"], batch_axis: int) -> Cache:
    """For each row its hypotheses `index_BK`, K of which lie next to each other along `batch_axis`."""

    def pick(x: Array) -> Array:
        axis = batch_axis % x.ndim
        x_BK = x.reshape(*x.shape[:axis], *index_BK.shape, *x.shape[axis + 1 :])
        return _pick(x_BK, index_BK, axis).reshape(x.shape)

    return jax.tree.map(pick, cache)
