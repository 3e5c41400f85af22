"""Checkpoints of T5X's scalable_t5, as umT5 is released: other names for stacks, and an axis of heads."""

import dataclasses
import json
import pathlib
import shutil

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from safetensors.numpy import load_file, save_file

from jax_prompts import partition
from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.convert import convert_model
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.stacks import in_layers, in_stacks
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import BaseModel
from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import in_memory, joined
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.models import sizes

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
UMT5 = GOLDENS / "umt5_hf"
HEADS = 2
BIAS = "decoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"


def read(arrays):
    return {name: array[...] for name, array in arrays.items()}


@pytest.fixture(scope="module")
def golden():
    return read(open_model(str(UMT5)).arrays)


def with_heads(name, array, axis):
    """A projection of attention whose `axis` is of heads and widths."""
    if "attention/" not in name or not name.endswith("/kernel"):
        return array
    shape = [*array.shape]
    shape[axis : axis + 1] = [HEADS, shape[axis] // HEADS]
    return array.reshape(shape)


def as_scalable_t5(arrays, *, scanned=True):
    """The same arrays under scalable_t5's names; layers on axis 1, and of `out` behind the heads."""
    if scanned:
        stacks = in_stacks({name: in_memory(array) for name, array in arrays.items()}, np.dtype(np.float32))
        arrays = read({name: x.exchanged if "/layers/" in name else x for name, x in stacks.items()})
    made = {}
    for name, array in arrays.items():
        if name.endswith("out/kernel"):
            array = with_heads(name, array, 0)
            array = np.moveaxis(array, 1, 2) if scanned else array
        else:
            array = with_heads(name, array, array.ndim - 1)
        stack = name.partition("/")[0]
        made[name.replace("/layers/", f"/{stack}/")] = array
    return made


@pytest.mark.parametrize("form", ["legacy", "orbax"])
@pytest.mark.parametrize("scanned", [True, False])
def test_a_released_umt5_is_read(golden, form, scanned, tmp_path):
    made, path = as_scalable_t5(golden, scanned=scanned), tmp_path / "checkpoint_9"
    if scanned:
        assert made["encoder/encoder/attention/query/kernel"].shape == (16, 2, HEADS, 8)
        assert made["decoder/decoder/self_attention/out/kernel"].shape == (HEADS, 2, 8, 16)
        assert made["encoder/encoder/relpos_bias/rel_embedding"].shape == (HEADS, 2, 32)
    if form == "legacy":
        write_checkpoint(path, {name: in_memory(array) for name, array in made.items()}, 9)
    else:
        tree = {"target": flax.traverse_util.unflatten_dict(made, sep="/")}
        orbax.checkpoint.PyTreeCheckpointer().save(path, tree)
    found = open_model(str(path))
    assert (found.kind, found.config) == ("T5X", open_model(str(UMT5)).config)
    single = read(in_layers(found.arrays))
    assert single.keys() == golden.keys()
    assert all(np.array_equal(single[name], golden[name]) for name in golden)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_what_t5x_itself_computes(scan_layers, tmp_path):
    """Its own names, shapes and logits."""
    stored = load_file(GOLDENS / "scalable_t5" / "golden.safetensors")
    arrays = {name.removeprefix("params/"): in_memory(x) for name, x in stored.items() if "params/" in name}
    write_checkpoint(tmp_path / "checkpoint_1", arrays, 1)
    base = BaseModel(None, str(tmp_path / "checkpoint_1"), "", scan_layers=scan_layers)
    model, batch = (
        make_model(base),
        [jnp.asarray(stored[f"{side}coder_input_tokens"]) for side in ("en", "de")],
    )
    logits_BUV = jax.jit(model.apply)({"params": load_weights(base, model)[0]}, *batch)
    np.testing.assert_allclose(logits_BUV, stored["logits"], atol=1e-5)


def test_parts_of_joined_axes():
    """As devices read them: any stretch of heads and widths, whole heads or not."""
    numbers = np.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6)
    behind, around = joined(in_memory(numbers), 2, 3), joined(in_memory(numbers), 0, 2)
    whole_behind = numbers.reshape(3, 4, 30)
    whole_around = np.moveaxis(numbers, 2, 1).reshape(15, 4, 6)
    assert (behind.shape, around.shape) == (whole_behind.shape, whole_around.shape)
    for part in (slice(None), slice(0, 6), slice(4, 11), slice(7, 7), slice(12, 15)):
        np.testing.assert_array_equal(behind[slice(1, 3), slice(None), part], whole_behind[1:3, :, part])
        np.testing.assert_array_equal(around[part, slice(2), slice(1, 4)], whole_around[part, :2, 1:4])


