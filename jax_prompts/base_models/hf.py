"""Opens Hugging Face folders: arrays under PyTorch's names and in PyTorch's orientation, whatever their form."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import flax.traverse_util

from jax_prompts.errors import RunError, first_line
from jax_prompts.formats.arrays import ArraySource, LazyArray, MappedFile
from jax_prompts.formats.flax_msgpack import read_tree
from jax_prompts.formats.safetensors import open_safetensors
from jax_prompts.formats.torch_bin import open_bin
from jax_prompts.storage.json_file import read_object


def open_weights(folder: pathlib.Path) -> ArraySource | None:
    """The arrays of a folder, from one file or, as an index says, several; None where there are none.

    Raises:
      RunError: a file cannot be read, is not whole, or is not what the index says.
    """
    for name, opener in OPENERS.items():
        if (folder / name).is_file():
            arrays = opener(folder / name)
        elif (folder / f"{name}.index.json").is_file():
            arrays = _open_shards(folder, f"{name}.index.json", opener)
        else:
            continue
        return _as_pytorch(arrays) if opener is _open_flax else arrays
    return None


def wrapped(arrays: ArraySource, known: str) -> str | None:
    """What a checkpoint's names say of how it was saved, where `known` stands behind a prefix."""
    prefix = next((name.removesuffix(known) for name in arrays if name.endswith(f".{known}")), None)
    if prefix is None:
        return None
    wrapper = _WRAPPERS.get(prefix, "a model around it")
    return f"its names begin with {prefix}, as {wrapper} saves them; save the model inside by itself"


def _open_shards(
    folder: pathlib.Path, index: str, opener: Callable[[pathlib.Path], ArraySource]
) -> ArraySource:
    weight_map = read_object(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise RunError(f"{folder / index} has no weight_map from names to files")
    arrays: ArraySource = {}
    for file in sorted(set(weight_map.values())):
        if file in ("", ".", "..") or set(file) & set("/\\\0"):
            raise RunError(
                f"{folder / index} names {file!r}, which is no file of its folder: do not use this model"
            )
        arrays |= opener(folder / file)
    if missing := sorted(set(weight_map) - set(arrays)):
        listing = " ".join(f"- {name}" for name in missing[:10])
        raise RunError(f"{folder / index} lists {len(missing)} arrays that its files have not: {listing}")
    return arrays


def _open_flax(path: pathlib.Path) -> ArraySource:
    try:
        leaves = flax.traverse_util.flatten_dict(read_tree(MappedFile(path)), sep="/")
    except (OSError, ValueError, AttributeError, TypeError, AssertionError) as error:
        raise RunError(f"{path} cannot be read as Flax's msgpack: {first_line(error)}") from error
    others = [name for name, array in leaves.items() if not isinstance(array, LazyArray)]
    if others:
        raise RunError(f"{path} holds {others[0]}, which is no array")
    return leaves


def _as_pytorch(arrays: ArraySource) -> ArraySource:
    """Flax's `block/0/q/kernel` [in, out] is PyTorch's `block.0.q.weight` [out, in]."""
    renamed = {}
    for name, array in arrays.items():
        stem, _, last = name.replace("/", ".").rpartition(".")
        known = last in ("kernel", "embedding", "scale")
        renamed[f"{stem}.{'weight' if known else last}"] = array.T if last == "kernel" else array
    return renamed


_WRAPPERS = {
    "module.": "torch's DataParallel",
    "_orig_mod.": "torch.compile",
    "base_model.model.": "PEFT",
}
OPENERS: dict[str, Callable[[pathlib.Path], ArraySource]] = {
    "model.safetensors": open_safetensors,
    "pytorch_model.bin": open_bin,
    "flax_model.msgpack": _open_flax,
}
