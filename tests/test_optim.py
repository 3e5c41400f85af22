"""Optimisers against T5X's own trajectories and their formulas; schedules; refused settings; members."""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from jax_prompts.config import Optimizer
from jax_prompts.errors import ConfigError
from jax_prompts.optim import learning_rate_schedule, make_optimizer, rate_warning, unused_warning

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("JAX_PROMPTS_SHARED", HERE.parents[1] / "shared"))
T5X = Optimizer("adafactor", 0.3, weight_decay=1e-5)


def trajectory(config, init, grads, steps=1000):
    """Parameters after each gradient, and the last optimiser state."""
    optimizer = make_optimizer(config, steps)

    @jax.jit
    def update(params, state, grad):
        updates, state = optimizer.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    params, state, path = init, optimizer.init(init), []
    for grad in grads:
        params, state = update(params, state, grad)
        path.append(params)
    return path, state


def golden(size):
    file = HERE / f"goldens/adafactor_t5x/{size}.safetensors"
    if not file.exists():  # the factored prompt is too large for the repository
        file = SHARED / "goldens/adafactor_t5x/golden.safetensors"
    if not file.exists():
        pytest.skip(f"no {file}: set JAX_PROMPTS_SHARED to the folder that holds goldens/adafactor_t5x")
    tensors = load_file(file)
    prefix = f"{size}."
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def second_moments(state):
    return next(
        s for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "v_row")) if hasattr(s, "v_row")
    )


@pytest.mark.parametrize("start", [0, 1_100_000])
@pytest.mark.parametrize("size", ["P20xH64", "P100xH256", "P150xH256"])
def test_adafactor_follows_t5x(size, start):
    tensors = golden(size)
    grads = [tensors["grad_base"][t % 3] * tensors["grad_scale"][t] for t in range(25)]
    config = dataclasses.replace(T5X, step_offset=start)
    path, state = trajectory(config, {"prompt": tensors["init"]}, [{"prompt": g} for g in grads])
    prompts = np.stack([p["prompt"] for p in path])
    expected = {k.split(".")[1]: x for k, x in tensors.items() if k.startswith(f"start{start}.")}

    rms = np.sqrt(np.mean(np.square(prompts), axis=(1, 2)))
    np.testing.assert_allclose(rms, expected["rms_all_steps"], atol=1e-4)
    if "prompt_all_steps" in expected:
        np.testing.assert_allclose(prompts, expected["prompt_all_steps"], atol=1e-4)
    else:
        np.testing.assert_allclose(prompts[0], expected["prompt_after_1"], atol=1e-4)
        np.testing.assert_allclose(prompts[24], expected["prompt_after_25"], atol=1e-4)
        np.testing.assert_allclose(prompts[:, [0, -1]], expected["rows_0_and_last_all_steps"], atol=1e-4)
    moments = second_moments(state)
    for name in {"v", "v_row", "v_col"} & expected.keys():
        np.testing.assert_allclose(getattr(moments, name)["prompt"], expected[name], rtol=1e-3)
    assert ("v" in expected) != (size == "P150xH256")


def numpy_adafactor(config, p, grads):
    """Shazeer & Stern's algorithm 4 (factored) in float64, without momentum."""
    row, col = np.zeros(p.shape[0]), np.zeros(p.shape[1])
    for t, g in enumerate(grads, config.step_offset):
        b = np.float64(1 - np.float32(t + 1) ** np.float32(-config.decay_rate))
        square = g.astype(np.float64) ** 2 + 1e-30
        row, col = b * row + (1 - b) * square.mean(1), b * col + (1 - b) * square.mean(0)
        y = g / np.sqrt(np.outer(row, col) / row.mean())
        y /= max(1.0, np.sqrt(np.mean(y**2)) / config.clipping_threshold)
        rate = config.learning_rate
        if config.multiply_by_parameter_scale:
            rate *= max(1e-3, np.sqrt(np.mean(p**2)))
        p = (1 - config.weight_decay) * p - rate * y
    return p


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("start", [0, 1_100_000])
def test_factored_adafactor_follows_the_paper(start, scaled):
    rng = np.random.default_rng(0)
    init = rng.normal(size=(128, 130)).astype(np.float32)
    grads = [rng.normal(size=init.shape).astype(np.float32) * s for s in (1, 0.1, 0.1, 0.01)]
    config = dataclasses.replace(
        T5X, step_offset=start, multiply_by_parameter_scale=scaled, weight_decay=0.01
    )
    path, state = trajectory(config, init, grads)
    np.testing.assert_allclose(path[-1], numpy_adafactor(config, init, grads), atol=1e-5)
    assert second_moments(state).v.shape == (1,)
    _, state = trajectory(dataclasses.replace(config, factored=False), init, grads)
    assert second_moments(state).v.shape == init.shape


