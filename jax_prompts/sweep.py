"""Members with settings of their own: what a sweep stands for, what may vary within one step, and the numbers.

A step takes members side by side, so that what they differ in must be numbers that it takes in as arrays, or lie
outside of it: in where prompts start, in how batches are drawn, in which examples there are. All else makes
another program, and another run.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jax_prompts.config import Optimizer
from jax_prompts.errors import ConfigError
from jax_prompts.runs import TrainRun

Settings = dict[str, Any]
Numbers = dict[str, Float[Array, "*E"]]
NONE: Numbers = {}

# Settings that a step takes as numbers, by `Class.field`.
NUMBERS = (
    "BaseModel.dropout_rate",
    "Training.z_loss",
    "Optimizer.learning_rate",
    "Optimizer.weight_decay",
    "Optimizer.beta1",
    "Optimizer.beta2",
    "Optimizer.epsilon",
    "Optimizer.decay_rate",
    "Optimizer.clipping_threshold",
    "Optimizer.gradient_clip_norm",
    "Optimizer.network_learning_rate",
    "Optimizer.network_weight_decay",
)
# Settings of what happens before or beside the step.
_OUTSIDE = (
    "Training.seed",
    "TrainRun.initializer",
    "Data.few_shot",
    "Data.few_shot_per_class",
    "Data.subset_seed",
)
_OWN = {"model_dir", "sweep", "variants"}  # fields of a run that its numbers do not depend on
SEED = "RANDOM_SEED"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A member with settings of its own.

    Attributes:
      settings: what sets it apart, by the names that the sweep gives.
      run: the same member as a run by itself.
    """

    settings: dict[str, Any]
    run: TrainRun


MOST_MEMBERS = 10_000  # more are not spelt out: a file of a stranger may name them


def combinations(sweep: Any, setting: str = "SWEEP") -> list[Settings]:
    """The settings of each member: every combination of a table of values, or the given ones, all of the same names.

    Raises:
      ConfigError: it is neither, is empty, makes more than `MOST_MEMBERS`, or names other settings for one member than
        for another.
    """
    if isinstance(sweep, dict):
        for name, values in sweep.items():
            if not isinstance(values, tuple | list) or not values:
                raise ConfigError(
                    f"{setting} {name!r} is {values!r}: set it to its values, such as (0.1, 0.3)"
                )
        if (count := math.prod(map(len, sweep.values()))) > MOST_MEMBERS:
            raise ConfigError(
                f"{setting} makes {count:,} combinations, over {MOST_MEMBERS:,}: give fewer values"
            )
        rows = [dict(zip(sweep, row, strict=True)) for row in itertools.product(*sweep.values())]
    elif isinstance(sweep, tuple | list) and all(isinstance(row, dict) for row in sweep):
        rows = [dict(row) for row in sweep]
    else:
        raise ConfigError(
            f"{setting} is neither values by name, {{'LEARNING_RATE': (0.1, 0.3)}}, nor settings of each member"
        )
    if not rows or not rows[0]:
        raise ConfigError(f"{setting} is empty: leave it out, or name a setting and its values")
    for number, row in enumerate(rows):
        if odd := sorted(row.keys() ^ rows[0].keys()):
            raise ConfigError(
                f"{setting} gives {', '.join(odd)} to one of members 0 and {number} and not to the other: give every "
                "member the same settings"
            )
    return rows


def differences(a: TrainRun, b: TrainRun) -> set[str]:
    """Names, `Class.field`, of the settings in which two runs differ; their addresses aside."""
    return {name for name in _differences(a, b) if name not in {f"TrainRun.{own}" for own in _OWN}}


def _differences(a: Any, b: Any) -> set[str]:
    found: set[str] = set()
    for field in dataclasses.fields(a):
        before, now = getattr(a, field.name), getattr(b, field.name)
        if before == now:
            continue
        name = f"{type(a).__name__}.{field.name}"
        nested = (
            dataclasses.is_dataclass(before) and type(before) is type(now) and field.name != "initializer"
        )
        found |= _differences(before, now) if nested else {name}
    return found


