"""Averages over tasks: computed for a complete set of tasks of one kind, refused with the reason otherwise."""

from __future__ import annotations

import collections
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

TaskMetrics = Mapping[str, Mapping[str, float]]  # task -> metric -> value

WAYS = ("", "rank/", "rank_normalized/")  # in front of a metric's name: how the model answered
ACCURACY = ("accuracy",)
CB = ("mean_3class_f1", "accuracy")

# Columns and the metrics that each is the mean of, as the papers average: Wang et al. 2019 (SuperGLUE; so Lester et
# al. 2021 and Razdaibiedina et al. 2023), Wang et al. 2018 (GLUE), and the two halves of Table 1 of the EPT paper.
BENCHMARKS: dict[str, dict[str, tuple[str, ...]]] = {
    "super_glue": {
        "boolq": ACCURACY,
        "cb": CB,
        "copa": ACCURACY,
        "multirc": ("f1", "exact_match"),
        "record": ("f1", "em"),
        "rte": ACCURACY,
        "wic": ACCURACY,
        "wsc": ACCURACY,
    },
    "super_glue_ept": {"boolq": ACCURACY, "cb": CB, "multirc": ("f1",), "wic": ACCURACY, "wsc": ACCURACY},
    "glue": {
        "cola": ("matthews_corrcoef",),
        "mnli": ACCURACY,
        "mrpc": ("f1", "accuracy"),
        "qnli": ACCURACY,
        "qqp": ("f1", "accuracy"),
        "rte": ACCURACY,
        "sst2": ACCURACY,
        "stsb": ("pearson_corrcoef", "spearman_corrcoef"),
        "wnli": ACCURACY,
    },
    "glue_ept": {
        "cola": ("matthews_corrcoef",),
        "mnli": ACCURACY,
        "mrpc": ACCURACY,
        "qnli": ACCURACY,
        "qqp": ACCURACY,
        "rte": ACCURACY,
        "sst2": ACCURACY,
        "stsb": ("pearson_corrcoef",),
    },
}
# `taskless_super_glue_wsc_v102_simple_eval`: kind, suite, column.
NAME = re.compile(
    r"((?:[a-z]+_)*?)(super_glue|glue)_([a-z0-9]+?)(_matched|_mismatched)?_v\d+(?:_simple_eval)?(?:_examples)?"
)


def deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None of fewer than two values, NaN where one is."""
    if len(values) < 2:
        return None
    return math.nan if any(map(math.isnan, values)) else statistics.stdev(values)


def averages(metrics: TaskMetrics) -> dict[str, dict[str, Any]]:
    """The averages that the scores of several tasks allow; none of a single task.

    `all_tasks` is the mean of each metric, `{metric: value}`, or `{"refused": reason}` where the tasks are
    not scored alike. A benchmark of which at least one task is there has `{"average": value}`, tasks of two
    metrics averaged first and MNLI over its two sets; or `{"average": None, "missing": columns}`, or
    `{"average": None, "refused": reason}`. Names begin with the kind of the tasks (`taskless_super_glue`):
    kinds are never mixed. Averages of ranked answers are beside those of generated ones (`rank/glue`).
    """
    if len(metrics) < 2:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        answered = {task: _of_way(values, way) for task, values in metrics.items()}
        if not any(answered.values()):
            continue
        found[f"{way}all_tasks"] = _mean_of_each(answered)
        for (kind, suite), columns in _columns(answered).items():
            for benchmark, wanted in BENCHMARKS.items():
                if benchmark.removesuffix("_ept") == suite and columns.keys() & wanted.keys():
                    found[f"{way}{kind}{benchmark}"] = _benchmark(columns, wanted)
    return found


def _of_way(values: Mapping[str, float], way: str) -> dict[str, float]:
    return {
        name.removeprefix(way): value
        for name, value in values.items()
        if (name.startswith(way) if way else "/" not in name)
    }


def _mean_of_each(metrics: TaskMetrics) -> dict[str, Any]:
    names = {task: ", ".join(sorted(values)) or "none" for task, values in metrics.items()}
    if len(set(names.values())) > 1:
        return {"refused": "unlike metrics: " + "; ".join(f"{task}: {name}" for task, name in names.items())}
    return {
        name: statistics.fmean(values[name] for values in metrics.values())
        for name in next(iter(metrics.values()))
    }


Columns = dict[str, dict[str, Mapping[str, float]]]  # column -> task -> metric -> value


def _columns(metrics: TaskMetrics) -> dict[tuple[str, str], Columns]:
    """Tasks by (kind, suite) and column, those of no benchmark left out."""
    found: dict[tuple[str, str], Columns] = collections.defaultdict(dict)
    for task, values in metrics.items():
        if name := NAME.fullmatch(task):
            kind, suite, column, _ = name.groups()
            found[kind, suite].setdefault(column, {})[task] = values
    return found


def _benchmark(columns: Columns, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    values, missing = [], []
    for column, names in wanted.items():
        tasks = columns.get(column, {})
        if len(tasks) > 1 and column != "mnli":
            return {"average": None, "refused": f"several tasks of one column: {', '.join(tasks)}"}
        if tasks and all(name in scores for scores in tasks.values() for name in names):
            values.append(statistics.fmean(scores[name] for scores in tasks.values() for name in names))
        else:
            missing.append(column)
    return {"average": None, "missing": missing} if missing else {"average": statistics.fmean(values)}
