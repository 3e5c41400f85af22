"""Rematerialisation: the same numbers, fewer bytes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.t5 import T5, T5Config

CONFIG = T5Config(64, 16, 2, 24, 1, 8, 32, ("gelu", "linear"), logits_via_embedding=False, dropout_rate=0.1)
SHORT = dataclasses.replace(CONFIG, num_encoder_layers=1)
MODELS = {
    "scanned": lambda remat: T5(dataclasses.replace(CONFIG, scan_layers=True, remat=remat)),
    "unscanned": lambda remat: T5(dataclasses.replace(SHORT, remat=remat)),
    "bert": lambda remat: Bert(BertConfig(64, 16, 2, 1, 32, dropout_rate=0.1, remat=remat), classes=3),
}
P, L = 4, 128


def value_gradient_bytes(model):
    """The loss and its gradient with respect to a prompt, with dropout, and the compiler's temporary bytes."""
    tokens_BL = jnp.tile(P + jnp.arange(L) % 64, (2, 1))
    decoder_BU = jnp.tile(jnp.arange(5, 10), (2, 1))
    params = nn.meta.unbox(jax.jit(lambda: model.init(jax.random.key(0), method="initialize"))())

    def loss(prompt_PD, params):
        rngs = {"dropout": jax.random.key(1)}
        logits = model.apply(params, tokens_BL, decoder_BU, prompt_PD, deterministic=False, rngs=rngs)
        return jnp.sum(jnp.sin(logits))

    arguments = jax.random.normal(jax.random.key(2), (P, 16)), params
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*arguments).compile()
    return *compiled(*arguments), compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unscanned", "scanned", "bert"])
def test_the_same_numbers_from_fewer_bytes(kind):
    policies = ("none", "full") if kind == "unscanned" else ("none", "minimal", "full")
    values, gradients, bytes = zip(
        *(value_gradient_bytes(MODELS[kind](remat)) for remat in policies), strict=True
    )
    assert float(jnp.abs(gradients[0]).max()) > 0
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        np.testing.assert_allclose(value, values[0], rtol=1e-5)
        np.testing.assert_allclose(gradient, gradients[0], rtol=1e-4, atol=1e-5)
    if kind == "scanned":  # elsewhere there is one layer, which keeps what it needs
        assert bytes[0] > 2 * bytes[1] and bytes[1] > 1.2 * bytes[2], bytes
