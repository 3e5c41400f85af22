"""Prompt tuning: the prompt is a table of free vectors (Lester, Al-Rfou & Constant 2021, section 2)."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from jax_prompts.prompts.layers import TableInit, centered_uniform, check_size, table


class PromptTuning(nn.Module):
    """A table `[P, D]`, used as it is. Tuned parameters: P*D.

    Parameters carry logical axis names ("prompt", "embed"); `flax.linen.meta.unbox` takes them off.

    Attributes:
      length: P, the number of virtual tokens.

    Raises:
      ConfigError: length below 1.
    """

    length: int

    def __post_init__(self) -> None:
        check_size(self, "length")
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        return table(self, self.length, embed_dim, table_init, centered_uniform)
