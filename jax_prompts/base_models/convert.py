"""Converts base models of any kind that can be read to the native form: `t5x convert SOURCE TARGET`.

The native form is `model.safetensors`, or `model-00001-of-N.safetensors` with an index, arrays under T5X paths and
layers single; the vocabulary; and `config.json`, written last: without it there is no model.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax.numpy as jnp

from jax_prompts.base_models.build import read_vocabulary, vocabulary_beside
from jax_prompts.base_models.fingerprint import combined, sample
from jax_prompts.base_models.finite import check_all_finite
from jax_prompts.base_models.open import HEADS, Checkpoint, describe, open_model
from jax_prompts.base_models.quantize import narrowed
from jax_prompts.base_models.stacks import by_parameter, in_layers
from jax_prompts.base_models.token_ids import check_tokenizer_class, check_unknown
from jax_prompts.base_models.weights import check_whole
from jax_prompts.data.vocabularies.byte_level import SETTINGS_OF_BYTES, is_bytes
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.tokenizer_config import FILES as TOKENIZER_FILES
from jax_prompts.data.vocabularies.tokenizer_config import SETTINGS, tokenizer_files
from jax_prompts.data.vocabularies.vocabulary_file import read_content, vocabulary_path
from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError, system_reason
from jax_prompts.formats.arrays import ArraySource, LazyArray, same
from jax_prompts.formats.safetensors import is_whole, open_safetensors, write_safetensors
from jax_prompts.storage import files
from jax_prompts.storage.directories import make_directory
from jax_prompts.storage.home import local_path
from jax_prompts.storage.temporary import final_name

SHARD_BYTES = 1 << 30
_INDEX = "model.safetensors.index.json"
_VOCABULARIES = ("vocabulary.model", "vocab.txt", "tokenizer.json")
_FILES = ("config.json", _INDEX, *_VOCABULARIES, *TOKENIZER_FILES)  # beside the weights


def convert_model(
    source: str, target: str, vocabulary: str | None = None, weight_dtype: str | None = None
) -> dict[str, Any]:
    """Writes `source` in the native form to the directory `target`, and returns what config.json says of it.

    Files that an interrupted conversion has left are kept where they are whole; what is written is read again and
    compared with its checksum. The same source gives the same bytes.

    Args:
      source: what `open_model` takes.
      target: a directory, made where it is missing.
      vocabulary: a file, in place of the one beside `source`.
      weight_dtype: `int8` or `int4`: kernels of layers are quantised; None: weights are as they are in `source`.

    Raises:
      ConfigError: no model, a vocabulary that does not fit, or a target that holds something else.
      RunError: something cannot be read or written.
    """
    folder = local_path(target, "TARGET")
    found = open_model(source)
    try:
        _check_target(source, folder)
        make_directory(folder)
        for left in [path for path in folder.iterdir() if final_name(path.name)]:  # by a killed conversion
            left.unlink()
        return {"target": target, **write_native(source, folder, found, vocabulary, weight_dtype)}
    except OSError as error:
        raise RunError(
            f"{target} could not be written: {system_reason(error)}; run the command again"
        ) from error


def write_native(
    source: str,
    folder: pathlib.Path,
    found: Checkpoint,
    vocabulary: str | None = None,
    weight_dtype: str | None = None,
) -> dict[str, Any]:
    """Writes an opened model in the native form to a directory that is there; returns config.json and files written.

    Args:
      source: what errors call it.
      folder: where.
      found: the model; `origin` of what describes it is kept.
      vocabulary: a file, in place of the one beside it.
      weight_dtype: as `convert_model`.

    Raises:
      ConfigError, RunError: as `convert_model`.
      OSError: something cannot be written.
    """
    arrays = in_layers(found.arrays)
    check_whole(source, found.config, arrays)
    vocabulary_file = _write_vocabulary(folder, vocabulary, found)
    stored = arrays if weight_dtype is None else narrowed(arrays, weight_dtype)
    fingerprint, written, kept = _write_weights(source, folder, stored, arrays)
    described = {
        **describe(found.config),
        "origin": found.described.get("origin") or {"path": source, "kind": found.kind},
        "fingerprint": (weight_dtype and found.fingerprint) or fingerprint,
        "parameters": sum(array.nbytes // array.dtype.itemsize for array in arrays.values()),
        "dtypes": sorted({str(array.dtype) for array in stored.values()}),
        "vocabulary": vocabulary_file,
    }
    if weight_dtype is not None:
        described["weight_dtype"] = weight_dtype
    if vocabulary is None and "tokenizer_class" in found.described:
        described["tokenizer_class"] = found.described["tokenizer_class"]
    files.write(folder / "config.json", json.dumps(described, indent=2) + "\n")
    return {**described, "files_written": written, "files_kept": kept}


def _check_target(source: str, folder: pathlib.Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file: choose a directory")
    if pathlib.Path(source).exists() and folder.samefile(source):
        raise ConfigError(f"{folder} is the source itself: choose another directory")
    names = (path.name for path in folder.iterdir())
    others = sorted(name for name in names if not _is_ours(final_name(name) or name))
    config = folder / "config.json"
    if others or (config.exists() and '"architecture"' not in config.read_text(errors="replace")):
        raise ConfigError(
            f"{folder} holds {(others or ['another config.json'])[0]}: choose an empty directory"
        )


def _is_ours(name: str) -> bool:
    return name in _FILES or (name.startswith("model") and name.endswith(".safetensors"))


def _write_weights(
    source: str, folder: pathlib.Path, arrays: ArraySource, wide: ArraySource
) -> tuple[str, list[str], list[str]]:
    """The fingerprint, the files written, and those that were there already.

    Args:
      source: what errors name.
      arrays: what is written.
      wide: what they stand for, by the names that a fingerprint is of.
    """
    shards = _shards(arrays)
    samples: dict[str, bytes] = {}
    written, kept = [], []
    for file, part in shards.items():
        if _holds(folder / file, part):
            check_all_finite(source, open_safetensors(folder / file))
            kept.append(file)
        else:
            (folder / "config.json").unlink(missing_ok=True)  # no whole model while one is written
            with files.atomic_file(folder / file) as temporary:
                write_safetensors(temporary, part)
                if not _holds(temporary, part):
                    raise RunError(
                        f"{folder / file} does not read as it was written: the disk is not to be trusted"
                    )
                check_all_finite(source, open_safetensors(temporary))
            written.append(file)
            log(f"{file} written, {len(written) + len(kept)} of {len(shards)}")
        # Of the files, not of the source: what is recorded is what was read again.
        there = open_safetensors(folder / file)
        samples |= {
            name: sample(there[name][...]) for name in there.keys() & wide.keys() if _is_wide(there[name])
        }
    for stale in [path for path in folder.glob("model*.safetensors") if path.name not in shards]:
        stale.unlink()
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(array.nbytes for array in arrays.values())},
            "weight_map": {name: file for file, part in shards.items() for name in part},
        }
        files.write(folder / _INDEX, json.dumps(index, indent=2) + "\n")
    else:
        (folder / _INDEX).unlink(missing_ok=True)
    samples |= {name: sample(wide[name][...]) for name in wide.keys() - samples.keys()}  # what is quantised
    return combined({name: x for name, x in samples.items() if not name.startswith(HEADS)}), written, kept


def _is_wide(array: LazyArray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _shards(arrays: ArraySource) -> dict[str, ArraySource]:
    """Arrays by file, each of a gigabyte or one array; layers of a parameter next to each other."""
    parts: list[ArraySource] = [{}]
    size = 0
    for name in sorted(arrays, key=lambda name: (by_parameter(name), name)):
        if parts[-1] and size + arrays[name].nbytes > SHARD_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = arrays[name]
        size += arrays[name].nbytes
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {f"model-{i:05}-of-{len(parts):05}.safetensors": part for i, part in enumerate(parts, 1)}


def _holds(file: pathlib.Path, arrays: ArraySource) -> bool:
    """Whether a file holds these arrays: their names, shapes and dtypes, the numbers of the smallest, all of its own.

    Not every number is compared with the source's, which may have to come from afar once more.
    """
    try:
        there = open_safetensors(file)
    except RunError:
        return False
    describe = [
        {name: (array.shape, array.dtype) for name, array in part.items()} for part in (there, arrays)
    ]
    smallest = min(arrays, key=lambda name: (arrays[name].nbytes, name))
    return describe[0] == describe[1] and is_whole(file) is True and same(there[smallest], arrays[smallest])


def _write_vocabulary(folder: pathlib.Path, path: str | None, found: Checkpoint) -> dict[str, str] | None:
    """Copies a vocabulary, that beside the source where `path` is None, and what lies beside it, and no other."""
    if path is not None:
        path = vocabulary_path(path)
        vocabulary = read_vocabulary(path, found.config)
    elif found.vocabulary is not None:
        path, vocabulary = vocabulary_beside(found.vocabulary, found.config)
    else:
        return None
    check_unknown(found.described, path, vocabulary.unk_id)
    check_tokenizer_class(found.described, path)
    name = "vocabulary.model" if isinstance(vocabulary, Vocabulary) else "vocab.txt"
    if is_bytes(path):
        name = SETTINGS
    elif path.endswith(".json"):
        name = "tokenizer.json"
    content = SETTINGS_OF_BYTES if is_bytes(path) else read_content(path)
    contents = {name: content} | {file.name: file.read_bytes() for file in tokenizer_files(path)}
    for other in {*_VOCABULARIES, *TOKENIZER_FILES} - set(contents):  # of an earlier conversion
        (folder / other).unlink(missing_ok=True)
    for each, content in contents.items():
        files.write(folder / each, content)
    return {"file": name, "fingerprint": vocabulary.fingerprint}
