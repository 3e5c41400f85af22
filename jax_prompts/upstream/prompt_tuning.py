"""Methods of the project as the prompt module of the original prompt tuning code, `train_prompts.Prompt.prompt`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Int

from jax_prompts.errors import ConfigError
from jax_prompts.upstream.parameters import prompt_of
from jax_prompts.upstream.prompted import check_carried
from jax_prompts.upstream.start import Start


class Prompt(nn.Module):
    """Makes a prompt for that code, which puts it in front of the embedded inputs.

    Attributes:
      method, start, tuned, members, sweep: as of `prompted.Prompted`.
      length: P, as that code's masks have it.

    Raises:
      ConfigError: as there; a prompt of another length.
    """

    method: Any = None
    start: Start | None = None
    tuned: Any = None
    members: Any = 1
    sweep: Any = None
    length: int | None = None

    def __post_init__(self) -> None:
        check_carried(self.method, self.tuned, self.members, self.sweep)
        if self.length not in (None, self.method.length):
            raise ConfigError(
                f"PROMPT_LENGTH is {self.length} and PROMPT has {self.method.length} rows: set PROMPT_LENGTH = "
                f"{self.method.length}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Int[Array, "B T"], x_embed: Float[Array, "B T D"]) -> Float[Array, "P D"]:
        prompt_PD = prompt_of(self, self.method, self.start, x_embed.shape[-1])
        return prompt_PD.astype(x_embed.dtype)
