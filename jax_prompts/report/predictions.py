"""Predictions as the page's browser takes them: each example once, each answer as a number, compressed."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

from jax_prompts.report import limits
from jax_prompts.report.answers import Answered, is_right, text_of
from jax_prompts.report.confusion import is_labelled
from jax_prompts.report.series import is_number
from jax_prompts.storage import json_text

CUT = "…"


def packed(answered: Sequence[Answered]) -> tuple[str, list[str]]:
    """Text that the browser of predictions decodes, and what was cut in it; "" where there are no predictions."""
    if not answered:
        return "", []
    for most in limits.CHARACTERS:
        columns, cut = columns_of(answered, most)
        text = json_text.dumps(columns, ensure_ascii=False, separators=(",", ":"))
        data = zlib.compress(text.encode(errors="replace"), 9)  # JSON may hold half a surrogate pair
        if len(data) <= limits.PREDICTION_BYTES:
            break
    remarks = [f"{cut:,} texts are cut to {most} characters, which {CUT} marks."] if cut else []
    return base64.b64encode(data).decode(), remarks


def columns_of(answered: Sequence[Answered], most: int) -> tuple[dict[str, Any], int]:
    """Columns that hold every text once, and how many texts were cut.

    `examples` has for each example its number `index` in its task, `task`, `input` and `target`; `sources` has for each
    `run` and `who` its examples, answers (numbers of `texts`), which are `right` ("1" or "0" each), and percent of
    agreement of an ensemble. `labels` has for each task those that one may choose among.

    Args:
      answered: what is embedded.
      most: characters of a text.
    """
    texts: dict[str, int] = {}
    cut = 0

    def short(text: str) -> str:
        nonlocal cut
        if len(text) <= most:
            return text
        cut += 1
        return text[:most] + CUT

    def number_of(text: str) -> int:
        if (known := texts.get(text)) is None:
            known = texts[text] = len(texts)
        return known

    tasks: dict[str, int] = {}
    labels: list[dict[str, None]] = []
    known: dict[tuple[int, int, str, str], int] = {}
    inputs: list[str] = []
    examples: dict[str, list[Any]] = {"index": [], "task": [], "input": inputs, "target": []}
    sources = []
    for source in answered:
        task = tasks.setdefault(source.examples, len(tasks))
        labels += [{}] * (task + 1 - len(labels))
        labels[task] = labels[task] | dict.fromkeys(
            text_of(row.get("targets")) for row in source.rows if is_labelled(row)
        )
        at, said = [], []
        for row in source.rows:
            target = text_of(row.get("targets"))
            key = (task, row["index"], text_of(row.get("inputs")), target)
            if (number := known.get(key)) is None:
                number = known[key] = len(inputs)
                inputs.append(short(key[2]))
                examples["index"].append(row["index"])
                examples["task"].append(task)
                examples["target"].append(number_of(short(target)))
            at.append(number)
            said.append(number_of(short(text_of(row["prediction"]))))
        agreement = [_percent(row.get("agreement")) for row in source.rows]
        sources.append(
            {
                "run": source.run,
                "who": source.who,
                "of": source.task,
                "when": source.when,
                "task": task,
                "examples": _ranged(at),
                "answers": said,
                "right": "".join("1" if is_right(row) else "0" for row in source.rows),
                **({"agreement": agreement} if any(agreement) else {}),
            }
        )
    few = [sorted(found) if len(found) <= limits.CLASSES else [] for found in labels]
    columns = {"tasks": [*tasks], "labels": few, "texts": [*texts], "examples": examples, "sources": sources}
    return columns, cut


def _percent(share: Any) -> int:
    """Of a share from 0 to 1."""
    return round(100 * min(max(share, 0), 1)) if is_number(share) else 0


def _ranged(numbers: list[int]) -> list[int] | dict[str, int]:
    """Numbers that follow each other as the first and their count."""
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return {"first": numbers[0], "count": len(numbers)}
    return numbers