def test_adamw_follows_the_paper():
    config = Optimizer("adamw", 0.1, weight_decay=0.2, beta1=0.8, beta2=0.9, epsilon=1e-3)
    rng = np.random.default_rng(0)
    init = rng.normal(size=(4, 3)).astype(np.float32)
    grads = [rng.normal(size=init.shape).astype(np.float32) for _ in range(5)]
    p, m, v = init.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(grads, 1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g.astype(np.float64) ** 2
        p = p - 0.1 * (m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3) + 0.2 * p)
    np.testing.assert_allclose(trajectory(config, init, grads)[0][-1], p, atol=1e-6)


MEMBERS = [
    dataclasses.replace(T5X, gradient_clip_norm=1.0, schedule="linear", warmup_steps=2),
    dataclasses.replace(T5X, step_offset=1_100_000, multiply_by_parameter_scale=True),
    dataclasses.replace(T5X, min_dim_size_to_factor=4, schedule="rsqrt", clipping_threshold=0.5),
    Optimizer("adamw", 0.1, weight_decay=0.1, gradient_clip_norm=1.0),
]


@pytest.mark.parametrize("config", MEMBERS, ids=["clip", "offset", "factored", "adamw"])
def test_members_are_separate_runs(config):
    rng = np.random.default_rng(0)
    scale_E = np.array([1e-3, 1.0, 50.0], np.float32)  # one member under the gradient limit, two over it
    draw = lambda: {"w": rng.normal(size=(3, 6, 5)), "b": rng.normal(size=(3, 4))}  # noqa: E731
    init = jax.tree.map(lambda x: x.astype(np.float32), draw())
    shrinking = [(scale_E * 10.0**-t).astype(np.float32) for t in range(4)]
    grads = [jax.tree.map(lambda x, s=s_E: (x.T * s).T.astype(np.float32), draw()) for s_E in shrinking]
    optimizer = make_optimizer(config, 10)
    together, state = init, jax.vmap(optimizer.init)(init)
    update = jax.jit(jax.vmap(optimizer.update))
    for grad in grads:
        updates, state = update(grad, state, together)
        together = optax.apply_updates(together, updates)
    for e in range(3):
        one = lambda tree, e=e: jax.tree.map(lambda x: x[e], tree)  # noqa: E731
        path, _ = trajectory(config, one(init), [one(g) for g in grads], steps=10)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), one(together), path[-1]
        )


def test_gradient_norm_is_limited_over_the_whole_tree():
    config = Optimizer("adamw", 1.0, beta1=0.0, beta2=0.0, epsilon=1e6, gradient_clip_norm=2.0)
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}  # a huge epsilon makes the update proportional
    updates, _ = make_optimizer(config, 1).update(grads, make_optimizer(config, 1).init(grads), grads)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-1.2e-6, -1.6e-6], rtol=1e-5)


