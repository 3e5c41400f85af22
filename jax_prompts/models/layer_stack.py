"""A stack of like layers: a list, or one module scanned over what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jax_prompts.models.remat import rematerialized


def layer_stack(
    layer: type[nn.Module], config: Any, length: int, *, static: int, scanned: Mapping[str, tuple[Any, ...]]
) -> list[nn.Module] | nn.Module:
    """`length` layers: a list or, with `config.scan_layers`, one module scanned over their parameters, on axis 0.

    Args:
      layer: made of `config` alone.
      config: a model's; what of the forward pass a layer keeps is its `remat`.
      static: number of the argument of `__call__` (self is 0) that is no array.
      scanned: method -> for each of its arguments behind the first, the carry, 0 where every layer has its own on
        axis 0, `nn.broadcast` where all have the same.
    """
    layer = rematerialized(layer, config.remat, static=static, scanned=config.scan_layers)
    if not config.scan_layers:
        return [layer(config) for _ in range(length)]
    common = dict(variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=length,
                  metadata_params={nn.PARTITION_NAME: "layers"})  # fmt: skip
    methods = {name: dict(in_axes=in_axes, **common) for name, in_axes in scanned.items()}
    return nn.scan(layer, methods=methods)(config)
