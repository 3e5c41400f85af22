"""The place of [MASK] in a row: one more token id past the vocabulary, which a BERT reads as [MASK] and answers at.

An id of its own, so that a text that holds [MASK] itself is not taken for the place. P prompt length.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

MASK_PLACE = 1 << 30


def with_mask(ids_P: Int[np.ndarray, "*e P"]) -> Int[np.ndarray, "*e P+1"]:
    """A prompt's virtual tokens with the place of [MASK] in their middle, behind half of them, rounded up."""
    return np.insert(ids_P, (ids_P.shape[-1] + 1) // 2, MASK_PLACE, axis=-1)