def test_zero_gradients_move_nothing_and_stay_finite():
    for config in (
        dataclasses.replace(T5X, weight_decay=0.0, gradient_clip_norm=1.0),
        Optimizer("adamw", 0.1),
    ):
        for offset in (0, 1_100_000) if config.name == "adafactor" else (0,):
            config = dataclasses.replace(config, step_offset=offset)
            for shape in ((3, 2), (128, 128)):
                path, _ = trajectory(config, np.ones(shape, np.float32), [np.zeros(shape, np.float32)] * 2)
                np.testing.assert_array_equal(path[-1], np.ones(shape))


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]),
        ("constant", 2, [0.0, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4]),
        ("linear", 0, [0.4, 1 / 3, 0.8 / 3, 0.2, 0.4 / 3, 0.2 / 3, 0.0]),
        ("linear", 2, [0.0, 0.2, 0.4, 0.3, 0.2, 0.1, 0.0]),
        ("rsqrt", 0, [0.4, 0.4, 0.4 / 2**0.5, 0.4 / 3**0.5, 0.2, 0.4 / 5**0.5, 0.4 / 6**0.5]),
        ("rsqrt", 4, [0.0, 0.05, 0.1, 0.15, 0.2, 0.4 / 5**0.5, 0.4 / 6**0.5]),
    ],
)
def test_schedules(schedule, warmup, expected):
    config = Optimizer("adafactor", 0.4, schedule=schedule, warmup_steps=warmup)
    rate = learning_rate_schedule(config, 6)
    np.testing.assert_allclose([rate(count) for count in range(7)], expected, atol=1e-7)
    under_jit = jax.jit(jax.vmap(lambda count: rate(count) * jnp.ones(())))(jnp.arange(7))
    np.testing.assert_allclose(under_jit, expected, atol=1e-7)


def test_warm_up_as_a_share_of_all_steps():
    share = Optimizer("adamw", 0.4, schedule="linear", warmup_fraction=0.1)
    steps = Optimizer("adamw", 0.4, schedule="linear", warmup_steps=5)
    rates = [[learning_rate_schedule(config, 50)(count) for count in range(50)] for config in (share, steps)]
    assert rates[0] == rates[1] and max(rates[0]) == pytest.approx(0.4)


