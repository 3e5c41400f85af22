"""Base models from every layout that can be read, one-to-one or refused."""

import dataclasses
import json
import pathlib
import tracemalloc

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jax_prompts import partition
from jax_prompts.base_models import weights as weights_module
from jax_prompts.base_models.build import make_model, make_vocabulary
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.open import Checkpoint
from jax_prompts.base_models.weights import (
    abstract_weights,
    load_saved,
    load_weights,
    random_weights,
    save_model,
)
from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import LazyArray
from jax_prompts.models import sizes
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.t5 import T5, T5Config

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
TINY = T5Config(96, 32, 4, 2, 3, 8, 64, ("gelu", "linear"), logits_via_embedding=False)


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch):
    monkeypatch.setitem(sizes.SIZES, "tiny", TINY)


@pytest.fixture(scope="module")
def drawn():
    """Random weights, in float32."""
    base = BaseModel(size=None, checkpoint=None, vocabulary="")
    return load_weights(base, T5(TINY))[0]


def load(checkpoint, **changes):
    base = BaseModel(size="tiny", checkpoint=checkpoint and str(checkpoint), vocabulary="", **changes)
    return load_weights(base, make_model(base))[0]


def flat(weights):
    return {k: np.asarray(v) for k, v in flax.traverse_util.flatten_dict(weights, sep="/").items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_own_layout_comes_back_bit_for_bit(tmp_path, dtype, drawn):
    weights = jax.tree.map(lambda array: array.astype(dtype), drawn)
    save_model(tmp_path, weights, TINY, {"origin": "a test"})
    again = load(tmp_path, weight_dtype=dtype)
    before, after = flat(weights), flat(again)
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert json.loads((tmp_path / "config.json").read_text())["origin"] == "a test"
    assert fingerprint(weights) == fingerprint(again)


def test_a_scanned_model_is_saved_as_t5x_has_it(tmp_path, drawn):
    save_model(tmp_path / "single", drawn, TINY, {})
    scanned = load(tmp_path / "single", scan_layers=True)
    save_model(tmp_path / "stacked", scanned, TINY, {})
    stored = load_file(tmp_path / "stacked" / "model.safetensors")
    assert stored["decoder/layers/mlp/wo/kernel"].shape == (64, 3, 32)
    as_scanned, as_single = (load(tmp_path / "stacked", scan_layers=scan) for scan in (True, False))
    for found, expected in (
        (load_saved(tmp_path / "stacked"), scanned),
        (as_scanned, scanned),
        (as_single, drawn),
    ):
        found, expected = flat(found), flat(expected)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert fingerprint(scanned) == fingerprint(drawn)


def test_fingerprint_tells_models_apart_but_not_their_precision(drawn):
    weights = drawn
    other = jax.tree.map(lambda x: x, weights)
    other["encoder"]["encoder_norm"] = {"scale": 2 * weights["encoder"]["encoder_norm"]["scale"]}
    assert fingerprint(weights) != fingerprint(other)
    assert fingerprint(weights) == fingerprint(jax.tree.map(lambda x: x.astype(jnp.bfloat16), weights))


def test_scanned_weights_hold_the_layers_on_axis_0():
    plain = flat(load(GOLDENS / "t5_v1_1_hf"))
    scanned = flat(load(GOLDENS / "t5_v1_1_hf", scan_layers=True))
    kernel = scanned["decoder/layers/mlp/wi_1/kernel"]
    assert kernel.shape == (3, 32, 64)
    for i in range(3):
        assert np.array_equal(kernel[i], plain[f"decoder/layers_{i}/mlp/wi_1/kernel"])
    assert sum(a.size for a in plain.values()) == sum(a.size for a in scanned.values())


def test_names_that_do_not_match_are_listed(monkeypatch):
    monkeypatch.setitem(sizes.SIZES, "tiny", dataclasses.replace(TINY, num_decoder_layers=4))
    with pytest.raises(RunError, match=r"missing -.*- decoder/layers_3/"):
        load(GOLDENS / "t5_v1_1_hf")
    monkeypatch.setitem(sizes.SIZES, "tiny", dataclasses.replace(TINY, num_decoder_layers=2))
    with pytest.raises(RunError, match=r"unknown \+.*\+ decoder/layers_2/"):
        load(GOLDENS / "t5_v1_1_hf")


def test_shapes_that_do_not_match_are_listed(monkeypatch):
    monkeypatch.setitem(sizes.SIZES, "tiny", dataclasses.replace(TINY, mlp_dim=48))
    with pytest.raises(RunError, match=r"- \S+ \(32, 48\) \+ \S+ \(32, 64\)"):
        load(GOLDENS / "t5_v1_1_hf")


def test_truncated_file_is_one_line(tmp_path, drawn):
    save_model(tmp_path, drawn, TINY, {})
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RunError, match="cannot be read") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_directory_without_a_model_says_what_was_expected(tmp_path):
    with pytest.raises(ConfigError, match="INITIAL_CHECKPOINT_PATH"):
        load(tmp_path)


