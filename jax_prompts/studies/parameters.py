"""Tuned parameters of every method over model sizes, without weights (Lester et al. 2021, figure 4 and table 4)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
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
from jax_prompts.prompts import Method, for_model, prompt_kind_of
from jax_prompts.studies.methods import LEAVES, WITH_LENGTH, tuned_by
from jax_prompts.tuned import TunedLeaves, fold_leaves, fresh_leaves
from jax_prompts.tuned.leaves import by_path

MODEL_TUNING = "model_tuning"
LONGEST = 1 << 20  # tokens; above it networks of each position have more numbers than can be counted


def parameters(lengths: Sequence[int] = (100,)) -> dict[str, Any]:
    """Tuned parameters of every method, prompts of these lengths or leaves, on every size of T5 and T5.1.1.

    `kept` is what a prompt file holds after folding, ATTEMPT's without its sources; `percent` is of the model's
    parameters.

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
    weights = abstract_weights(model)
    whole = parameter_count(weights)
    rows = [_row(MODEL_TUNING, None, whole, whole, whole)]
    for name, P in [*((name, 0) for name in LEAVES), *itertools.product(WITH_LENGTH, lengths)]:
        method, kinds = tuned_by(name, P)
        tuned, kept = jax.eval_shape(functools.partial(_leaves, kinds), weights)
        counts = parameter_count(tuned), parameter_count(kept)
        if method is not None:
            prompt = P * model.config.prompt_width(prompt_kind_of(method))
            counts = counts[0] + _in_prompt(method, model), counts[1] + prompt
        rows.append(_row(name, P or None, *counts, whole))
    return {"model": model_name, "width": model.config.emb_dim, "parameters": whole, "methods": rows}


def _leaves(kinds: Sequence[TunedLeaves], weights: Any) -> tuple[Any, Any]:
    """Fresh leaves, and what a file holds of them."""
    leaves = nn.meta.unbox(fresh_leaves(kinds, by_path(weights), jax.random.key(0)))
    return leaves, fold_leaves(kinds, leaves, training=False)


def _in_prompt(method: Method, model: T5) -> int:
    """Numbers in a method's parameters, which are not made."""
    method = for_model(method, model.config.prompt_width)
    params = jax.eval_shape(lambda: method.init(jax.random.key(0), model.config.emb_dim, None)["params"])
    return parameter_count(params)


def _row(method: str, length: int | None, tuned: int, kept: int, whole: int) -> dict[str, Any]:
    return {
        "method": method,
        "length": length,
        "tuned": tuned,
        "kept": kept,
        "percent": 100 * tuned / whole,
        "kept_percent": 100 * kept / whole,
    }
