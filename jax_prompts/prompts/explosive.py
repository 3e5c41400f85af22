"""Explosive prompt tuning, EPT and EPT* (anonymous, "EPT: Explosive Prompt Tuning", section 3.3)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError
from jax_prompts.prompts.layers import (
    Bottleneck,
    TableInit,
    centered_uniform,
    check_activation,
    check_size,
    table,
)


class Explosive(nn.Module):
    """(p W_down) W_up of one vector, linear, without bias, norm or skip (equation 5), repeated P times.

    EPT is length 1, EPT* length 10. With a hidden size of 1 tuned parameters are 3*D; in general
    `vectors`*D + 2*D*M, plus M + D with `bias`, 2*D with `norm`, and once more the network's for each pass
    above one where passes are not `tied`. The prompt's norm grows without bound by design: float32 throughout.

    Attributes:
      length: P, the number of virtual tokens; a multiple of `vectors`.
      vectors: rows of the table; all of them are repeated, one after the other, P / `vectors` times.
      hidden: M, 1 in the paper.
      passes: how often the vectors go through the network; the "additional MLP layer" of the paper's table 4
        is 2, tied (its count, 2.3K for base, leaves room for no second network).
      tied: whether all passes share one network.
      activation, norm, skip, bias: the paper's ablations; all off in EPT.

    Raises:
      ConfigError: a size below 1, a length that `vectors` does not divide, unknown activation.
    """

    length: int = 1
    vectors: int = 1
    hidden: int = 1
    passes: int = 1
    tied: bool = True
    activation: str = "linear"
    norm: bool = False
    skip: bool = False
    bias: bool = False

    def __post_init__(self) -> None:
        check_size(self, "length", "vectors", "hidden", "passes")
        check_activation(self)
        if self.length % self.vectors:
            raise ConfigError(
                f"Explosive.length (PROMPT_LENGTH) {self.length} is no multiple of Explosive.vectors "
                f"{self.vectors}: change one of them"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        table_ND = table(self, self.vectors, embed_dim, table_init, centered_uniform)
        networks, passes = (1, self.passes) if self.tied else (self.passes, 1)
        out_ND = table_ND
        for number in range(networks):
            name = "network" if networks == 1 else f"network_{number}"
            out_ND = Bottleneck(self.hidden, self.activation, self.norm, self.bias, passes, name=name)(out_ND)
        out_ND = table_ND + out_ND if self.skip else out_ND
        return jnp.tile(out_ND, (self.length // self.vectors, 1))
