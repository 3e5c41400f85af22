"""ADePT: an offset on the input's embeddings, a network of each (Tang et al. 2025, ICLR, arXiv:2501.03291)."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jax_prompts.errors import ConfigError
from jax_prompts.prompts.layers import fan_in_uniform
from jax_prompts.tuned.leaves import INPUT_OFFSET, Boxed, Leaves, Weights, network
from jax_prompts.tuned.sizes import check_at_least_1, check_rate, encoder_width


@dataclasses.dataclass(frozen=True)
class ADePT:
    """e + relu(e W_down + b_down) W_up + b_up for a text token of embedding e, one network for all, which starts as e.

    The start is that of the released code: W_down from U(-1/sqrt(R), 1/sqrt(R)), all else 0. It belongs beside a short
    prompt, which learns at a rate of its own. Tuned parameters: 2*D*R + R + D: with R = 19 on T5-base 29,971, and with
    a prompt of 60 tokens 76,051.

    Attributes:
      rank: R, hidden units.
      dropout: share of them, before relu, that is dropped while tuning, each by itself; 0.1 in the released code.

    Raises:
      ConfigError: a rank below 1 or above D, a dropout outside [0, 1), or a model that is no T5.
    """

    rank: int = 19
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_at_least_1("ADePT.rank", self.rank)
        check_rate("ADePT.dropout", self.dropout)

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """A fresh network for a T5 with these weights."""
        D = encoder_width(self, weights, "embeddings of a T5's input")
        if (R := self.rank) > D:
            raise ConfigError(f"ADePT.rank is {R} and embeddings have {D} numbers: set it to at most {D}")
        return network(INPUT_OFFSET, key, D, R, down=fan_in_uniform(R), up=nn.initializers.zeros)

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: the leaves as they are, and while training the rate of dropout."""
        if training and self.dropout > 0:
            return {**leaves, f"{INPUT_OFFSET}/dropout": jnp.float32(self.dropout)}
        return leaves
