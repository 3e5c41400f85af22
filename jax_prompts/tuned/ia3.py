"""IA3: scales of keys, values and hidden units (Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning")."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
from jaxtyping import Array

from jax_prompts.tuned.leaves import Boxed, Leaves, Weights, drawn, projections
from jax_prompts.tuned.sizes import no_place


@dataclasses.dataclass(frozen=True)
class IA3:
    """l_k * k, l_v * v in every attention, l_ff * hidden units of every MLP (section 3.3), from 1.

    Tuned parameters: 2*H*K for each attention and F for each MLP: on T5-base 12 * 4,608 + 12 * 6,144 = 129,024. It
    folds into weights, `t5x export --to=model`.

    Raises:
      ConfigError: a model without attention.
    """

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """Scales of a model with these weights."""
        leaves: dict[str, Boxed] = {}
        for path, box in projections(weights).items():
            side = {"key": 1, "value": 1, "wo": 0}.get(path.rpartition("/")[2])
            if side is not None:
                name = f"{path}/{'scale' if side else 'input_scale'}"
                shape, axes = (box.value.shape[side],), (box.names[side],)
                leaves[name] = drawn(nn.initializers.ones, key, name, shape, axes)
        if not leaves:
            raise no_place(self, "keys and values")
        return leaves

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: the leaves as they are."""
        return leaves
