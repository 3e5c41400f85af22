"""A prompt file inside T5X: a prompt that is there, and not tuned."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError
from jax_prompts.prompts import PromptMetadata
from jax_prompts.prompts.prompt_file import check_fits, load_file
from jax_prompts.upstream.prompted import check_kind


class Folded(nn.Module):
    """The prompt of a file, without parameters, so that T5X restores the base model alone: a method for `PROMPT`.

    Attributes:
      file: the prompt file, on disk or in a bucket.

    Raises:
      ConfigError: no such file, one with more than a prompt at the encoder's input, or of another width than the model.
      RunError: a damaged file.
    """

    file: str

    def __post_init__(self) -> None:
        _read(self.file)
        super().__post_init__()

    @property
    def length(self) -> int:
        return len(_read(self.file)[0])

    def __call__(self, embed_dim: int, table_init: Any = None) -> Float[Array, "P D"]:
        prompt_PD, metadata = _read(self.file)
        check_fits(self.file, prompt_PD, metadata, prompt_width=lambda _: embed_dim)
        return jnp.asarray(prompt_PD)


@functools.cache
def _read(path: str) -> tuple[Float[np.ndarray, "P D"], PromptMetadata]:
    prompt_PD, leaves, metadata = load_file(path)
    check_kind(f"the prompt of {path}", metadata.prompt_kind)
    if leaves:
        raise ConfigError(
            f"{path} holds {len(leaves)} leaves beside its prompt ({metadata.method}), which upstream T5X has no place "
            "for: use t5x eval or t5x infer of jax_prompts, or the file of a prompt alone"
        )
    return prompt_PD, metadata
