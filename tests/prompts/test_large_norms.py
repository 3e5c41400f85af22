"""Explosive prompts grow by design; activations in bfloat16 must not change how they train."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract import CONFIG, D, batch
from whole_steps import make_train_step

from jax_prompts import optim
from jax_prompts.base_models.weights import random_weights
from jax_prompts.config import Optimizer
from jax_prompts.models.t5 import T5
from jax_prompts.prompts import Explosive, init_members
from jax_prompts.step import dropout_keys

STEPS = 60


def train(**numerics):
    """Losses and norms [STEPS] of EPT* at the paper's rate, on the same weights whatever the numerics."""
    config = dataclasses.replace(CONFIG, dropout_rate=0.0)
    frozen = nn.meta.unbox(random_weights(T5(config), jax.random.key(0)))
    if numerics.get("scan_layers"):
        for stack in ("encoder", "decoder"):
            (layer,) = [frozen[stack].pop("layers_0")]
            frozen[stack]["layers"] = jax.tree.map(lambda x: jnp.expand_dims(x, 0), layer)
    method = Explosive(length=4)
    optimizer = optim.make_optimizer(Optimizer("adamw", 0.3, weight_decay=0.01), STEPS)
    tuned = {"prompt": init_members(method, jax.random.split(jax.random.key(1), 1), D)}
    opt_state = jax.vmap(optimizer.init)(tuned)
    model = T5(dataclasses.replace(config, **numerics))
    step = jax.jit(make_train_step(model, method, optimizer, z_loss=0.0, normalization="mean"))
    losses, norms, data = [], [], batch(4, 1)
    for s in range(STEPS):
        tuned, opt_state, metrics = step(tuned, opt_state, frozen, [data], dropout_keys(np.array([1]), s))
        losses.append(float(metrics["loss_sum"][0] / metrics["tokens"][0]))
        norms.append(float(metrics["prompt_norm"][0]))
    return np.array(losses), np.array(norms)


@pytest.mark.slow
def test_bfloat16_trains_like_float32():
    losses, norms = train()
    assert losses[-1] < losses[0] - 0.1
    assert norms[0] < 1 and norms.max() > 300
    for scan_layers in (False, True):
        narrow_losses, narrow_norms = train(dtype=jnp.bfloat16, scan_layers=scan_layers)
        np.testing.assert_allclose(narrow_losses[-20:], losses[-20:], rtol=0.005)
        np.testing.assert_allclose(narrow_norms, norms, rtol=0.25, atol=1)
