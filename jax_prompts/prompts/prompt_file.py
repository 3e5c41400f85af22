"""Prompt files: safetensors with `prompt` float32 `[P, D]`, leaves tuned inside the model, string metadata; no pickle.

Leaves have the names of their places in the model, `encoder/layers_0/attention/query/lora_a`, `classifier/kernel`. A
file of leaves alone has no `prompt`, and reads as one of no virtual tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import safetensors
from jaxtyping import Float

from jax_prompts.errors import ConfigError, RunError, first_line, system_reason
from jax_prompts.formats.safetensors import CHECKSUM, is_whole, to_bytes
from jax_prompts.prompts.per_layer import KINDS
from jax_prompts.storage import files, json_text
from jax_prompts.storage.files import PathOrUrl

PROMPT_KINDS = ("input", *KINDS)
PROMPT = "prompt"
Leaves = dict[str, np.ndarray]  # by name
MAX_BYTES = 2**30  # the largest published prompts take a few megabytes
MAX_HEADER_BYTES = 2**20
MAX_NAME = 200  # characters of a leaf's; a place in a model takes some sixty


def _library_version() -> str:
    try:
        return importlib.metadata.version("jax-prompts")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"


@dataclasses.dataclass(frozen=True)
class PromptMetadata:
    """Where a prompt came from. Empty fields are unknown, as in prompts from other software.

    Attributes:
      method, settings: class name and fields of the method that was folded; see `settings_of`.
      adapter_activation: of adapters among the leaves.
      prompt_kind: `input`, or what it is at every layer, such as `deep` (states) or `prefix` (keys and values):
        `PerLayer.kind`.
      base_model, model_fingerprint: name and weight fingerprint of the frozen model.
      tokenizer_fingerprint: fingerprint of the vocabulary.
      task, labels: what it was tuned on, and the task's class labels.
      metric, score, step: the validation metric that chose it, its value, and the optimiser step.
      library_version: version of this package that wrote the file.
      extra: every other metadata entry of the file, kept as it is when the prompt is saved again.
    """

    method: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    adapter_activation: str = ""
    prompt_kind: str = "input"
    base_model: str = ""
    model_fingerprint: str = ""
    tokenizer_fingerprint: str = ""
    task: str = ""
    labels: tuple[str, ...] = ()
    metric: str = ""
    score: float | None = None
    step: int | None = None
    library_version: str = dataclasses.field(default_factory=_library_version)
    extra: dict[str, str] = dataclasses.field(default_factory=dict)


_TEXT_FIELDS = (
    "method",
    "adapter_activation",
    "prompt_kind",
    "base_model",
    "model_fingerprint",
    "tokenizer_fingerprint",
    "task",
    "metric",
    "library_version",
)
MAX_DEPTH = 20  # of what settings hold: deeper than any method's, and what is shown is walked by recursion


def _depth(value: Any) -> int:
    """How deep lists and dictionaries lie in one another."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return depth


def _is_whole_number(value: Any) -> bool:
    """Of a size that a float can hold; JSON has truth values beside numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_JSON_FIELDS: dict[str, Callable[[Any], bool]] = {
    "settings": lambda value: isinstance(value, dict) and _depth(value) <= MAX_DEPTH,
    "labels": lambda value: isinstance(value, list) and all(isinstance(label, str) for label in value),
    "score": lambda value: value is None or isinstance(value, float) or _is_whole_number(value),
    "step": lambda value: value is None or _is_whole_number(value),
}


def settings_of(method: Any) -> dict[str, Any]:
    """The fields of a prompt method or a kind of leaf, for `PromptMetadata.settings`; none of None."""
    if method is None:
        return {}
    names = [field.name for field in dataclasses.fields(method) if field.name not in ("parent", "name")]
    return {name: getattr(method, name) for name in names}


def save_prompt(
    path: PathOrUrl,
    prompt_PD: Float[np.ndarray, "P D"],
    metadata: PromptMetadata,
    leaves: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a prompt file whole or not at all; with several writers the last one to finish stays.

    Args:
      path: where.
      prompt_PD: the folded prompt; of no rows where leaves alone were tuned.
      metadata: where it came from.
      leaves: arrays by name that were tuned inside the model.

    Raises:
      RunError: values that are not finite, or a directory or disk that cannot be written.
    """
    prompt_PD = np.ascontiguousarray(prompt_PD, dtype=np.float32)
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in (leaves or {}).items()}
    if prompt_PD.ndim != 2 or not (prompt_PD.size or (arrays and not len(prompt_PD))):
        raise ConfigError(f"a prompt has shape [P, D], not {prompt_PD.shape}")
    if prompt_PD.size:
        arrays[PROMPT] = prompt_PD
    for name in arrays:
        _check_name(path, name)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise RunError(f"{path} was not written: its values are not all finite; lower the learning rate")
    content = to_bytes(arrays, metadata_text(metadata))
    if (size := _header_size(content)) > MAX_HEADER_BYTES:
        raise RunError(f"{path} was not written: its metadata has {size:,} bytes, over {MAX_HEADER_BYTES:,}")
    with files.write_errors(path):
        files.write(path, content)