def separate(a: TrainRun, b: TrainRun) -> set[str]:
    """Names of settings by which two runs cannot be members of one."""
    found = differences(a, b)
    return {
        name
        for name in found
        if name not in (*NUMBERS, *_OUTSIDE) or _value(a, name) is None or _value(b, name) is None
    }


def check(run: TrainRun) -> None:
    """Checks that the variants of a run can share its steps.

    Raises:
      ConfigError: they cannot; the settings are named that make separate programs or have no effect.
    """
    variants = run.variants
    if not variants:
        return
    if run.tunes_model:
        raise ConfigError(
            "SWEEP is set without PROMPT or TUNED: only these can be tuned side by side, not the model"
        )
    first = variants[0]
    for number, variant in enumerate(variants):
        for before in variants[:number]:
            if not differences(before.run, variant.run):
                names = [name for name, value in variant.settings.items() if value != before.settings[name]]
                raise ConfigError(
                    f"SWEEP changes {', '.join(names)}, which this run does not use: leave it out"
                    if names
                    else f"SWEEP has {_shown(variant.settings)} twice: leave one out"
                )
        if names := sorted(separate(first.run, variant.run)):
            raise ConfigError(
                f"SWEEP changes {', '.join(names)}, of which each value makes a program of its own: leave it out, and "
                "start a run for each value"
            )
        subset = {"Data.few_shot", "Data.few_shot_per_class", "Data.subset_seed"}
        if run.data.prompt_design.demonstrations and subset & differences(first.run, variant.run):
            raise ConfigError(
                "SWEEP changes the examples that train, and with them the DEMONSTRATIONS in front of those that "
                "choose: start a run for each value"
            )
        if "Data.subset_seed" in differences(first.run, variant.run) and run.data.protocol != "dev_as_test":
            raise ConfigError(
                f"SWEEP changes SUBSET_SEED, and with it the examples that PROTOCOL {run.data.protocol} chooses by: "
                "start a run for each seed"
            )


def numbers_E(run: TrainRun) -> dict[str, Float[np.ndarray, " E"]]:
    """Values of the numbers that a run's members differ in, by `Class.field`; empty where they differ in none."""
    runs = [variant.run for variant in run.variants]
    varied = set().union(*(differences(runs[0], other) for other in runs)) if runs else set()
    return {
        name: np.array([_value(each, name) for each in runs], np.float32)
        for name in NUMBERS
        if name in varied
    }


def with_numbers(optimizer: Optimizer, numbers: Numbers) -> Optimizer:
    """Settings of an optimiser with one member's numbers, which may be traced."""
    prefix = "Optimizer."
    own: Any = {
        name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)
    }
    return dataclasses.replace(optimizer, **own)


def of_members(run: TrainRun) -> list[TrainRun]:
    """Each member as a run by itself: a sweep's, or those of as many seeds."""
    if run.variants:
        return [variant.run for variant in run.variants]
    return [
        dataclasses.replace(
            run, training=dataclasses.replace(run.training, seed=run.training.seed + member, members=1)
        )
        for member in range(run.training.members)
    ]


def distinct(values_E: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The values without those that repeat, and of each member the number of its own."""
    found: list[Any] = []
    for value in values_E:
        if value not in found:
            found.append(value)
    return found, [found.index(value) for value in values_E]


def alike(settings_E: Sequence[Settings]) -> list[list[int]]:
    """Numbers of the members that differ in their seeds alone, those of one group after another."""
    groups: dict[str, list[int]] = {}
    for member, settings in enumerate(settings_E):
        groups.setdefault(_shown(without_seed(settings)), []).append(member)
    return list(groups.values())


def without_seed(settings: Settings) -> Settings:
    """What a member's seeds do not say."""
    return {name: value for name, value in settings.items() if name not in (SEED, "Training.seed")}


def _shown(settings: Settings) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in settings.items())


def _value(run: TrainRun, name: str) -> Any:
    kind, _, field = name.partition(".")
    part = {"BaseModel": run.model, "Data": run.data, "Optimizer": run.optimizer, "Training": run.training}
    return getattr(part.get(kind, run), field)
