"""Adapters of Hugging Face PEFT: a folder with `adapter_config.json`, and in `adapter_model.safetensors` a prompt, the
tensor `prompt_embeddings`, or leaves of the model (`interop/peft_leaves.py`, `interop/adapter_hub.py`).

For its prompt tuning, its P-Tuning and its prefix tuning (`interop/peft_prefix.py`) PEFT keeps the folded prompt. On
encoder-decoder models it stores 2P rows of the first two unless told otherwise (`num_transformer_submodules`), of which
the model is given the first P; P are written here.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import ArraySource
from jax_prompts.formats.safetensors import metadata_of, open_safetensors, to_bytes
from jax_prompts.formats.torch_bin import open_bin
from jax_prompts.interop import adapter_hub, peft_dept, peft_leaves, peft_multitask, peft_prefix
from jax_prompts.interop.imported import ImportedPrompt, as_prompt, check_file
from jax_prompts.prompts import PromptMetadata
from jax_prompts.prompts.prompt_file import metadata_text, parse_metadata, settings_of
from jax_prompts.storage.json_file import read_object
from jax_prompts.tuned.dept import DePT

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_TENSOR = "prompt_embeddings"
_MAX_CONFIG_BYTES = 2**20
_FOLDED = ("PROMPT_TUNING", "P_TUNING", peft_multitask.TYPE, peft_dept.TYPE)
_AT_THE_INPUT = ("SEQ_2_SEQ_LM", "FEATURE_EXTRACTION", None)
_PREFIX = "PREFIX_TUNING"
_OTHER_PROMPTS = {
    "CPT": "its prompt belongs to a decoder-only model",
    "CARTRIDGE": "its keys and values belong to a decoder-only model",
    "ADAPTION_PROMPT": "its prompts enter single layers through gates",
}


def is_adapter(path: pathlib.Path) -> bool:
    return (path / CONFIG).is_file()


def read_adapter(folder: pathlib.Path, task: int | None = None) -> ImportedPrompt:
    """The folded prompt of a PEFT adapter, or of DePT's, which is made of PEFT 0.x, with its offset; the leaves of its
    LORA and IA3, and of a bottleneck adapter of the `adapters` library.

    Args:
      folder: the adapter.
      task: of MULTITASK_PROMPT_TUNING the task whose prompt it is, from 0; None: the only one.

    Raises:
      ConfigError: an adapter of another kind, or of a model that has the prompt elsewhere; a task that it has not.
      RunError: a damaged file, or files that contradict each other.
    """
    check_file(folder / CONFIG, _MAX_CONFIG_BYTES)
    config = read_object(folder / CONFIG)
    if adapter_hub.is_ours(config):
        return adapter_hub.read(folder, config)
    kind, task_type = config.get("peft_type"), config.get("task_type")
    if kind not in (*_FOLDED, _PREFIX, *peft_leaves.TYPES):
        reason = _OTHER_PROMPTS.get(str(kind), "it changes weights of the model")
        raise ConfigError(
            f"{folder} is a {kind!s:.40} adapter ({reason}): read are {', '.join(_FOLDED[:3])}, {_PREFIX}, "
            f"{' and '.join(peft_leaves.TYPES)} of a T5"
        )
    if task is not None and kind != peft_multitask.TYPE:
        raise ConfigError(f"--task says nothing of a {kind} adapter, which has one prompt: leave it out")
    if kind in peft_leaves.TYPES:
        return peft_leaves.read(folder, config, *_open(folder))
    if task_type not in (_AT_THE_INPUT if kind in _FOLDED else _AT_THE_INPUT[:1]):
        raise ConfigError(
            f"{folder} is an adapter for {task_type}, where its prompt has another place than in a T5's encoder: "
            "use one for SEQ_2_SEQ_LM"
        )
    arrays, text = _open(folder)
    if _TENSOR not in arrays:
        raise RunError(f"{folder} holds no tensor {_TENSOR} (it has {', '.join(sorted(arrays)) or 'none'})")
    stored = as_prompt(folder, arrays.pop(_TENSOR)[...])
    left_out, leaves, offset = tuple[str, ...](), dict[str, np.ndarray](), None
    if kind == peft_dept.TYPE:
        leaves, offset = peft_dept.take_offset(folder, config, arrays)
    if kind == _PREFIX:
        prompt_kind, slots = peft_prefix.KIND, _slots(folder, config, stored)
        prompt, unused = peft_prefix.of_layers(stored, slots)
    else:
        prompt_kind, length = "input", _length(folder, config, stored)
        if kind == peft_multitask.TYPE:
            stored = peft_multitask.fold_task(folder, stored, arrays, task)
        prompt, unused = stored[:length], ()
        if len(stored) > length:
            rows = f"rows {length} to {2 * length - 1}"
            if kind == peft_multitask.TYPE:
                left_out = (f"{rows} ({peft_multitask.DECODER_ROWS})",)
            else:
                unused = (f"{rows}, which PEFT stores and no model reads",)
    own = "library_version" in text  # written here
    metadata = parse_metadata(folder, text) if own else _metadata(config, len(prompt), offset)
    metadata = dataclasses.replace(metadata, prompt_kind=prompt_kind)
    left_out += _left_out(config, arrays, lacks_offset=kind == peft_dept.TYPE and not leaves)
    return ImportedPrompt(prompt, metadata, unused, left_out, leaves)


def write_adapter(
    folder: pathlib.Path,
    prompt_PD: Float[np.ndarray, "P D"],
    metadata: PromptMetadata,
    base_model: str | None,
    kind: dict[str, Any],
    tensors: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes an adapter that PEFT loads with `PeftModel.from_pretrained`.

    Args:
      folder: an empty directory.
      base_model: name or path of the frozen model for `AutoPeftModelForSeq2SeqLM`.
      kind: `peft_type` and the settings of that type.
      tensors: that this type keeps in place of the folded prompt.
    """
    length, width = prompt_PD.shape
    config = {
        "auto_mapping": None,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "modules_to_save": None,
        "num_attention_heads": None,  # PEFT asks the model
        "num_layers": None,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": length,
        "revision": None,
        "task_type": "SEQ_2_SEQ_LM",
        "token_dim": width,
        **kind,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    text = metadata_text(metadata) | {"format": "pt"}
    (folder / WEIGHTS).write_bytes(to_bytes(tensors or {_TENSOR: prompt_PD}, text))


PROMPT_TUNING: dict[str, Any] = {
    "peft_type": "PROMPT_TUNING",
    "prompt_tuning_init": "RANDOM",
    "prompt_tuning_init_text": None,
    "tokenizer_kwargs": None,
    "tokenizer_name_or_path": None,
}


def _open(folder: pathlib.Path) -> tuple[ArraySource, dict[str, str]]:
    """The arrays, and the file's metadata."""
    path = folder / WEIGHTS
    if not path.exists():
        path = folder / "adapter_model.bin"
        check_file(path)
        return open_bin(path), {}
    check_file(path)
    arrays = open_safetensors(path)
    return arrays, {name: text for name, text in metadata_of(path).items() if name != "format"}


def _length(folder: pathlib.Path, config: dict[str, Any], stored: np.ndarray) -> int:
    """P, where settings and rows agree."""
    length, width = (_count(folder, config, name) for name in ("num_virtual_tokens", "token_dim"))
    stacks = config.get("num_transformer_submodules")
    if stacks is None:
        stacks = len(stored) // length
    if stacks not in (1, 2) or stored.shape != (stacks * length, width):
        raise RunError(
            f"{folder}: {CONFIG} says {length} virtual tokens of width {width} for {stacks} stacks, and the file holds "
            f"{list(stored.shape)}: use an adapter whose files belong together"
        )
    return length


def _slots(folder: pathlib.Path, config: dict[str, Any], stored: np.ndarray) -> int:
    """Layers of which a prefix tuning adapter has keys and values, where settings and rows agree."""
    names = "num_virtual_tokens", "num_layers", "token_dim"
    length, layers, width = (_count(folder, config, name) for name in names)
    if config.get("num_transformer_submodules") not in (2, None):
        raise ConfigError(
            f"{folder} is a {_PREFIX} adapter of one stack, which PEFT gives no T5: set num_transformer_submodules to 2"
        )
    if stored.shape != (length, layers * 2 * width):
        raise RunError(
            f"{folder}: {CONFIG} says {length} virtual tokens with keys and values of width {width} at {layers} "
            f"layers, and the file holds {list(stored.shape)}: use an adapter whose files belong together"
        )
    return layers


def _count(folder: pathlib.Path, config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RunError(f"{folder}: {CONFIG} has {name} {value!r:.60}, not a whole number of at least 1")
    return value


def _metadata(config: dict[str, Any], length: int, offset: DePT | None) -> PromptMetadata:
    """What the settings of an adapter tell."""
    method, settings = "PromptTuning", dict[str, Any](length=length)
    if config["peft_type"] == _PREFIX:
        method = "PerLayer"
        settings |= {"kind": peft_prefix.KIND}
        if config.get("prefix_projection"):
            settings["hidden"] = config.get("encoder_hidden_size")
    if config["peft_type"] == "P_TUNING":
        recurrent = config.get("encoder_reparameterization_type") == "LSTM"
        method = "PTuningLSTM" if recurrent else "PTuningMLP"
        settings["hidden"] = config.get("encoder_hidden_size")
        if recurrent:
            settings["layers"] = config.get("encoder_num_layers")
    if config["peft_type"] == peft_multitask.TYPE:
        method, settings["rank"] = "MPT", config.get("num_ranks")
    if offset is not None:
        method, settings["DePT"] = "PromptTuning + DePT", settings_of(offset)
    base_model = config.get("base_model_name_or_path") or ""
    return PromptMetadata(method=method, settings=settings, base_model=str(base_model))


def _left_out(config: dict[str, Any], others: ArraySource, *, lacks_offset: bool) -> tuple[str, ...]:
    """What was tuned beside the prompt and is not taken, in words."""
    found = [
        f"{name} {list(array.shape)} (tuned beside the prompt)" for name, array in sorted(others.items())
    ]
    if lacks_offset:
        rank = config.get("r")
        found.append(f"DePT's offset on the input's embeddings, of rank {rank}, which the file does not hold")
    return tuple(found)
