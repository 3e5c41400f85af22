"""Fingerprints of base models: 16 hex digits that tell them apart, whatever form they are kept in."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import ml_dtypes
import numpy as np

from jax_prompts.base_models.open import HEADS, Checkpoint
from jax_prompts.base_models.stacks import in_layers
from jax_prompts.distributed.global_arrays import gathered

Tree = Any

_SAMPLED = 64


def fingerprint(weights: Tree) -> str:
    """A hash over every array's name, shape and 64 of its numbers.

    Enough to tell models apart, cheap enough for any size, and the same for float32 and bfloat16 copies
    (numbers are compared after rounding to bfloat16), for single and stacked layers. A BERT's heads do not count.
    """
    return combined(samples(weights))


def samples(weights: Tree) -> dict[str, bytes]:
    """`sample` of every array that counts, by its name, those of stacks layer by layer."""
    samples = {}
    for name, array in flax.traverse_util.flatten_dict(weights, sep="/").items():
        if name.startswith(HEADS):
            continue
        if re.search("/layers/", name):
            for i in range(array.shape[0]):
                samples[name.replace("/layers/", f"/layers_{i}/")] = sample(array, i)
        else:
            samples[name] = sample(array)
    return samples


def checkpoint_fingerprint(found: Checkpoint) -> str:
    """The fingerprint of a base model that is not loaded: each weight is read once, and none is kept."""
    arrays = in_layers(found.arrays).items() if found.fingerprint is None else ()
    return found.fingerprint or combined(
        {name: sample(array[...]) for name, array in arrays if not name.startswith(HEADS)}
    )


def sample(array: Any, layer: int | None = None) -> bytes:
    """Bytes that an array adds to the hash; of a stack (axis 0), one layer's."""
    shape = array.shape if layer is None else array.shape[1:]
    size = math.prod(shape)
    index = np.unravel_index(np.arange(0, size, max(1, size // _SAMPLED))[:_SAMPLED], shape)
    if layer is not None:
        index = (np.full_like(index[0], layer), *index)
    return f"{tuple(shape)}".encode() + gathered(array[index].astype(ml_dtypes.bfloat16)).tobytes()


def combined(samples: Mapping[str, bytes]) -> str:
    """The fingerprint, from `sample` of every array."""
    digest = hashlib.sha256()
    for name in sorted(samples):
        digest.update(name.encode() + samples[name])
    return digest.hexdigest()[:16]
