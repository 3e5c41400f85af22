"""Decomposed prompt tuning: a prompt of low rank, and its rank probe (Xiao et al. 2023, sections 2 and 3)."""

from __future__ import annotations

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError, SettingWarning, nearest
from jax_prompts.prompts.layers import TableInit, centered_uniform, check_size

FACTOR_INITS: dict[str, TableInit] = {
    "normal": jax.nn.initializers.normal(1.0),
    "uniform": centered_uniform,
}


class Decomposed(nn.Module):
    """A B with A `[P, R]` and B `[R, D]` (equation 5). Tuned parameters: R*(P + D).

    With an initialiser the product starts at the best approximation of rank R of its table, and the factors
    share the square roots of the singular values.

    Attributes:
      length: P, the number of virtual tokens.
      rank: R, the "bottleneck"; 10 in the paper.
      factors: where both factors start without an initialiser: `normal`, N(0, 1), after the paper ("Gaussian",
        no scale given), or `uniform`, U[-0.5, 0.5), as in the released code.

    Raises:
      ConfigError: length or rank below 1, unknown `factors`, an initialiser with a rank above min(P, D).
    """

    length: int
    rank: int = 10
    factors: str = "normal"

    def __post_init__(self) -> None:
        check_size(self, "length", "rank")
        if self.factors not in tuple(FACTOR_INITS):  # a list has no hash
            names = nearest(str(self.factors), FACTOR_INITS)
            raise ConfigError(f"Decomposed.factors is {self.factors!r}: set it to {names}")
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P D"]:
        highest = min(self.length, embed_dim)
        if self.rank > highest:
            reason = f"Decomposed.rank {self.rank} is above min(P, D) = {highest}, the rank of any prompt"
            if table_init is not None:
                raise ConfigError(f"{reason}: set it to at most {highest}, or INITIALIZER = None")
            warnings.warn(f"{reason}: it adds parameters, not prompts", SettingWarning, stacklevel=2)

        def start(key: Array) -> dict[str, Array]:
            if table_init is not None:
                return _factors(table_init(key, (self.length, embed_dim), jnp.float32), self.rank)
            key_a, key_b = jax.random.split(key)
            init = FACTOR_INITS[self.factors]
            return {"a": init(key_a, (self.length, self.rank)), "b": init(key_b, (self.rank, embed_dim))}

        # Linen gives every parameter a key of its own, but both factors split one table.
        shared = self.make_rng("params") if self.is_initializing() else None

        def factor(name: str, axes: tuple[str, str]) -> Array:
            def init(key: Array) -> Array:
                return start(key if shared is None else shared)[name]

            return self.param(name, nn.with_logical_partitioning(init, axes))

        a_PR, b_RD = factor("a", ("prompt", "rank")), factor("b", ("rank", "embed"))
        return jnp.dot(a_PR, b_RD, precision=jax.lax.Precision.HIGHEST)


class RankProbe(nn.Module):
    """U diag(relu(s)) V: the paper's measurement of a prompt's "intrinsic rank" (equations 2 and 3).

    The rank is the number of positive entries of s, which falls while U, s and V are trained.
    Tuned parameters: P*P + P + P*D.

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
        P, boxed = self.length, nn.with_logical_partitioning
        # U orthogonal and s one: the prompt starts as an orthogonal mixture of the table, at its scale.
        u_PP = self.param("u", boxed(jax.nn.initializers.orthogonal(), ("prompt", "rank")), (P, P))
        s_P = self.param("s", boxed(jax.nn.initializers.ones, ("rank",)), (P,))
        v_PD = self.param("v", boxed(table_init or centered_uniform, ("rank", "embed")), (P, embed_dim))
        return jnp.dot(u_PP * nn.relu(s_P)[None], v_PD, precision=jax.lax.Precision.HIGHEST)


def _factors(table_PD: Float[Array, "P D"], rank: int) -> dict[str, Array]:
    u_PK, s_K, v_KD = jnp.linalg.svd(table_PD, full_matrices=False)
    root_R = jnp.sqrt(s_K[:rank])
    return {"a": u_PK[:, :rank] * root_R[None], "b": root_R[:, None] * v_KD[:rank]}
