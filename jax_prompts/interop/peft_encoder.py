"""P-Tuning unfolded: PEFT's P_TUNING adapter, and the parameters of its prompt encoder under PEFT's names.

PEFT itself keeps only what the encoder gives. Its parameters are in the checkpoints of the run that tuned them;
`model.prompt_encoder["default"].load_state_dict` of a model made for training takes them on from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jax_prompts.prompts import PTuningLSTM, PTuningMLP

FILE = "prompt_encoder.safetensors"
_GATES = {"input": "ih", "recurrent": "hh"}
_DIRECTIONS = {"forward": "", "backward": "_reverse"}


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