def test_the_schedule_reaches_the_update():
    config = Optimizer("adafactor", 0.4, schedule="linear", warmup_steps=2)
    path, _ = trajectory(config, np.zeros(8, np.float32), [np.ones(8, np.float32)] * 6, steps=6)
    np.testing.assert_allclose(
        -np.diff([p[0] for p in path], prepend=0), [0, 0.2, 0.4, 0.3, 0.2, 0.1], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": "adafacto"}, "adafactor"),
        ({"name": ["adamw"]}, "name"),
        ({"schedule": "rsqr"}, "rsqrt"),
        ({"beta1": 0.5}, "beta1"),
        ({"epsilon": 1e-6}, "epsilon"),
        ({"name": "adamw", "step_offset": 1_100_000}, "step_offset"),
        ({"name": "adamw", "clipping_threshold": None}, "clipping_threshold"),
        ({"name": "adamw", "multiply_by_parameter_scale": True}, "multiply_by_parameter_scale"),
        ({"name": "adamw", "beta2": 1.0}, "beta2"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": -0.3}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "0.3"}, "learning_rate"),
        ({"weight_decay": -1e-5}, "weight_decay"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"warmup_steps": 10}, "warmup_steps is 10 in a run of 10 steps: lower it"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
        ({"warmup_fraction": 0.1, "warmup_steps": 2}, "leave one out"),
        ({"warmup_steps": 1.5}, "warmup_steps"),
        ({"step_offset": -1}, "step_offset"),
        ({"decay_rate": 0.0}, "decay_rate"),
        ({"clipping_threshold": 0.0}, "clipping_threshold"),
        ({"gradient_clip_norm": -1.0}, "gradient_clip_norm"),
        ({"min_dim_size_to_factor": 0}, "min_dim_size_to_factor"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named) as error:
        make_optimizer(dataclasses.replace(Optimizer("adafactor", 0.3), **settings), 10)
    assert "\n" not in str(error.value)


def test_a_run_of_no_steps_is_refused():
    with pytest.raises(ConfigError, match="steps"):
        make_optimizer(T5X, 0)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_table_and_network_have_rates_and_decays_of_their_own(name):
    """Each part moves as in a run that has its settings for everything."""
    shared = Optimizer(name=name, learning_rate=0.3, weight_decay=0.01, warmup_steps=2)
    split = dataclasses.replace(shared, network_learning_rate=0.02, network_weight_decay=0.0)
    other = dataclasses.replace(shared, learning_rate=0.02, weight_decay=0.0)
    draw = np.random.default_rng(0)
    params = {"prompt": draw.normal(size=(3, 4)), "network": {"down": draw.normal(size=(4, 2))}}
    params = {"prompt": jax.tree.map(np.float32, params)}
    grads = [jax.tree.map(lambda x: draw.normal(size=x.shape).astype(np.float32), params) for _ in range(4)]

    def end(config):
        transformation = make_optimizer(config, 10)
        state, at = transformation.init(params), params
        for grad in grads:
            updates, state = transformation.update(grad, state, at)
            at = jax.tree.map(np.add, at, updates)
        return at["prompt"]

    np.testing.assert_allclose(end(split)["prompt"], end(shared)["prompt"], rtol=1e-6)
    np.testing.assert_allclose(end(split)["network"]["down"], end(other)["network"]["down"], rtol=1e-6)
    assert not np.allclose(end(shared)["network"]["down"], end(other)["network"]["down"], rtol=1e-3)


@pytest.mark.parametrize(
    ("numbers", "settings", "words"),
    [
        (10.0, {}, None),  # T5's embeddings and the rate of Lester et al.
        (0.3, {}, None),  # a start at U[-0.5, 0.5]
        (0.05, {}, "replace by others: try 0.00"),  # BERT's embeddings and a rate of T5
        (10.0, {"learning_rate": 1e-5}, "1000 steps cannot change by a tenth: try 0.3"),
        (0.05, {"multiply_by_parameter_scale": True}, None),  # steps are relative
    ],
)
def test_rates_that_hardly_suit_the_start_are_warned_of(numbers, settings, words):
    table = jnp.asarray([[numbers, -numbers]])
    said = rate_warning(dataclasses.replace(T5X, **settings), 1000, {"prompt": table})
    assert said is None if words is None else words in said


def test_a_slow_table_beside_a_network_is_not_warned_of():
    slow = dataclasses.replace(T5X, learning_rate=1e-5)
    assert rate_warning(slow, 1000, {"prompt": jnp.ones((1, 2)) * 10, "w": jnp.ones(1)}) is None
    assert rate_warning(slow, 1000, {"w": jnp.ones(1)}) is None


def test_the_rate_that_is_warned_of_is_the_peak():
    """LEARNING_RATE / sqrt(W) of the inverse square root: 3 over 100 steps is 0.3."""
    config = dataclasses.replace(T5X, learning_rate=3.0, schedule="rsqrt", warmup_steps=100)
    assert rate_warning(config, 1000, {"prompt": jnp.ones((1, 2)) * 10}) is None
    said = rate_warning(config, 1000, {"prompt": jnp.ones((1, 2)) * 0.01})
    assert "LEARNING_RATE is 3," in said and "try 0.003" in said


@pytest.mark.parametrize(
    ("tuned", "settings", "words"),
    [
        (
            {"prompt": {"prompt": 0}},
            {"network_learning_rate": 1e-3},
            "Optimizer.network_learning_rate does nothing",
        ),
        ({"prompt": {"a": 0, "b": 0}}, {"network_learning_rate": 1e-3}, "LEARNING_RATE does nothing"),
        ({"model": {"lora_a": 0}}, {"network_weight_decay": 0.0}, "Optimizer.weight_decay does nothing"),
        ({"prompt": {"prompt": 0}, "model": {"lora_a": 0}}, {"network_learning_rate": 1e-3}, None),
        ({"prompt": {"a": 0}}, {}, None),
    ],
)
def test_a_rate_with_nothing_to_act_on_is_warned_of(tuned, settings, words):
    said = unused_warning(dataclasses.replace(T5X, **settings), tuned)
    assert said is None if words is None else words in said
