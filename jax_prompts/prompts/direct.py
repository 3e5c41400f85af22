"""Prompt tuning: the prompt is a table of free vectors (Lester, Al-Rfou & Constant 2021, section 2)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.config import ConfigError


def centered_uniform(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Float[Array, "P D"]:
    """U[-0.5, 0.5), the random start of the paper."""
    return jax.random.uniform(key, shape, dtype, -0.5, 0.5)


def check_size(module: nn.Module, *fields: str) -> None:
    """Raises ConfigError unless each of the module's `fields` is a whole number of at least 1."""
    for field in fields:
        value = getattr(module, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            setting = f"{type(module).__name__}.{field}" + (" (PROMPT_LENGTH)" if field == "length" else "")
            raise ConfigError(f"{setting} is {value!r}: set it to a whole number of at least 1")


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
    def __call__(
        self, embed_dim: int, table_init: nn.initializers.Initializer = centered_uniform
    ) -> Float[Array, "P D"]:
        init = nn.with_logical_partitioning(table_init, ("prompt", "embed"))
        return self.param("prompt", init, (self.length, embed_dim), jnp.float32)
