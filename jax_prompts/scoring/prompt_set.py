"""Prompt files that are scored together: read and checked, in groups that one pass can ask."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.base_models.build import Model
from jax_prompts.base_models.tuned_file import load_tuned
from jax_prompts.models.answers import VERBALIZER, answer_of
from jax_prompts.prompts import PromptMetadata
from jax_prompts.prompts.prompt_file import digest
from jax_prompts.tuned.leaves import Leaves


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """E prompts of one base model.

    Attributes:
      files: paths or URLs.
      prompts: `[P, W]` of each.
      metadata: where each came from.
      leaves: what each tuned inside the model, by path; a BERT's classifier too.
    """

    files: list[str]
    prompts: list[Float[np.ndarray, "_ W"]]
    metadata: list[PromptMetadata]
    leaves: list[Leaves]

    @classmethod
    def load(cls, files: Sequence[str], model: Model, labels: Sequence[str], **base: str) -> PromptSet:
        """Reads prompt files.

        Args:
          files: paths or URLs.
          model: the base model.
          labels: of the task.
          base: the fingerprints that `load_prompt` checks.

        Raises:
          ConfigError, RunError: as `load_tuned`.
        """
        width = model.config.prompt_width
        read = [load_tuned(model, file, labels, prompt_width=width, **base) for file in files]
        prompts, leaves, metadata = ([*part] for part in zip(*read, strict=True)) if read else ([], [], [])
        return cls(list(files), prompts, metadata, leaves)

    @property
    def groups(self) -> list[list[int]]:
        """Numbers of prompts that one model asks: of one kind and length, with adapters of one activation, and of a
        BERT all with classifiers or all with verbalisers."""
        found: dict[tuple[Any, ...], list[int]] = {}
        every = zip(self.prompts, self.metadata, self.leaves, strict=True)
        for number, (prompt_PW, origin, leaves) in enumerate(every):
            key = origin.prompt_kind, len(prompt_PW), origin.adapter_activation, answer_of(leaves)
            found.setdefault(key, []).append(number)
        return list(found.values())

    @property
    def longest(self) -> int:
        """Tokens that a prompt brings into a row at most, [MASK] with it; 0 without prompts."""
        lengths = zip(map(len, self.prompts), map(answer_of, self.leaves), strict=True)
        return max((length + (answer == VERBALIZER) for length, answer in lengths), default=0)

    @property
    def tasks(self) -> list[str]:
        """What the prompts were tuned on, as far as that is known."""
        return sorted({origin.task for origin in self.metadata} - {""})

    @functools.cached_property
    def marks(self) -> dict[str, str]:
        """A digest of what each file answers with."""
        every = zip(self.files, self.prompts, self.metadata, self.leaves, strict=True)
        return {file: digest(prompt_PW, origin, leaves) for file, prompt_PW, origin, leaves in every}
