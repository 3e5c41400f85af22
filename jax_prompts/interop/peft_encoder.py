"""P-Tuning unfolded: PEFT's P_TUNING adapter, and the parameters of its prompt encoder under PEFT's names.

PEFT itself keeps only what the encoder gives. Its parameters are in the checkpoints of the run that tuned them;
`model.prompt_encoder["default"].load_state_dict` of a model made for training takes them on from there.
"""

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
from jax_prompts.prompts import Method, PromptMetadata, PTuningLSTM, PTuningMLP, init_members

FILE = "prompt_encoder.safetensors"
_GATES = {"input": "ih", "recurrent": "hh"}
_DIRECTIONS = {"forward": "", "backward": "_reverse"}


def p_tuning_method(metadata: PromptMetadata) -> PTuningMLP | PTuningLSTM:
    """The method that a prompt was folded from.

    Raises:
      ConfigError: it is none that PEFT calls P-Tuning.
      RunError: its settings are none of that method.
    """
    methods = {made.__name__: made for made in (PTuningMLP, PTuningLSTM)}
    if metadata.method not in methods:
        raise ConfigError(
            f"--unfolded is for prompts of {' and '.join(methods)}, and this one is of "
            f"{metadata.method or 'an unknown method'}: leave it out"
        )
    try:
        return methods[metadata.method](**metadata.settings)
    except (TypeError, ConfigError) as error:
        raise RunError(f"the prompt's settings are none of {metadata.method} ({error})") from error


def p_tuning(method: PTuningMLP | PTuningLSTM, width: int) -> dict[str, Any]:
    """PEFT's settings of a method's encoder."""
    recurrent = isinstance(method, PTuningLSTM)
    return {
        "peft_type": "P_TUNING",
        "encoder_dropout": 0.0,
        "encoder_hidden_size": method.hidden or width,
        # Of the MLP it is not read; 2 is what PEFT writes.
        "encoder_num_layers": method.layers if isinstance(method, PTuningLSTM) else 2,
        "encoder_reparameterization_type": "LSTM" if recurrent else "MLP",
    }


def tuned_encoder(
    prompt_file: pathlib.Path,
    prompt_PD: Float[np.ndarray, "P D"],
    method: Method,
    step: int | None,
) -> dict[str, np.ndarray] | None:
    """The encoder's parameters that give `prompt_PD`, under PEFT's names; None where the run has not kept them.

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
                return torch_names(params)
    raise RunError(
        f"{directory / str(step)} has no member that gives {prompt_file}: put the file of its run there"
    )


def torch_names(params: Any) -> dict[str, np.ndarray]:
    """A method's parameters as PEFT's PromptEncoder names and lays them out: weights [out, in]."""
    named = {"embedding.weight": params["prompt"]}
    for number, layer in enumerate(params["network"].values()):
        named[f"mlp_head.{2 * number}.weight"] = layer["kernel"].T  # odd numbers are the ReLUs
        named[f"mlp_head.{2 * number}.bias"] = layer["bias"]
    for name, array in params.get("lstm", {}).items():
        direction, layer, gates, kind = name.split("_")
        suffix = f"{_GATES[gates]}_l{layer}{_DIRECTIONS[direction]}"
        named[f"lstm_head.{'weight' if kind == 'kernel' else 'bias'}_{suffix}"] = array.T
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in named.items()}


def _shapes(params_E: Any) -> Any:
    """Without the members' axis."""
    return jax.tree.map(lambda x: x.shape[1:], params_E)


def _close(a_PD: np.ndarray, b_PD: np.ndarray) -> bool:
    """Equal but for the order in which another machine has summed."""
    return bool(np.abs(a_PD - b_PD).max() <= 1e-4 * np.abs(b_PD).max())
