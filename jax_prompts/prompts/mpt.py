"""Multitask prompt tuning: a shared prompt times a low-rank matrix of the task (Wang et al. 2023, section 3)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError, nearest
from jax_prompts.prompts.layers import TableInit, centered_uniform, check_size, table

# Where the shared prompt starts without an initialiser, by the start of the factors.
_TABLES: dict[str, TableInit] = {"ones": centered_uniform, "normal": jax.nn.initializers.normal(1.0)}
_PEFT_SCALE = 0.02


class MPT(nn.Module):
    """S * (U V), elementwise: the shared prompt S `[P, D]` and the task's U `[P, R]` and V `[R, D]`, all tuned.

    Tuned parameters: P*D + R*(P + D); 77,668 of T5 base with P = 100 and R = 1. This is the paper's second stage,
    adaptation to a target task. Its first tunes S and the factors of all source tasks together, as
    `PROMPT_OF_EACH_TASK = True` with `SHARED_BY_TASKS = ('prompt',)` does, while it distils prompts tuned on each (a
    loss on the teacher's logits and on its hidden states beside the task's), which is not here: `FromFiles` with
    `combine = 'shared'` finds S from tuned source prompts in closed form (`prompts/shared_prompt.py`).

    Attributes:
      length: P, the number of virtual tokens; 100 in the paper.
      rank: R; 1 in the paper.
      factors: where they start: `ones`, at U V = 1, so that the prompt starts at S, which an initialiser has chosen;
        or `normal`, each number from N(0, 0.02^2), as PEFT draws them, whose prompt starts at about 4e-4 times S
        and which starts S, without an initialiser, from N(0, 1).

    Raises:
      ConfigError: length or rank below 1, a rank above min(P, D), unknown `factors`.
    """

    length: int
    rank: int = 1
    factors: str = "ones"

    def __post_init__(self) -> None:
        check_size(self, "length", "rank")
        if self.factors not in tuple(_TABLES):  # a list has no hash
            raise ConfigError(
                f"MPT.factors is {self.factors!r}: set it to {nearest(str(self.factors), _TABLES)}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        P, R, D = self.length, self.rank, embed_dim
        if (highest := min(P, D)) < R:
            raise ConfigError(
                f"MPT.rank {R} is above min(P, D) = {highest}, the rank of any matrix: lower it"
            )
        shared_PD = table(self, P, D, table_init, _TABLES[self.factors])
        normal = jax.nn.initializers.normal(_PEFT_SCALE)
        u_init, v_init = (_first_column_one, _first_row_one) if self.factors == "ones" else (normal, normal)
        u_PR = self.param("u", nn.with_logical_partitioning(u_init, ("prompt", "rank")), (P, R))
        v_RD = self.param("v", nn.with_logical_partitioning(v_init, ("rank", "embed")), (R, D))
        return shared_PD * jnp.dot(u_PR, v_RD, precision=jax.lax.Precision.HIGHEST)


# U V = 1 with factors of any rank: beside the first pair, which is one, V is zero, and U random so that ranks part.
def _first_column_one(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "P R"]:
    return jax.random.normal(key, shape, dtype).at[:, 0].set(1.0)


def _first_row_one(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "R D"]:
    return jnp.zeros(shape, dtype).at[0].set(1.0)
