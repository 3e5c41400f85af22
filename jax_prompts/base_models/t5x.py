"""Opens T5X checkpoints: the legacy form, as all released T5X models are stored, and Orbax's, which T5X writes today.

A legacy checkpoint's file `checkpoint` holds the tree {optimizer: {target, state}}; small arrays (norm scales,
relative position biases) are inside it, each large one is a zarr directory called `target.` and its dotted path. The
stores that the file names are those of the machine that wrote it, so arrays are found by name.

An Orbax checkpoint is a directory of zarr arrays called by their dotted path, as files or in one OCDBT database.
"""

from __future__ import annotations

from typing import Any

import flax.traverse_util

from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import ArraySource, LazyArray, MappedFile
from jax_prompts.formats.flax_msgpack import read_tree
from jax_prompts.formats.zarr import key_value_store, list_keys, open_arrays, open_file

# Where the model may be inside a saved tree: T5X's train state, Flax's, or nothing around it.
_PREFIXES = ("target.", "params.params.", "params.", "")
PROMPT = "encoder/prompt/prompt/prompt"  # where the original prompt tuning code has it
_EMBEDDING = "token_embedder.embedding"
_ORBAX_FOLDERS = ("", "/state", "/default", "/items")  # below a step: none, T5X's, Orbax's names
_BARE = ("token_embedder", "encoder", "decoder")
_METADATA = {".zarray": "zarr", "zarr.json": "zarr3"}


def open_checkpoint(path: str) -> ArraySource | None:
    """The model's arrays of a checkpoint directory, local or `gs://`, optimiser slots left out.

    None where there is neither form of checkpoint.

    Raises:
      RunError: it cannot be reached, or is damaged.
    """
    path = path.rstrip("/")
    legacy = open_file(f"{path}/checkpoint")
    if legacy is not None:
        return _open_legacy(path, legacy)
    for folder in (f"{path}{name}" for name in _ORBAX_FOLDERS):
        if open_file(f"{folder}/manifest.ocdbt") is not None:
            return _open_orbax(folder, {"driver": "ocdbt", "base": key_value_store(folder)})
        if open_file(f"{folder}/_METADATA") is not None:
            return _open_orbax(folder, key_value_store(folder))
    return None


def _open_legacy(path: str, file: MappedFile) -> ArraySource:
    try:
        target = read_tree(file)["optimizer"]["target"]
        leaves = flax.traverse_util.flatten_dict(target, sep="/", is_leaf=_is_placeholder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}/checkpoint is not a whole T5X checkpoint ({error})") from error
    outside = {
        name: key_value_store(f"{path}/target.{name.replace('/', '.')}")
        for name, value in leaves.items()
        if not isinstance(value, LazyArray)
    }
    arrays = open_arrays(outside, "zarr", path)
    return {name: arrays.get(name, value) for name, value in leaves.items()}


def _is_placeholder(_: tuple[str, ...], value: object) -> bool:
    """Whether a node of the tree stands for an array kept outside: a TensorStore spec."""
    return isinstance(value, dict) and "driver" in value


def _open_orbax(path: str, store: dict[str, Any]) -> ArraySource:
    kinds = {}
    for key in list_keys(store, path):
        name, _, file = key.rpartition("/")
        if file in _METADATA:
            kinds[name] = _METADATA[file]
    prefix = next((prefix for prefix in _PREFIXES if prefix + _EMBEDDING in kinds), None)
    if prefix is None:
        raise RunError(f"{path} holds {len(kinds)} arrays, and none is {_EMBEDDING}: it is not a T5X model")
    inside = {name: kind for name, kind in kinds.items() if name.startswith(prefix)}
    if not prefix:  # beside a bare model may lie an optimiser
        inside = {name: kind for name, kind in inside.items() if name.split(".")[0] in _BARE}
    if len(set(inside.values())) > 1:
        raise RunError(f"{path} mixes zarr 2 and zarr 3 arrays: save it again")
    stores = {name.removeprefix(prefix).replace(".", "/"): _below(store, name) for name in inside}
    return open_arrays(stores, inside[prefix + _EMBEDDING], path)


def _below(store: dict[str, Any], name: str) -> dict[str, Any]:
    return {**store, "path": f"{store.get('path', '')}{name}/"}
