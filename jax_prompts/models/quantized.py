"""Frozen kernels in 8 or 4 bits: narrow in memory, and in a product the numbers that they stand for.

A kernel [I, O] of whole numbers has a `kernel_scale` [G, O] beside it: one scale for all inputs of an output (G = 1),
or for each of G runs of them. Of 4 bits, `kernel_packed` [I/2, O] stands in its place: a byte has an input of the first
half of a run in its lower four bits, and the one as far into the second half in the upper four. (JAX has numbers of 4
bits, but keeps each in a byte on CPUs, and compiles for other arrays of them than it places.)
`base_models/quantize.py` makes all of these, `models/products.py` multiplies by them.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

KERNEL_SCALE, KERNEL_PACKED = "kernel_scale", "kernel_packed"


@flax.struct.dataclass
class Quantized:
    """A kernel; its outputs may lie along several axes, such as heads.

    Attributes:
      whole: whole numbers, int8 `[I, ...]`, or where they are packed `[I/2, ...]`.
      scale_GO: `[G, ...]`.
      packed: whether a byte has two numbers.
    """

    whole: Any
    scale_GO: Any
    packed: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the numbers, `[I, ...]`."""
        rows, *outputs = self.whole.shape
        return (2 * rows if self.packed else rows, *outputs)

    def reshape(self, inputs: int, *outputs: int) -> Quantized:
        """The same kernel, its outputs along these axes."""
        whole = self.whole.reshape(len(self.whole), *outputs)
        return self.replace(whole=whole, scale_GO=self.scale_GO.reshape(len(self.scale_GO), *outputs))

    def astype(self, dtype: DTypeLike) -> Float[Array, " I *o"]:
        """The numbers that it stands for."""
        return widened(self.whole, self.scale_GO, dtype, packed=self.packed)


def widened(whole: Any, scale_GO: Any, dtype: DTypeLike, *, packed: bool, xp: Any = jnp) -> Any:
    """The numbers `[I, ...]` that a kernel stands for; `xp` is `jax.numpy` or `numpy`, whichever has it."""
    runs, *outputs = scale_GO.shape
    whole_GIO = whole.reshape(runs, -1, *outputs)
    if packed:
        whole_GIO = xp.concatenate([(whole_GIO << 4) >> 4, whole_GIO >> 4], axis=1)
    return (whole_GIO.astype(dtype) * scale_GO[:, None].astype(dtype)).reshape(-1, *outputs)