def load_prompt(
    path: PathOrUrl,
    *,
    prompt_width: Callable[[str], int] | None = None,
    model_fingerprint: str | None = None,
    tokenizer_fingerprint: str | None = None,
) -> tuple[Float[np.ndarray, "P D"], PromptMetadata]:
    """Reads a prompt file and checks that it fits, as `check_fits`.

    Raises:
      ConfigError: no such file, or one that does not fit.
      RunError: a file that is not a whole prompt file, is too large, or holds values that are not finite.
    """
    prompt_PD, _, metadata = load_file(path)
    check_fits(
        path,
        prompt_PD,
        metadata,
        prompt_width=prompt_width,
        model_fingerprint=model_fingerprint,
        tokenizer_fingerprint=tokenizer_fingerprint,
    )
    return prompt_PD, metadata


def check_fits(
    name: PathOrUrl,
    prompt_PD: Float[np.ndarray, "P D"],
    metadata: PromptMetadata,
    *,
    prompt_width: Callable[[str], int] | None = None,
    model_fingerprint: str | None = None,
    tokenizer_fingerprint: str | None = None,
) -> None:
    """Compares a prompt with a base model; what is None, or unknown to the prompt, is not compared.

    Args:
      name: what to call the prompt.
      prompt_width: the base model's numbers of one virtual token of a prompt kind.

    Raises:
      ConfigError: another width, another base model or another vocabulary.
    """
    origin = f" ({metadata.base_model})" if metadata.base_model else ""
    prompt_kind = metadata.prompt_kind
    if prompt_width is not None and prompt_kind not in PROMPT_KINDS:
        raise ConfigError(
            f"{name} is a prompt of kind {prompt_kind!r}, which is none of {', '.join(PROMPT_KINDS)}"
        )
    if len(prompt_PD) and prompt_width is not None and prompt_PD.shape[1] != prompt_width(prompt_kind):
        raise ConfigError(
            f"{name} has width {prompt_PD.shape[1]} and the base model {prompt_width(prompt_kind)}: "
            f"use the base model it was tuned with{origin}"
        )
    for what, theirs, ours in (
        ("base model", metadata.model_fingerprint, model_fingerprint),
        ("vocabulary", metadata.tokenizer_fingerprint, tokenizer_fingerprint),
    ):
        if ours and theirs and ours != theirs:
            raise ConfigError(
                f"{name} belongs to {what} {theirs} and this run has {ours}: "
                f"use the {what} it was tuned with{origin}"
            )


def load_file(path: PathOrUrl) -> tuple[Float[np.ndarray, "P D"], Leaves, PromptMetadata]:
    """The prompt, of no rows where there is none, the arrays that were tuned inside the model by name, and metadata.

    Raises:
      ConfigError, RunError: as `load_prompt`.
    """
    return parse_file(path, read_content(path))


def parse_file(path: PathOrUrl, content: bytes) -> tuple[Float[np.ndarray, "P D"], Leaves, PromptMetadata]:
    """What `load_file` returns, from what `read_content` gave.

    Raises:
      RunError: as `load_prompt`.
    """
    leaves, text = _arrays(path, content)
    prompt_PD = leaves.pop(PROMPT, np.zeros((0, 0), np.float32))
    if not np.isfinite(prompt_PD).all():
        raise RunError(f"{path} holds values that are not finite: use another prompt file")
    for name, array in leaves.items():
        if not np.isfinite(array).all():
            raise RunError(f"{path} holds {name} that is not finite: use another prompt file")
    return prompt_PD, leaves, parse_metadata(path, text)


