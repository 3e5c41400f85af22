"""Products of activations and weights, whose gradients keep nothing for what is frozen."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

PRODUCT = "product"  # the name of all products with weights


def contract(spec: str, a: Array, b: Array, dtype: DTypeLike) -> Array:
    """`einsum(spec, a, b)` in `dtype`, where each letter of `spec` stands in two or three of its terms.

    Two bfloat16 arrays are multiplied as they are, and so are their gradients; sums are float32's.
    """
    narrow = a.dtype == b.dtype == jnp.bfloat16
    return _contract(spec, dtype, *((a, b) if narrow else (a.astype(dtype), b.astype(dtype))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _contract(spec: str, dtype: DTypeLike, a: Array, b: Array) -> Array:
    of_a, of_b, of_out = spec.replace("->", ",").split(",")
    summed = [letter for letter in of_a if letter in of_b and letter not in of_out]
    # An array on the left is transposed unless summed along its last axis, one on the right need not be; so that
    # attention's [B, H, L, M] never is, the larger goes to the right where both would be.
    last_a, last_b = of_a[-1] in summed, of_b[-1] in summed
    if (last_b and not last_a) or (not (last_a or last_b) and a.size > b.size):
        (a, of_a), (b, of_b) = (b, of_b), (a, of_a)
    batch = [letter for letter in of_a if letter in of_b and letter in of_out]
    dimensions = [tuple([of.index(x) for x in letters] for of in (of_a, of_b)) for letters in (summed, batch)]
    of_dot = batch + [x for x in of_a + of_b if x not in summed + batch]
    dot = functools.partial(jax.lax.dot_general, dimension_numbers=dimensions, preferred_element_type=dtype)
    if a.dtype == dtype == jnp.bfloat16:
        # Asked for a result of bfloat16, the CPU backend widens a and b first, and multiplies at half the rate. Others
        # do not, and what they move between devices should be narrow.
        exact = functools.partial(dot, preferred_element_type=jnp.float32)
        out = jax.lax.platform_dependent(a, b, cpu=lambda a, b: exact(a, b).astype(dtype), default=dot)
    else:
        out = dot(a, b)
    return out.transpose([of_dot.index(letter) for letter in of_out])


def _contract_forward(spec: str, dtype: DTypeLike, a: Any, b: Any) -> tuple[Array, tuple]:
    # What is not differentiated, a frozen kernel, keeps nothing for its gradient.
    kept = a.value if b.perturbed else None, b.value if a.perturbed else None
    return _contract(spec, dtype, a.value, b.value), kept


def _contract_backward(spec: str, dtype: DTypeLike, kept: tuple, gradient: Array) -> tuple:
    of_a, of_b, of_out = spec.replace("->", ",").split(",")
    a, b = kept
    to_a = None if b is None else _contract(f"{of_out},{of_b}->{of_a}", b.dtype, gradient.astype(b.dtype), b)
    to_b = None if a is None else _contract(f"{of_a},{of_out}->{of_b}", a.dtype, a, gradient.astype(a.dtype))
    return to_a, to_b


_contract.defvjp(_contract_forward, _contract_backward, symbolic_zeros=True)


def product(x_BLI: Float[Array, "*b I"], w_IO: Float[Array, "I O"], dtype: DTypeLike) -> Float[Array, "*b O"]:
    """x W in `dtype`: what `models/remat.py` may keep."""
    rows = "ABCDE"[: x_BLI.ndim - 1]
    return checkpoint_name(contract(f"{rows}I,IO->{rows}O", x_BLI, w_IO, dtype), PRODUCT)
