"""Reads weights of base models from any known layout into the model's tree, and writes them in the native form.

The native form is a directory as `t5x convert` leaves it (`base_models/convert.py`). What `save_model` writes is one
`model.safetensors`, in which scanned layers stay stacked, on axis 1 as in T5X. Loading is one-to-one or it raises.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
from typing import Any, cast

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError
from safetensors.flax import load_file

from jax_prompts import partition
from jax_prompts.base_models.build import MODELS, Model
from jax_prompts.base_models.fingerprint import combined, sample, samples
from jax_prompts.base_models.finite import check_finite
from jax_prompts.base_models.open import HEADS, describe, open_model
from jax_prompts.base_models.quantize import (
    KINDS,
    Kind,
    frozen_shapes,
    is_quantized,
    quantize,
    quantized_tree,
    rest_dtype,
    scale_path,
)
from jax_prompts.base_models.stacks import by_parameter, in_layers, in_stacks, is_stack
from jax_prompts.config import BaseModel
from jax_prompts.errors import RunError, first_line
from jax_prompts.formats.arrays import ArraySource, Index, LazyArray, in_memory
from jax_prompts.formats.safetensors import write_safetensors
from jax_prompts.models.answers import CLASSIFIER
from jax_prompts.models.bert import BertConfig
from jax_prompts.models.sizes import ModelConfig
from jax_prompts.models.t5gemma_config import T5GemmaConfig
from jax_prompts.storage import files

Tree = Any
_READERS = min(8, os.cpu_count() or 1)


def random_weights(model: Model, key: jax.Array) -> Tree:
    """Initial parameters, boxed with their logical axes, without a classifier."""
    params = model.init(key, method="initialize")["params"]
    return {name: tree for name, tree in params.items() if name != CLASSIFIER}


def abstract_weights(model: Model) -> Tree:
    """Shapes and dtypes of the parameters, boxed with their logical axes; nothing is computed."""
    config = model.config
    if not isinstance(config, BertConfig) and config.scan_layers:
        return _traced(model)
    # Layers are alike: one is traced and stands for all.
    if isinstance(config, BertConfig):
        return _repeated(_traced(model, num_layers=1), config.num_layers)
    if isinstance(config, T5GemmaConfig):
        stacks = {"encoder": config.encoder, "decoder": config.decoder}
        tree = _traced(model, **{name: dataclasses.replace(of, num_layers=1) for name, of in stacks.items()})
    else:
        tree = _traced(model, num_encoder_layers=1, num_decoder_layers=1)
    counts = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    return {**tree, **{stack: _repeated(tree[stack], count) for stack, count in counts.items()}}


def with_axes(model: Model, weights: Tree) -> Tree:
    """The model's weights, each boxed with its logical axes; of packed kernels the shape, and no scales."""
    flat = flax.traverse_util.flatten_dict(weights, sep="/")
    boxed = flax.traverse_util.flatten_dict(
        abstract_weights(model), sep="/", is_leaf=lambda _, x: isinstance(x, nn.LogicallyPartitioned)
    )
    named = {path: box.replace_boxed(flat.get(path, box.value)) for path, box in boxed.items()}
    return flax.traverse_util.unflatten_dict(named, sep="/")


def _traced(model: Model, **layers: Any) -> Tree:
    model = model.clone(config=dataclasses.replace(model.config, **layers))
    return jax.eval_shape(lambda: random_weights(model, jax.random.key(0)))


def _repeated(tree: Tree, count: int) -> Tree:
    """`layers_0` as `layers_0` .. `layers_{count - 1}`."""
    return {**tree, **{f"layers_{i}": tree["layers_0"] for i in range(count)}}


