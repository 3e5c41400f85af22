"""P-Tuning (Liu et al. 2021, "GPT Understands, Too") with the two encoders of Hugging Face PEFT.

The EPT paper's "P-Tuning" is PEFT's default, the MLP. Both start from a table drawn from N(0, 1).
"""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jax_prompts.prompts.layers import LSTM, TableInit, check_size, dense, table


class PTuningMLP(nn.Module):
    """Linear, ReLU, Linear, ReLU, Linear of a table.

    Tuned parameters: P*D + 2*D*M + M*M + 2*M + D, which for M = D is P*D + 3*(D*D + D).

    Attributes:
      length: P, the number of virtual tokens.
      hidden: M; None: D, PEFT's default.

    Raises:
      ConfigError: length or hidden below 1.
    """

    length: int
    hidden: int | None = None

    def __post_init__(self) -> None:
        check_size(self, "length", *(() if self.hidden is None else ("hidden",)))
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        hidden = self.hidden or embed_dim
        table_PD = table(self, self.length, embed_dim, table_init, jax.nn.initializers.normal(1.0))
        return _Network((hidden, hidden, embed_dim), name="network")(table_PD)


class PTuningLSTM(nn.Module):
    """A bidirectional LSTM over the P rows of a table, then Linear, ReLU, Linear.

    Tuned parameters: P*D, 8*M*(I + M + 2) for each layer (I = D for the first, 2*M for others),
    2*M*(2*M + 1) + D*(2*M + 1). PEFT's dropout between layers, 0 by default, is no option here.

    Attributes:
      length: P, the number of virtual tokens.
      hidden: M, the width of one direction; None: D, PEFT's default.
      layers: of the LSTM.

    Raises:
      ConfigError: length, hidden or layers below 1.
    """

    length: int
    hidden: int | None = None
    layers: int = 2

    def __post_init__(self) -> None:
        check_size(self, "length", "layers", *(() if self.hidden is None else ("hidden",)))
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        hidden = self.hidden or embed_dim
        table_PD = table(self, self.length, embed_dim, table_init, jax.nn.initializers.normal(1.0))
        hidden_PI = LSTM(hidden, self.layers, name="lstm")(table_PD)
        return _Network((2 * hidden, embed_dim), name="network")(hidden_PI)


class _Network(nn.Module):
    """Dense layers of the given widths with ReLU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x_PD: Float[Array, "P I"]) -> Float[Array, "P O"]:
        for number, width in enumerate(self.widths):
            last = number == len(self.widths) - 1
            axes = ("mlp", "embed") if last else ("embed", "mlp")
            x_PD = dense(width, x_PD.shape[-1], axes, f"dense_{number}")(x_PD)
            x_PD = x_PD if last else nn.relu(x_PD)
        return x_PD
