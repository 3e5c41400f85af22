"""SMoP: a router gives each row one of several short prompts (Choi et al. 2023, "Sparse Mixture-of-Prompts")."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jax_prompts.errors import ConfigError
from jax_prompts.models.row_prompts import ROUTER
from jax_prompts.prompts.init import FIRST, Base, SampledVocabulary, check_first
from jax_prompts.tuned.leaves import Boxed, Leaves, Weights, drawn
from jax_prompts.tuned.sizes import PROMPTS_OF_T5, check_at_least_1, check_number, encoder_width

_KERNEL, _PROMPTS, _NOISE = (f"{ROUTER}/{name}" for name in ("kernel", "prompt", "noise"))


@dataclasses.dataclass(frozen=True)
class SMoP:
    """p P: p the largest probability of a linear router, P its prompt of K (section 2; `models/row_prompts.py`).

    The tuned prompt is the first of them, the others stand beside it, and start from pieces of the vocabulary. While
    tuning the router's logits have noise in proportion to them, which spreads rows over prompts; no loss balances them.
    The released code starts all prompts from N(0, 1), and with one prompt a row it gives every row of a batch the sum
    of the prompts that all of them chose, times the row's own p; here, as in the paper, a row has its own alone.

    Tuned parameters beside the prompt's P*D: (K - 1)*P*D + K*D. With 4 prompts of 5 tokens on T5-base 18,432 in all.

    Attributes:
      length: P, of the tuned prompt and of the others.
      prompts: K; 4 in the paper's comparisons.
      noise: standard deviation of the logits' noise, a share of each; 0: none.
      first: the others start from so many pieces, as `SampledVocabulary.first`.

    Raises:
      ConfigError: a length below 1, fewer than 2 prompts, noise below 0, a model that is no T5.
    """

    length: int
    prompts: int = 4
    noise: float = 1.0
    first: int | None = FIRST

    def __post_init__(self) -> None:
        check_at_least_1("SMoP.length", self.length)
        check_at_least_1("SMoP.prompts", self.prompts)
        if self.prompts < 2:
            raise ConfigError("SMoP.prompts is 1, which leaves a router no choice: set it to at least 2")
        check_number("SMoP.noise", self.noise)
        check_first(self)

    @property
    def prompt_length(self) -> int:
        """P."""
        return self.length

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """A fresh router, with orthogonal columns, and prompts of a T5 with these weights."""
        D, others = encoder_width(self, weights, PROMPTS_OF_T5), self.prompts - 1
        if self.prompts > D:
            raise ConfigError(f"SMoP.prompts is {self.prompts}: set it to at most {D}, the model's width")
        sampled = SampledVocabulary(self.first).table_init(Base(weights["token_embedder/embedding"].value))

        def rows(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
            return sampled(key, (shape[0] * shape[1], D), dtype).reshape(shape)

        return {
            _KERNEL: drawn(nn.initializers.orthogonal(), key, _KERNEL, (D, self.prompts), ("embed", None)),
            _PROMPTS: drawn(rows, key, _PROMPTS, (others, self.length, D), (None, "prompt", "embed")),
        }

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: the leaves, and while training the noise."""
        return {**leaves, _NOISE: jnp.float32(self.noise)} if training and self.noise > 0 else leaves
