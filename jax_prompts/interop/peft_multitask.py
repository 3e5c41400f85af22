"""PEFT's MULTITASK_PROMPT_TUNING: a shared prompt, and factors of each task by which it is multiplied.

PEFT asks for the task of every row of a batch (`task_ids`); the product for one task is an ordinary prompt. On
encoder-decoder models it keeps 2P rows unless told otherwise (`num_transformer_submodules`): the first P stand in front
of the encoder's inputs, the others in front of the decoder's while it trains, and `generate` leaves them out. P are
written here, with which PEFT's forward pass wants `labels` and overlooks `decoder_input_ids`.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import ArraySource
from jax_prompts.interop.imported import as_finite
from jax_prompts.prompts import MPT

TYPE = "MULTITASK_PROMPT_TUNING"
DECODER_ROWS = (
    "which PEFT puts in front of the decoder's inputs while it trains, and leaves out where it generates"
)
_SHOWN = 10  # tasks in a message
_COLS, _ROWS = "prefix_task_cols", "prefix_task_rows"


def fold_task(
    folder: pathlib.Path, shared_QD: Float[np.ndarray, "Q D"], arrays: ArraySource, task: int | None
) -> Float[np.ndarray, "Q D"]:
    """The prompt of one task; takes the factors out of `arrays`.

    Args:
      folder: what to call the adapter.
      shared_QD: the shared prompt, of all stacks.
      arrays: the adapter's other tensors.
      task: which, from 0; None: the only one.

    Raises:
      ConfigError: several tasks and none chosen, or one that there is not.
      RunError: factors that are missing, not finite, or do not belong to the shared prompt.
    """
    if missing := [name for name in (_COLS, _ROWS) if name not in arrays]:
        raise RunError(f"{folder} holds no tensor {' nor '.join(missing)}: use the whole adapter")
    cols, rows = (as_finite(folder, arrays.pop(name)[...]) for name in (_COLS, _ROWS))
    tasks, rank = (cols.shape[0], cols.shape[-1]) if cols.ndim == 3 else (0, 0)
    if not tasks or not rank or cols.shape != (tasks, len(shared_QD), rank) or rows.shape != (
        tasks, rank, shared_QD.shape[1],
    ):  # fmt: skip
        raise RunError(
            f"{folder} holds {_COLS} {list(cols.shape)} and {_ROWS} {list(rows.shape)}, which do not belong to a "
            f"shared prompt {list(shared_QD.shape)}: use an adapter whose tensors belong together"
        )
    known = f"{folder} has prompts of tasks {', '.join(map(str, range(min(tasks, _SHOWN))))}"
    known += f" ... {tasks - 1}" if tasks > _SHOWN else ""
    if task is None and tasks > 1:
        raise ConfigError(f"{known}: choose one with --task=NUMBER")
    task = task or 0
    if not 0 <= task < tasks:
        raise ConfigError(f"{known}, and none for --task={task}")
    return shared_QD * (cols[task] @ rows[task])


def settings(method: MPT) -> dict[str, Any]:
    """PEFT's settings of an adapter with one task."""
    return {
        "peft_type": TYPE,
        "num_ranks": method.rank,
        "num_tasks": 1,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_state_dict_path": None,
        "prompt_tuning_init_task": 0,
        "prompt_tuning_init_text": None,
        "tokenizer_kwargs": None,
        "tokenizer_name_or_path": None,
    }


def tensors(params: Any) -> dict[str, np.ndarray]:
    """A method's parameters under PEFT's names, of one task."""
    named = {"prompt_embeddings": params["prompt"], _COLS: params["u"][None], _ROWS: params["v"][None]}
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in named.items()}
