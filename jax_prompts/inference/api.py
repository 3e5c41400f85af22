"""The Python interface: `load_model`, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jax_prompts.config import BaseModel, Decoding
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.inference.engine import Engine, Prompt
from jax_prompts.prompts.store import PromptStore
from jax_prompts.storage.files import PathOrUrl
from jax_prompts.storage.home import with_home

__all__ = ["ConfigError", "Decoding", "Engine", "Prompt", "PromptStore", "RunError", "load_model"]


def load_model(
    checkpoint: PathOrUrl | None,
    *,
    size: str | None = None,
    vocabulary: PathOrUrl | None = None,
    inputs_length: int = 512,
    targets_length: int = 64,
    batch_size: int = 32,
    activation_dtype: Literal["float32", "bfloat16"] = "float32",
    weight_dtype: Literal["float32", "bfloat16", "int8", "int4"] = "float32",
    scan_layers: bool = False,
    partitions: Mapping[str, int] | None = None,
) -> Engine:
    """A base model that answers texts, with prompts or without.

    Args:
      checkpoint: a model directory (native format, T5X or Hugging Face), `gs://` path, `hf://ORGANISATION/NAME`,
        `asset:micro`, or None for random weights.
      size: a name in `models/sizes.py`; None: as the checkpoint says.
      vocabulary: path of a SentencePiece model or WordPiece vocabulary, `gs://` path, `asset:micro` or `bytes`
        (ByT5's); None: the file beside the checkpoint.
      inputs_length: tokens that a text is cut to, end of sentence included; the prompt comes on top.
      targets_length: tokens that an answer may have.
      batch_size: texts at once.
      activation_dtype: `float32` or `bfloat16`; norms, softmax statistics and logits stay float32.
      weight_dtype: dtype in which weights are kept.
      scan_layers: compile one layer and scan over it instead of unrolling.
      partitions: devices along the mesh axes `data`, `fsdp` and `model` (`partition.py`); None: all along `data`.

    Raises:
      ConfigError: a setting that cannot work, or that the checkpoint does not answer.
      RunError: a file that cannot be read.
    """
    base = BaseModel(
        size=size,
        checkpoint=checkpoint if checkpoint is None else with_home(checkpoint),
        vocabulary=vocabulary if vocabulary is None else with_home(vocabulary),
        activation_dtype=activation_dtype,
        weight_dtype=weight_dtype,
        scan_layers=scan_layers,
        partitions=dict(partitions) if isinstance(partitions, Mapping) else partitions or {},
    )
    return Engine(base, inputs_length=inputs_length, targets_length=targets_length, batch_size=batch_size)
