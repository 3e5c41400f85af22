"""Sums, the softmax and gates: what JAX makes of the same formulas, with gradients that keep less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.models.layers import gated
from jax_prompts.models.sums import repeated, scaled, softmax


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def value_and_gradients(f, *args):
    out, pull = jax.vjp(f, *args)
    return out, pull(draw(*out.shape, seed=9).astype(out.dtype))


def kept_by(f, *args):
    """Shapes and dtypes of the arrays that a forward pass keeps for the backward pass."""
    kept = jax.tree.leaves(jax.eval_shape(lambda *args: jax.vjp(f, *args)[1], *args))
    return [(x.shape, x.dtype) for x in kept if x.ndim]


def check_same(f, reference, *args, tolerance=1e-6):
    found, expected = value_and_gradients(f, *args), value_and_gradients(reference, *args)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, expected
    )


@pytest.mark.parametrize("shape", [(7,), (2, 3, 40), (2, 2, 3, 5, 65)])
def test_the_softmax_and_its_gradient_are_jaxs(shape):
    logits = 5 * draw(*shape)
    check_same(lambda x: softmax(x, jnp.float32), jax.nn.softmax, logits)


def test_masked_keys_have_no_weight_and_no_gradient():
    logits = draw(3, 6).at[:, 4:].set(-1e10)
    weights, (gradient,) = value_and_gradients(lambda x: softmax(x, jnp.float32), logits)
    assert not weights[:, 4:].any() and not gradient[:, 4:].any()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


def test_a_narrow_softmax_is_rounded_once_and_keeps_its_weights_alone():
    logits = draw(4, 33)
    weights, (gradient,) = value_and_gradients(lambda x: softmax(x, jnp.bfloat16), logits)
    np.testing.assert_array_equal(weights, jax.nn.softmax(logits).astype(jnp.bfloat16))
    assert gradient.dtype == jnp.float32
    assert kept_by(lambda x: softmax(x, jnp.bfloat16), logits) == [((4, 33), jnp.bfloat16)]


@pytest.mark.parametrize(("shape", "rows"), [((5,), (2, 3)), ((3, 4), (6,)), ((2,), ()), ((3,), (1,))])
def test_what_is_repeated_has_the_sum_of_the_gradients(shape, rows):
    check_same(lambda x: repeated(x, rows), lambda x: jnp.broadcast_to(x, (*rows, *shape)), draw(*shape))


@pytest.mark.parametrize("rows", [(2, 3), (6,), ()])
def test_what_is_scaled_has_both_gradients(rows):
    check_same(scaled, lambda x, n: x * jnp.broadcast_to(n, x.shape), draw(*rows, 4, 5), draw(4, 5, seed=1))


def test_frozen_scales_keep_no_activations():
    x, numbers = draw(7, 4), draw(4, seed=1)
    assert kept_by(lambda x: scaled(x, numbers), x) == [((4,), jnp.float32)]
    assert ((7, 4), jnp.float32) in kept_by(lambda n: scaled(x, n), numbers)


def test_members_repeat_and_weigh_their_own():
    numbers_EN, logits_EBM = draw(3, 5), draw(3, 2, 5)
    check_same(
        jax.vmap(lambda n, x: softmax(x * repeated(n, (2,)), jnp.float32)),
        jax.vmap(lambda n, x: jax.nn.softmax(x * n[None])),
        numbers_EN,
        logits_EBM,
    )


@pytest.mark.parametrize("activations", [("relu",), ("gelu", "linear"), ("silu", "linear")])
def test_gates_are_the_product_of_their_activations(activations):
    functions = {
        "relu": jax.nn.relu,
        "gelu": jax.nn.gelu,
        "silu": jax.nn.silu,
        "linear": lambda x: x,
    }

    def reference(*hidden):
        out = 1.0
        for name, x in zip(activations, hidden, strict=True):
            out = out * functions[name](x)
        return out

    hidden = [draw(2, 3, 8, seed=i) for i in range(len(activations))]
    check_same(lambda *hidden: gated(activations, hidden), reference, *hidden)


def test_narrow_gates_are_rounded_once_and_keep_their_inputs_alone():
    gate, linear = (draw(2, 3, 8, seed=i).astype(jnp.bfloat16) for i in range(2))
    wide = jax.nn.gelu(gate.astype(jnp.float32)) * linear.astype(jnp.float32)
    np.testing.assert_array_equal(gated(("gelu", "linear"), [gate, linear]), wide.astype(jnp.bfloat16))
    kept = kept_by(lambda *hidden: gated(("gelu", "linear"), hidden), gate, linear)
    assert kept == [((2, 3, 8), jnp.bfloat16)] * 2
