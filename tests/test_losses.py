"""Cross entropy against its formula in float64, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.losses import cross_entropy, token_sums


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    logits_BUV = rng.normal(0, 4, (3, 5, 11)).astype(np.float32)
    targets_BU = rng.integers(0, 11, (3, 5)).astype(np.int32)
    weights_BU = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], np.float32)
    return jnp.asarray(logits_BUV), jnp.asarray(targets_BU), jnp.asarray(weights_BU)


def by_formula(logits_BUV, targets_BU, weights_BU, z_loss):
    logits_BUV = np.asarray(logits_BUV, np.float64)
    targets_BU, weights_BU = np.asarray(targets_BU), np.asarray(weights_BU)
    log_z_BU = np.log(np.exp(logits_BUV).sum(-1))
    target_BU = np.take_along_axis(logits_BUV, targets_BU[..., None], -1)[..., 0]
    return ((log_z_BU - target_BU + z_loss * log_z_BU**2) * weights_BU).sum(-1)


@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.1])
def test_equals_the_formula_in_float64(batch, z_loss):
    loss_B = cross_entropy(*batch, z_loss)
    assert loss_B.dtype == jnp.float32 and loss_B.shape == (3,)
    np.testing.assert_allclose(loss_B, by_formula(*batch, z_loss), rtol=1e-6)
    assert loss_B[2] == 0.0


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_gradient_is_softmax_minus_target_plus_the_penalty(batch, z_loss):
    logits_BUV, targets_BU, weights_BU = batch
    grad_BUV = jax.grad(lambda x: cross_entropy(x, targets_BU, weights_BU, z_loss).sum())(logits_BUV)
    x = np.asarray(logits_BUV, np.float64)
    log_z_BU1 = np.log(np.exp(x).sum(-1, keepdims=True))
    expected = np.exp(x - log_z_BU1) * (1 + 2 * z_loss * log_z_BU1) - np.eye(11)[targets_BU]
    np.testing.assert_allclose(grad_BUV, expected * np.asarray(weights_BU)[..., None], atol=1e-6)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_gradient_equals_finite_differences_of_the_formula(batch, z_loss):
    logits_BUV, targets_BU, weights_BU = batch
    grad_BUV = jax.grad(lambda x: cross_entropy(x, targets_BU, weights_BU, z_loss).sum())(logits_BUV)
    direction = np.random.default_rng(1).normal(size=logits_BUV.shape)
    x = np.asarray(logits_BUV, np.float64)
    up, down = (by_formula(x + s * direction, targets_BU, weights_BU, z_loss).sum() for s in (1e-5, -1e-5))
    np.testing.assert_allclose(np.sum(grad_BUV * direction), (up - down) / 2e-5, rtol=1e-5)


def test_large_logits_stay_finite(batch):
    logits_BUV, targets_BU, weights_BU = batch
    loss = lambda x: cross_entropy(x, targets_BU, weights_BU, 1e-4).sum()  # noqa: E731
    value, grad_BUV = jax.value_and_grad(loss)(logits_BUV * 1e4)
    assert np.isfinite(value) and np.isfinite(grad_BUV).all()


def test_bfloat16_logits_are_summed_in_float32(batch):
    logits_BUV, targets_BU, weights_BU = batch
    logits_BUV = jnp.asarray(logits_BUV, jnp.bfloat16)
    loss_B = cross_entropy(logits_BUV, targets_BU, weights_BU, 1e-4)
    assert loss_B.dtype == jnp.float32
    expected = by_formula(logits_BUV, targets_BU, weights_BU, 1e-4)
    np.testing.assert_allclose(loss_B, expected, rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])  # of 5 positions: even parts and filled ones
def test_chunks_change_neither_values_nor_gradients(batch, chunk):
    _, targets_BU, weights_BU = batch
    rng = np.random.default_rng(2)
    hidden_BUD = jnp.asarray(rng.normal(size=(3, 5, 6)), jnp.float32)
    kernel_DV = jnp.asarray(rng.normal(size=(6, 11)), jnp.float32)

    def loss(hidden_BUD, kernel_DV, chunk):
        chunk_bytes = chunk * 3 * 11 * 4
        sums = token_sums(
            lambda h: h @ kernel_DV, hidden_BUD, targets_BU, weights_BU, 0.1, chunk_bytes=chunk_bytes
        )
        return sums[0] @ np.float32([1, 2, 3]), sums

    whole, cut = (
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(hidden_BUD, kernel_DV, size)
        for size in (5, chunk)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), whole, cut)
    logits_BUV = hidden_BUD @ kernel_DV
    np.testing.assert_allclose(whole[0][1][0], by_formula(logits_BUV, targets_BU, weights_BU, 0.1), rtol=1e-5)
    correct_B = ((logits_BUV.argmax(-1) == targets_BU) * weights_BU).sum(-1)
    np.testing.assert_array_equal(cut[0][1][1], correct_B)


@pytest.mark.parametrize(("members", "chunks"), [(1, None), (2, 2), (8, 4), (100, 4)])
def test_members_and_devices_share_the_limit(members, chunks):
    """Of 4 positions: as many as fit, at least one of every row; on 2 devices twice as many."""
    row_bytes = 3 * 11 * 4
    arrays = jnp.zeros((3, 4, 6)), jnp.zeros((3, 4), jnp.int32), jnp.ones((3, 4))

    def sums(*arrays):
        return token_sums(lambda h: h @ jnp.zeros((6, 11)), *arrays, 0.0, members, chunk_bytes=4 * row_bytes)

    def lengths(jaxpr):
        return [step.params["length"] for step in jaxpr.eqns if step.primitive.name == "scan"]

    assert lengths(jax.make_jaxpr(sums)(*arrays).jaxpr) == ([chunks] if chunks else [])
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((2,), ("data",))):
        on_two = lengths(jax.make_jaxpr(sums)(*arrays).jaxpr)
    assert on_two == ([-(-4 // max(1, 8 // members))] if members > 2 else [])
