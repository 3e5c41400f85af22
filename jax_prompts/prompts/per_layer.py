"""Prompts at every layer: prefix tuning (Li & Liang 2021) and deep prompts (Liu et al. 2022, "P-Tuning v2")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError, nearest
from jax_prompts.prompts.layers import ACTIVATIONS, TableInit, check_activation, check_size, dense, table

KINDS = ("prefix", "decoder_prefix", "full_prefix", "deep", "decoder_deep", "full_deep")


def prompt_kind_of(method: object) -> str:
    """Prompt kind of a method (`models/layer_prompts.py`): `input`, unless it says otherwise."""
    return getattr(method, "kind", "input")


def for_model(method: Any, prompt_width: Callable[[str], int]) -> Any:
    """The method as a model needs it: a per-layer one learns how many numbers a virtual token has there."""
    return method.clone(width=prompt_width(method.kind)) if isinstance(method, PerLayer) else method


class PerLayer(nn.Module):
    """P rows of W numbers: for each virtual token its key and value, or its hidden state, at every layer.

    Keys and values are prefix tuning: `prefix` has those of the encoder's self-attention and of the decoder's
    cross-attention, where virtual tokens stand; `decoder_prefix` those in front of the decoder's self-attention alone,
    as PEFT's prefix tuning of a T5; `full_prefix` all three, as the paper does. States are deep prompts: `deep` has
    those that enter each encoder layer, `decoder_deep` each decoder layer, in front of the first target token, and
    `full_deep` both. A BERT has `prefix` and `deep`.

    With N encoder layers and as many of the decoder, H heads of K: W = 4*N*H*K of `prefix`, 2*N*H*K of
    `decoder_prefix`, 6*N*H*K of `full_prefix`, N*D of `deep` and `decoder_deep`, 2*N*D of `full_deep`. Tuned
    parameters: P*W, or with a network P*D + D*M + M + M*W + W, after which only [P, W] is kept.

    Attributes:
      length: P, the number of virtual tokens.
      kind: one of these names.
      hidden: M, of the network f(p W_down + b_down) W_up + b_up of a table [P, D]; None: no network.
      activation: f; tanh in the paper.
      scale: standard deviation of the table's start without network and initialiser. An initialiser's embeddings
        are the states of every layer. A network's table starts from N(0, 1), as in PEFT, or at an initialiser.
      width: W; set by the run to what its model takes at `kind` (`for_model`).

    Raises:
      ConfigError: length or hidden below 1, unknown kind or activation, an initialiser for keys and
        values without a network.
    """

    length: int
    kind: str = "prefix"
    hidden: int | None = None
    activation: str = "tanh"
    scale: float = 0.02
    width: int = 0

    def __post_init__(self) -> None:
        check_size(self, "length", *(() if self.hidden is None else ("hidden",)))
        check_activation(self)
        if self.kind not in KINDS:
            raise ConfigError(f"PerLayer.kind is {self.kind!r}: set it to {nearest(str(self.kind), KINDS)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, embed_dim: int, table_init: TableInit | None = None) -> Float[Array, "P W"]:
        if self.hidden is None:
            if table_init is not None and self.kind.endswith("prefix"):
                raise ConfigError(
                    "an initialiser gives embeddings, and keys and values without a network are none: "
                    "set INITIALIZER = None, or PerLayer.hidden"
                )
            start = table_init and _at_every_layer(table_init, embed_dim)
            return table(self, self.length, self.width, start, jax.nn.initializers.normal(self.scale))
        table_PD = table(self, self.length, embed_dim, table_init, jax.nn.initializers.normal(1.0))
        down = dense(self.hidden, embed_dim, ("embed", "mlp"), "down")
        up = dense(self.width, self.hidden, ("mlp", "embed"), "up")
        return up(ACTIVATIONS[self.activation](down(table_PD)))


def _at_every_layer(table_init: TableInit, embed_dim: int) -> TableInit:
    """[P, D] from `table_init`, repeated to [P, N*D]."""

    def init(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "P W"]:
        return jnp.tile(table_init(key, (shape[0], embed_dim), dtype), (1, shape[1] // embed_dim))

    return init
