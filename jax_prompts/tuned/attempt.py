"""ATTEMPT: attention of each row to source prompts and to its own (Asai et al. 2022)."""

from __future__ import annotations

import dataclasses
import functools
import glob
import math
import os

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError
from jax_prompts.models.row_prompts import ATTENTION
from jax_prompts.prompts.from_files import read_alike
from jax_prompts.prompts.prompt_file import PromptMetadata
from jax_prompts.prompts.prompt_paths import prompt_paths
from jax_prompts.storage.home import with_home
from jax_prompts.tuned.leaves import Boxed, Leaves, Weights, drawn
from jax_prompts.tuned.sizes import PROMPTS_OF_T5, check_at_least_1, check_number, encoder_width

_SCALE, _BIAS, _SOURCES = (f"{ATTENTION}/{name}" for name in ("norm/scale", "norm/bias", "sources"))


@dataclasses.dataclass(frozen=True)
class ATTEMPT:
    """P + a P + sum_s a_s P_s: the tuned prompt P, and S prompts of other tasks that are not tuned (section 3.2).

    The attention a is a softmax over S + 1 prompts of (k q) / T (`models/row_prompts.py`). As in the released code the
    tuned prompt counts twice. That code takes the largest of the text's numbers over padding, too, which here does not
    count, and its separate learning rate of the attention finds no parameters.

    Tuned parameters beside the prompt's P*D: 2*D*M, and with the norm 2*D. With P = 100 on T5-base all are 231,936, the
    paper's 232K; the released code leaves the norm as it starts: 230,400.

    Attributes:
      sources: prompt files, or patterns of their paths, of one length, width and base model: those of the prompt.
      bottleneck: M.
      temperature: T; None: D*e, which is the 2,087 of the released settings for T5-base.
      norm: whether scale and bias of the norm are tuned.
      scale: standard deviation of the weights' start.

    Raises:
      ConfigError: no sources, files that are none or do not go together, a bottleneck below 1, a temperature that is
        not above 0, a model that is no T5.
    """

    sources: tuple[str, ...] = ()
    bottleneck: int = 100
    temperature: float | None = None
    norm: bool = True
    scale: float = 0.01

    def __post_init__(self) -> None:
        check_at_least_1("ATTEMPT.bottleneck", self.bottleneck)
        if (
            isinstance(self.sources, str)
            or not self.sources
            or not all(isinstance(x, str) for x in self.sources)
        ):
            raise ConfigError(
                f"ATTEMPT.sources is {self.sources!r}: set it to prompts of other tasks, ('FILE', 'FILE', ...)"
            )
        check_number("ATTEMPT.scale", self.scale)
        if self.temperature is not None:
            check_number("ATTEMPT.temperature", self.temperature, above_0=True)

    @functools.cached_property
    def is_here(self) -> bool:
        """Whether all sources are; a run without steps, such as one that counts, does without them."""
        return all(
            "://" in path or os.path.exists(with_home(path)) or glob.has_magic(path) for path in self.sources
        )

    @functools.cached_property
    def _read(self) -> tuple[Float[np.ndarray, "S P D"], dict[str, PromptMetadata]]:
        """The sources, and the origin of each by its path; read once, so that a run has them to its end."""
        setting = "ATTEMPT.sources"
        paths = prompt_paths(setting, self.sources)
        sources_SPD, origins = read_alike(setting, paths)
        if (kind := origins[0].prompt_kind) != "input":
            raise ConfigError(f"{setting} {paths[0]} is a prompt of kind {kind}: use prompts of embeddings")
        return sources_SPD, dict(zip(paths, origins, strict=True))

    @property
    def prompt_length(self) -> int:
        """P of the sources."""
        return self._read[0].shape[1]

    def check_sources(self, model_fingerprint: str = "") -> None:
        """Raises ConfigError unless the sources can be read, go together and, once it is known, with the base model."""
        for path, origin in self._read[1].items():
            theirs = origin.model_fingerprint
            if theirs and model_fingerprint and theirs != model_fingerprint:
                raise ConfigError(
                    f"ATTEMPT.sources {path} belongs to base model {origin.model_fingerprint} ({origin.base_model}) "
                    f"and this run has {model_fingerprint}: use prompts of its base model"
                )

    def init(self, weights: Weights, key: Array) -> dict[str, Boxed]:
        """A fresh attention for a T5 with these weights."""
        D, M = encoder_width(self, weights, PROMPTS_OF_T5), self.bottleneck
        if self.is_here and (width := self._read[0].shape[2]) != D:
            raise ConfigError(
                f"ATTEMPT.sources {next(iter(self._read[1]))} has width {width} and the base model {D}: "
                "use prompts of its base model"
            )
        normal, down, up = (
            nn.initializers.normal(self.scale),
            f"{ATTENTION}/down/kernel",
            f"{ATTENTION}/up/kernel",
        )
        leaves = {
            down: drawn(normal, key, down, (D, M), ("embed", "rank")),
            up: drawn(normal, key, up, (M, D), ("rank", "embed")),
        }
        if self.norm:
            leaves[_SCALE] = drawn(nn.initializers.ones, key, _SCALE, (D,), ("embed",))
            leaves[_BIAS] = drawn(nn.initializers.zeros, key, _BIAS, (D,), ("embed",))
        return leaves

    def constants(self) -> dict[str, Boxed]:
        """What the model reads beside the leaves, and a file keeps: the sources."""
        return {_SOURCES: Boxed(self._read[0], (None, "prompt", "embed"))} if self.is_here else {}

    def fold(self, leaves: Leaves, *, training: bool) -> Leaves:
        """What the model reads: scale and bias of the norm divided by T."""
        width = leaves[f"{ATTENTION}/down/kernel"].shape[0]
        per_T = 1.0 / (width * math.e if self.temperature is None else self.temperature)
        scale_D, bias_D = leaves.get(_SCALE, jnp.ones(width)), leaves.get(_BIAS, jnp.zeros(width))
        return {**leaves, _SCALE: scale_D * per_T, _BIAS: bias_D * per_T}
