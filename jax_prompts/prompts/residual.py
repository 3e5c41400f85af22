"""Residual prompt tuning: a table plus a small network of it (Razdaibiedina et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.config import ConfigError, nearest
from jax_prompts.prompts.direct import centered_uniform, check_size

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "linear": lambda x: x,
}


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases: where the paper's network starts."""

    def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def dense(features: int, fan_in: int, axes: tuple[str, str], bias: bool, name: str) -> nn.Dense:
    """x W + b in full float32 on every accelerator: the cost is nothing beside the frozen model's."""
    init = fan_in_uniform(fan_in)
    return nn.Dense(
        features,
        use_bias=bias,
        kernel_init=nn.with_logical_partitioning(init, axes),
        bias_init=nn.with_logical_partitioning(init, axes[1:]),
        precision=jax.lax.Precision.HIGHEST,
        name=name,
    )


class Residual(nn.Module):
    """p + LayerNorm(relu(p W_down + b_down) W_up + b_up), one network for all P rows.

    Tuned parameters: P*D + 2*D*M, and M + D with `bias`, and 2*D with `norm`. Logical axes are
    ("prompt", "embed") for the table, "embed" and "mlp" for the network; `flax.linen.meta.unbox` takes
    them off.

    Attributes:
      length: P, the number of virtual tokens.
      hidden: M, the bottleneck; 400 in the paper's main tables, 250 in its comparison with adapters.
      activation: a name in `ACTIVATIONS`.
      norm: LayerNorm (biased variance, epsilon 1e-5) after the network.
      skip: add p; without it this is the paper's "prompt tuning with MLP" baseline.
      bias: biases b_down and b_up; the paper counts its comparison table without them.

    Raises:
      ConfigError: length or hidden below 1, unknown activation.
    """

    length: int
    hidden: int = 400
    activation: str = "relu"
    norm: bool = True
    skip: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        check_size(self, "length", "hidden")
        if self.activation not in ACTIVATIONS:
            names = nearest(self.activation, ACTIVATIONS)
            raise ConfigError(f"Residual.activation is {self.activation!r}: set it to {names}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, embed_dim: int, table_init: nn.initializers.Initializer = centered_uniform
    ) -> Float[Array, "P D"]:
        init = nn.with_logical_partitioning(table_init, ("prompt", "embed"))
        table_PD = self.param("prompt", init, (self.length, embed_dim), jnp.float32)

        h_PM = dense(self.hidden, embed_dim, ("embed", "mlp"), self.bias, "down")(table_PD)
        h_PM = ACTIVATIONS[self.activation](h_PM)
        out_PD = dense(embed_dim, self.hidden, ("mlp", "embed"), self.bias, "up")(h_PM)
        if self.norm:
            ones = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
            out_PD = nn.LayerNorm(
                epsilon=1e-5, use_fast_variance=False, scale_init=ones, bias_init=zeros, name="norm"
            )(out_PD)
        return table_PD + out_PD if self.skip else out_PD
