"""Adafactor goes on with a T5X checkpoint's slots: as if it had never stopped, whatever form they are kept in."""

import dataclasses
import pathlib

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from jax_prompts.base_models import t5x
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.t5x_slots import with_slots
from jax_prompts.config import Optimizer
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import in_memory
from jax_prompts.interop.t5x_write import write_checkpoint, write_zarr
from jax_prompts.optim import make_optimizer

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "t5_v1_1_hf"
SETTINGS = Optimizer(
    "adafactor", 1e-3, multiply_by_parameter_scale=True, min_dim_size_to_factor=32, restore_state=True
)
OPTIMIZER = make_optimizer(SETTINGS, 100)
BEFORE, AFTER = 3, 4


def tree(flat):
    return flax.traverse_util.unflatten_dict(flat, sep="/")


@pytest.fixture(scope="module")
def weights():
    arrays = open_model(str(GOLDEN)).arrays
    return tree({name: jnp.asarray(array[...]) for name, array in arrays.items()})


def gradients(weights, step):
    keys = jax.random.split(jax.random.key(step), len(jax.tree.leaves(weights)))
    keys = jax.tree.unflatten(jax.tree.structure(weights), keys)
    return jax.tree.map(lambda x, key: jax.random.normal(key, x.shape) * (step + 1), weights, keys)


def train(tuned, opt_state, steps):
    """A member's updates, as the step makes them."""
    update = jax.jit(jax.vmap(OPTIMIZER.update))
    for step in steps:
        gradient = jax.tree.map(lambda x: x[None], {"model": gradients(unstacked(tuned)["model"], step)})
        updates, opt_state = update(gradient, opt_state, tuned)
        tuned = optax.apply_updates(tuned, updates)
    return tuned, opt_state


def unstacked(tuned):
    return jax.tree.map(lambda x: x[0], tuned)


def fresh(tuned):
    return jax.jit(jax.vmap(OPTIMIZER.init))(tuned)


def factored(opt_state):
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, optax.FactoredState))
    (found,) = (x for x in leaves if isinstance(x, optax.FactoredState))
    return found


@pytest.fixture(scope="module")
def stopped(weights):
    """(tuned, state) after the first steps."""
    tuned = {"model": jax.tree.map(lambda x: x[None], weights)}
    return train(tuned, fresh(tuned), range(BEFORE))


def t5x_state(opt_state, **changes):
    """As T5X keeps it."""
    state = factored(opt_state)
    slots = {}
    for slot in ("v_row", "v_col", "v"):
        flat = flax.traverse_util.flatten_dict(getattr(state, slot)["model"], sep="/")
        slots |= {f"{name}/{slot}": np.asarray(x[0]) for name, x in flat.items()}
        slots |= {f"{name}/m": np.zeros(1, np.float32) for name in flat}
    slots |= changes
    return {"step": np.int32(state.count[0]), "param_states": tree(slots)}


def write(path, tuned, state, form):
    """A checkpoint of a T5X train state."""
    model = jax.tree.map(np.asarray, unstacked(tuned)["model"])
    if form == "orbax":
        saver = orbax.checkpoint.PyTreeCheckpointer()
        saver.save(path / "state", {"target": model, "state": state})
        return
    flat = flax.traverse_util.flatten_dict(model, sep="/")
    write_checkpoint(path, {name: in_memory(array) for name, array in flat.items()}, 0)
    content = flax.serialization.msgpack_restore((path / "checkpoint").read_bytes())
    if form == "legacy, large slots beside it":
        slots = state["param_states"]["token_embedder"]["embedding"]
        where = path / "state.param_states.token_embedder.embedding.v_row"
        slots["v_row"] = write_zarr(where, slots["v_row"])
    content["optimizer"]["state"] = state
    (path / "checkpoint").write_bytes(flax.serialization.msgpack_serialize(content))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["legacy", "legacy, large slots beside it", "orbax"])
