"""Adafactor goes on where a T5X checkpoint's left off: its second moments, and the step that their decay depends on.

T5X and optax factor matrices alike, by their two longest sides, so that slots are taken over as they are.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_prompts.base_models import t5x
from jax_prompts.base_models.finite import check_finite
from jax_prompts.base_models.open import locate
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import ArraySource

Tree = Any
_WITHOUT_MOMENTUM = (1,)  # shape of a slot that is not used


def with_slots(opt_state: Tree, checkpoint: str) -> Tree:
    """The state of an optimiser of a whole model, [1, ...], with the second moments and step of a T5X checkpoint.

    Args:
      opt_state: fresh, of Adafactor; gives shapes and shardings.
      checkpoint: path of the base model.

    Raises:
      ConfigError: it has no optimiser.
      RunError: its optimiser is of another model, factors otherwise, or has momentum.
    """
    opened = t5x.open_slots(locate(checkpoint))
    if opened is None:
        raise ConfigError(
            f"{checkpoint} holds no optimiser to go on with: set Optimizer.restore_state = False, or "
            "INITIAL_CHECKPOINT_PATH to a T5X checkpoint"
        )
    step, slots = opened

    def restored(state: Any) -> Any:
        if not isinstance(state, optax.FactoredState):
            return state
        parts = {
            name: _placed(checkpoint, slots, name, getattr(state, name)) for name in ("v_row", "v_col", "v")
        }
        return optax.FactoredState(count=jnp.full_like(state.count, step), **parts)

    for name, slot in slots.items():
        if name.endswith("/m") and slot.shape != _WITHOUT_MOMENTUM:
            raise RunError(f"{checkpoint} was trained with momentum ({name}), which Adafactor has not here")
    return jax.tree.map(restored, opt_state, is_leaf=lambda state: isinstance(state, optax.FactoredState))


def _placed(checkpoint: str, slots: ArraySource, slot: str, fresh: Tree) -> Tree:
    """One kind of second moments of all parameters, where the fresh ones lie."""

    def place(path: Any, zeros: jax.Array) -> jax.Array:
        parameter = jax.tree_util.keystr(path[1:], simple=True, separator="/")  # without "model"
        name = f"{parameter}/{slot}"
        if name not in slots:
            raise RunError(f"{checkpoint} has no {name} among its optimiser's arrays: it is of another model")
        if slots[name].shape != zeros.shape[1:]:
            raise RunError(
                f"{checkpoint} has {name} {slots[name].shape}, and Adafactor here {zeros.shape[1:]}: leave out "
                "Optimizer.restore_state, or set Optimizer.factored and min_dim_size_to_factor as it was trained"
            )
        numbers = np.asarray(slots[name][...])
        check_finite(checkpoint, name, numbers, np.dtype(np.float32))
        return jax.device_put(numbers[None].astype(np.float32), zeros.sharding)

    return jax.tree.map_with_path(place, fresh)
