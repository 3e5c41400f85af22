"""Adapters: a bottleneck behind sublayers of the frozen model (Houlsby et al. 2019; Rücklé et al. 2021)."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jax_prompts.errors import ConfigError, nearest
from jax_prompts.models.tuned_leaves import ACTIVATIONS
from jax_prompts.tuned.leaves import Boxed, Leaves, Weights, layer_of, network
from jax_prompts.tuned.sizes import check_at_least_1, check_number, no_place

_BEHIND = ("attention/out/kernel", "self_attention/out/kernel", "mlp/wo/kernel")
_CROSS = "encoder_decoder_attention/out/kernel"


@dataclasses.dataclass(frozen=True)
class Adapter:
    """y + f(y W_down + b_down) W_up + b_up of the output y of self-attention and of the MLP, in both stacks.

    As the code of Compacter and ATTEMPT has it, with which the papers compare: before dropout and the residual
    connection, weights from N(0, 0.01), every norm of T5 tuned, too. Tuned parameters: 2*D*M + M + D for each adapter,
    and D for each norm: on T5-base 48 * 37,656 + 62 * 768 = 1,855,104; without those of the first 5 layers of each
    stack (AdapterDrop) 28 * 37,656 + 62 * 768 = 1,101,984.

    Attributes:
      bottleneck: M.
      activation: f; tanh-approximated gelu in that code.
      first_layer: the layers before it, of each stack, have no adapter: AdapterDrop.
      cross_attention: whether one stands behind the decoder's cross-attention, too, as in the adapters library.
      norms: whether scales of norms are tuned from where they are.
      scale: standard deviation of the weights' start.

    Raises:
      ConfigError: a bottleneck below 1, an unknown activation, a first layer that the model has not, or a model that
        has no place for adapters.
    """

    bottleneck: int = 24
    activation: str = "gelu"
    first_layer: int = 0
    cross_attention: bool = False
    norms: bool = True
    scale: float = 0.01

    def __post_init__(self) -> None:
        check_at_least_1("Adapter.bottleneck", self.bottleneck)
        check_number("Adapter.scale", self.scale)
        if self.activation not in tuple(ACTIVATIONS):
            names = nearest(str(self.activation), ACTIVATIONS)
            raise ConfigError(f"Adapter.activation is {self.activation!r}: set it to {names}")

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """Fresh adapters of a T5 with these weights, and its norms."""
        ends = (*_BEHIND, _CROSS) if self.cross_attention else _BEHIND
        behind = {
            path: box for path, box in weights.items() if path.endswith(tuple(f"/{end}" for end in ends))
        }
        if not behind:
            raise no_place(self, "sublayers of a T5")
        layers = 1 + max(layer_of(path) or 0 for path in behind)
        if not 0 <= self.first_layer < layers:
            raise ConfigError(
                f"Adapter.first_layer is {self.first_layer} and the model has layers 0 to {layers - 1}: set it to "
                "one of these"
            )
        normal, leaves = nn.initializers.normal(self.scale), dict[str, Boxed]()
        for path, box in behind.items():
            if (layer_of(path) or 0) >= self.first_layer:
                place, D = f"{path.rsplit('/', 2)[0]}/adapter", box.value.shape[1]
                leaves |= network(place, key, D, self.bottleneck, down=normal, up=normal)
        if self.norms:
            leaves |= {
                path: Boxed(box.value.astype(jnp.float32), box.names)
                for path, box in weights.items()
                if path.endswith("norm/scale")
            }
        return leaves

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: the leaves as they are."""
        return leaves
