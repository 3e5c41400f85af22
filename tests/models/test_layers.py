"""Products, and two ways of computing one attention."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.models.layers import MASKED, Attention, prefers_absorbed_projections
from jax_prompts.models.products import contract


@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
def test_few_queries_are_the_same_function(dropout_rate):
    """Values, dropout masks and gradients of attention without keys and values equal those with them."""
    attention = Attention(3, 8, 12, dropout_rate, jnp.float32)
    draw = np.random.default_rng(0)
    x_BUD, attended_BMD = (jnp.asarray(draw.normal(size=(2, rows, 12))) for rows in (2, 9))
    bias_B11M = jnp.asarray(np.where(draw.random((2, 1, 1, 9)) < 0.3, MASKED, 0.0))
    rngs = {"params": jax.random.key(1), "dropout": jax.random.key(2)}

    def with_keys(module, x_BUD, attended_BMD):
        return module(x_BUD, module.keys_values(attended_BMD), bias_B11M, False)

    def without_keys(module, x_BUD, attended_BMD):
        return module.absorbed_projections(x_BUD, attended_BMD, bias_B11M, False)

    params = attention.init(rngs, x_BUD, attended_BMD, method=with_keys)
    shapes = jax.tree.map(jnp.shape, nn.meta.unbox(params))
    again = attention.init(rngs, x_BUD, attended_BMD, method=without_keys)
    assert jax.tree.map(jnp.shape, nn.meta.unbox(again)) == shapes

    def outcome(method):
        def run(x_BUD, attended_BMD):
            out_BUD = attention.apply(
                params, x_BUD, attended_BMD, method=method, rngs={"dropout": rngs["dropout"]}
            )
            return jnp.sum(jnp.sin(out_BUD)), out_BUD

        return jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(x_BUD, attended_BMD)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        outcome(with_keys),
        outcome(without_keys),
    )


@pytest.mark.parametrize(
    ("queries", "attended", "prefers"), [(8, 356, True), (1, 4, True), (64, 356, False), (356, 356, False)]
)
def test_few_queries_are_preferred_where_they_save_work(queries, attended, prefers):
    assert prefers_absorbed_projections(queries, attended, head_dim=64) == prefers


SHAPES = {
    "ABI,IO->ABO": ((2, 3, 5), (5, 4)),
    "BLHK,BMHK->BHLM": ((2, 3, 4, 5), (2, 6, 4, 5)),
    "BHLM,BMHK->BLHK": ((2, 4, 3, 6), (2, 6, 4, 5)),
    "BUHD,BMD->BHUM": ((2, 3, 4, 5), (2, 6, 5)),
    "BUHD,DHK->BUHK": ((2, 3, 4, 5), (5, 4, 6)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", SHAPES)
def test_products_and_their_gradients(spec, dtype):
    """Those of `einsum` in float32, rounded to the type asked for; sums never are of narrow numbers."""
    draw = np.random.default_rng(0)
    a, b = (jnp.asarray(draw.normal(size=shape), dtype) for shape in SHAPES[spec])
    wide = [x.astype(jnp.float32) for x in (a, b)]
    rounding = {"rtol": 1e-6 if dtype == "float32" else 2**-8, "atol": 1e-6}
    for result in (jnp.float32, dtype):
        out, to_arguments = jax.vjp(lambda a, b, result=result: contract(spec, a, b, result), a, b)
        exact, to_wide = jax.vjp(lambda a, b: jnp.einsum(spec, a, b), *wide)
        assert out.dtype == result
        np.testing.assert_allclose(out.astype(jnp.float32), exact, **rounding)
        cotangent = jnp.asarray(draw.normal(size=out.shape), dtype)
        found = to_arguments(cotangent.astype(result))
        for gradient, exact in zip(found, to_wide(cotangent.astype(jnp.float32)), strict=True):
            assert gradient.dtype == dtype
            np.testing.assert_allclose(gradient.astype(jnp.float32), exact, **rounding)


def test_the_gradient_of_what_is_frozen_is_not_made():
    def gradient(x, w):
        return jax.grad(lambda x: contract("ABI,IO->ABO", x, w, jnp.float32).sum())(x)

    x, w = jnp.ones((2, 3, 5)), jnp.ones((5, 4))
    compiled = jax.jit(gradient).lower(x, w).as_text()
    assert compiled.count("dot_general") == 1  # of x; the forward pass is not needed either