@pytest.mark.parametrize("scan_layers", [False, True])
def test_it_is_converted_and_loaded(golden, scan_layers, tmp_path):
    write_checkpoint(
        tmp_path / "checkpoint_9", {n: in_memory(a) for n, a in as_scalable_t5(golden).items()}, 9
    )
    done = convert_model(str(tmp_path / "checkpoint_9"), str(tmp_path / "own"))
    assert done["sizes"]["relpos_in_layers"] is True
    for path in (UMT5, tmp_path / "own", tmp_path / "checkpoint_9"):
        base = BaseModel(size=None, checkpoint=str(path), vocabulary="", scan_layers=scan_layers)
        assert load_weights(base, make_model(base))[1] == done["fingerprint"]
    mesh = partition.make_mesh({"fsdp": 2, "model": 2, "data": 2})  # each device reads a part of joined axes
    shared = flax.traverse_util.flatten_dict(load_weights(base, make_model(base), 0, mesh)[0], sep="/")
    whole = flax.traverse_util.flatten_dict(load_weights(base, make_model(base))[0], sep="/")
    assert all(np.array_equal(shared[name], whole[name]) for name in whole)
    stack = "encoder/layers" if scan_layers else "encoder/layers_1"
    bias, out = shared[f"{stack}/relpos_bias/rel_embedding"], shared[f"{stack}/attention/out/kernel"]
    assert bias.sharding.shard_shape(bias.shape)[-2:] == (1, 32)
    assert out.sharding.shard_shape(out.shape)[-2:] == (8, 8)


def other_bias(tmp_path, shape):
    """A folder whose last decoder layer has another relative position bias."""
    path = shutil.copytree(UMT5, tmp_path / "model")
    arrays = load_file(path / "model.safetensors")
    save_file(arrays | {BIAS: np.zeros(shape, np.float32)}, path / "model.safetensors")
    return path


@pytest.mark.parametrize("shape", [(32, 4), (16, 2), (2, 32)])
def test_a_bias_of_another_shape_is_named_with_both(tmp_path, shape):
    path = other_bias(tmp_path, shape)
    ours = r"decoder/layers_1/relpos_bias/rel_embedding is \({}, {}\) and encoder/\S+ \(2, 32\)"
    with pytest.raises(RunError, match=ours.format(*shape[::-1])):
        open_model(str(path))


def test_biases_that_differ_from_the_models_are_named_with_both(tmp_path, monkeypatch):
    wider = dataclasses.replace(open_model(str(UMT5)).config, num_heads=4, head_dim=4)
    monkeypatch.setitem(sizes.SIZES, "wider", wider)
    base = BaseModel(size="wider", checkpoint=str(UMT5), vocabulary="")
    with pytest.raises(
        RunError, match=r"- (\S+relpos_bias/rel_embedding) \(4, 32\) \+ \1 \(2, 32\).*set MODEL_SIZE"
    ):
        load_weights(base, make_model(base))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_heads": 4}, r"num_heads 4, and .* 2 \(relpos_bias/rel_embedding is \(2, 32\).* \(4, 32\)\)"),
        ({"relative_attention_num_buckets": 16}, r"is \(2, 32\), and would be \(2, 16\)"),
        ({"d_ff": 25}, r"d_ff 25, and the weights have 24: "),
    ],
)
def test_a_config_of_other_biases_is_refused_with_both_shapes(tmp_path, changes, words):
    path = shutil.copytree(UMT5, tmp_path / "model")
    described = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(described | changes))
    with pytest.raises(RunError, match=words):
        open_model(str(path))


def test_heads_that_attention_cannot_have_are_named(tmp_path):
    path = shutil.copytree(UMT5, tmp_path / "model")
    arrays = load_file(path / "model.safetensors")
    biases = {name: np.zeros((32, 3), np.float32) for name in arrays if "relative_attention_bias" in name}
    save_file(arrays | biases, path / "model.safetensors")
    with pytest.raises(RunError, match=r"layers_0/\S+ is \(3, 32\), of 3 heads that attention of width 16"):
        open_model(str(path))


@pytest.mark.parametrize(("model_type", "listed"), [("t5", r"\+ decoder/layers_1/relpos"), ("umt5", None)])
def test_biases_in_layers_are_umt5s_alone(tmp_path, model_type, listed):
    path = shutil.copytree(UMT5, tmp_path / "model")
    described = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(described | {"model_type": model_type}))
    base = BaseModel(size=None, checkpoint=str(path), vocabulary="")
    if listed is None:
        load_weights(base, make_model(base))
    else:
        with pytest.raises(RunError, match=listed):
            load_weights(base, make_model(base))


def test_an_activation_that_no_array_tells_is_the_public_models(golden, tmp_path, monkeypatch):
    """A T5X checkpoint of UL2 has SiLU where all others of its form have GELU."""
    write_checkpoint(tmp_path / "checkpoint_1", {name: in_memory(a) for name, a in golden.items()}, 1)
    found = open_model(str(tmp_path / "checkpoint_1")).config
    assert found.mlp_activations == ("gelu", "linear")
    ul2 = dataclasses.replace(found, mlp_activations=("silu", "linear"))
    monkeypatch.setitem(sizes.SIZES, "ul2", ul2)
    assert open_model(str(tmp_path / "checkpoint_1")).config == ul2
