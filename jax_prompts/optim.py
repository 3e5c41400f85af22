"""Optimisers and learning rate schedules, all from optax.

Everything acts on each parameter by itself, except the gradient norm, which is that of the whole tree.
Training vmaps `init` and `update` over the members axis, so each member has its own second moments, its own
update RMS and its own gradient norm, as in a run of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jax_prompts.config import Optimizer
from jax_prompts.errors import ConfigError, nearest

_SHARED = {
    "name",
    "learning_rate",
    "schedule",
    "warmup_steps",
    "warmup_fraction",
    "weight_decay",
    "gradient_clip_norm",
    "network_learning_rate",
    "network_weight_decay",
}
_ADAFACTOR = {
    "decay_rate",
    "step_offset",
    "restore_state",
    "factored",
    "min_dim_size_to_factor",
    "multiply_by_parameter_scale",
    "clipping_threshold",
}
_ADAMW = {"beta1", "beta2", "epsilon"}
_KNOWN = {"adafactor": _SHARED | _ADAFACTOR, "adamw": _SHARED | _ADAMW}
# Of what is no table: in the place of which setting each stands.
_IN_ITS_PLACE = {"network_learning_rate": "LEARNING_RATE", "network_weight_decay": "Optimizer.weight_decay"}
_SCHEDULES = ("constant", "linear", "rsqrt")
# Of the size of a table's numbers, which is 10 or more in T5, at a rate of 0.3.
_FAST = 3.0  # a rate above it
_SLOW = 0.1  # all steps below it
_GOOD = 0.03  # the rate to try


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """The gradient transformation of a run of `steps` steps; `update` needs the parameters.

    Adafactor (Shazeer & Stern 2018, arXiv:1804.04235) is T5X's: v = b v + (1 - b)(g^2 + 1e-30) with
    b = 1 - (t + 1)^-decay_rate, y = g / sqrt(v) scaled down to an RMS of at most `clipping_threshold`,
    p = (1 - weight_decay) p - rate * y; the decay is not multiplied by the rate. t counts from `step_offset`
    while v starts at zero: from 1,100,000 on, 1 - b is 1.5e-5, so v adds up like Adagrad's, the update stays
    at the clipping threshold for tens of thousands of steps and the prompt keeps moving by `learning_rate`
    a step, whereas the optimiser that starts at 0 slows down when gradients shrink.

    AdamW is Loshchilov & Hutter's (2019, arXiv:1711.05101), with the decay multiplied by the rate.

    A method's table and its other parameters may have rates and decays of their own; the gradient norm is
    clipped over both.

    Raises:
      ConfigError: a setting out of range, or one that the optimiser does not know moved from its default.
    """
    check(config, steps)
    return transformation_of(config, steps)


def transformation_of(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """What `make_optimizer` makes, of settings that are checked; their numbers may be traced."""
    transformation = _unclipped(config, steps)
    if config.network_learning_rate is not None or config.network_weight_decay is not None:
        network = dataclasses.replace(
            config,
            learning_rate=_first(config.network_learning_rate, config.learning_rate),
            weight_decay=_first(config.network_weight_decay, config.weight_decay),
        )
        parts = {"table": transformation, "network": _unclipped(network, steps)}
        transformation = optax.partition(parts, _part)
    if config.gradient_clip_norm is None:
        return transformation
    return optax.chain(optax.clip_by_global_norm(config.gradient_clip_norm), transformation)


def _first(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _part(tuned: Any) -> Any:
    """`table` for the parameter `prompt` of a method, `network` for its others."""
    return jax.tree.map_with_path(
        lambda path, _: "table" if jax.tree_util.keystr(path[-1:], simple=True) == "prompt" else "network",
        tuned,
    )


def _unclipped(config: Optimizer, steps: int) -> optax.GradientTransformation:
    rate = _schedule(config, steps)
    if config.name == "adafactor":
        return optax.adafactor(
            rate,
            min_dim_size_to_factor=config.min_dim_size_to_factor,
            decay_rate=config.decay_rate,
            decay_offset=-config.step_offset,  # optax subtracts it from a count that starts at 0
            multiply_by_parameter_scale=config.multiply_by_parameter_scale,
            clipping_threshold=config.clipping_threshold,
            weight_decay_rate=config.weight_decay,
            factored=config.factored,
        )
    return optax.adamw(rate, config.beta1, config.beta2, config.epsilon, weight_decay=config.weight_decay)


def unused_warning(config: Optimizer, tuned: Any) -> str | None:
    """What to say where a rate or decay has nothing to act on; None where all have.

    Args:
      config: of the optimiser.
      tuned: all that is tuned.
    """
    own = [name for name in _IN_ITS_PLACE if getattr(config, name) is not None]
    parts = set(jax.tree.leaves(_part(tuned)))
    if own and parts == {"table"}:
        names = " and ".join(f"Optimizer.{name}" for name in own)
        return f"{names} does nothing: all that is tuned is a prompt's table"
    if own and parts == {"network"}:
        names = " and ".join(_IN_ITS_PLACE[name] for name in own)
        return f"{names} does nothing: nothing that is tuned is a prompt's table"
    return None


def rate_warning(config: Optimizer, steps: int, tuned: Any) -> str | None:
    """What to say of a rate that hardly suits the numbers it starts from; None of one that may.

    A step of AdamW moves a number by about the rate, and so does one of an Adafactor that does not scale: a table
    whose numbers are much smaller loses its start at once, one whose numbers are much larger stays where it is.

    Args:
      config: of the optimiser.
      steps: of the run.
      tuned: parameters of one member's method, as they start.
    """
    table = tuned.get("prompt")
    if table is None or config.multiply_by_parameter_scale:
        return None
    size = float(jnp.sqrt(jnp.mean(jnp.square(table))))
    rate = float(_schedule(config, steps)(_warmup(config, steps)))  # the peak
    about = (
        f"LEARNING_RATE is {config.learning_rate:g}, and the prompt starts with numbers of about {size:.2g}"
    )
    good = _GOOD * size * config.learning_rate / rate
    if rate > _FAST * size:
        return f"{about}, which the first steps replace by others: try {good:.1g}"
    if rate * steps < _SLOW * size and len(tuned) == 1:  # a network beside it would move the prompt, too
        return f"{about}, which {steps} steps cannot change by a tenth: try {good:.1g}"
    return None


def learning_rate_schedule(config: Optimizer, steps: int) -> optax.Schedule:
    """The rate of each update; the first has count 0, the last `steps` - 1. W is `warmup_steps`, or
    `warmup_fraction` of all steps.

    All rise linearly from 0 during the first W updates. Then `constant` stays at the peak; `linear` falls in
    a line that meets 0 at count `steps`; `rsqrt` is learning_rate / sqrt(max(count, W, 1)), so its peak is
    learning_rate / sqrt(W) (T5X's `constant * linear_warmup * rsqrt_decay`). Counts are this run's own: they
    do not start at `step_offset`.

    Raises:
      ConfigError: as `make_optimizer`.
    """
    check(config, steps)
    return _schedule(config, steps)


def _schedule(config: Optimizer, steps: int) -> optax.Schedule:
    base, warmup = config.learning_rate, _warmup(config, steps)
    peak, after = {  # `after` is called with the updates since the warm-up
        "constant": (base, optax.constant_schedule(base)),
        "linear": (base, optax.linear_schedule(base, 0.0, steps - warmup)),
        "rsqrt": (
            base / math.sqrt(max(warmup, 1)),
            lambda count: base / jnp.sqrt(jnp.maximum(count + warmup, 1.0)),
        ),
    }[config.schedule]
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def depends_on_steps(config: Optimizer) -> str | None:
    """The setting by which rates depend on how many steps a run has; None where a run may be made longer."""
    if config.schedule == "linear":
        return "Optimizer.schedule = 'linear'"
    if config.warmup_fraction:
        return f"Optimizer.warmup_fraction = {config.warmup_fraction}"
    return None


def check(config: Optimizer, steps: int) -> None:
    """Raises ConfigError for a setting out of range, or one that the optimiser does not know."""
    if config.name not in tuple(_KNOWN):
        names = nearest(str(config.name), _KNOWN)
        raise ConfigError(f"Optimizer.name = {config.name!r} is unknown; use {names}")
    if config.schedule not in _SCHEDULES:
        names = nearest(str(config.schedule), _SCHEDULES)
        raise ConfigError(f"Optimizer.schedule = {config.schedule!r} is unknown; use {names}")
    for field in dataclasses.fields(Optimizer):
        value = getattr(config, field.name)
        if field.name not in _KNOWN[config.name] and value != field.default:
            raise ConfigError(
                f"Optimizer.{field.name} = {value!r} means nothing to {config.name}; leave it out"
            )
        if field.name in _RANGES:
            fits, wanted = _RANGES[field.name]
            if not fits(value):
                raise ConfigError(f"Optimizer.{field.name} = {value!r} must be {wanted}")
    if not _whole(steps, 1):
        raise ConfigError(f"Training.steps = {steps!r} must be a whole number from 1")
    if config.warmup_steps and config.warmup_fraction:
        raise ConfigError(
            f"Optimizer.warmup_steps = {config.warmup_steps} and warmup_fraction = {config.warmup_fraction} "
            "exclude each other; leave one out"
        )
    if config.warmup_steps >= steps:
        raise ConfigError(
            f"Optimizer.warmup_steps is {config.warmup_steps} in a run of {steps} steps: lower it (0: no warm-up), "
            "or raise TRAIN_STEPS"
        )


def _warmup(config: Optimizer, steps: int) -> int:
    return config.warmup_steps or round(config.warmup_fraction * steps)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "learning_rate": (_positive, "a number above 0"),
    "warmup_steps": (lambda value: _whole(value, 0), "a whole number from 0"),
    "warmup_fraction": (lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "weight_decay": (lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "beta1": (lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "beta2": (lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "epsilon": (_positive, "a number above 0"),
    "decay_rate": (_positive, "a number above 0"),
    "step_offset": (lambda value: _whole(value, 0), "a whole number from 0"),
    "min_dim_size_to_factor": (lambda value: _whole(value, 1), "a whole number from 1"),
    "clipping_threshold": (lambda value: value is None or _positive(value), "a number above 0, or None"),
    "gradient_clip_norm": (lambda value: value is None or _positive(value), "a number above 0, or None"),
    "network_learning_rate": (lambda value: value is None or _positive(value), "a number above 0, or None"),
    "network_weight_decay": (
        lambda value: value is None or (_number(value) and 0 <= value < 1),
        "a number from 0 to below 1, or None",
    ),
}
