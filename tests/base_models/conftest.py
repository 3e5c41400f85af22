"""The tiny T5.1.1 of the goldens in any form."""

import json
import pathlib
import shutil

import flax.serialization
import flax.traverse_util
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
GOLDEN = GOLDENS / "t5_v1_1_hf"


@pytest.fixture(scope="session")
def tensors():
    """Its arrays under PyTorch's names."""
    return load_file(GOLDEN / "model.safetensors")


@pytest.fixture
def folder(tmp_path):
    """`folder(FORM, arrays) -> path`: a Hugging Face folder with weights in that form."""

    def make(form, arrays, source=GOLDEN):
        path = tmp_path / form
        path.mkdir()
        shutil.copy(source / "config.json", path)
        _FORMS[form](path, arrays)
        return path

    return make


def _sharded(path, arrays):
    names = sorted(arrays)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: arrays[name] for name in part}, path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def as_flax(arrays):
    """Under Flax's names: kernels [in, out]."""
    flat = {}
    for name, array in arrays.items():
        stem = name.removesuffix(".weight").replace(".", "/")
        embedding = stem.endswith(("shared", "relative_attention_bias"))
        kind = "embedding" if embedding else "kernel" if array.ndim == 2 else "weight"
        flat[f"{stem}/{kind}"] = np.ascontiguousarray(array.T) if kind == "kernel" else array
    return flat


def _flax(path, arrays):
    tree = flax.traverse_util.unflatten_dict(as_flax(arrays), sep="/")
    (path / "flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))


def _flax_in_pieces(path, arrays):
    largest = flax.serialization.MAX_CHUNK_SIZE
    flax.serialization.MAX_CHUNK_SIZE = 1024
    try:
        _flax(path, arrays)
    finally:
        flax.serialization.MAX_CHUNK_SIZE = largest


_FORMS = {
    "safetensors": lambda path, arrays: save_file(arrays, path / "model.safetensors"),
    "sharded": _sharded,
    "flax": _flax,
    "flax_in_pieces": _flax_in_pieces,
}
