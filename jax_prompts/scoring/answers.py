"""What a prompt, or an ensemble of prompts, says to every example of a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from jax_prompts.inference.ranking import Ranked


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers to N examples.

    Attributes:
      texts: one an example.
      ranked: how likely a model that answers with text finds the labels, where that was asked.
      classes: how likely a classifier finds them; `texts` are its likeliest.
      others: answers that were found in another way, by what stands in front of their metrics' names.
      losses: how likely the right answers are found: cross-entropy a target token (nats) and token accuracy (%).
    """

    texts: Sequence[str]
    ranked: Ranked | None = None
    classes: Ranked | None = None
    others: Mapping[str, Answers] = dataclasses.field(default_factory=dict)
    losses: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def ways(self) -> dict[str, Answers]:
        """All answers, by what stands in front of their metrics' names; those of the likeliest labels among them."""
        found = {"": self}
        if self.ranked is not None:
            found |= {
                "rank/": Answers(self.ranked.best),
                "rank_normalized/": Answers(self.ranked.best_normalized),
            }
        return found | dict(self.others)