def test_legacy_t5x_checkpoint(shared, monkeypatch):
    """Names, shapes and values of the numbers that msgpack and tensorstore read without T5X."""
    golden = json.loads((shared / "goldens" / "t5x_checkpoint" / "golden.json").read_text())["leaves"]
    prefix = "optimizer/target/"
    wanted = {name.removeprefix(prefix): leaf for name, leaf in golden.items() if name.startswith(prefix)}
    vocabulary, width = wanted["token_embedder/embedding"]["shape"]
    heads, buckets = wanted["encoder/relpos_bias/rel_embedding"]["shape"]
    joined = wanted["encoder/layers_0/attention/query/kernel"]["shape"][1]
    layers = len({name.split("/")[1] for name in wanted if name.startswith("encoder/layers_")})
    mlp_dim = wanted["encoder/layers_0/mlp/wi_0/kernel"]["shape"][1]
    config = T5Config(
        vocabulary, width, heads, layers, layers, joined // heads, mlp_dim, ("gelu", "linear"),
        logits_via_embedding=False, relpos_buckets=buckets,
    )  # fmt: skip
    monkeypatch.setitem(sizes.SIZES, "tiny", config)
    weights = flat(load(shared / "data" / "tiny_random_t5_1_1_checkpoint" / "checkpoint_3"))
    assert weights.keys() == wanted.keys()
    for name, leaf in wanted.items():
        array = weights[name]
        assert list(array.shape) == leaf["shape"], name
        np.testing.assert_array_equal(array.ravel()[:4], np.float32(leaf["first4"]), err_msg=name)
        np.testing.assert_allclose(array.astype(np.float64).sum(), leaf["sum"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("layout", ["layers", "stacks"])
def test_arrays_are_streamed_to_their_shards(monkeypatch, scan_layers, sharded, layout):
    """A checkpoint of many arrays: host memory above what stays is one array, and no number is read twice."""
    config = T5Config(4096, 256, 4, 6, 6, 64, 512, ("gelu", "linear"), logits_via_embedding=False)
    read = []

    def lazy(name, shape):
        def numbers(index):
            part = tuple(len(range(*axis.indices(size))) for axis, size in zip(index, shape, strict=True))
            read.append((name, part))
            return np.full(part, len(name.replace("/layers/", "/layers_0/")), np.float32)

        return LazyArray(shape, np.dtype(np.float32), numbers)

    kept = T5(dataclasses.replace(config, scan_layers=layout == "stacks"))
    shapes = flax.traverse_util.flatten_dict(nn.meta.unbox(abstract_weights(kept)), sep="/")
    shapes = {
        name: (x.shape[1], x.shape[0], *x.shape[2:]) if "/layers/" in name else x.shape
        for name, x in shapes.items()
    }
    source = {name: lazy(name, shape) for name, shape in shapes.items()}
    monkeypatch.setattr(
        weights_module, "open_model", lambda _: Checkpoint("native", source, config, None, {})
    )
    base = BaseModel(None, "many", "", weight_dtype="bfloat16", scan_layers=scan_layers)
    model = T5(dataclasses.replace(config, scan_layers=scan_layers))
    mesh = partition.make_mesh({"data": 2, "model": 4}) if sharded else None
    load_weights(base, model, 0, mesh)  # what is imported and compiled once is no memory of a load
    read.clear()
    tracemalloc.start()
    weights = load_weights(base, model, 0, mesh)[0]
    stays, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    wanted = {}
    if mesh is not None:
        shardings = partition.parameter_shardings(abstract_weights(model), mesh)
        wanted = flax.traverse_util.flatten_dict(shardings, sep="/")
    largest = max(array.nbytes for array in source.values())
    assert peak - stays <= 1.5 * largest  # small ones may go late, where the processor is busy
    assert stays <= sum(array.nbytes for array in jax.tree.leaves(weights)) + 1e6  # and Python's own objects
    assert sum(np.prod(part) for _, part in read) == sum(np.prod(shape) for shape in shapes.values())
    for name, array in flax.traverse_util.flatten_dict(weights, sep="/").items():
        assert array.dtype == jnp.bfloat16
        if mesh is not None:
            assert array.sharding.is_equivalent_to(wanted[name], array.ndim)
        original = name.replace("/layers/", "/layers_0/")
        assert np.all(np.asarray(array) == len(original))


def test_random_weights_are_drawn_where_they_belong():
    mesh = partition.make_mesh({"data": 2, "model": 4})
    base = BaseModel(size=None, checkpoint=None, vocabulary="", weight_dtype="bfloat16")
    model = T5(dataclasses.replace(TINY, num_encoder_layers=1, num_decoder_layers=1))
    placed = load_weights(base, model, 3, mesh)[0]
    kernel = placed["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
    assert (kernel.sharding.shard_shape(kernel.shape), kernel.dtype) == ((16, 32), jnp.bfloat16)
    plain = load_weights(base, model, 3)[0]
    assert all(np.array_equal(a, b) for a, b in zip(flat(placed).values(), flat(plain).values(), strict=True))


def test_abstract_weights_are_those_of_every_layer():
    """One traced layer stands for all; a whole trace says the same."""
    for model in (
        T5(TINY),
        T5(dataclasses.replace(TINY, scan_layers=True)),
        Bert(BertConfig(80, 32, 4, 3, 64)),
    ):
        whole = jax.eval_shape(lambda model=model: random_weights(model, jax.random.key(0)))
        assert jax.tree.map(repr, abstract_weights(model)) == jax.tree.map(repr, whole)


def test_weights_in_integers_are_refused(tmp_path, drawn):
    weights = jax.tree.map(lambda array: array, drawn)
    weights["encoder"]["encoder_norm"]["scale"] = jnp.ones(32, jnp.int8)
    save_model(tmp_path, weights, TINY, {})
    with pytest.raises(RunError, match=r"encoder/encoder_norm/scale as int8"):
        load(tmp_path)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_xxl_fits_a_host_of_64_gb(scan_layers):
    """What stays in float32, and 1.2 of the largest array, as the streaming above needs them."""
    config = dataclasses.replace(sizes.SIZES["t5_1_1_xxl"], scan_layers=scan_layers)
    arrays = jax.tree.leaves(nn.meta.unbox(abstract_weights(T5(config))))
    nbytes = [4 * array.size for array in arrays]
    assert sum(nbytes) == 4 * 11_135_332_352
    assert sum(nbytes) + 1.2 * max(nbytes) < 64e9


def test_a_model_without_a_size_or_a_checkpoint_is_refused():
    with pytest.raises(ConfigError, match="MODEL_SIZE and INITIAL_CHECKPOINT_PATH are both None"):
        make_model(BaseModel(size=None, checkpoint=None, vocabulary=None))
    with pytest.raises(ConfigError, match="set VOCABULARY to a file"):
        make_vocabulary(BaseModel(size="tiny", checkpoint=str(GOLDENS / "t5_v1_1_hf"), vocabulary=None))
