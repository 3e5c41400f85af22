"""DePT: a low-rank offset on the input's embeddings, by position (Shi & Lipani 2024, ICLR, arXiv:2309.05173)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jax_prompts.errors import ConfigError
from jax_prompts.prompts.layers import fan_in_uniform
from jax_prompts.tuned.leaves import INPUT_OFFSET, Boxed, Leaves, Weights, drawn
from jax_prompts.tuned.sizes import check_at_least_1, check_number, encoder_width


@dataclasses.dataclass(frozen=True)
class DePT:
    """e_t + (alpha / sqrt(R)) (A B)_t for the t-th text token, A [T, R] and B [R, D], which starts as e_t.

    The scale, alpha and the start are those of the released code: A from U(-1/sqrt(R), 1/sqrt(R)), B 0. It belongs
    beside a short prompt, which learns at a rate of its own. Tuned parameters: R * (T + D): with R = 45 and T = 256 on
    T5-base 46,080, and with a prompt of 40 tokens 76,800, as many as prompt tuning has with 100.

    Attributes:
      rank: R.
      alpha: numerator of the scale.
      max_length: T, text tokens that have an offset; those behind them have none.

    Raises:
      ConfigError: a rank below 1, or above T or D, a length below 1, an alpha that is not above 0, or a model that is
        no T5.
    """

    rank: int = 45
    alpha: float = 8.0
    max_length: int = 256

    def __post_init__(self) -> None:
        check_at_least_1("DePT.rank", self.rank)
        check_at_least_1("DePT.max_length", self.max_length)
        check_number("DePT.alpha", self.alpha, above_0=True)

    @property
    def scale(self) -> float:
        """What the pair's product is multiplied by."""
        return self.alpha / math.sqrt(self.rank)

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """A fresh pair for a T5 with these weights."""
        width = encoder_width(self, weights, "embeddings of a T5's input")
        if self.rank > min(self.max_length, width):
            raise ConfigError(
                f"DePT.rank is {self.rank} and the offsets are {self.max_length} by {width}: set it to at most "
                f"{min(self.max_length, width)}"
            )
        a, b, init = f"{INPUT_OFFSET}/a", f"{INPUT_OFFSET}/b", fan_in_uniform(self.rank)
        return {
            a: drawn(init, key, a, (self.max_length, self.rank), (None, "rank")),
            b: drawn(nn.initializers.zeros, key, b, (self.rank, width), ("rank", "embed")),
        }

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: B times the scale."""
        b = f"{INPUT_OFFSET}/b"
        return {**leaves, b: leaves[b] * self.scale}


def check_text_length(kinds: Sequence[Any], length: int) -> None:
    """Raises ConfigError where texts of `length` tokens would end in tokens without an offset of DePT."""
    for kind in kinds:
        if isinstance(kind, DePT) and length > kind.max_length:
            raise ConfigError(
                f"DePT.max_length is {kind.max_length} and TASK_FEATURE_LENGTHS inputs lets texts have {length} "
                f"tokens: set DePT.max_length to {length}, or lower inputs"
            )
