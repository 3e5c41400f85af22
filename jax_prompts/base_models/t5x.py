"""Opens T5X checkpoints: the legacy form, as all released T5X models are stored, and Orbax's, which T5X writes today.

A legacy checkpoint's file `checkpoint` holds the tree {optimizer: {target, state}}; small arrays (norm scales,
relative position biases) are inside it, each large one is a zarr directory called `target.` and its dotted path. The
stores that the file names are those of the machine that wrote it, so arrays are found by name. The oldest checkpoints
are such a file alone, with every array inside.

An Orbax checkpoint is a directory of zarr arrays called by their dotted path, as files or in one OCDBT database.

T5X's `scalable_t5`, which umT5 is trained with, and Flaxformer call the scanned layers of a stack by its name
(`encoder/encoder/mlp/wo/kernel`); in the first, heads are an axis of their own. Here they are `encoder/layers/...`, and
the projections of attention are matrices.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import flax.traverse_util
import numpy as np

from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import ArraySource, LazyArray, MappedFile, joined
from jax_prompts.formats.flax_msgpack import read_tree
from jax_prompts.formats.zarr import key_value_store, list_keys, open_arrays, open_file

# Where the model may be inside a saved tree: T5X's train state, Flax's, or nothing around it.
_PREFIXES = ("target.", "params.params.", "params.", "")
_LEGACY_TARGETS = (("optimizer", "target"), ("target",), ("params", "params"), ("params",))
_PROMPTS = ("encoder/prompt/prompt/", "prompt/")  # of the original prompt tuning code; of ours inside T5X
PROMPT = f"{_PROMPTS[0]}prompt"  # where the former has its table
_EMBEDDING = "token_embedder.embedding"
_ORBAX_FOLDERS = ("", "/state", "/default", "/items")  # below a step: none, T5X's, Orbax's names
_BARE = ("token_embedder", "encoder", "decoder")
_METADATA = {".zarray": "zarr", "zarr.json": "zarr3"}
_SLOTS = "state.param_states."
_STEP = "state.step"
_SCANNED = re.compile(r"(encoder|decoder)/\1/")
_PROJECTION = re.compile(r".*attention/(query|key|value|out)/kernel")
Opened = TypeVar("Opened")


def open_checkpoint(path: str) -> ArraySource | None:
    """The model's arrays of a checkpoint directory, local or `gs://`, optimiser slots left out.

    None where there is neither form of checkpoint.

    Raises:
      RunError: it cannot be reached, or is damaged.
    """
    arrays = _open(path, _legacy_model, _orbax_model)
    if arrays is None:
        return None
    named = {_SCANNED.sub(r"\1/layers/", name): array for name, array in arrays.items()}
    return {name: _as_matrix(name, array) for name, array in named.items()}


def take_prompt(arrays: ArraySource) -> tuple[ArraySource, ArraySource]:
    """A checkpoint's arrays parted: those of a prompt, by the names that its method gives them, and the model's."""
    below = {
        name: name.removeprefix(prefix) for prefix in _PROMPTS for name in arrays if name.startswith(prefix)
    }
    prompt = {short: arrays[name] for name, short in below.items()}
    return prompt, {name: array for name, array in arrays.items() if name not in below}


def _as_matrix(name: str, array: LazyArray) -> LazyArray:
    """An array; where it is a projection of attention with an axis of heads, the heads' widths follow each other."""
    axes, found = 2 + ("/layers/" in name), _PROJECTION.fullmatch(name)
    if found is None or len(array.shape) != axes + 1:
        return array
    return joined(array, 0, axes - 1) if found[1] == "out" else joined(array, axes - 1, axes)


def open_slots(path: str) -> tuple[int, ArraySource] | None:
    """The optimiser's step, and its arrays by parameter and slot: of Adafactor `PARAMETER/v`, `v_row`, `v_col` and `m`.

    None where there is neither form of checkpoint, or none of an optimiser in it.

    Raises:
      RunError: it cannot be reached, or is damaged.
    """
    return _open(path, _legacy_slots, _orbax_slots)


def _open(
    path: str,
    legacy: Callable[[str, str, MappedFile], Opened],
    orbax: Callable[[str, dict[str, Any]], Opened],
) -> Opened | None:
    path = path.rstrip("/")
    for name in (f"{path}/checkpoint", *(() if "://" in path else (path,))):
        file = open_file(name)
        if file is not None:
            return legacy(path, name, file)
    for folder in (f"{path}{name}" for name in _ORBAX_FOLDERS):
        if open_file(f"{folder}/manifest.ocdbt") is not None:
            return orbax(folder, {"driver": "ocdbt", "base": key_value_store(folder)})
        if open_file(f"{folder}/_METADATA") is not None:
            return orbax(folder, key_value_store(folder))
    return None


