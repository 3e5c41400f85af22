"""Writes LoRA and IA3 as adapters of PEFT."""

from __future__ import annotations

import collections
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_prompts.base_models import hf_t5
from jax_prompts.errors import ConfigError
from jax_prompts.formats.safetensors import to_bytes
from jax_prompts.interop.peft_leaves import PREFIX, Leaves
from jax_prompts.prompts import PromptMetadata
from jax_prompts.prompts.prompt_file import metadata_text


def write_leaves(
    folder: pathlib.Path,
    name: str,
    leaves: Mapping[str, np.ndarray],
    metadata: PromptMetadata,
    base: str | None,
) -> str:
    """Writes an adapter that PEFT loads with `PeftModel.from_pretrained`, and returns its `peft_type`.

    Args:
      folder: an empty directory.
      name: what to call the file that holds the leaves.
      leaves: by path.
      metadata: where they came from.
      base: name or path of the frozen model for `AutoPeftModelForSeq2SeqLM`.

    Raises:
      ConfigError: leaves that neither type has, or both types together.
    """
    ends = collections.defaultdict[str, Leaves](dict)
    for path, leaf in leaves.items():
        projection, _, end = path.rpartition("/")
        if hf_t5.projection_there(projection) is None or end not in (
            "lora_a",
            "lora_b",
            "scale",
            "input_scale",
        ):
            raise ConfigError(
                f"{name} holds {path}, which PEFT's LORA and IA3 have no place for: only LoRA, or only IA3, of a T5 "
                "goes there"
            )
        ends[end][hf_t5.projection_there(projection) or ""] = leaf
    pairs, scales = ends["lora_a"], ends["scale"] | ends["input_scale"]
    if pairs and scales:
        raise ConfigError(
            f"{name} holds LoRA and IA3, and a PEFT adapter is one of them: write both into weights, with --to=model"
        )
    if twice := sorted(ends["scale"].keys() & ends["input_scale"]):
        raise ConfigError(f"{name} scales inputs and outputs of {twice[0]}, and PEFT's IA3 one of them")
    if pairs.keys() != ends["lora_b"].keys():
        raise ConfigError(f"{name} has a lora_a without its lora_b, or the other way round: use another file")
    for module, a_IR in pairs.items():
        b_RO = ends["lora_b"][module]
        if a_IR.ndim != 2 or b_RO.ndim != 2 or not 0 < a_IR.shape[1] == len(b_RO):
            raise ConfigError(
                f"{name} has pairs of {module}, {list(a_IR.shape)} and {list(b_RO.shape)}, that are not [I, R] and "
                "[R, O]: use another file"
            )
    if wrong := [module for module, leaf in scales.items() if leaf.ndim != 1 or not leaf.size]:
        raise ConfigError(f"{name} has a scale of {wrong[0]} that is no row of numbers: use another file")
    if pairs:
        config, tensors = _lora(pairs, ends["lora_b"])
    else:
        config = {
            "peft_type": "IA3",
            "target_modules": sorted(scales),
            "feedforward_modules": sorted(ends["input_scale"]),
            "fan_in_fan_out": False,
            "init_ia3_weights": True,
        }
        columns = {module: leaf[:, None] for module, leaf in ends["scale"].items()}
        rows = {module: leaf[None] for module, leaf in ends["input_scale"].items()}
        tensors = {f"{PREFIX}{module}.ia3_l": leaf for module, leaf in {**columns, **rows}.items()}
    common = dict.fromkeys(("auto_mapping", "modules_to_save", "revision"))
    common |= {"base_model_name_or_path": base, "inference_mode": True, "task_type": "SEQ_2_SEQ_LM"}
    text = json.dumps(common | config, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(f"{text}\n")
    arrays = {key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()}
    about = metadata_text(metadata) | {"format": "pt"}
    (folder / "adapter_model.safetensors").write_bytes(to_bytes(arrays, about))
    return config["peft_type"]


def _lora(a_by_module: Leaves, b_by_module: Leaves) -> tuple[dict[str, Any], Leaves]:
    """Settings and tensors of pairs whose B has the scale in it: alpha is the rank."""
    ranks = {module: a_IR.shape[1] for module, a_IR in a_by_module.items()}
    most = collections.Counter(ranks.values()).most_common(1)[0][0]
    own = {module: rank for module, rank in ranks.items() if rank != most}
    config = {
        "peft_type": "LORA",
        "target_modules": sorted(ranks),
        "r": most,
        "lora_alpha": most,
        "rank_pattern": own,
        "alpha_pattern": own,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "use_rslora": False,
    }
    tensors = {f"{PREFIX}{module}.lora_A.weight": a_IR.T for module, a_IR in a_by_module.items()}
    tensors |= {f"{PREFIX}{module}.lora_B.weight": b_RO.T for module, b_RO in b_by_module.items()}
    return config, tensors
