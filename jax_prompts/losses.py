"""Cross entropy of target tokens, a sum for each row, in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real


def cross_entropy(
    logits_BUV: Float[Array, "B U V"],
    targets_BU: Int[Array, "B U"],
    weights_BU: Real[Array, "B U"],
    z_loss: float,
) -> Float[Array, " B"]:
    """Sum over each row's tokens of weight * (log Z - logit of the target + z_loss * (log Z)^2), in nats.

    Z is the softmax denominator; its penalty keeps logits from drifting (Mesh TensorFlow's z-loss, 1e-4 in
    T5X). Targets of weight 0 count for nothing, but must be ids in [0, V). Autodiff is left alone: it keeps
    one array beside the logits, as a hand-written rule that recomputes the softmax does (measured: equal
    peak memory and time), whereas picking the target by a mask instead of a gather keeps two.
    """
    logits_BUV = logits_BUV.astype(jnp.float32)
    log_z_BU = jax.nn.logsumexp(logits_BUV, axis=-1)
    target_BU = jnp.take_along_axis(logits_BUV, targets_BU[..., None], axis=-1)[..., 0]
    loss_BU = log_z_BU - target_BU + z_loss * jnp.square(log_z_BU)
    return jnp.sum(loss_BU * weights_BU.astype(jnp.float32), axis=-1)
