"""Tuned leaves inside the frozen model: what a layer reads beside its own weights, where it is there.

`tuned/` makes them, under the paths of the layers that read them:

    PROJECTION/{bias, scale, input_scale, lora_a, lora_b}   `models/layers.py`, Dense
    NORM/bias                                               RMSNorm
    SUBLAYER/adapter/{down, up}/{kernel, bias}              Attention, MLP: a bottleneck behind them
    decoder/logits_bias                                     of every row of the vocabulary
    input_offset/...                                        T5: on the encoder's text (`models/input_offset.py`)
    verbalizer/{kernel, bias}                               `models/bert.py`, Bert: of every class

A leaf of a weight's own name takes that weight's place. Letters as in `models/t5.py`; R rank, M bottleneck.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jax_prompts.models.products import product
from jax_prompts.models.sums import repeated, scaled

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=True),
    "silu": nn.silu,
    "tanh": nn.tanh,
    "linear": lambda x: x,
}


def leaf(module: nn.Module, name: str) -> Any:
    """What lies at `name` among a module's parameters, though the module did not ask for it; None: nothing."""
    return nn.meta.unbox(module.get_variable("params", name)) if module.has_variable("params", name) else None


def times(x_BLD: Float[Array, "*b D"], scale_N: Float[Array, " N"] | None) -> Float[Array, "*b D"]:
    """`x_BLD` * `scale_N`, whose numbers may lie in several of the last axes of `x_BLD`."""
    return x_BLD if scale_N is None else scaled(x_BLD, _of_last(x_BLD, scale_N))


def plus(x_BLD: Float[Array, "*b D"], bias_N: Float[Array, " N"] | None) -> Float[Array, "*b D"]:
    """`x_BLD` + `bias_N`."""
    if bias_N is None:
        return x_BLD
    bias = _of_last(x_BLD, bias_N)
    return x_BLD + repeated(bias, x_BLD.shape[: x_BLD.ndim - bias.ndim]).astype(x_BLD.dtype)


def adapted(module: nn.Module, x_BLD: Float[Array, "*b D"], activation: str) -> Float[Array, "*b D"]:
    """x + f(x W_down + b_down) W_up + b_up, of the module's `adapter` (Houlsby et al. 2019, section 2.1)."""
    if (adapter := leaf(module, "adapter")) is None:
        return x_BLD
    down, up = adapter["down"], adapter["up"]
    h_BLM = plus(product(x_BLD, down["kernel"], x_BLD.dtype), down["bias"])
    return x_BLD + plus(product(ACTIVATIONS[activation](h_BLM), up["kernel"], x_BLD.dtype), up["bias"])


def _of_last(x_BLD: Float[Array, "*b D"], numbers_N: Float[Array, " N"]) -> Array:
    """`numbers_N` in the shape of the last axes of `x_BLD`, as many as hold them."""
    axes, size = 1, x_BLD.shape[-1]
    while size < numbers_N.size:
        axes += 1
        size *= x_BLD.shape[-axes]
    return numbers_N.reshape(x_BLD.shape[x_BLD.ndim - axes :])
