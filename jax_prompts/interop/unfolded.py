"""A method's parameters as its run's checkpoint has them, for adapters that hold more than the folded prompt."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from jaxtyping import Float

from jax_prompts.checkpoint import Checkpoints
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.prompts import METHODS, MPT, Method, PromptMetadata, PTuningLSTM, PTuningMLP, init_members


def unfolded_method(metadata: PromptMetadata) -> PTuningMLP | PTuningLSTM | MPT:
    """The method that a prompt was folded from.

    Raises:
      ConfigError: it is none that PEFT has, too.
      RunError: its settings are none of that method.
    """
    methods = [made.__name__ for made in (PTuningMLP, PTuningLSTM, MPT)]
    if metadata.method not in methods:
        *first, last = methods
        raise ConfigError(
            f"--unfolded is for prompts of {', '.join(first)} and {last}, and this one is of "
            f"{metadata.method or 'an unknown method'}: leave it out"
        )
    return method_of(metadata)


def method_of(metadata: PromptMetadata) -> Any:
    """The method that a prompt was folded from, with its settings.

    Raises:
      ConfigError: a method that is unknown here.
      RunError: its settings are none of that method.
    """
    methods = {made.__name__: made for made in METHODS}
    if metadata.method not in methods:
        raise ConfigError(
            f"the prompt was folded from {metadata.method or 'an unknown method'}, none of {', '.join(methods)}"
        )
    try:
        return methods[metadata.method](**metadata.settings)
    except (TypeError, ConfigError) as error:
        raise RunError(f"the prompt's settings are none of {metadata.method} ({error})") from error


def tuned_parameters(
    prompt_file: pathlib.Path,
    prompt_PD: Float[np.ndarray, "P D"],
    method: Method,
    step: int | None,
) -> Any:
    """The parameters that give `prompt_PD`; None where the run has not kept them.

    They are looked for in `checkpoints/` beside the prompt file, at the step of the prompt, in every member.

    Raises:
      RunError: a damaged checkpoint, or one with another prompt.
    """
    directory = prompt_file.parent / "checkpoints"
    if step is None or not (directory / str(step)).is_dir():
        return None
    with contextlib.closing(Checkpoints(directory, keep=1)) as checkpoints:
        tuned = checkpoints.read_tuned(step)
    tuned = {name: x for name, x in tuned.items() if name.startswith("prompt/")}
    params_E = flax.traverse_util.unflatten_dict(tuned, sep="/").get("prompt")
    width = prompt_PD.shape[1]
    key_E = jax.random.split(jax.random.key(0), 1)
    expected_E = jax.eval_shape(lambda key_E: init_members(method, key_E, width), key_E)
    if _shapes(params_E) == _shapes(expected_E):
        for member in range(len(params_E["prompt"])):
            params = jax.tree.map(lambda x, member=member: x[member], params_E)
            folded_PD = np.asarray(method.apply({"params": params}, width))
            if folded_PD.shape == prompt_PD.shape and _close(folded_PD, prompt_PD):
                return params
    raise RunError(
        f"{directory / str(step)} has no member that gives {prompt_file}: put the file of its run there"
    )


def _shapes(params_E: Any) -> Any:
    """Without the members' axis."""
    return jax.tree.map(lambda x: x.shape[1:], params_E)


def _close(a_PD: np.ndarray, b_PD: np.ndarray) -> bool:
    """Equal but for the order in which another machine has summed."""
    return bool(np.abs(a_PD - b_PD).max() <= 1e-4 * np.abs(b_PD).max())
