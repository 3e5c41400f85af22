"""PEFT's LORA and IA3 adapters of a T5: leaves inside the model, under our names (`peft_leaves_write.py` writes them).

PEFT keeps lora_A [R, I] and lora_B [O, R] of x W + scale x A^T B^T, of IA3 a column [O, 1] that multiplies a
projection's outputs, or a row [1, I] that multiplies its inputs. Here B has the scale in it.

I inputs and O outputs of a projection, R rank.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from jax_prompts.base_models import hf_t5
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import ArraySource
from jax_prompts.interop.imported import (
    NO_PROMPT,
    ImportedPrompt,
    Leaves,
    add_leaf,
    as_finite,
    as_leaf,
)
from jax_prompts.prompts import PromptMetadata
from jax_prompts.prompts.prompt_file import parse_metadata

TYPES = ("LORA", "IA3")

PREFIX = "base_model.model."
_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # others change the base model's own weights
_ANOTHER_FUNCTION = (  # settings that make something else of LoRA
    "use_dora", "use_qalora", "use_bdlora", "layer_replication", "alora_invocation_tokens", "arrow_config",
    "trainable_token_indices", "target_parameters", "velora_config", "monteclora_config", "kasa_config",
)  # fmt: skip
_PATTERN = re.compile(r"\^?(?:[\w.]|\\\.){1,200}")  # names: an expression of a stranger could run for years
_ENDS = {".lora_A.weight": "lora_a", ".lora_B.weight": "lora_b", ".lora_B.bias": "bias"}


def read(
    folder: pathlib.Path, config: dict[str, Any], arrays: ArraySource, text: dict[str, str]
) -> ImportedPrompt:
    """The leaves of an adapter.

    Args:
      folder: where it lies.
      config: its settings.
      arrays: its tensors, by name.
      text: metadata of its file.

    Raises:
      ConfigError: one that does something else beside, or instead.
      RunError: tensors that do not belong together.
    """
    kind = config["peft_type"]
    if config.get("task_type") not in ("SEQ_2_SEQ_LM", None):
        raise ConfigError(f"{folder} is a {kind} adapter for {config['task_type']}: use one for SEQ_2_SEQ_LM")
    if config.get("modules_to_save"):
        raise ConfigError(
            f"{folder} has modules_to_save {config['modules_to_save']!r:.100}, parts of the model that were tuned "
            "whole: only the low-rank pairs or scales of projections are read"
        )
    copies = [name for name in arrays if name.endswith(".base_layer.weight")]
    arrays = {name: array for name, array in arrays.items() if name not in copies}
    leaves = (_pairs if kind == "LORA" else _scales)(folder, config, arrays)
    if not leaves:
        raise RunError(f"{folder} holds no tensors: use another adapter")
    metadata = parse_metadata(folder, text) if "library_version" in text else _metadata(config)
    unused = tuple(f"{name}, a copy of the base model's own" for name in copies)
    return ImportedPrompt(NO_PROMPT, metadata, unused, leaves=leaves)


def _pairs(folder: pathlib.Path, config: dict[str, Any], arrays: ArraySource) -> Leaves:
    for name in _ANOTHER_FUNCTION:
        if config.get(name):
            raise ConfigError(
                f"{folder} has {name}, which is another function than LoRA's: it cannot be read"
            )
    if (start := config.get("init_lora_weights", True)) not in _STARTS:
        raise ConfigError(
            f"{folder} has init_lora_weights {start!r:.60}, where the base model's weights are changed, too: save it "
            "again with path_initial_model_for_weight_conversion, as PEFT says, or merge it there"
        )
    scale_of, ranks = _scale(folder, config), _ranks(folder, config)
    leaves: Leaves = {}
    for name, array in arrays.items():
        end = next((end for end in _ENDS if name.endswith(end)), None)
        module = name.removeprefix(PREFIX).removesuffix(end or "")
        path = _place(folder, name, module, known=end is not None)
        numbers = as_leaf(folder, name, array, 1 if end == ".lora_B.bias" else 2)
        rank = len(numbers) if end == ".lora_A.weight" else numbers.shape[-1]
        if end == ".lora_A.weight" and rank not in ranks:
            raise RunError(f"{folder}: {name} has rank {rank}, and adapter_config.json says {sorted(ranks)}")
        add_leaf(folder, leaves, f"{path}/{_ENDS[end or '']}", numbers.T)
    for path in {path.rpartition("/")[0] for path in leaves}:
        a, b = leaves.get(f"{path}/lora_a"), leaves.get(f"{path}/lora_b")
        if a is None or b is None or a.shape[1] != b.shape[0]:
            raise RunError(
                f"{folder}: lora_A and lora_B of {path} do not belong together: use another adapter"
            )
        scale = scale_of(hf_t5.projection_there(path) or "", a.shape[1])
        for name in ("lora_b", "bias"):
            if f"{path}/{name}" in leaves:
                with np.errstate(over="ignore"):
                    scaled = leaves[f"{path}/{name}"] * np.float32(scale)
                leaves[f"{path}/{name}"] = as_finite(folder, scaled)
    return leaves


def _scales(folder: pathlib.Path, config: dict[str, Any], arrays: ArraySource) -> Leaves:
    leaves: Leaves = {}
    for name, array in arrays.items():
        module = name.removeprefix(PREFIX).removesuffix(".ia3_l")
        path = _place(folder, name, module, known=name.endswith(".ia3_l"))
        numbers = as_leaf(folder, name, array, 2)
        if 1 not in numbers.shape:
            raise RunError(f"{folder}: {name} is {list(numbers.shape)}, neither a row nor a column")
        end = "scale" if numbers.shape[1] == 1 else "input_scale"
        add_leaf(folder, leaves, f"{path}/{end}", numbers.reshape(-1))
    return leaves


def _place(folder: pathlib.Path, name: str, module: str, *, known: bool) -> str:
    """Our path of a projection."""
    path = hf_t5.projection(module) if known else None
    if path is None:
        raise ConfigError(
            f"{folder} holds {name!r:.120}, which has no place here: only low-rank pairs and scales of a T5's "
            "projections are read"
        )
    return path


def _ranks(folder: pathlib.Path, config: dict[str, Any]) -> set[int]:
    ranks = [config.get("r"), *_patterns(folder, config, "rank_pattern").values()]
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank > 0 for rank in ranks):
        raise RunError(f"{folder}: adapter_config.json has r {ranks!r:.60}, not whole numbers of at least 1")
    return set(ranks)


def _scale(folder: pathlib.Path, config: dict[str, Any]) -> Callable[[str, int], float]:
    """Of a module, by its name and rank: alpha / R, or alpha / sqrt(R)."""
    alphas = _patterns(folder, config, "alpha_pattern")
    for alpha in (config.get("lora_alpha"), *alphas.values()):
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) <= 1e9:
            raise RunError(f"{folder}: adapter_config.json has lora_alpha {alpha!r:.60}, no number")
    for pattern in alphas:
        if not _PATTERN.fullmatch(pattern):
            raise ConfigError(
                f"{folder} has alpha_pattern {pattern!r:.80}, an expression: only names of modules are read; merge it "
                "with PEFT"
            )

    def scale(module: str, rank: int) -> float:
        chosen = next((p for p in alphas if re.match(rf"(.*\.)?({p})$", module)), None)
        alpha = config["lora_alpha"] if chosen is None else alphas[chosen]
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)

    return scale


def _patterns(folder: pathlib.Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise RunError(f"{folder}: adapter_config.json has {name} {patterns!r:.60}, no settings by name")
    return patterns


def _metadata(config: dict[str, Any]) -> PromptMetadata:
    """What the settings of an adapter tell."""
    base_model, settings = str(config.get("base_model_name_or_path") or ""), {}
    if config["peft_type"] == "LORA":
        settings = {"rank": config["r"], "alpha": config["lora_alpha"]}
        settings |= {"rank_stabilized": bool(config.get("use_rslora"))}
    method = {"LORA": "LoRA", "IA3": "IA3"}[config["peft_type"]]
    return PromptMetadata(method=method, settings=settings, base_model=base_model)