def load_weights(base: BaseModel, model: Model, seed: int = 0, mesh: Mesh | None = None) -> tuple[Tree, str]:
    """The base model's parameters, in `base.weight_dtype`, unboxed, and their fingerprint.

    Each array is read straight to its place, or quantised first, for which every process reads it whole.

    Args:
      base: which weights.
      model: what they are for.
      seed: of random weights.
      mesh: whose devices share them, by their logical axes; None: the first device has them all.

    Raises:
      RunError: the checkpoint cannot be read, or its names or shapes are not the model's; the message
        lists what is missing (-) and what is not known (+).
      ConfigError: `base.checkpoint` is no checkpoint.
    """
    kind, dtype = KINDS.get(base.weight_dtype), rest_dtype(base.weight_dtype)
    boxed = abstract_weights(model)
    frozen = frozen_shapes(boxed, base.weight_dtype)
    shardings = None if mesh is None else partition.parameter_shardings(frozen, mesh)
    if base.checkpoint is None:
        drawn = _drawn(model, seed, base.weight_dtype, shardings)
        return drawn, combined(samples(drawn))
    found = open_model(base.checkpoint)
    source = found.arrays
    scanned = not isinstance(model.config, BertConfig) and model.config.scan_layers
    source = (
        in_stacks(source, dtype if kind is None else np.dtype(np.float32)) if scanned else in_layers(source)
    )
    expected = flax.traverse_util.flatten_dict(nn.meta.unbox(boxed), sep="/")
    # Heads that the model has not are no part of it; a classifier's is there once the model itself was tuned.
    heads = {name for name in source if name.startswith(HEADS)} - set(expected)
    advice = "set MODEL_SIZE to its size, or to None" if base.size else "it is no whole model; copy it again"
    _check(base.checkpoint, expected, {n: array for n, array in source.items() if n not in heads}, advice)
    places = {} if shardings is None else flax.traverse_util.flatten_dict(shardings, sep="/")

    def place(name: str) -> dict[str, jax.Array]:
        array = _checked(base.checkpoint, name, source[name], dtype)
        if kind is None or not is_quantized(name, base.weight_dtype):
            return {name: _placed(array, dtype, places.get(name))}
        whole, scale, before = _quantized(name, array, kind)
        sampled.update(before)
        kept = {kind.whole_path(name): whole, scale_path(name): scale}
        return {path: _placed(in_memory(part), part.dtype, places.get(path)) for path, part in kept.items()}

    # A large array has the memory to itself; small ones, together a fifth of the largest, are read several at once.
    weights: dict[str, jax.Array] = {}
    sampled: dict[str, bytes] = {}  # of kernels before they are quantised: fingerprints are of those
    small = max(array.nbytes for array in source.values()) / (5 * _READERS)
    with concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
        for large, names in itertools.groupby(
            sorted(expected, key=by_parameter), key=lambda name: source[name].nbytes > small
        ):
            for placed in (map if large else readers.map)(place, names):
                weights |= placed
    ordered = {name: weights[name] for name in flax.traverse_util.flatten_dict(frozen, sep="/")}
    others = {name: weights[name] for name in expected if not is_quantized(name, base.weight_dtype)}
    tree = flax.traverse_util.unflatten_dict(ordered, sep="/")
    return tree, found.fingerprint or combined(sampled | samples(others))


def _drawn(model: Model, seed: int, weight_dtype: str, shardings: Tree | None) -> Tree:
    def draw() -> Tree:
        weights = nn.meta.unbox(random_weights(model, jax.random.key(seed)))
        return quantized_tree(weights, weight_dtype)

    return jax.jit(draw, out_shardings=shardings)()


def _quantized(name: str, array: LazyArray, kind: Kind) -> tuple[np.ndarray, np.ndarray, dict[str, bytes]]:
    """A kernel or a stack of them, one layer at a time: whole numbers, scales, and samples of what was read."""
    if not is_stack(name):
        numbers_IO = array[...]
        return *quantize(numbers_IO, kind), {name: sample(numbers_IO)}
    count, inputs, outputs = array.shape
    whole_NRO = np.empty((count, kind.rows(inputs), outputs), np.int8)
    scale_NGO = np.empty((count, kind.runs(inputs), outputs), kind.scale_dtype)
    sampled = {}
    for i in range(count):
        (numbers_IO,) = array[slice(i, i + 1), slice(None), slice(None)]
        whole_NRO[i], scale_NGO[i] = quantize(numbers_IO, kind)
        sampled[name.replace("/layers/", f"/layers_{i}/")] = sample(numbers_IO)
    return whole_NRO, scale_NGO, sampled


def _checked(path: str | None, name: str, array: LazyArray, dtype: np.dtype) -> LazyArray:
    """The array, which raises RunError when a part of it is read that is not finite in `dtype`."""

    def read(index: Index) -> np.ndarray:
        numbers = array.read(index)
        check_finite(path or "", name, numbers, dtype)
        return numbers

    return dataclasses.replace(array, read=read)


def _placed(array: LazyArray, dtype: jnp.dtype, sharding: jax.sharding.Sharding | None) -> jax.Array:
    """One array on its devices; numbers that several devices hold are read once."""
    if sharding is None:
        return jax.block_until_ready(_put(array[...], dtype, None))
    shards: dict[str, tuple[Index, list[jax.Device]]] = {}
    for device, index in sharding.addressable_devices_indices_map(array.shape).items():
        shards.setdefault(str(index), (cast(Index, index), []))[1].append(device)
    parts = []
    for index, devices in shards.values():
        numbers = array[index]
        parts += [_put(numbers, dtype, device) for device in devices]
    placed = jax.make_array_from_single_device_arrays(array.shape, sharding, parts)
    # One array after the other: what it was read into is free before the next is read.
    return jax.block_until_ready(placed)


