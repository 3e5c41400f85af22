"""How many examples of tasks share a run of words with what a mixture trains on.

    python scripts/text_overlap.py --mixture mini_span_corruption --data_dir DATA_DIR --against glue_rte_v200 \
        --against_dir OFFICIAL_FILES

A run is 13 words (Brown et al. 2020, appendix C), lower case and without punctuation; an example whose texts are all
shorter cannot be compared. One JSON object a task and split: its examples, those compared, those that share a run, and
how many of these with each of the mixture's tasks.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import seqio

import tasks.registry  # noqa: F401
from tasks.errors import TaskError

_WORD = re.compile(r"[a-z0-9]+")


def texts_of(source: Any, split: str) -> Iterator[list[str]]:
    """The texts of each raw example, those in lists and dictionaries included."""
    for example in source.get_dataset(split, shuffle=False).as_numpy_iterator():
        yield list(_texts(example))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
        for part in value.ravel():
            yield from _texts(part)


def runs(text: str, length: int) -> Iterator[str]:
    """Every `length` words in a row."""
    words = _WORD.findall(text.lower())
    for i in range(len(words) - length + 1):
        yield " ".join(words[i : i + length])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--mixture", required=True, help="mixture or task that is trained on, its train split"
    )
    parser.add_argument("--data_dir", required=True, help="its files")
    parser.add_argument("--against", nargs="+", required=True, help="tasks that prompts are compared on")
    parser.add_argument("--against_dir", required=True, help="their official files")
    parser.add_argument("--words", type=int, default=13)
    args = parser.parse_args()

    found: dict[
        tuple[str, str], list[set[str]]
    ] = {}  # task and split -> of each example: tasks that share a run
    compared = collections.Counter[tuple[str, str]]()
    places: dict[str, list[tuple[tuple[str, str], int]]] = {}  # run -> examples that hold it
    for name in args.against:
        source = seqio.TaskRegistry.get(name).source.at(args.against_dir)
        for split in source.splits:
            try:
                examples = list(texts_of(source, split))
            except TaskError:
                continue  # the file of this split is not at hand
            found[name, split] = [set() for _ in examples]
            for number, texts in enumerate(examples):
                held = {run for text in texts for run in runs(text, args.words)}
                compared[name, split] += bool(held)
                for run in held:
                    places.setdefault(run, []).append(((name, split), number))
    trained = seqio.get_mixture_or_task(args.mixture)
    for task in trained.tasks if isinstance(trained, seqio.Mixture) else [trained]:
        source = task.source.at(args.data_dir)
        for texts in texts_of(source, "train"):
            for text in texts:
                for run in runs(text, args.words):
                    for key, number in places.get(run, ()):
                        found[key][number].add(task.name)
    for (name, split), examples in found.items():
        by_task = collections.Counter(task for tasks_ in examples for task in tasks_)
        print(
            json.dumps(
                {
                    "task": name,
                    "split": split,
                    "examples": len(examples),
                    "compared": compared[name, split],
                    "shared": sum(map(bool, examples)),
                    "by_task": dict(sorted(by_task.items())),
                }
            )
        )


if __name__ == "__main__":
    main()
