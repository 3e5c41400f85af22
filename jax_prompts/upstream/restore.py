"""Compares a checkpoint with the model before T5X takes it.

T5X loads a legacy checkpoint whatever shapes its arrays have, and with `fallback_to_scratch`, which a prompt needs, it
draws at random whatever is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.traverse_util

from jax_prompts.errors import MOST_NAMES, RunError
from jax_prompts.upstream.parameters import is_prompt

Shape = tuple[int, ...] | None


def check_shapes(
    checkpoint_state: Mapping[str, Any], model_state: Mapping[str, Any], *, is_resuming: bool = False
) -> Mapping[str, Any]:
    """The checkpoint's state as it is: for `RestoreCheckpointConfig.state_transformation_fns`.

    Args:
      checkpoint_state: the tree, its parameters at `target`: arrays, TensorStore's specs, or, of an Orbax checkpoint,
        what has a name and no shape.
      model_state: that of the model, with shapes.
      is_resuming: whether a run goes on, whose own checkpoint has its prompt, too.

    Raises:
      RunError: parameters that the checkpoint lacks, prompts apart, or has in another shape, by name.
    """
    found, wanted = _shapes(checkpoint_state), _shapes(model_state)
    wrong = []
    for name, shape in wanted.items():
        if name not in found:
            if is_resuming or not is_prompt(name):
                wrong.append(f"{name} {shape} is missing")
        elif found[name] not in (None, shape):
            wrong.append(f"{name} is {found[name]}, and the model's {shape}")
    if wrong:
        more = [f"{len(wrong) - MOST_NAMES} more"] if len(wrong) > MOST_NAMES else []
        raise RunError(
            f"the checkpoint is of another model ({'; '.join(wrong[:MOST_NAMES] + more)}): name the model's own "
            "checkpoint, or add the checkpoint's model as gin file"
        )
    return checkpoint_state


def _shapes(state: Mapping[str, Any]) -> dict[str, Shape]:
    leaves = flax.traverse_util.flatten_dict(state["target"], sep="/", is_leaf=_is_spec)
    return {name: _shape(leaf) for name, leaf in leaves.items()}


def _is_spec(_: tuple[str, ...], node: Any) -> bool:
    return isinstance(node, Mapping) and "driver" in node


def _shape(leaf: Any) -> Shape:
    shape = leaf["metadata"].get("shape") if isinstance(leaf, Mapping) else getattr(leaf, "shape", None)
    return None if shape is None else tuple(shape)
