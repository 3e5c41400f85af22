"""Bottleneck adapters of the `adapters` library (AdapterHub) on a T5, where they are the function of our `Adapter`.

A folder with `adapter_config.json`, and `adapter.safetensors` or `pytorch_adapter.bin`. Behind a sublayer's output y
`double_seq_bn` (Houlsby et al. 2019) computes y + scaling * (f(y W_down + b_down) W_up + b_up), as here. `seq_bn`
(Pfeiffer et al. 2021) reads y with the residual stream added, which is another function. Here W_up and b_up have the
scaling in them. Their layers' names are T5's, `encoder.block.0.layer.1.adapters.NAME.adapter_up.weight`.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np

from jax_prompts.base_models import hf_t5
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import ArraySource
from jax_prompts.formats.safetensors import open_safetensors
from jax_prompts.formats.torch_bin import open_bin
from jax_prompts.interop.imported import NO_PROMPT, ImportedPrompt, Leaves, add_leaf, as_leaf, check_file
from jax_prompts.prompts import PromptMetadata
from jax_prompts.storage.json_file import read_object

ACTIVATIONS = {  # transformers' names -> ours; its `gelu` is the exact one
    "relu": "relu", "swish": "silu", "silu": "silu", "tanh": "tanh", "linear": "linear",
    "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu",
}  # fmt: skip
_OURS = {  # settings that are another function unless they are so
    "original_ln_before": False,
    "original_ln_after": True,
    "ln_before": False,
    "ln_after": False,
    "is_parallel": False,
    "use_gating": False,
    "inv_adapter": None,
    "phm_layer": False,
}
_TENSOR = re.compile(r"(.+)\.adapters\.[^.]+\.adapter_(down\.0|up)\.(weight|bias)")


def is_ours(config: dict[str, Any]) -> bool:
    """Whether settings in `adapter_config.json` are of the `adapters` library, and not of PEFT."""
    return "peft_type" not in config and isinstance(config.get("config"), dict)


def read(folder: pathlib.Path, described: dict[str, Any]) -> ImportedPrompt:
    """The leaves of a bottleneck adapter.

    Args:
      folder: where it lies.
      described: its `adapter_config.json`.

    Raises:
      ConfigError: another kind of adapter, another function, or another model's.
      RunError: a damaged file.
    """
    config = described["config"]
    if described.get("model_type") not in ("t5", "mt5"):
        raise ConfigError(
            f"{folder} is an adapter of {described.get('model_type')!r:.40}: only a T5's are read"
        )
    if (architecture := config.get("architecture")) is not None:
        raise ConfigError(f"{folder} is an adapter of kind {architecture!r:.40}: only bottlenecks are read")
    for name, wanted in _OURS.items():
        if (value := config.get(name, wanted)) != wanted:
            why = " (seq_bn, Pfeiffer's, reads the residual stream)" if name == "original_ln_before" else ""
            raise ConfigError(
                f"{folder} has {name} {value!r:.40}{why}, which is another function than ours; read are those with "
                f"{wanted!r}, such as double_seq_bn"
            )
    activation, scaling = config.get("non_linearity"), config.get("scaling", 1.0)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ConfigError(f"{folder} has non_linearity {activation!r:.40}: read are {', '.join(ACTIVATIONS)}")
    if not isinstance(scaling, int | float) or not abs(scaling) <= 1e9:
        raise ConfigError(f"{folder} has scaling {scaling!r:.40}: only a number is read")
    _check_head(folder)
    leaves: Leaves = {}
    for name, array in _open(folder).items():
        path, numbers = _leaf(folder, name, array)
        add_leaf(folder, leaves, path, numbers * np.float32(scaling) if "/up/" in path else numbers)
    if not leaves:
        raise RunError(f"{folder} holds no tensors: use another adapter")
    widths = [leaf.shape[0] for path, leaf in leaves.items() if path.endswith("down/bias")]
    settings = {"bottleneck": max(widths, default=0), "activation": ACTIVATIONS[activation], "norms": False}
    metadata = PromptMetadata(
        method="Adapter",
        settings=settings,
        adapter_activation=ACTIVATIONS[activation],
        base_model=str(described.get("model_name") or ""),
    )
    return ImportedPrompt(NO_PROMPT, metadata, leaves=leaves)


def _leaf(folder: pathlib.Path, name: str, array: Any) -> tuple[str, np.ndarray]:
    """Our path, and the numbers as we keep them."""
    found = _TENSOR.fullmatch(name)
    sublayer = hf_t5.sublayer(found[1]) if found else None
    if found is None or sublayer is None:
        raise ConfigError(
            f"{folder} holds {name!r:.120}, which has no place here: only bottlenecks behind a T5's attention and MLP "
            "are read"
        )
    axes = 2 if found[3] == "weight" else 1
    part, kind = found[2].removesuffix(".0"), "kernel" if axes == 2 else "bias"
    return f"{sublayer}/adapter/{part}/{kind}", as_leaf(folder, name, array, axes).T


def _open(folder: pathlib.Path) -> ArraySource:
    for file, reader in (("adapter.safetensors", open_safetensors), ("pytorch_adapter.bin", open_bin)):
        if (folder / file).exists():
            check_file(folder / file)
            return reader(folder / file)
    raise ConfigError(f"{folder} holds neither adapter.safetensors nor pytorch_adapter.bin: check the path")


def _check_head(folder: pathlib.Path) -> None:
    """Raises ConfigError where a head of the library's own was tuned with it; that of a T5 itself is frozen."""
    path = folder / "head_config.json"
    if path.exists():
        check_file(path, 2**20)
        if read_object(path).get("config") is not None:
            raise ConfigError(f"{folder} has a head of its own, which has no place here: save it without")
