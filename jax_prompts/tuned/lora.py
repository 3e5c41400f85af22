"""LoRA: low-rank pairs beside projections of the frozen model (Hu et al. 2022)."""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jax_prompts.errors import ConfigError, nearest
from jax_prompts.prompts.layers import fan_in_uniform
from jax_prompts.tuned.leaves import Boxed, Leaves, Weights, drawn, projections
from jax_prompts.tuned.sizes import check_at_least_1, check_number, check_rate


@dataclasses.dataclass(frozen=True)
class LoRA:
    """x W + (alpha / R) drop(x) A B, with A [I, R] and B [R, O] (equation 3), which starts as x W.

    Tuned parameters: R * (I + O) for each projection: with R = 8 on query and value of T5-base 884,736. It folds into
    W + (alpha / R) A B, `t5x export --to=model`.

    Attributes:
      rank: R.
      alpha: numerator of the scale; 8 in PEFT, which divides by R.
      targets: the projections: ends of their paths, such as `query`, `encoder_decoder_attention/value`, `wi_0`.
      dropout: share of a projection's inputs that A does not see while tuning, each number by itself.
      rank_stabilized: whether the scale is alpha / sqrt(R) (Kalajdzievski 2023).

    Raises:
      ConfigError: a rank below 1 or above the sides of a projection, a target that the model has not, an
        alpha that is not above 0, a dropout outside [0, 1).
    """

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = ("query", "value")
    dropout: float = 0.0
    rank_stabilized: bool = False

    def __post_init__(self) -> None:
        check_at_least_1("LoRA.rank", self.rank)
        if isinstance(self.targets, str) or not self.targets:
            raise ConfigError(
                f"LoRA.targets is {self.targets!r}: set it to a tuple, such as ('query', 'value')"
            )
        check_number("LoRA.alpha", self.alpha, above_0=True)
        check_rate("LoRA.dropout", self.dropout)

    @property
    def scale(self) -> float:
        """What the pair's product is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """Fresh pairs beside the targets of a model with these weights: A as in PEFT, U(-1/sqrt(I), 1/sqrt(I)), B 0."""
        known, leaves = projections(weights), dict[str, Boxed]()
        for target in self.targets:
            chosen = {path: box for path, box in known.items() if f"/{path}".endswith(f"/{target}")}
            if not chosen:
                names = {path.rpartition("/")[2] for path in known}
                raise ConfigError(
                    f"LoRA.targets names {target!r}, which the model has not; did you mean "
                    f"{nearest(str(target), names)}?"
                )
            for path, box in chosen.items():
                fan_in, fan_out = box.value.shape
                if self.rank > min(fan_in, fan_out):
                    raise ConfigError(
                        f"LoRA.rank is {self.rank} and {path} is {fan_in} by {fan_out}: set it to at most "
                        f"{min(fan_in, fan_out)}"
                    )
                a, b = f"{path}/lora_a", f"{path}/lora_b"
                leaves[a] = drawn(fan_in_uniform(fan_in), key, a, (fan_in, self.rank), (box.names[0], "rank"))
                leaves[b] = drawn(nn.initializers.zeros, key, b, (self.rank, fan_out), ("rank", box.names[1]))
        return leaves

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: B times the scale, and while training the rate of dropout."""
        folded = {
            path: leaf * self.scale if path.endswith("/lora_b") else leaf for path, leaf in leaves.items()
        }
        if training and self.dropout > 0:
            rate, end = jnp.float32(self.dropout), "/lora_a"
            folded |= {
                path.removesuffix(end) + "/lora_dropout": rate for path in leaves if path.endswith(end)
            }
        return folded
