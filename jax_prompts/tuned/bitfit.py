"""BitFit: biases alone are tuned (Ben Zaken et al. 2022)."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jax_prompts.errors import ConfigError
from jax_prompts.tuned.leaves import Boxed, Leaves, Weights, drawn, layer_of, projections
from jax_prompts.tuned.sizes import no_place

_UNUSED = {32_128: 28, 250_112: 12}  # rows of T5's and mT5's tables, and how many stand for no piece of text
_PADDED = {rows - unused: unused for rows, unused in _UNUSED.items()}


@dataclasses.dataclass(frozen=True)
class BitFit:
    """A bias of every projection and norm. A BERT's own are tuned from where they are; T5 has none and gets zeros.

    As in the code of Compacter and ATTEMPT, with which the papers compare: of every projection and norm of T5's layers,
    not of the norms that end a stack, and of the logits of all pieces. Tuned parameters on T5-base: 12 * 8,448 in the
    encoder (4 projections and 2 norms of 768, MLP 3,072 + 768), 12 * 12,288 in the decoder, 32,100 logits: 280,932.

    Attributes:
      logits: whether logits have one, too.

    Raises:
      ConfigError: a model without projections.
    """

    logits: bool = True

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """Fresh biases, or those that a model with these weights has."""
        own = {
            path: Boxed(box.value.astype(jnp.float32), box.names)
            for path, box in weights.items()
            if path.endswith("/bias")
        }
        if own:
            return own
        sides = {path: (box.value.shape[1], box.names[1]) for path, box in projections(weights).items()}
        sides |= {
            path.removesuffix("/scale"): (box.value.shape[0], box.names[0])
            for path, box in weights.items()
            if path.endswith("norm/scale")
        }
        leaves = {
            f"{path}/bias": drawn(nn.initializers.zeros, key, path, (side,), (axis,))
            for path, (side, axis) in sides.items()
            if layer_of(f"{path}/") is not None
        }
        if not leaves:
            raise no_place(self, "projections")
        if self.logits:
            rows = weights["token_embedder/embedding"].value.shape[0]
            pieces = rows - _UNUSED.get(rows, 0)
            if pieces == rows and rows in _PADDED:
                raise ConfigError(
                    f"BitFit.logits cannot tell this model's {rows:,} rows from the pieces of a table with "
                    f"{_PADDED[rows]:,} more: set BitFit.logits to False"
                )
            leaves["decoder/logits_bias"] = drawn(
                nn.initializers.zeros, key, "decoder/logits_bias", (pieces,), (None,)
            )
        return leaves

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: logits of rows without a piece have the bias 0."""
        bias_V = leaves.get("decoder/logits_bias")
        if bias_V is None:
            return leaves
        return {**leaves, "decoder/logits_bias": jnp.pad(bias_V, (0, _PADDED.get(len(bias_V), 0)))}
