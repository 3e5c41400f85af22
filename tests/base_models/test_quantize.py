"""Kernels in 8 and 4 bits: the numbers they stand for, the function of these, and every way into and out of memory."""

import dataclasses
import functools
import itertools
import json
import shutil

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jax_prompts import partition
from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.convert import convert_model
from jax_prompts.base_models.fingerprint import checkpoint_fingerprint
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.quantize import KINDS, frozen_count, frozen_shapes, is_quantized, quantize
from jax_prompts.base_models.weights import abstract_weights, load_weights, random_weights, save_model
from jax_prompts.cli.inspection import describe
from jax_prompts.config import BaseModel
from jax_prompts.cpu import compiler_options
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.models import sizes
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.quantized import Quantized
from jax_prompts.models.t5 import T5, T5Config

TINY = T5Config(96, 64, 4, 2, 2, 16, 128, ("gelu", "linear"), logits_via_embedding=False)
TINY_BERT = BertConfig(96, 64, 4, 2, 128, max_length=40)
P, L = 3, 10


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch):
    monkeypatch.setitem(sizes.SIZES, "tiny", TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model in float32."""
    weights = nn.meta.unbox(random_weights(T5(TINY), jax.random.key(3)))
    save_model(path := tmp_path_factory.mktemp("model"), weights, TINY, {})
    return str(path)


def load(checkpoint, weight_dtype, **changes):
    mesh = changes.pop("mesh", None)
    base = BaseModel("tiny", checkpoint, "", weight_dtype=weight_dtype, **changes)
    return load_weights(base, make_model(base), mesh=mesh)


def flat(weights):
    return {name: np.asarray(x) for name, x in flax.traverse_util.flatten_dict(weights, sep="/").items()}


def same(a, b):
    a, b = flat(a), flat(b)
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes() for name in a
    )


def widened(weights):
    """Float32 weights that a quantised tree stands for."""
    kept = dict(flax.traverse_util.flatten_dict(weights, sep="/"))
    for name in [name for name in kept if name.endswith("/kernel_scale")]:
        scale = kept.pop(name)
        packed = name.replace("kernel_scale", "kernel_packed") in kept
        whole = kept.pop(name.replace("kernel_scale", "kernel_packed" if packed else "kernel"))
        widen = functools.partial(dequantized, packed=packed)
        kept[name.removesuffix("_scale")] = (jax.vmap(widen) if scale.ndim == 3 else widen)(whole, scale)
    return jax.tree.map(lambda x: x.astype(jnp.float32), flax.traverse_util.unflatten_dict(kept, sep="/"))


def dequantized(whole, scale_GO, packed):
    return Quantized(jnp.asarray(whole), jnp.asarray(scale_GO), packed).astype(jnp.float32)


@pytest.mark.parametrize("name", KINDS)
@given(st.integers(0, 1 << 30), st.floats(-6, 6), st.booleans())
def test_numbers_are_the_nearest_and_stay_what_they_are(name, seed, size, with_zeros):
    kind, draw = KINDS[name], np.random.default_rng(seed)
    numbers_IO = (draw.normal(size=(128, 5)) * 10.0**size).astype(np.float32)
    if with_zeros:
        numbers_IO[:, 2] = 0
    whole_IO, scale_GO = quantize(numbers_IO, kind)
    assert (whole_IO.dtype, scale_GO.dtype) == (np.int8, kind.scale_dtype)
    again_IO = np.asarray(dequantized(whole_IO, scale_GO, kind.packed))
    each_IO = scale_GO.astype(np.float32).repeat(128 // len(scale_GO), axis=0)
    # Half a step; a scale of bfloat16 may be too small for the largest number by its own rounding.
    assert (
        np.abs(again_IO - numbers_IO) <= each_IO * (0.5 + kind.most * 2.0**-8 * (name == "int4")) * 1.001
    ).all()
    twice_IO, twice_GO = quantize(again_IO, kind)
    np.testing.assert_array_equal(twice_IO, whole_IO)
    np.testing.assert_allclose(twice_GO.astype(np.float32), scale_GO.astype(np.float32), rtol=1e-6)
    on_device_IO, on_device_GO = jax.jit(lambda x: quantize(x, kind, jnp))(numbers_IO)
    assert (np.asarray(on_device_IO) != whole_IO).mean() < 0.01  # ties fall either way
    np.testing.assert_allclose(np.asarray(on_device_GO, np.float32), scale_GO.astype(np.float32), rtol=1e-2)


def test_what_is_quantised():
    for path in (
        "encoder/layers_0/attention/query/kernel",
        "decoder/layers/mlp/wi_1/kernel",
        "layers_3/out/kernel",
    ):
        assert is_quantized(path, "int8") and not is_quantized(path, "bfloat16")
    for path in (
        "encoder/layers_0/mlp/wo/kernel",
        "layers_3/wo/kernel",
        "decoder/logits_dense/kernel",
        "decoder/layers/mlp/wi_1/kernel_scale",
        "encoder/layers_0/pre_mlp_layer_norm/scale",
        "token_embedder/embedding",
        "classifier/kernel",
    ):
        assert not is_quantized(path, "int8")


@pytest.mark.parametrize("weight_dtype", KINDS)
def test_every_way_to_load_gives_the_same_numbers(folder, weight_dtype, tmp_path):
    weights, fingerprint = load(folder, weight_dtype)
    for name, array in flat(weights).items():
        narrow = name.endswith("kernel_packed") or (
            weight_dtype == "int8" and is_quantized(name, weight_dtype)
        )
        rest = KINDS[weight_dtype].scale_dtype if name.endswith("kernel_scale") else ml_dtypes.bfloat16
        assert array.dtype == (np.int8 if narrow else rest)
    expected = flat(load(folder, "float32")[0])
    near = flat(widened(weights))
    step = {"int8": 1 / 254, "int4": 1 / 14 + 2**-8}[weight_dtype]
    assert all(
        np.abs(near[name] - expected[name]).max() <= step * np.abs(expected[name]).max() for name in expected
    )
    assert load(folder, "float32")[1] == fingerprint  # the same base model, and so its prompts

    stacked, of_stacked = load(folder, weight_dtype, scan_layers=True)
    for i, layer in ((i, f"layers_{i}") for i in range(2)):
        assert same(
            jax.tree.map(lambda x, i=i: x[i], stacked["decoder"]["layers"]), weights["decoder"][layer]
        )
    devices = partition.make_mesh({"fsdp": 2, "model": 4})
    spread, of_spread = load(folder, weight_dtype, mesh=devices)
    assert same(spread, weights)
    wi = spread["encoder"]["layers_0"]["mlp"]["wi_0"]
    shape = (32, 32) if weight_dtype == "int8" else (16, 32)
    assert wi.get("kernel", wi.get("kernel_packed")).addressable_shards[0].data.shape == shape

    convert_model(folder, str(tmp_path / "own"), weight_dtype=weight_dtype)
    own, of_own = load(str(tmp_path / "own"), weight_dtype)
    assert same(own, weights)
    assert {of_stacked, of_spread, of_own, checkpoint_fingerprint(open_model(str(tmp_path / "own")))} == {
        fingerprint
    }
    wide, of_wide = load(str(tmp_path / "own"), "float32")
    assert of_wide == fingerprint and same(wide, widened(own))
    size = sum(file.stat().st_size for file in (tmp_path / "own").glob("*.safetensors"))
    assert size < 1.1 * partition.byte_count(own) + 16_000  # with a header that names all arrays
    found = describe(str(tmp_path / "own"))
    assert found["parameters"] == sum(x.size for x in expected.values())


FUNCTIONS = {  # settings of the model, words of an answer: with few, keys and values are absorbed
    "plain": ({}, 9),
    "absorbed": ({}, 2),
    "scanned": ({"scan_layers": True, "remat": "full"}, 9),
    "minimal": ({"remat": "minimal"}, 9),
}


OFTEN = (("int8", "plain"), ("int4", "absorbed"))


@pytest.mark.parametrize(
    ("weight_dtype", "function"),
    [
        each if each in OFTEN else pytest.param(*each, marks=pytest.mark.slow)
        for each in itertools.product(KINDS, FUNCTIONS)
    ],
)
def test_the_function_and_its_gradient_are_those_of_the_numbers(folder, weight_dtype, function):
    settings, targets = FUNCTIONS[function]
    config = dataclasses.replace(TINY, **settings)
    weights, _ = load(folder, weight_dtype, scan_layers=config.scan_layers)
    model, draw = T5(config), np.random.default_rng(1)
    text = draw.integers(2, 96, (2, L), dtype=np.int32)
    words = draw.integers(2, 96, (2, targets), dtype=np.int32)
    inputs = np.concatenate([np.broadcast_to(np.arange(96, 96 + P, dtype=np.int32), (2, P)), text], axis=1)
    prompt_PD = draw.normal(size=(P, 64)).astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def loss(prompt_PD, weights):
        logits = model.apply({"params": weights}, jnp.asarray(inputs), jnp.asarray(words), prompt_PD)
        return jnp.square(logits).mean()

    value, gradient_PD = loss(prompt_PD, weights)
    prompts_EPD = np.stack([2 * prompt_PD, prompt_PD])
    values_E, gradients_EPD = jax.vmap(loss, (0, None))(prompts_EPD, weights)
    np.testing.assert_allclose(values_E[1], value, rtol=1e-5)
    np.testing.assert_allclose(gradients_EPD[1], gradient_PD, rtol=1e-3, atol=1e-5)
    wide_value, wide_gradient_PD = loss(prompt_PD, widened(weights))
    np.testing.assert_allclose(value, wide_value, rtol=1e-5)
    np.testing.assert_allclose(gradient_PD, wide_gradient_PD, rtol=1e-3, atol=1e-5)


def test_a_bert_too(tmp_path):
    model = Bert(TINY_BERT)
    weights = nn.meta.unbox(random_weights(model, jax.random.key(3)))
    save_model(tmp_path, weights, TINY_BERT, {})
    base = BaseModel(None, str(tmp_path), "", weight_dtype="int8")
    narrow, _ = load_weights(base, make_model(base))
    assert narrow["layers_1"]["query"]["kernel"].dtype == np.int8
    tokens = jnp.asarray(np.random.default_rng(1).integers(2, 96, (2, L), dtype=np.int32))
    apply = jax.jit(lambda weights: model.apply({"params": weights}, tokens, method="encode"))
    np.testing.assert_allclose(apply(narrow), apply(widened(narrow)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_nothing_wide_is_kept_for_the_backward_pass(folder):
    """All kernels in floating point at once would be what quantising spares."""
    config = dataclasses.replace(TINY, num_encoder_layers=8, num_decoder_layers=1, dtype=jnp.bfloat16)
    model = T5(config)
    shapes = frozen_shapes(abstract_weights(model), "int8")
    weights = nn.meta.unbox(shapes)
    tokens = jax.ShapeDtypeStruct((1, P + 1), np.int32)

    def loss(prompt_PD, weights, tokens):
        return model.apply({"params": weights}, tokens, tokens[:, :1], prompt_PD).sum()

    prompt_PD = jax.ShapeDtypeStruct((P, 64), np.float32)
    program = jax.jit(jax.grad(loss)).lower(prompt_PD, weights, tokens)
    options = {"xla_backend_optimization_level": 3, **compiler_options()}
    wide = 2 * sum(x.size for x in jax.tree.leaves(weights) if x.dtype == np.int8)
    assert program.compile(compiler_options=options).memory_analysis().temp_size_in_bytes < wide / 2


def test_bytes_of_4_bits():
    shapes = frozen_shapes(abstract_weights(T5(TINY)), "int4")
    kernel = shapes["encoder"]["layers_0"]["attention"]["query"]
    assert partition.byte_count(nn.meta.unbox(kernel)) == 64 * 64 // 2 + 2 * 64
    placed = partition.sharded_shapes(kernel, partition.make_mesh({"fsdp": 2, "model": 4}))
    assert partition.bytes_per_device(placed) == 64 * 64 // 2 // 8 + 2 * 64 // 4


def test_inputs_that_do_not_divide():
    odd = dataclasses.replace(TINY, emb_dim=96)
    with pytest.raises(ConfigError, match=r"int4 has a scale for each 64 inputs, and .* has 96: use int8"):
        frozen_shapes(abstract_weights(T5(odd)), "int4")
    frozen_shapes(abstract_weights(T5(odd)), "int8")


@pytest.mark.parametrize("width", [32, 96])
def test_a_model_whose_inputs_do_not_divide_is_not_written(tmp_path, width):
    odd = dataclasses.replace(TINY, emb_dim=width)
    save_model(tmp_path / "odd", nn.meta.unbox(random_weights(T5(odd), jax.random.key(3))), odd, {})
    with pytest.raises(ConfigError, match=f"each 64 inputs, and .*kernel has {width}: use int8"):
        convert_model(str(tmp_path / "odd"), str(tmp_path / "own"), weight_dtype="int4")
    assert not (tmp_path / "own" / "config.json").exists()
    convert_model(str(tmp_path / "odd"), str(tmp_path / "own"), weight_dtype="int8")


@pytest.mark.parametrize("weight_dtype", ["bfloat16", *KINDS])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_parameters_are_counted_as_those_that_are_stood_for(weight_dtype, scan_layers):
    weights = abstract_weights(T5(dataclasses.replace(TINY, scan_layers=scan_layers)))
    kept = nn.meta.unbox(frozen_shapes(weights, weight_dtype))
    assert frozen_count(kept) == partition.parameter_count(weights)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight_dtype": "int3"}, "weight_dtype 'int3'"),
        ({"weight_dtype": ["int8"]}, r"weight_dtype \['int8'\]"),
        ({"weight_dtype": "int4"}, "config.json says int4, and .*kernel is not"),
        ({"fingerprint": None}, "fingerprint None: convert"),
        ({"weight_dtype": None}, "no weight_dtype, and there is .*kernel_scale: convert the model again"),
    ],
)
def test_a_quantised_model_that_is_not_what_it_says(folder, tmp_path, changes, words):
    convert_model(folder, str(tmp_path / "own"), weight_dtype="int8")
    file = tmp_path / "own" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(RunError, match=words):
        load(str(tmp_path / "own"), "int8")


@pytest.mark.parametrize(
    ("weight_dtype", "end", "change"),
    [
        ("int8", "kernel", None),
        ("int4", "kernel_packed", None),
        ("int8", "kernel_scale", None),
        ("int8", "kernel_scale", lambda x: x.astype(np.int8)),
        ("int4", "kernel_packed", lambda x: x[:-1]),
    ],
)
def test_a_quantised_file_with_other_arrays(folder, tmp_path, weight_dtype, end, change):
    convert_model(folder, str(tmp_path / "own"), weight_dtype=weight_dtype)
    file, key = tmp_path / "own" / "model.safetensors", f"decoder/layers_1/mlp/wi_0/{end}"
    arrays = load_file(file)
    array = arrays.pop(key)
    save_file(arrays if change is None else arrays | {key: change(array)}, file)
    with pytest.raises(RunError, match=f"says {weight_dtype}, and decoder/layers_1/mlp/wi_0/kernel is not"):
        open_model(str(tmp_path / "own"))


def test_a_model_that_another_system_quantised(tmp_path):
    shutil.copytree("tests/goldens/t5_v1_1_hf", tmp_path / "hf")
    file = tmp_path / "hf" / "config.json"
    changes = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(
        RunError, match=r"hf: its weights are quantised already \(gptq\).*WEIGHT_DTYPE = 'int8'"
    ):
        open_model(str(tmp_path / "hf"))
