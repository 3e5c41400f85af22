"""Products of activations and weights, whose gradients keep nothing for what is frozen."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jax_prompts.models.quantized import Quantized

PRODUCT = "product"  # the name of all products with weights


def contract(spec: str, a: Array, b: Array | Quantized, dtype: DTypeLike) -> Array:
    """`einsum(spec, a, b)` in `dtype`, where each letter of `spec` stands in two or three of its terms.

    Two bfloat16 arrays are multiplied as they are, and so are their gradients; sums are float32's. `b` is frozen where
    it is quantised.
    """
    if isinstance(b, Quantized):
        return _contract_quantized(spec, dtype, a.astype(dtype), b)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _contract_quantized(spec: str, dtype: DTypeLike, a: Array, b: Quantized) -> Array:
    return _contract(spec, dtype, a, _held(b, a).astype(dtype))


def _contract_quantized_forward(
    spec: str, dtype: DTypeLike, a: Array, b: Quantized
) -> tuple[Array, Quantized]:
    return _contract_quantized(spec, dtype, a, b), b


def _contract_quantized_backward(spec: str, dtype: DTypeLike, b: Quantized, gradient: Array) -> tuple:
    of_a, of_b, of_out = spec.replace("->", ",").split(",")
    return _contract(f"{of_out},{of_b}->{of_a}", dtype, gradient, _held(b, gradient).astype(dtype)), None


_contract_quantized.defvjp(_contract_quantized_forward, _contract_quantized_backward)


def _held(b: Quantized, until: Array) -> Quantized:
    """`b`, to be widened when `until` is computed and not before, nor kept from an earlier product.

    Else the compiler would widen all kernels at the start, in front of a loop over layers, too, or keep them from the
    forward pass for the backward pass.
    """
    return jax.lax.platform_dependent(b, until.ravel()[0], cpu=_times_one, default=_behind)


@jax.custom_batching.custom_vmap
def _times_one(b: Quantized, first: Array) -> Quantized:
    """The CPU's compiler drops barriers before it orders operations, but cannot know that a number is one."""
    one = jnp.where(first == first, 1, jnp.nan).astype(b.scale_GO.dtype)
    return b.replace(scale_GO=b.scale_GO * one)


@jax.custom_batching.custom_vmap
def _behind(b: Quantized, first: Array) -> Quantized:
    return jax.lax.optimization_barrier((b, first))[0]


def _once_for_all_members(hold: Any, axis_size: int, in_batched: Any, b: Quantized, first_E: Array) -> tuple:
    assert not any(jax.tree.leaves(in_batched[0]))
    return hold(b, first_E[0]), jax.tree.map(lambda _: False, b)


for _hold in (_times_one, _behind):
    _hold.def_vmap(functools.partial(_once_for_all_members, _hold))


def product(
    x_BLI: Float[Array, "*b I"], w_IO: Float[Array, "I O"] | Quantized, dtype: DTypeLike
) -> Float[Array, "*b O"]:
    """x W in `dtype`: what `models/remat.py` may keep."""
    rows = "ABCDE"[: x_BLI.ndim - 1]
    return checkpoint_name(contract(f"{rows}I,IO->{rows}O", x_BLI, w_IO, dtype), PRODUCT)
