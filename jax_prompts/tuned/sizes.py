"""Checks of settings that every kind of tuned leaf has."""

from __future__ import annotations

import math
from typing import Any

from jax_prompts.errors import ConfigError
from jax_prompts.tuned.leaves import Weights, input_width

PROMPTS_OF_T5 = "prompts of a T5's encoder"  # what makes a row's prompt stands beside


def check_at_least_1(setting: str, value: Any) -> None:
    """Raises ConfigError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{setting} is {value!r}: set it to a whole number of at least 1")


def check_number(setting: str, value: Any, *, above_0: bool = False) -> None:
    """Raises ConfigError unless `value` is a finite number of at least 0, or above it."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (above_0 and value == 0):
        raise ConfigError(
            f"{setting} is {value!r}: set it to a number {'above 0' if above_0 else 'of at least 0'}"
        )


def check_rate(setting: str, rate: Any) -> None:
    """Raises ConfigError unless a rate of dropout is at least 0 and below 1."""
    if not 0 <= rate < 1:
        raise ConfigError(f"{setting} is {rate}: set it to at least 0 and below 1")


def encoder_width(leaves: Any, weights: Weights, beside: str) -> int:
    """D of a T5 with these weights, for leaves `beside` something of its encoder's input.

    Raises:
      ConfigError: a model that is no T5.
    """
    if (width := input_width(weights)) is None:
        raise no_place(leaves, beside)
    return width


def no_place(leaves: Any, wanted: str) -> ConfigError:
    """What to raise of leaves that a model has no place for."""
    name = type(leaves).__name__
    return ConfigError(
        f"{name} is tuned beside {wanted}, and this model has none: choose another TUNED, or a T5"
    )
