"""Draws training examples that are shown in front of other texts: few-shot prompting (Brown et al. 2020, section 2)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jax_prompts.config import PromptDesign
from jax_prompts.errors import ConfigError


class Demonstration(NamedTuple):
    """A text and its answer."""

    inputs: str
    targets: str


@dataclasses.dataclass(frozen=True)
class Pool:
    """Examples that may be shown, no text twice.

    Attributes:
      task: where they come from.
      by_class: those of each class; all of them as `""` where classes do not count.
    """

    task: str
    by_class: dict[str, list[Demonstration]]


def pool_of(
    task: str, examples: Iterable[Demonstration], labels: Sequence[str] | None, *, balanced: bool, hidden: str
) -> Pool:
    """The examples of a task that may be shown.

    Args:
      task: its name.
      examples: of training, in their order.
      labels: the task's classes, or None; an example whose answer is none of them is not shown.
      balanced: whether its classes count.
      hidden: the answer of examples that have none.
    """
    by_class: dict[str, list[Demonstration]] = {
        label: [] for label in (labels if labels and balanced else [""])
    }
    seen: set[str] = set()
    for example in examples:
        known = example.targets != hidden if labels is None else example.targets in labels
        if known and example.inputs not in seen:
            seen.add(example.inputs)
            by_class[example.targets if labels and balanced else ""].append(example)
    return Pool(task, by_class)


def check(pool: Pool, count: int, texts: Collection[str]) -> None:
    """Raises ConfigError where so many cannot be drawn for each of these texts, none being shown to itself."""
    each = -(-count // len(pool.by_class))
    for label, examples in pool.by_class.items():
        itself = any(example.inputs in texts for example in examples)
        left = len(examples) - itself
        if each > left:
            wanted = f"{count}, {each} of a class," if label else f"{count},"
            of_class = f" of class {label!r}" if label else ""
            besides = " besides the one that is answered" if itself else ""
            balance = ", or set PromptDesign.balanced = False" if label else ""
            raise ConfigError(
                f"DEMONSTRATIONS is {wanted} and {pool.task} has {left} different training examples{of_class}"
                f"{besides}: lower it{balance}"
            )


def drawn(pool: Pool, design: PromptDesign, count: int, text: str) -> list[Demonstration]:
    """Demonstrations for a text, never the text itself: another of its class stands in its place.

    Classes take turns, in an order drawn for each round, so that fewer demonstrations are the first of more. The draw
    depends on the seed, the pool and, unless it is fixed, the text: not on its place in a split or slice.

    Args:
      pool: has enough of them (`check`).
      design: by which seed, and whether the draw is the same for all texts.
      count: how many.
      text: that they are shown in front of.
    """
    own = () if design.fixed else hashlib.sha256(text.encode(errors="replace")).digest()[:16]
    bits = _raw_bits([design.seed, *own])
    classes = [*pool.by_class]
    found: dict[str, Demonstration] = {}
    class_of: dict[str, str] = {}
    while len(found) < count:
        order = np.argsort([next(bits) for _ in classes], kind="stable")
        for number in order[: count - len(found)]:
            example = _another(pool.by_class[classes[number]], bits, found)
            found[example.inputs], class_of[example.inputs] = example, classes[number]
    if text in found:
        found[text] = _another(pool.by_class[class_of[text]], bits, found)
    return [*found.values()]


def _another(examples: Sequence[Demonstration], bits: Iterator[int], taken: Collection[str]) -> Demonstration:
    while (example := examples[next(bits) % len(examples)]).inputs in taken:
        pass
    return example


def _raw_bits(entropy: Sequence[int]) -> Iterator[int]:
    """Raw Philox bits, a stream that NumPy keeps the same in every version."""
    bits = np.random.Philox(np.random.SeedSequence(entropy))
    while True:
        yield from bits.random_raw(64).tolist()
