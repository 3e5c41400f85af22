"""Sums of many numbers, as each platform adds fastest, and the softmax.

The CPU's library of products adds several times as fast as the loops that XLA makes of a sum, so that a sum is a
product with ones there. Other platforms round in products, and sum well.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def softmax(logits_BM: Float[Array, "*b M"], dtype: DTypeLike) -> Float[Array, "*b M"]:
    """The softmax of float32 logits along the last axis, rounded to `dtype`; its gradient keeps nothing else."""
    exponentials_BM = jnp.exp(logits_BM - jnp.max(logits_BM, axis=-1, keepdims=True))
    return (exponentials_BM / _along_last(exponentials_BM)).astype(dtype)


def _softmax_forward(logits_BM: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    weights_BM = softmax(logits_BM, dtype)
    return weights_BM, weights_BM


def _softmax_backward(dtype: DTypeLike, weights_BM: Array, gradient_BM: Array) -> tuple[Array]:
    weights_BM, gradient_BM = weights_BM.astype(jnp.float32), gradient_BM.astype(jnp.float32)
    return (weights_BM * (gradient_BM - _along_last(gradient_BM * weights_BM)),)


softmax.defvjp(_softmax_forward, _softmax_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def repeated(numbers: Float[Array, "*n"], rows: tuple[int, ...]) -> Float[Array, "..."]:
    """`numbers` once for each of `rows` [*rows, *n], of which its gradient is the sum, in float32."""
    return jnp.broadcast_to(numbers, (*rows, *numbers.shape))


def _repeated_forward(numbers: Array, rows: tuple[int, ...]) -> tuple[Array, None]:
    return repeated(numbers, rows), None


def _repeated_backward(rows: tuple[int, ...], _: None, gradient: Array) -> tuple[Array]:
    return (_over_rows(gradient, len(rows)).astype(gradient.dtype),)


repeated.defvjp(_repeated_forward, _repeated_backward)


@jax.custom_vjp
def scaled(x: Float[Array, "*x"], numbers: Float[Array, "*n"]) -> Float[Array, "*x"]:
    """`x` [*rows, *n] * `numbers`, rounded to its dtype. Of `x` the gradient keeps nothing if `numbers` are frozen."""
    rows = (1,) * (x.ndim - numbers.ndim)
    return x * numbers.astype(x.dtype).reshape(*rows, *numbers.shape)


def _scaled_forward(x: Any, numbers: Any) -> tuple[Array, tuple[Array | None, Array]]:
    kept = x.value if numbers.perturbed else None
    return scaled(x.value, numbers.value), (kept, numbers.value)


def _scaled_backward(kept: tuple[Array | None, Array], gradient: Array) -> tuple[Array, Array | None]:
    x, numbers = kept
    to_x = scaled(gradient, numbers)
    if x is None:
        return to_x, None
    products = gradient.astype(jnp.float32) * x.astype(jnp.float32)
    return to_x, _over_rows(products, x.ndim - numbers.ndim).astype(numbers.dtype)


scaled.defvjp(_scaled_forward, _scaled_backward, symbolic_zeros=True)


def _over_rows(x: Float[Array, "..."], rows: int) -> Float[Array, "..."]:
    """The sum over the first axes, so many of them, in float32."""
    axes = tuple(range(rows))

    def product(x: Array) -> Array:
        ones = jnp.ones((1, *x.shape[:rows]), x.dtype)
        return jax.lax.dot_general(ones, x, ((tuple(axis + 1 for axis in axes), axes), ((), ())))[0]

    return jax.lax.platform_dependent(
        x.astype(jnp.float32), cpu=product, default=lambda x: jnp.sum(x, axis=axes)
    )


def _along_last(x_BM: Float[Array, "*b M"]) -> Float[Array, "*b 1"]:
    def product(x_BM: Array) -> Array:
        ones_M1 = jnp.ones((x_BM.shape[-1], 1), x_BM.dtype)
        return jax.lax.dot_general(x_BM, ones_M1, (((x_BM.ndim - 1,), (0,)), ((), ())))

    return jax.lax.platform_dependent(
        x_BM, cpu=product, default=lambda x_BM: jnp.sum(x_BM, axis=-1, keepdims=True)
    )
