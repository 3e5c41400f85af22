"""Tuned parameters of every method over model sizes, without weights (Lester et al. 2021, figure 4 and table 4)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError
from jax_prompts.models.sizes import SIZES
from jax_prompts.models.t5 import T5
from jax_prompts.partition import parameter_count
from jax_prompts.prompts import (
    MPT,
    Decomposed,
    Explosive,
    LSTMPrompt,
    Method,
    PerLayer,
    PromptTuning,
    PTuningLSTM,
    PTuningMLP,
    RankProbe,
    Residual,
    SuperPos,
    for_model,
)
from jax_prompts.tuned import IA3, Adapter, BitFit, LoRA, TunedLeaves
from jax_prompts.tuned.leaves import by_path

# A method of each file of gin_configs/prompts, of P virtual tokens.
METHODS: dict[str, Callable[[int], Method]] = {
    "prompt_tuning": lambda P: PromptTuning(P),
    "residual": lambda P: Residual(P, hidden=400),
    "residual_separate": lambda P: Residual(P, hidden=400, shared=False),
    "mlp": lambda P: Residual(P, hidden=400, skip=False),
    "lstm": lambda P: LSTMPrompt(P),
    "p_tuning_mlp": lambda P: PTuningMLP(P),
    "p_tuning_lstm": lambda P: PTuningLSTM(P),
    "decomposed": lambda P: Decomposed(P, rank=min(10, P)),
    "rank_probe": lambda P: RankProbe(P),
    "explosive": lambda P: Explosive(P),
    "superpos": lambda P: SuperPos(P),
    "mpt": lambda P: MPT(P),
    "prefix": lambda P: PerLayer(P, kind="prefix"),
    "prefix_mlp": lambda P: PerLayer(P, kind="prefix", hidden=512),
    "decoder_prefix": lambda P: PerLayer(P, kind="decoder_prefix"),
    "full_prefix": lambda P: PerLayer(P, kind="full_prefix"),
    "deep": lambda P: PerLayer(P, kind="deep"),
    "deep_mlp": lambda P: PerLayer(P, kind="deep", hidden=512),
    "decoder_deep": lambda P: PerLayer(P, kind="decoder_deep"),
    "full_deep": lambda P: PerLayer(P, kind="full_deep"),
}
# The leaves of each file of gin_configs/tuned.
LEAVES: dict[str, TunedLeaves] = {
    "adapter": Adapter(),
    "adapter_drop": Adapter(first_layer=5),
    "bitfit": BitFit(),
    "lora": LoRA(),
    "ia3": IA3(),
}
MODEL_TUNING = "model_tuning"
LONGEST = 1 << 20  # tokens; above it networks of each position have more numbers than can be counted


def parameters(lengths: Sequence[int] = (100,)) -> dict[str, Any]:
    """Tuned parameters of every method, prompts of these lengths or leaves, on every size of T5 and T5.1.1.

    `kept` is what a prompt file holds after folding; `percent` is of the model's parameters.

    Raises:
      ConfigError: a length that no prompt has, or one that is given twice.
    """
    for length in lengths:
        if not 1 <= length <= LONGEST or lengths.count(length) > 1:
            raise ConfigError(f"--length {length}: give each length once, from 1 to {LONGEST:,} tokens")
    sizes = [name for name in SIZES if name.startswith("t5_")]
    models = {name: make_model(BaseModel(size=name, checkpoint=None, vocabulary=None)) for name in sizes}
    return {
        "study": "parameters",
        "lengths": list(lengths),
        "models": [
            _of_model(name, model, lengths) for name, model in models.items() if isinstance(model, T5)
        ],
    }


def _of_model(model_name: str, model: T5, lengths: Sequence[int]) -> dict[str, Any]:
    whole = parameter_count(abstract_weights(model))
    rows = [_row(MODEL_TUNING, None, whole, whole, whole)]
    for name, kind in LEAVES.items():
        leaves, folded = jax.eval_shape(functools.partial(_leaves, kind), abstract_weights(model))
        rows.append(_row(name, None, parameter_count(leaves), parameter_count(folded), whole))
    for method_name, make in METHODS.items():
        for P in lengths:
            method = for_model(make(P), model.config.prompt_width)
            kept = P * model.config.prompt_width(getattr(method, "kind", "input"))
            rows.append(_row(method_name, P, tuned_parameters(method, model.config.emb_dim), kept, whole))
    return {"model": model_name, "width": model.config.emb_dim, "parameters": whole, "methods": rows}


def _leaves(kind: TunedLeaves, weights: Any) -> tuple[Any, Any]:
    """Fresh leaves, and what a file holds of them."""
    leaves = nn.meta.unbox(kind.init(by_path(weights), jax.random.key(0)))
    return leaves, kind.fold(leaves, training=False)


def tuned_parameters(method: Method, embed_dim: int) -> int:
    """Numbers in a method's parameters, which are not made."""
    return parameter_count(jax.eval_shape(lambda: method.init(jax.random.key(0), embed_dim, None)["params"]))


def _row(method: str, length: int | None, tuned: int, kept: int, whole: int) -> dict[str, Any]:
    return {
        "method": method,
        "length": length,
        "tuned": tuned,
        "kept": kept,
        "percent": 100 * tuned / whole,
        "kept_percent": 100 * kept / whole,
    }
