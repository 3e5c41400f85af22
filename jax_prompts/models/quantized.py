"""Frozen kernels in 8 or 4 bits: narrow in memory, and in a product the numbers that they stand for.

A kernel [I, O] of whole numbers has a `kernel_scale` [G, O] beside it: one scale for all inputs of an output (G = 1),
or for each of G runs of them. `base_models/quantize.py` makes both, `models/products.py` multiplies by them.
"""

from __future__ import annotations

from typing import Any

import flax.struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float

KERNEL_SCALE = "kernel_scale"


@flax.struct.dataclass
class Quantized:
    """A kernel; its outputs may lie along several axes, such as heads.

    Attributes:
      whole_IO: whole numbers, `[I, ...]`.
      scale_GO: `[G, ...]`.
    """

    whole_IO: Any
    scale_GO: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole_IO.shape

    def reshape(self, inputs: int, *outputs: int) -> Quantized:
        """The same kernel, its outputs along these axes."""
        scale_GO = self.scale_GO.reshape(len(self.scale_GO), *outputs)
        return Quantized(self.whole_IO.reshape(inputs, *outputs), scale_GO)

    def astype(self, dtype: DTypeLike) -> Float[Array, " I *o"]:
        """The numbers that it stands for."""
        runs, *outputs = self.scale_GO.shape
        whole_GIO = self.whole_IO.reshape(runs, -1, *outputs).astype(dtype)
        return (whole_GIO * self.scale_GO[:, None].astype(dtype)).reshape(self.shape)