def _put(numbers: np.ndarray, dtype: jnp.dtype, device: jax.Device | None) -> jax.Array:
    """An array on a device; numbers that lie in memory as JAX wants them are used there, and not copied."""
    if numbers.flags.f_contiguous and not numbers.flags.c_contiguous:
        numbers = _in_c_order(numbers)
    placed = jax.device_put(numbers, device, may_alias=True)
    return placed if placed.dtype == dtype else placed.astype(dtype)


def _in_c_order(numbers_MN: np.ndarray) -> np.ndarray:
    """A copy, as many columns at a time as fill a line of the processor's cache: several times the speed of NumPy's."""
    line = 64
    memory = np.empty(numbers_MN.nbytes + line, np.uint8)
    start = -memory.ctypes.data % line  # JAX uses memory that begins there without another copy
    copy_MN = memory[start : start + numbers_MN.nbytes].view(numbers_MN.dtype).reshape(numbers_MN.shape)
    columns = line // numbers_MN.itemsize
    for i in range(0, numbers_MN.shape[1], columns):
        copy_MN[:, i : i + columns] = numbers_MN[:, i : i + columns]
    return copy_MN


def save_model(directory: pathlib.Path, weights: Tree, config: ModelConfig, origin: dict[str, Any]) -> None:
    """Writes the native form, except the vocabulary. `origin` (path, licence, ...) goes into config.json."""
    flat = flax.traverse_util.flatten_dict(weights, sep="/")
    arrays = {name: in_memory(np.asarray(array)) for name, array in flat.items()}
    with files.atomic_file(directory / "model.safetensors") as temporary:
        write_safetensors(temporary, {n: x.exchanged if is_stack(n) else x for n, x in arrays.items()})
    text = json.dumps({**describe(config), **origin}, indent=2)
    files.write(directory / "config.json", f"{text}\n")


def load_saved(directory: pathlib.Path) -> Tree:
    """The weights that `save_model` wrote, a tuned classifier included.

    Raises:
      RunError: they cannot be read.
    """
    try:
        arrays = load_file(directory / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise RunError(f"{directory} cannot be read: {first_line(error)}") from error
    arrays = {n: jnp.swapaxes(x, 0, 1) if is_stack(n) else x for n, x in arrays.items()}
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def check_whole(source: str, config: ModelConfig, arrays: ArraySource) -> None:
    """Raises RunError unless names and shapes are those of a model of these sizes, but for heads, and numbers floats.

    Args:
      source: what the error names.
      config: sizes that were found in the arrays.
      arrays: by our path, layers single.
    """
    shapes = nn.meta.unbox(abstract_weights(MODELS[type(config)](config)))
    expected = flax.traverse_util.flatten_dict(shapes, sep="/")
    found = {name: array for name, array in arrays.items() if not name.startswith(HEADS)}
    wanted = {name: shape for name, shape in expected.items() if not name.startswith(HEADS)}
    _check(source, wanted, found, "it is no whole model; copy it again")


def _check(checkpoint: str | None, expected: dict[str, Any], found: ArraySource, advice: str) -> None:
    """Raises RunError unless names and shapes are the model's, and numbers are floats."""
    name = f"{checkpoint} does not match the model"
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing and not extra and all(path.startswith("mlm_") for path in missing):
        raise RunError(
            f"{checkpoint} is a BERT without its masked-LM head ({', '.join(missing)}): use a checkpoint that was "
            "saved with it, as BertForPreTraining is"
        )
    if missing or extra:
        listing = [f"- {name}" for name in missing[:10]] + [f"+ {name}" for name in extra[:10]]
        raise RunError(f"{name} ({len(missing)} missing -, {len(extra)} unknown +): " + " ".join(listing))
    shapes = {name: (array.shape, found[name].shape) for name, array in expected.items()}
    mismatched = {name: both for name, both in shapes.items() if both[0] != both[1]}
    if mismatched:
        listing = [
            f"- {name} {ours} + {name} {theirs}" for name, (ours, theirs) in sorted(mismatched.items())[:10]
        ]
        raise RunError(f"{name} ({len(mismatched)} shapes): {' '.join(listing)}; {advice}")
    for path, array in found.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise RunError(f"{checkpoint} holds {path} as {array.dtype}: use weights in floating point")