def _legacy_model(path: str, name: str, file: MappedFile) -> ArraySource:
    try:
        target = _target(read_tree(file))
        leaves = flax.traverse_util.flatten_dict(target, sep="/", is_leaf=_is_placeholder)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise _not_whole(name, error) from error
    return _with_those_outside(path, "target.", leaves)


def _legacy_slots(path: str, name: str, file: MappedFile) -> tuple[int, ArraySource] | None:
    try:
        state = read_tree(file).get("optimizer", {}).get("state", {})
        leaves = flax.traverse_util.flatten_dict(
            state.get("param_states", {}), sep="/", is_leaf=_is_placeholder
        )
        step = state.get("step", 0)
        step = int(np.asarray(step[...] if isinstance(step, LazyArray) else step))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise _not_whole(name, error) from error
    return (step, _with_those_outside(path, _SLOTS, leaves)) if leaves else None


def _with_those_outside(path: str, prefix: str, leaves: dict[str, Any]) -> ArraySource:
    """Arrays of a legacy tree, of which some lie in zarr directories beside it."""
    outside = {
        name: key_value_store(f"{path}/{prefix}{name.replace('/', '.')}")
        for name, value in leaves.items()
        if not isinstance(value, LazyArray)
    }
    arrays = open_arrays(outside, "zarr", path)
    return {name: arrays.get(name, value) for name, value in leaves.items()}


def _not_whole(name: str, error: Exception) -> RunError:
    return RunError(f"{name} is not a whole T5X checkpoint ({error})")


def _target(tree: Any) -> dict[str, Any]:
    """The model in a legacy tree.

    Raises:
      KeyError, TypeError: there is none.
    """
    for names in _LEGACY_TARGETS:
        inside = tree
        for name in names:
            inside = inside.get(name) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            return inside
    if "token_embedder" not in tree:
        raise KeyError(f"no model in it: {', '.join(map(str, list(tree)[:5]))}")
    return tree


def _is_placeholder(_: tuple[str, ...], value: object) -> bool:
    """Whether a node of the tree stands for an array kept outside: a TensorStore spec."""
    return isinstance(value, dict) and "driver" in value


def _orbax_model(path: str, store: dict[str, Any]) -> ArraySource:
    kinds = _kinds(path, store)
    prefix = next((prefix for prefix in _PREFIXES if prefix + _EMBEDDING in kinds), None)
    if prefix is None:
        raise RunError(f"{path} holds {len(kinds)} arrays, and none is {_EMBEDDING}: it is not a T5X model")
    inside = {name: kind for name, kind in kinds.items() if name.startswith(prefix)}
    if not prefix:  # beside a bare model may lie an optimiser
        inside = {name: kind for name, kind in inside.items() if name.split(".")[0] in _BARE}
    return _orbax_arrays(path, store, prefix, inside)


def _orbax_slots(path: str, store: dict[str, Any]) -> tuple[int, ArraySource] | None:
    kinds = _kinds(path, store)
    inside = {name: kind for name, kind in kinds.items() if name.startswith(_SLOTS)}
    if not inside or _STEP not in kinds:
        return None
    step = open_arrays({_STEP: _below(store, _STEP)}, kinds[_STEP], path)[_STEP]
    return int(step[...]), _orbax_arrays(path, store, _SLOTS, inside)


def _kinds(path: str, store: dict[str, Any]) -> dict[str, str]:
    """The driver of every array, by dotted path."""
    files = (key.rpartition("/") for key in list_keys(store, path))
    return {name: _METADATA[file] for name, _, file in files if file in _METADATA}


def _orbax_arrays(path: str, store: dict[str, Any], prefix: str, kinds: dict[str, str]) -> ArraySource:
    if len(set(kinds.values())) > 1:
        raise RunError(f"{path} mixes zarr 2 and zarr 3 arrays: save it again")
    stores = {name.removeprefix(prefix).replace(".", "/"): _below(store, name) for name in kinds}
    return open_arrays(stores, next(iter(kinds.values())), path)


def _below(store: dict[str, Any], name: str) -> dict[str, Any]:
    return {**store, "path": f"{store.get('path', '')}{name}/"}
