"""Prompts of each row's own: what virtual tokens are, by the row's text and by leaves that are tuned beside the prompt.

`tuned/` makes these, too (`models/tuned_leaves.py`), at the top of the model:

    input_router/{kernel, prompt}                             SMoP: one of several prompts, `tuned/smop.py`
    input_router/noise                                        ... while it is tuned
    input_attention/{down/kernel, up/kernel, norm, sources}   ATTEMPT: source prompts added, `tuned/attempt.py`

The virtual tokens of a row are those that its ids name, in their order, so that rows of one batch may have other tuned
prompts. Only text counts, not padding. Letters as in `models/t5.py`; P prompt length, S other prompts beside the
row's, K = S + 1 prompts, M bottleneck.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_prompts.models.tuned_leaves import leaf

ROUTER, ATTENTION = "input_router", "input_attention"
_NORM_EPSILON = 1e-5  # of torch's LayerNorm
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def with_row_prompts(
    module: nn.Module, x_BLD: Float[Array, "B L D"], tokens_BL: Int[Array, "B L"], vocab_size: int
) -> Float[Array, "B L D"]:
    """`x_BLD`, embeddings of text and of each row's tuned prompt, with the row's own prompt in place of the latter.

    As it is where the module has no such leaves.
    """
    virtual_BL = tokens_BL >= vocab_size
    text_BL = (tokens_BL > 0) & ~virtual_BL
    if (router := leaf(module, ROUTER)) is not None:
        key = module.make_rng("dropout") if "noise" in router else None
        shares_BK = routed(router, x_BLD, text_BL, key)
        x_BLD = _mixed(x_BLD, virtual_BL, shares_BK, router["prompt"])
    if (attention := leaf(module, ATTENTION)) is not None:
        shares_BK = attended(attention, x_BLD, text_BL, virtual_BL)
        shares_BK = shares_BK.at[:, 0].add(1.0)
        x_BLD = _mixed(x_BLD, virtual_BL, shares_BK, attention["sources"])
    return x_BLD


def routed(
    router: Any, x_BLD: Float[Array, "B L D"], text_BL: Bool[Array, "B L"], noise_key: Array | None = None
) -> Float[Array, "B K"]:
    """What is taken of each prompt: of the likeliest its probability, of all others nothing (Choi et al. 2023, 2.2).

    The probabilities are softmax(W x) of the mean x of the text's embeddings; with a key and noise s, of
    W x * (1 + s N(0, 1)), where no gradient passes by the noise.
    """
    text_BL1 = text_BL[:, :, None]
    mean_BD = jnp.sum(jnp.where(text_BL1, x_BLD, 0.0), axis=1) / jnp.maximum(jnp.sum(text_BL1, axis=1), 1)
    logits_BK = _einsum("BD,DK->BK", mean_BD, router["kernel"])
    if noise_key is not None:
        noise_BK = router["noise"] * jax.random.normal(noise_key, logits_BK.shape)
        logits_BK = logits_BK + jax.lax.stop_gradient(logits_BK) * noise_BK
    p_BK = jax.nn.softmax(logits_BK)
    return p_BK * jax.nn.one_hot(jnp.argmax(p_BK, axis=1), p_BK.shape[1])


def attended(
    attention: Any, x_BLD: Float[Array, "B L D"], text_BL: Bool[Array, "B L"], virtual_BL: Bool[Array, "B L"]
) -> Float[Array, "B K"]:
    """Attention of a row to its tuned prompt, first, and to the sources (Asai et al. 2022, section 3.2).

    softmax(k q), with q = norm(SiLU(x W_down) W_up) and x the largest of the text's embeddings, number by number, and
    so each key k of its prompt's vectors. The norm's scale and bias hold the temperature.
    """
    hidden_BM = nn.silu(_einsum("BD,DM->BM", _largest(x_BLD, text_BL), attention["down"]["kernel"]))
    up_BD = _einsum("BM,MD->BD", hidden_BM, attention["up"]["kernel"])
    centred_BD = up_BD - jnp.mean(up_BD, axis=1, keepdims=True)
    variance_B1 = jnp.mean(jnp.square(centred_BD), axis=1, keepdims=True)
    norm = attention["norm"]
    query_BD = (
        centred_BD * jax.lax.rsqrt(variance_B1 + _NORM_EPSILON) * norm["scale"][None] + norm["bias"][None]
    )
    own_B1 = _einsum("BD,BD->B", query_BD, _largest(x_BLD, virtual_BL))[:, None]
    sources_BS = _einsum("BD,SD->BS", query_BD, jnp.max(attention["sources"], axis=1))
    return jax.nn.softmax(jnp.concatenate([own_B1, sources_BS], axis=1))


def _largest(x_BLD: Float[Array, "B L D"], where_BL: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """The largest of each number at these positions; 0 where there are none."""
    largest_BD = jnp.max(x_BLD, axis=1, initial=-jnp.inf, where=where_BL[:, :, None])
    return jnp.where(jnp.any(where_BL, axis=1, keepdims=True), largest_BD, 0.0)


def _mixed(
    x_BLD: Float[Array, "B L D"],
    virtual_BL: Bool[Array, "B L"],
    shares_BK: Float[Array, "B K"],
    others_SPD: Float[Array, "S P D"],
) -> Float[Array, "B L D"]:
    """`x_BLD` with the sum of prompts by their shares at virtual tokens; the first is the row's own."""
    others_BPD = _einsum("BS,SPD->BPD", shares_BK[:, 1:], others_SPD)
    place_BL1 = jnp.maximum(jnp.cumsum(virtual_BL, axis=1) - 1, 0)[:, :, None]
    others_BLD = jnp.take_along_axis(others_BPD, place_BL1, axis=1, mode="clip")
    return jnp.where(virtual_BL[:, :, None], shares_BK[:, :1, None] * x_BLD + others_BLD, x_BLD)
