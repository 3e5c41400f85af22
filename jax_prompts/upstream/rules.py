"""How T5X splits and factors the parameters of prompts, and which parameters it tunes."""

from __future__ import annotations

from typing import Any

from flax.core import FrozenDict, freeze

from jax_prompts.upstream.needs import needs_t5x
from jax_prompts.upstream.parameters import AXES, is_prompt

with needs_t5x():
    from t5x import adafactor


def axis_rules() -> tuple[tuple[str, None], ...]:
    """Every device has all of a prompt's parameters: `standard_logical_axis_rules.additional_rules`."""
    return tuple((axis, None) for axis in AXES)


def factor_rules() -> FrozenDict[str, Any]:
    """T5X's own rules, and none for prompts: `Adafactor.logical_factor_rules`.

    T5X goes by them for parameters of three axes or more; those of two are factored by their sizes.
    """
    return freeze(
        {**adafactor.standard_logical_factor_rules(), **dict.fromkeys(AXES, adafactor.FactorDim.NONE)}
    )


def is_tuned(path: str, _: Any) -> bool:
    """Whether a parameter is a prompt's, by its path: `ModelParamTraversal.filter_fn`."""
    return is_prompt(path)
