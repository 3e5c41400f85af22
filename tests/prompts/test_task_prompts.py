"""Prompts of each task: what they share, what each has of its own, and how they start."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.errors import ConfigError
from jax_prompts.prompts import MPT, PerLayer, PromptTuning, Residual, TaskPrompts

P, D, TASKS = 4, 6, ("rte", "cb", "wic")


def begun(method, shared, table_init=None):
    prompts = TaskPrompts(method, TASKS, shared)
    return prompts, prompts.init(jax.random.key(0), D, table_init)["params"]


@pytest.mark.parametrize(
    ("method", "shared"),
    [
        (PromptTuning(P), ()),
        (MPT(P, rank=2), ("prompt",)),
        (Residual(P, hidden=3), ("network",)),
        (Residual(P, hidden=3), ("prompt", "network/down/kernel")),
        (PerLayer(P, kind="deep", width=2 * D), ()),
    ],
)
def test_each_task_has_the_prompt_of_its_own_and_the_shared_parameters(method, shared):
    prompts, boxed = begun(method, shared)
    params = nn.meta.unbox(boxed)
    alone = nn.meta.unbox(method.init(jax.random.key(0), D, None)["params"])
    together = {**flat(params["shared"]), **{name: x[0] for name, x in flat(params["own"]).items()}}
    assert jax.tree.map(jnp.shape, together) == jax.tree.map(jnp.shape, flat(alone))
    assert all(name.startswith(shared) for name in flat(params["shared"])) and bool(params["shared"]) == bool(
        shared
    )

    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    prompts_QW = prompts.apply({"params": params}, D)
    for task in range(len(TASKS)):
        of_task = {**flat(params["shared"]), **{name: x[task] for name, x in flat(params["own"]).items()}}
        own_PW = method.apply({"params": nested(of_task)}, D)
        np.testing.assert_allclose(prompts_QW[task * P : (task + 1) * P], own_PW, rtol=1e-6, atol=1e-6)

    # A task's rows move what is its own and what is shared, and nothing of the others.
    gradient = jax.grad(lambda params: jnp.sum(prompts.apply({"params": params}, D)[P : 2 * P] ** 2))(params)
    for name, own in flat(gradient["own"]).items():
        assert not np.any(own[0]) and not np.any(own[2]), name
    assert np.any(np.concatenate([x[1].ravel() for x in flat(gradient["own"]).values()]))
    assert all(np.any(x) for x in flat(gradient["shared"]).values())


def test_axes_are_named_for_the_mesh():
    _, boxed = begun(MPT(P), ("prompt",))
    assert boxed["shared"]["prompt"].names == ("prompt", "embed")
    assert boxed["own"]["u"].names == (None, "prompt", "rank")


def test_starts_are_of_each_task_and_what_is_shared_starts_as_the_first():
    starts = [nn.initializers.constant(value) for value in (1.0, 2.0, 3.0)]
    _, boxed = begun(PromptTuning(P), (), starts)
    np.testing.assert_array_equal(boxed["own"]["prompt"].value[:, 0, 0], [1.0, 2.0, 3.0])
    _, boxed = begun(MPT(P), ("prompt",), starts)
    np.testing.assert_array_equal(boxed["shared"]["prompt"].value, np.ones((P, D)))


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (("table",), r"SHARED_BY_TASKS table: MPT has prompt, u, v"),
        (("prompt", "u", "v"), r"SHARED_BY_TASKS names all of MPT's parameters"),
    ],
)
def test_what_cannot_be_shared_is_named(shared, message):
    with pytest.raises(ConfigError, match=message):
        begun(MPT(P), shared)


def flat(tree):
    return {"/".join(key.key for key in path): x for path, x in jax.tree.leaves_with_path(tree)}


def nested(flat_tree):
    tree = {}
    for name, x in flat_tree.items():
        *parents, last = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = x
    return tree
