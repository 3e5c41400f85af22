"""Prompt tuning with an LSTM: the Residual paper's baseline (Razdaibiedina et al. 2023, appendix A.5.3)."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError
from jax_prompts.prompts.layers import LSTM, TableInit, centered_uniform, check_size, dense, table


class LSTMPrompt(nn.Module):
    """One bidirectional LSTM layer over the P rows of a table, and a linear head where its width is not D.

    Tuned parameters: P*I + 8*M*(I + M + 2), and 2*M*D + D with a head. The paper's dropout of 0.05 stands
    between layers, of which there is one, so it does nothing and is no option.

    Attributes:
      length: P, the number of virtual tokens.
      hidden: M, the width of one direction. None: D / 2, as in the released code, without a head.
      skip: add the table (the released code does, unless told otherwise).
      embedding: I, the width of the table's rows; 300 in the paper, which then start at random numbers. None: D,
        as in the released code.

    Raises:
      ConfigError: length, hidden or embedding below 1; hidden None with an odd D; a table that is not as wide as the
        model with `skip` or an initialiser.
    """

    length: int
    hidden: int | None = None
    skip: bool = False
    embedding: int | None = None

    def __post_init__(self) -> None:
        given = (name for name in ("hidden", "embedding") if getattr(self, name) is not None)
        check_size(self, "length", *given)
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        if self.hidden is None and embed_dim % 2:
            raise ConfigError(f"the model's width {embed_dim} cannot be halved: set LSTMPrompt.hidden")
        hidden, width = self.hidden or embed_dim // 2, self.embedding or embed_dim
        if width != embed_dim and (self.skip or table_init is not None):
            raise ConfigError(
                f"LSTMPrompt.embedding is {width}, and the model is {embed_dim} wide: set INITIALIZER = None and "
                "LSTMPrompt.skip = False, or LSTMPrompt.embedding = None"
            )
        table_PI = table(self, self.length, width, table_init, centered_uniform)
        out_PD = LSTM(hidden, name="lstm")(table_PI)
        if 2 * hidden != embed_dim:
            out_PD = dense(embed_dim, 2 * hidden, ("mlp", "embed"), "head")(out_PD)
        return table_PI + out_PD if self.skip else out_PD
