"""SuperPos-Prompt: weighted sums of sampled vocabulary rows (SadraeiJavaeri et al. 2024, arXiv:2406.05279)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.prompts.layers import TableInit, centered_uniform, check_size


class SuperPos(nn.Module):
    """Vector i is a weighted sum of S rows, p_i = E_i w_i (section 2); rows and weights are both tuned.

    Tuned parameters: P*S*(D + 1); with `shared` rows S*D + P*S. Every position starts from the same S rows of the
    initialiser, in the paper different rows of the vocabulary, and goes on with a copy of its own ("they were tuned
    separately for each prompt"). The paper tunes with AdamW at a constant 0.01, and with a weight decay of 1e-5 on
    the weights alone, since rows that decay lose what they hold (section 3.4): `gin_configs/recipes/superpos2024.gin`.

    Attributes:
      length: P, the number of virtual tokens; 10 in the paper.
      rows: S (the paper's m), of each sum; 128 in the paper, above which its scores level off (section 3.3).
      shared: one copy of the rows for all positions, with 1/P of the parameters; not in the paper.
      softmax: weights are a softmax of w_i, which did worse there (appendix A.2).

    Weights start from N(0, 1/S), by which a sum of unrelated rows is about as long as one of them; the paper does not
    say from where.

    Raises:
      ConfigError: length or rows below 1.
    """

    length: int
    rows: int = 128
    shared: bool = False
    softmax: bool = False

    def __post_init__(self) -> None:
        check_size(self, "length", "rows")
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        P, S, boxed = self.length, self.rows, nn.with_logical_partitioning
        start, axes = table_init or centered_uniform, ("rank", "embed")
        if self.shared:
            rows_PSD = self.param("prompt", boxed(start, axes), (S, embed_dim), jnp.float32)[None]
        else:
            init = boxed(_for_every_position(start), ("prompt", *axes))
            rows_PSD = self.param("prompt", init, (P, S, embed_dim), jnp.float32)
        weight_init = boxed(jax.nn.initializers.normal(S**-0.5), ("prompt", "rank"))
        weights_PS = self.param("weights", weight_init, (P, S))
        weights_PS = jax.nn.softmax(weights_PS) if self.softmax else weights_PS
        rows_PSD = jnp.broadcast_to(rows_PSD, (P, S, embed_dim))
        return jnp.einsum("ps,psd->pd", weights_PS, rows_PSD, precision=jax.lax.Precision.HIGHEST)


def _for_every_position(start: TableInit) -> TableInit:
    """[P, S, D]: the rows [S, D] from `start`, P times."""

    def init(key: Array, shape: tuple[int, int, int], dtype: Any = jnp.float32) -> Float[Array, "P S D"]:
        return jnp.broadcast_to(start(key, shape[1:], dtype), shape)

    return init
