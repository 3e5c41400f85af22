"""Parts of methods: the table, a dense layer as PyTorch starts it, the bottleneck, the LSTM.

Parameters are float32 and products are computed in full float32 on every accelerator: the cost is nothing
beside the frozen model's. Letters: P prompt length, D model width, M hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError, nearest

TableInit = nn.initializers.Initializer
TableInits = (
    TableInit | Sequence[TableInit] | None
)  # of a prompt, of each task's, or as the method starts itself

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "linear": lambda x: x,
}


_MOST = {
    "passes": 1000,
    "layers": 1000,
}  # which are built one by one; other sizes are bounded by what JAX counts


def check_size(module: nn.Module, *fields: str) -> None:
    """Raises ConfigError unless each of the module's `fields` is a whole number of at least 1, and no giant."""
    for field in fields:
        value = getattr(module, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            setting = f"{type(module).__name__}.{field}" + (" (PROMPT_LENGTH)" if field == "length" else "")
            raise ConfigError(f"{setting} is {value!r}: set it to a whole number of at least 1")
        if value > (most := _MOST.get(field, (1 << 31) - 1)):
            raise ConfigError(f"{type(module).__name__}.{field} is {value}: set it to at most {most:,}")


def check_activation(module: nn.Module) -> None:
    """Raises ConfigError unless the module's `activation` is a name in `ACTIVATIONS`."""
    if module.activation not in tuple(ACTIVATIONS):  # a list has no hash
        names = nearest(str(module.activation), ACTIVATIONS)
        raise ConfigError(f"{type(module).__name__}.activation is {module.activation!r}: set it to {names}")


def centered_uniform(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Float[Array, "P D"]:
    """U[-0.5, 0.5), the random start of Lester et al. 2021."""
    return jax.random.uniform(key, shape, dtype, -0.5, 0.5)


def table(
    module: nn.Module, rows: int, embed_dim: int, table_init: TableInit | None, default: TableInit
) -> Float[Array, "P D"]:
    """The module's parameter `prompt` [rows, D], from `table_init`, or where there is none from `default`."""
    init = nn.with_logical_partitioning(table_init or default, ("prompt", "embed"))
    return module.param("prompt", init, (rows, embed_dim), jnp.float32)


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases: where torch.nn.Linear starts."""

    def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def dense(features: int, fan_in: int, axes: tuple[str, str], name: str, bias: bool = True) -> nn.Dense:
    """x W + b, started as torch.nn.Linear is."""
    init = fan_in_uniform(fan_in)
    return nn.Dense(
        features,
        use_bias=bias,
        kernel_init=nn.with_logical_partitioning(init, axes),
        bias_init=nn.with_logical_partitioning(init, axes[1:]),
        precision=jax.lax.Precision.HIGHEST,
        name=name,
    )


class Bottleneck(nn.Module):
    """LayerNorm(f(x W_down + b_down) W_up + b_up), norm and biases by choice, applied `passes` times.

    Parameters: 2*D*M, and M + D with `bias`, and 2*D with `norm`; all passes use the same.
    LayerNorm has biased variance and epsilon 1e-5.
    """

    hidden: int
    activation: str
    norm: bool
    bias: bool
    passes: int = 1

    @nn.compact
    def __call__(self, x_PD: Float[Array, "*p D"]) -> Float[Array, "*p D"]:
        D = x_PD.shape[-1]
        down = dense(self.hidden, D, ("embed", "mlp"), "down", self.bias)
        up = dense(D, self.hidden, ("mlp", "embed"), "up", self.bias)
        ones = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
        norm = nn.LayerNorm(
            epsilon=1e-5, use_fast_variance=False, scale_init=ones, bias_init=zeros, name="norm"
        )
        for _ in range(self.passes):
            x_PD = up(ACTIVATIONS[self.activation](down(x_PD)))
            x_PD = norm(x_PD) if self.norm else x_PD
        return x_PD


class LSTM(nn.Module):
    """Bidirectional LSTM over the P rows, as PyTorch's: gates in the order i, f, g, o, two biases each.

    Parameters, for each layer and direction (I the layer's input width): 4*M*(I + M + 2).

    Attributes:
      hidden: M, the width of one direction; both side by side are the output [P, 2M].
      layers: how many are stacked.
    """

    hidden: int
    layers: int = 1

    @nn.compact
    def __call__(self, x_PI: Float[Array, "P I"]) -> Float[Array, "P {2*self.hidden}"]:
        for layer in range(self.layers):
            forward_PM = self._direction(x_PI, f"forward_{layer}")
            backward_PM = self._direction(x_PI[::-1], f"backward_{layer}")[::-1]
            x_PI = jnp.concatenate([forward_PM, backward_PM], axis=-1)
        return x_PI

    def _direction(self, x_PI: Float[Array, "P I"], name: str) -> Float[Array, "P M"]:
        width, init = 4 * self.hidden, fan_in_uniform(self.hidden)
        gates_PG = self._affine(f"{name}_input", init, x_PI.shape[-1], width)(x_PI)
        recurrent = self._affine(f"{name}_recurrent", init, self.hidden, width)

        def step(state: tuple[Array, Array], gates_G: Array) -> tuple[tuple[Array, Array], Array]:
            h_M, c_M = state
            i_M, f_M, g_M, o_M = jnp.split(gates_G + recurrent(h_M), 4)
            c_M = nn.sigmoid(f_M) * c_M + nn.sigmoid(i_M) * nn.tanh(g_M)
            h_M = nn.sigmoid(o_M) * nn.tanh(c_M)
            return (h_M, c_M), h_M

        zeros_M = jnp.zeros(self.hidden)
        return jax.lax.scan(step, (zeros_M, zeros_M), gates_PG)[1]

    def _affine(
        self, name: str, init: nn.initializers.Initializer, fan_in: int, width: int
    ) -> Callable[[Array], Array]:
        kernel = self.param(
            f"{name}_kernel", nn.with_logical_partitioning(init, ("embed", "mlp")), (fan_in, width)
        )
        bias = self.param(f"{name}_bias", nn.with_logical_partitioning(init, ("mlp",)), (width,))

        def affine(x: Array) -> Array:
            product = jnp.dot(x, kernel, precision=jax.lax.Precision.HIGHEST)
            return product + jnp.broadcast_to(bias, product.shape)

        return affine