def test_it_goes_on_as_if_it_had_never_stopped(form, stopped, tmp_path):
    tuned, opt_state = stopped
    path = tmp_path / "checkpoint_3"
    write(path, tuned, t5x_state(opt_state), form)
    read = open_model(str(path)).arrays
    reread = {"model": tree({name: jnp.asarray(array[...])[None] for name, array in read.items()})}
    restored = with_slots(fresh(reread), str(path))
    assert factored(restored).count.tolist() == [BEFORE]
    whole, _ = train(tuned, opt_state, range(BEFORE, BEFORE + AFTER))
    gone_on, _ = train(reread, restored, range(BEFORE, BEFORE + AFTER))
    anew, _ = train(reread, fresh(reread), range(BEFORE, BEFORE + AFTER))
    name = ("model", "encoder", "layers_0", "mlp", "wi_0", "kernel")

    def of(trees):
        return flax.traverse_util.flatten_dict(trees)[name]

    jax.tree.map(np.testing.assert_array_equal, gone_on, whole)
    assert np.abs(of(anew) - of(whole)).max() > 1e-6  # and it does matter


def test_both_kinds_of_slots_are_there(stopped):
    state = factored(stopped[1])
    assert {x.shape == (1, 1) for x in jax.tree.leaves(state.v)} == {True, False}
    assert {x.shape == (1, 1) for x in jax.tree.leaves(state.v_row)} == {True, False}


def test_the_slots_of_a_real_checkpoint(shared):
    step, slots = t5x.open_slots(str(shared / "data" / "tiny_random_t5_1_1_checkpoint" / "checkpoint_3"))
    assert step == 3
    scale = slots["decoder/decoder_norm/scale/v"][...]
    np.testing.assert_allclose(scale[:2], [2.894059419631958, 194.47247314453125], rtol=1e-6)
    names = {name.rpartition("/")[0] for name in slots}
    model = open_model(str(shared / "data" / "tiny_random_t5_1_1_checkpoint" / "checkpoint_3")).arrays
    assert names == set(model) and len(slots) == 4 * len(model)


KERNEL = "encoder/layers_0/mlp/wi_0/kernel"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{KERNEL}/m": np.zeros((32, 64), np.float32)}, "was trained with momentum"),
        ({f"{KERNEL}/v_row": np.zeros(64, np.float32)}, r"v_row \(64,\), and Adafactor here \(32,\)"),
        ({f"{KERNEL}/v_col": np.full(64, np.nan, np.float32)}, "not finite"),
    ],
)
def test_optimisers_that_do_not_fit(changes, words, stopped, tmp_path):
    tuned, opt_state = stopped
    write(tmp_path / "checkpoint_3", tuned, t5x_state(opt_state, **changes), "legacy")
    with pytest.raises(RunError, match=words):
        with_slots(fresh(tuned), str(tmp_path / "checkpoint_3"))


def test_checkpoints_without_an_optimiser(stopped, tmp_path):
    tuned, _ = stopped
    flat = flax.traverse_util.flatten_dict(unstacked(tuned)["model"], sep="/")
    write_checkpoint(tmp_path / "bare", {name: in_memory(np.asarray(x)) for name, x in flat.items()}, 5)
    for path in (tmp_path / "bare", GOLDEN):
        with pytest.raises(ConfigError, match="holds no optimiser to go on with"):
            with_slots(fresh(tuned), str(path))


def test_another_models_slots(stopped, tmp_path):
    tuned, opt_state = stopped
    state = t5x_state(opt_state)
    del state["param_states"]["encoder"]["layers_0"]["mlp"]["wi_0"]
    write(tmp_path / "checkpoint_3", tuned, state, "legacy")
    with pytest.raises(RunError, match=f"no {KERNEL}/v_row among"):
        with_slots(fresh(tuned), str(tmp_path / "checkpoint_3"))


def test_only_adafactor_restores():
    with pytest.raises(ConfigError, match="means nothing to adamw"):
        make_optimizer(dataclasses.replace(SETTINGS, name="adamw", multiply_by_parameter_scale=False), 10)
