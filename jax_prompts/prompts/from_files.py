"""Starts from several tuned prompts of other tasks: their mean, or what they have in common."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_prompts.errors import ConfigError, nearest
from jax_prompts.models.answers import inside_model
from jax_prompts.prompts.init import Base, check_holds_prompt
from jax_prompts.prompts.layers import TableInit
from jax_prompts.prompts.prompt_file import PromptMetadata, check_fits, load_file
from jax_prompts.prompts.shared_prompt import decompose

_COMBINE = ("mean", "shared")


@dataclasses.dataclass(frozen=True)
class FromFiles:
    """Several source prompts, put together; every member starts there. One alone is `FromFile`.

    `mean` with weights in proportion to similarities is SPoT's weighted average of the prompts most like the target's
    (Vu et al. 2022); `t5x study similarity --target` prints both. `shared` is the prompt that the sources have in
    common up to a rank-1 matrix of each, times the mean factors (`prompts/shared_prompt.py`): a start for `MPT` without
    its training on source tasks.

    Attributes:
      paths: prompt files of one length, width and base model.
      combine: `mean` or `shared`.
      weights: of a mean, one for each path in any unit; None: all count the same.

    Raises:
      ConfigError: no paths, one twice, other weights than paths, unknown `combine`.
    """

    paths: tuple[str, ...]
    combine: str = "mean"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.paths, str) or not self.paths or not all(isinstance(x, str) for x in self.paths):
            raise ConfigError(f"FromFiles.paths is {self.paths!r}: set it to ('FILE', 'FILE', ...)")
        if twice := [path for path in self.paths if self.paths.count(path) > 1]:
            raise ConfigError(f"FromFiles.paths names {twice[0]} twice: leave one out")
        if self.combine not in _COMBINE:
            names = nearest(str(self.combine), _COMBINE)
            raise ConfigError(f"FromFiles.combine is {self.combine!r}: set it to {names}")
        if self.weights is not None:
            self._check_weights(self.weights)

    def _check_weights(self, weights: tuple[float, ...]) -> None:
        if self.combine != "mean":
            raise ConfigError("FromFiles.weights belong to FromFiles.combine = 'mean': leave them out")
        numbers = isinstance(weights, tuple | list) and all(
            isinstance(x, int | float) and math.isfinite(x) and x >= 0 for x in weights
        )
        if not numbers or len(weights) != len(self.paths) or not sum(weights) > 0:
            raise ConfigError(
                f"FromFiles.weights is {weights!r}: give each of the {len(self.paths)} paths a number, none below 0 "
                "and one above"
            )

    def table_init(self, base: Base) -> TableInit:
        sources_KPD, _ = read_alike("FromFiles.paths", self.paths, base.embedding_VD.shape[1])
        start_PD = self._start(sources_KPD)

        def init(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Float[Array, "P D"]:
            if len(start_PD) != shape[0]:
                raise ConfigError(
                    f"FromFiles.paths {self.paths[0]} has {len(start_PD)} rows and the method's table {shape[0]}: use "
                    f"other files, or set PROMPT_LENGTH (SuperPos.rows, Explosive.vectors) to {len(start_PD)}"
                )
            return jnp.asarray(start_PD, dtype)

        return init

    def _start(self, sources_KPD: Float[np.ndarray, "K P D"]) -> Float[np.ndarray, "P D"]:
        if self.combine == "mean":
            return np.average(sources_KPD.astype(np.float64), axis=0, weights=self.weights)
        return decompose(sources_KPD).start_PD


def read_alike(
    setting: str, paths: Sequence[str], width: int | None = None
) -> tuple[Float[np.ndarray, "K P D"], list[PromptMetadata]]:
    """Prompts of one kind, length and, as far as is known, base model, of this width; and their metadata.

    Args:
      setting: what names the paths.
      paths: of prompt files.
      width: D of the base model; None: that of the first.

    Raises:
      ConfigError, RunError: as `load_prompt`; prompts that are unlike; leaves inside the model beside one.
    """
    read = [load_file(path) for path in paths]
    first_PD, _, first = read[0]
    width = first_PD.shape[1] if width is None else width
    for path, (prompt_PD, leaves, metadata) in zip(paths, read, strict=True):
        check_holds_prompt(setting, path, prompt_PD, metadata)
        check_fits(path, prompt_PD, metadata, prompt_width=lambda _: width)
        if inside := inside_model(leaves):
            raise ConfigError(
                f"{setting} {path} holds {len(inside)} leaves inside the model ({metadata.method}), without which its "
                "prompt is another: use files of prompts alone"
            )
        if len(prompt_PD) != len(first_PD):
            raise ConfigError(
                f"{setting} {path} has {len(prompt_PD)} prompt tokens and {paths[0]} {len(first_PD)}: "
                "use prompts of one length"
            )
        check_same_origin(paths[0], first, path, metadata)
    return np.stack([prompt_PD for prompt_PD, *_ in read]), [metadata for *_, metadata in read]


def check_same_origin(a: str, of_a: PromptMetadata, b: str, of_b: PromptMetadata) -> None:
    """Raises ConfigError where two prompts, of files a and b, are of other kinds or known base models."""
    if of_a.prompt_kind != of_b.prompt_kind:
        raise ConfigError(
            f"{a} is a prompt of kind {of_a.prompt_kind} and {b} of kind {of_b.prompt_kind}: use prompts of one kind"
        )
    ours, theirs = of_a.model_fingerprint, of_b.model_fingerprint
    if ours and theirs and ours != theirs:
        raise ConfigError(
            f"{a} belongs to base model {ours} ({of_a.base_model}) and {b} to {theirs} ({of_b.base_model}): "
            "use prompts of one base model"
        )
