"""Rematerialisation: what layers keep of the forward pass for the backward pass, by T5X's names; numbers are the same.

Of the frozen model only activations have gradients, so what counts are the inputs of norms, softmaxes and gates:
products with frozen weights need nothing kept.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from jax_prompts.models.products import PRODUCT

POLICIES = {
    "minimal": jax.checkpoint_policies.save_only_these_names(PRODUCT),  # products with weights
    "full": jax.checkpoint_policies.nothing_saveable,  # a layer's input alone
}


def rematerialized(
    layer: type[nn.Module], remat: str, *, static: int, scanned: bool = False
) -> type[nn.Module]:
    """`layer`, whose `__call__` recomputes what the policy does not keep; `none`: as it is.

    Args:
      layer: a Linen module.
      remat: `none` or a name in `POLICIES`.
      static: number of the argument (self is 0) that is no array.
      scanned: whether the layer is the body of a scan, where the compiler cannot undo the recomputation.
    """
    if remat == "none":
        return layer
    return nn.remat(layer, policy=POLICIES[remat], prevent_cse=not scanned, static_argnums=(static,))
