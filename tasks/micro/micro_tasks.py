"""Tasks around the embedded `micro` model: its pre-training mixtures, and the quickstart's data set."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator

from tasks import pretraining, registration  # noqa: F401  only what is registered can be mixed
from tasks.metrics.labels import accuracy
from tasks.micro import reviews, world
from tasks.sources.generated import Generated
from tasks.text.postprocessors import label_id

WORLD_SIZES = {"train": 150_000, "validation": 1_000}
QUICKSTART_SIZES = {"train": 2_000, "validation": 400}


def _pairs(kinds: tuple[Callable[[random.Random], world.Pair], ...], split: str) -> Iterator[dict[str, str]]:
    draw = random.Random(split)
    for _ in range(WORLD_SIZES[split]):
        inputs, targets = draw.choice(kinds)(draw)
        yield {"inputs": inputs, "targets": targets}


# Supervised text-to-text tasks, as T5 v1.0's mixture had; none is the quickstart's task.
for name, kinds in {
    "micro_world": world.GENERAL,
    "micro_reviews": (reviews.continue_review, reviews.ask_about_review, reviews.ask_about_review),
}.items():
    source = Generated(functools.partial(_pairs, kinds), WORLD_SIZES)
    registration.add(name, source, (), family="micro", taskless=False)

registration.add(
    "quickstart_reviews",
    Generated(lambda split: reviews.quickstart(split, 0, QUICKSTART_SIZES[split]), QUICKSTART_SIZES),
    (),
    family="micro",
    postprocess_fn=functools.partial(label_id, label_classes=("negative", "positive")),
    metric_fns=[accuracy],
    taskless=False,
)

for name, objective in {
    "micro_span_corruption": "span_corruption",
    "micro_lm_adaptation": "prefix_lm",
}.items():
    registration.mix(name, {objective: 2.0, "micro_world": 1.0, "micro_reviews": 1.0}, family="micro")
