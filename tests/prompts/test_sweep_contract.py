"""Members with settings of their own are separate runs, whatever method, optimiser, model and devices."""

import dataclasses
import functools
import types

import flax.linen as nn
import jax
import numpy as np
import pytest
from methods import KINDS, TABLE
from test_contract import CONFIG, STEPS, B, D, batch, begun, close, member
from whole_steps import make_train_step

from jax_prompts import optim, partition, sweep
from jax_prompts.base_models.classifier import random_classifier
from jax_prompts.base_models.weights import random_weights
from jax_prompts.config import Optimizer
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.t5 import T5
from jax_prompts.prompts import for_model, prompt_kind_of
from jax_prompts.setup import Setup
from jax_prompts.step import dropout_keys

ADAMW = Optimizer(
    "adamw", 0.05, weight_decay=0.01, network_learning_rate=0.02, gradient_clip_norm=1.0, schedule="linear"
)
ADAFACTOR = Optimizer("adafactor", 0.3, weight_decay=1e-5, schedule="rsqrt", warmup_steps=1)
VARIED = {
    "adamw": (
        ADAMW,
        {
            "BaseModel.dropout_rate": (0.0, 0.1, 0.3),
            "Training.z_loss": (0.0, 1e-4, 1e-2),
            "Optimizer.learning_rate": (0.001, 0.05, 1.0),
            "Optimizer.weight_decay": (0.0, 0.01, 0.1),
            "Optimizer.beta1": (0.9, 0.5, 0.0),
            "Optimizer.beta2": (0.999, 0.9, 0.99),
            # Smaller ones would make signs of the rounding of small gradients.
            "Optimizer.epsilon": (1e-3, 3e-3, 1e-2),
            "Optimizer.gradient_clip_norm": (0.1, 1.0, 5.0),
            "Optimizer.network_learning_rate": (0.1, 0.02, 0.001),
            "Optimizer.network_weight_decay": (0.1, 0.0, 0.01),
        },
    ),
    "adafactor": (
        ADAFACTOR,
        {
            "BaseModel.dropout_rate": (0.1, 0.0, 0.2),
            "Optimizer.learning_rate": (0.3, 0.1, 0.001),
            "Optimizer.weight_decay": (0.0, 1e-5, 1e-2),
            "Optimizer.decay_rate": (0.8, 0.9, 0.5),
            "Optimizer.clipping_threshold": (1.0, 0.5, 2.0),
        },
    ),
}
SEEDS = (3, 3, 4)


def run_steps(model, method, config, z_loss, frozen, seeds, data, *, numbers_E=None, mesh=None):
    """(end, optimiser state, losses [steps, E]); with `numbers_E`, of members that differ in them."""
    optimizer = optim.make_optimizer(config, STEPS)
    tuned, opt_state, frozen, data = begun(method, optimizer, frozen, seeds, data, mesh)
    run = types.SimpleNamespace(optimizer=config, training=types.SimpleNamespace(z_loss=z_loss))
    vary = functools.partial(Setup.vary, types.SimpleNamespace(model=model, run=run, steps=STEPS))
    step = jax.jit(
        make_train_step(
            model, method, optimizer, z_loss=z_loss, normalization="mean", vary=vary if numbers_E else None
        )
    )
    losses = []
    for s in range(STEPS):
        keys_E = dropout_keys(np.asarray(seeds), s)
        tuned, opt_state, metrics = step(tuned, opt_state, frozen, [data], keys_E, numbers_E=numbers_E or {})
        losses.append(np.asarray(metrics["loss_sum"]))
    assert step._cache_size() == 1
    return jax.tree.map(np.asarray, tuned), jax.tree.map(np.asarray, opt_state), np.stack(losses)


def assert_members_equal_their_own_runs(model, method, name, frozen, data, mesh=None, compared=(0, 1, 2)):
    config, varied = VARIED[name]
    numbers_E = {key: np.float32(values) for key, values in varied.items()}
    end, state, losses = run_steps(
        model, method, config, 1e-4, frozen, SEEDS, data, numbers_E=numbers_E, mesh=mesh
    )
    for e in compared:
        own = {key: values[e] for key, values in varied.items()}
        alone_model = model.clone(
            config=dataclasses.replace(model.config, dropout_rate=own["BaseModel.dropout_rate"])
        )
        alone, alone_state, losses_alone = run_steps(
            alone_model,
            method,
            sweep.with_numbers(config, own),
            own.get("Training.z_loss", 1e-4),
            frozen,
            SEEDS[e : e + 1],
            member(data, e),
        )
        np.testing.assert_allclose(losses[:, e : e + 1], losses_alone, rtol=1e-5)
        close(member(end, e), alone, atol=2e-5 * max(1.0, own["Optimizer.learning_rate"]))
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-3, atol=1e-6), member(state, e), alone_state
        )


EVERY_TIME = ("residual", "adamw")  # the others are slow
PAIRS = [*((name, "adamw") for name in KINDS), ("residual", "adafactor")]


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [pair if pair == EVERY_TIME else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS],
)
def test_members_with_settings_of_their_own_are_separate_runs(name, optimizer):
    """Side by side on one device; Residual's on eight, where every time one of the members is compared."""
    method = for_model(TABLE[name], CONFIG.prompt_width)
    model = T5(CONFIG, prompt_kind_of(method))
    frozen = nn.meta.unbox(random_weights(T5(CONFIG), jax.random.key(0)))
    mesh = partition.make_mesh({}) if name == "residual" else None
    compared = (2,) if (name, optimizer) == EVERY_TIME else (0, 1, 2)
    assert_members_equal_their_own_runs(
        model, method, optimizer, frozen, batch(method.length, 3), mesh, compared
    )


@pytest.mark.slow
@pytest.mark.parametrize("layers", [{"scan_layers": True, "remat": "minimal"}], ids=str)
def test_dropout_rates_of_members_under_a_scan(layers):
    config = dataclasses.replace(CONFIG, **layers)
    model, method = T5(config), for_model(TABLE["residual"], CONFIG.prompt_width)
    frozen = nn.meta.unbox(random_weights(model, jax.random.key(0)))
    assert_members_equal_their_own_runs(model, method, "adafactor", frozen, batch(method.length, 3))


@pytest.mark.slow
def test_dropout_rates_of_members_of_a_bert():
    config = BertConfig(CONFIG.vocab_size, D, 2, 1, 24, max_length=32, dropout_rate=0.1)
    model, method = Bert(config, "input", 3), for_model(TABLE["residual"], CONFIG.prompt_width)
    frozen = nn.meta.unbox(random_weights(model, jax.random.key(0)))
    data = batch(method.length, 3)
    one = {name: data[name][..., :1] % 3 for name in data if name != "encoder_input_tokens"}
    data = {"encoder_input_tokens": data["encoder_input_tokens"], **one}
    data["decoder_loss_weights"] = np.ones((3, B, 1), np.int32)
    frozen = {**frozen, **nn.meta.unbox(random_classifier(model, jax.random.key(1)))}
    assert_members_equal_their_own_runs(model, method, "adamw", frozen, data)