def digest(prompt_PD: Float[np.ndarray, "P D"], metadata: PromptMetadata, leaves: Any) -> str:
    """Tells prompts apart by what they answer with, wherever they come from.

    Args:
      prompt_PD, metadata: of `load_prompt`.
      leaves: arrays that were tuned inside the model, a tree.
    """
    found = hashlib.sha256(repr((metadata.prompt_kind, metadata.labels)).encode())
    found.update(metadata.adapter_activation.encode())
    for path, array in jax.tree_util.tree_leaves_with_path({"prompt": prompt_PD, "leaves": leaves}):
        found.update(repr((jax.tree_util.keystr(path), array.shape)).encode())
        found.update(np.asarray(array, np.float32).tobytes())
    return found.hexdigest()[:16]


def read_content(path: PathOrUrl) -> bytes:
    """Bytes of a prompt file. Its size is looked at first, so that a wrong or hostile one costs no memory.

    Raises:
      ConfigError: no such file.
      RunError: it is too large, or cannot be read.
    """
    try:
        return files.read(path, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path} does not exist: set it to a prompt file") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is not a file: set it to a prompt file") from error
    except files.TooLargeError as error:
        raise RunError(f"{path} has {error.size} bytes, over {MAX_BYTES}: use a prompt file") from error
    except OSError as error:
        raise RunError(f"{path} could not be read: {system_reason(error)}") from error


def _arrays(path: PathOrUrl, content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The prompt, if there is one, and leaves by name, and the metadata's text."""
    if content.startswith(b"\x93NUMPY"):
        raise ConfigError(
            f"{path} is a NumPy array: t5x convert {path} NEW.safetensors makes it a prompt file"
        )
    if len(content) < 8 or (size := _header_size(content)) > MAX_HEADER_BYTES:
        raise RunError(f"{path} is not a whole prompt file: use another one")
    try:
        found = dict(safetensors.deserialize(content))
        text = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
        whole = is_whole(content)
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        reason = first_line(error)
        raise RunError(f"{path} is not a whole prompt file ({reason}): use another one") from error
    if whole is False:
        raise RunError(f"{path} is damaged: its numbers are not those that were written; use another copy")
    text.pop(CHECKSUM, None)
    if PROMPT not in found and ("method" not in text or not found):
        raise RunError(f"{path} holds no tensor named prompt: use a prompt file, or convert it first")
    arrays = {}
    for name in sorted(found):  # the library gives them another order at every call
        dtype, shape = found[name]["dtype"], found[name]["shape"]
        _check_name(path, name)
        if name == PROMPT and (dtype != "F32" or len(shape) != 2 or 0 in shape):
            raise RunError(f"{path} holds prompt {dtype} {shape}, not F32 [P, D]: convert it first")
        if dtype != "F32":
            raise RunError(f"{path} holds {name} that is not float32: use another prompt file")
        arrays[name] = np.frombuffer(found[name]["data"], np.float32).reshape(shape)
    return arrays, text


def _check_name(path: PathOrUrl, name: str) -> None:
    """Raises RunError for a name that no line of a message can show."""
    if len(name) > MAX_NAME or not name.isprintable():
        raise RunError(f"{path} holds {name[:MAX_NAME]!r}, no place in a model: use another prompt file")


def _header_size(content: bytes) -> int:
    return struct.unpack("<Q", content[:8])[0]


def metadata_text(metadata: PromptMetadata) -> dict[str, str]:
    """Metadata as the strings that a safetensors file holds; a score that is not finite is none."""
    text = dict(metadata.extra)
    text |= {name: getattr(metadata, name) for name in _TEXT_FIELDS}
    # A path that is no UTF-8 comes as surrogates, which no JSON reader takes.
    text = {name: value.encode(errors="backslashreplace").decode() for name, value in text.items()}
    return text | {name: json_text.dumps(getattr(metadata, name), sort_keys=True) for name in _JSON_FIELDS}


def parse_metadata(path: PathOrUrl, text: dict[str, str]) -> PromptMetadata:
    """What `metadata_text` wrote; entries it does not know are kept as `extra`.

    Raises:
      RunError: an entry that is not what its name says.
    """
    known: dict[str, Any] = {name: text.get(name, "") for name in _TEXT_FIELDS}
    known["prompt_kind"] = text.get("prompt_kind", "input")
    for name, fits in _JSON_FIELDS.items():
        if name not in text:
            continue
        try:
            known[name] = json.loads(text[name])
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} has metadata {name} that is not JSON: use another prompt file") from error
        if not fits(known[name]):
            raise RunError(f"{path} has metadata {name} of the wrong kind: use another prompt file")
    known["labels"] = tuple(known.get("labels", ()))
    extra = {name: value for name, value in text.items() if name not in {*_TEXT_FIELDS, *_JSON_FIELDS}}
    return PromptMetadata(**known, extra=extra)
