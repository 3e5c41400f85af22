"""Scores the answers to a task: its postprocessor and metrics, beside what says how much a score is worth."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import numbers
import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax_prompts.data.cache import TokenCache
from jax_prompts.errors import ConfigError, RunError, first_line
from jax_prompts.inference.ranking import Ranked
from jax_prompts.scoring import baselines, bootstrap
from jax_prompts.scoring.answers import Answers
from jax_prompts.scoring.averages import WAYS, averages
from jax_prompts.scoring.best_tracker import check_metric

LOSS_METRICS = ("loss", "token_accuracy")  # of tasks without metrics


@dataclasses.dataclass(frozen=True)
class Scores:
    """Metrics of one prompt on one task, and the predictions they were made from.

    Attributes:
      metrics: what prompts are chosen by and compared on; `rank/...` and `rank_normalized/...` those of the
        likeliest labels.
      predictions: a row for each example.
      context: what the metrics are worth, see `TaskEvaluator`; empty for tasks without metrics.
      intervals: `[low, high]` of each metric, 95 %; empty unless asked for.
      answers: what was scored; None of tasks without metrics.
      losses: of the right answers, beside metrics that are others.
      chooses: whether prompts are chosen by them, where the task is one of a mixture.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    context: dict[str, Any] = dataclasses.field(default_factory=dict)
    intervals: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)
    answers: Answers | None = None
    losses: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chooses: bool = True


def report(scores: dict[str, Scores]) -> dict[str, dict[str, Any]]:
    """Scores by task as plain JSON: `metrics`, and where there are any also `losses`, `about_scores`, `intervals` and
    `averages`."""
    metrics = {task: found.metrics for task, found in scores.items()}
    more = {
        "losses": {task: dict(found.losses) for task, found in scores.items() if found.losses},
        "about_scores": {task: found.context for task, found in scores.items() if found.context},
        "intervals": {task: found.intervals for task, found in scores.items() if found.intervals},
        "averages": averages(metrics),
    }
    return {"metrics": metrics} | {name: values for name, values in more.items() if values}


@dataclasses.dataclass(frozen=True)
class TaskEvaluator:
    """Scores answers to the examples of one cache as its task says.

    Beside the metrics it reports, as `Scores.context`: the number of `examples`; `majority_baseline` and, for two
    classes, `all_positive_baseline`, the task's metrics of a constant answer (None where a metric has no value
    for one, as a correlation); of the answers what `baselines.shares` says; and where they should be numbers, how
    many are none (`unreadable_predictions`), which count as wrong; and of metrics with a `signature` function what
    that says of the targets (`signatures`).

    Attributes:
      cache: examples, postprocessor and metrics.
      resamples: draws of the bootstrap behind `Scores.intervals`; 0: no intervals.
    """

    cache: TokenCache
    resamples: int = 0

    def __call__(self, answers: Answers) -> Scores:
        """Scores answers, one an example, and beside them those of other ways (`Answers.ways`)."""
        target_texts, targets = self._gold
        several = len(set(target_texts)) > 1
        metrics: dict[str, float] = {}
        context: dict[str, Any] = {
            "examples": len(answers.texts),
            **self._baselines,
            **self._signatures,
        }
        intervals: dict[str, list[float | None]] = {}
        for way, said in answers.ways.items():
            predictions = self._postprocessed(said.texts, said.classes)
            metrics |= _named(way, self._compute(targets, predictions))
            context |= _named(way, baselines.shares(said.texts, None if way else self.cache.labels, several))
            if targets and all(isinstance(target, float) for target in targets):
                context |= _named(way, {"unreadable_predictions": baselines.unreadable(said.texts)})
            if self.resamples:
                with _quiet():
                    drawn = bootstrap.intervals(self._compute, targets, predictions, self.resamples)
                intervals |= _named(way, drawn)
        rows, chooses = self._rows(answers), self.cache.chooses
        return Scores(metrics, rows, context, intervals, answers, answers.losses, chooses)

    @functools.cached_property
    def _gold(self) -> tuple[list[str], list[Any]]:
        """Target texts, and the same postprocessed."""
        texts, targets = [], []
        for index in range(len(self.cache)):
            example = self.cache.example(index)
            texts.append(example["targets_pretokenized"])
            targets.append(_processed(self.cache, index, texts[-1], example, is_target=True))
        return texts, targets

    @functools.cached_property
    def _baselines(self) -> dict[str, dict[str, float | None]]:
        texts, targets = self._gold
        found = {}
        for name, answer in baselines.constant_answers(self.cache.labels, texts, targets).items():
            one_each = len(texts) * [answer]
            predictions = self._postprocessed(one_each) if isinstance(answer, str) else one_each
            with _quiet():
                values = self._compute(targets, predictions)
            found[f"{name}_baseline"] = {
                metric: value if math.isfinite(value) else None for metric, value in values.items()
            }
        return found

    @functools.cached_property
    def _signatures(self) -> dict[str, dict[str, str]]:
        _, targets = self._gold
        found = {}
        for metric in self.cache.metrics:
            function = getattr(metric, "func", metric)
            if hasattr(function, "signature"):
                found[function.__name__] = function.signature(targets)
        return {"signatures": found} if found else {}

    def _postprocessed(self, texts: Sequence[Any], classes: Ranked | None = None) -> list[Any]:
        found = []
        for index, text in enumerate(texts):
            example = self.cache.example(index)
            if classes is not None:
                example |= {"label_log_probabilities": classes.log_p(index)}
            found.append(_processed(self.cache, index, text, example, is_target=False))
        return found

    def _compute(self, targets: list[Any], predictions: list[Any]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for metric in self.cache.metrics:
            metrics |= values_of(self.cache.task, metric, targets, predictions)
        if not metrics:
            raise ConfigError(f"the metrics of {self.cache.task} give no number: add one to its metric_fns")
        return metrics

    def _rows(self, answers: Answers) -> list[dict[str, Any]]:
        rows, ranked = [], answers.ranked
        for index, text in enumerate(answers.texts):
            example = self.cache.example(index)
            row = {
                "index": index,
                "inputs": example["inputs_pretokenized"],
                "targets": example["targets_pretokenized"],
                "prediction": text,
            }
            if self.cache.labels is not None:
                row["out_of_class"] = text not in self.cache.labels
            if ranked is not None:
                row |= {"rank": ranked.best[index], "rank_normalized": ranked.best_normalized[index]}
            if (likely := ranked or answers.classes) is not None:
                row["label_log_probabilities"] = likely.log_p(index)
            rows.append(row)
        return rows


def check_metrics(name: str | None, caches: Sequence[TokenCache], *, ranked: bool) -> None:
    """Raises ConfigError where a task that chooses has no metric `name`, before anything is computed.

    Args:
      name: of the metric that chooses; None: there is nothing to check.
      caches: of the tasks.
      ranked: whether the likeliest labels are scored, too.
    """
    for cache in caches:
        if cache.chooses:
            check_metric_of(name, cache, ranked=ranked)


def check_metric_of(name: str | None, cache: TokenCache, *, ranked: bool) -> None:
    """`check_metrics` of one task, whether it chooses or not."""
    if name is not None:
        examples = [cache.example(index) for index in range(min(2, len(cache)))]
        named = metric_names(cache.metrics, cache.postprocess, examples, ranked and cache.labels is not None)
        check_metric(name, cache.task, named)


def metric_names(
    metrics: Sequence[Callable[..., dict[str, float]]],
    postprocess: Callable[..., Any],
    examples: Sequence[Mapping[str, Any]],
    ranked: bool,
) -> list[str]:
    """Names of a task's metrics, which the metrics themselves give of right answers.

    Args:
      metrics: the task's.
      postprocess: the task's.
      examples: two of them, or fewer where a task has no more: of one alone a correlation cannot be computed.
      ranked: whether the likeliest labels are scored, too.
    """
    if not metrics:
        return list(LOSS_METRICS)
    targets, said = (
        [
            postprocess(example["targets_pretokenized"], example=example, is_target=is_target)
            for example in examples
        ]
        for is_target in (True, False)
    )
    with _quiet():
        names = [name for metric in metrics for name in values_of("the task", metric, targets, said)]
    return [way + name for way in (WAYS if ranked else WAYS[:1]) for name in names]


def values_of(
    task: str, metric: Callable[..., Any], targets: list[Any], predictions: list[Any]
) -> dict[str, float]:
    """The numbers that a metric gives, also as SeqIO's `Scalar`; texts and pictures, which it may give, are left out.

    Raises:
      RunError: it fails.
    """
    try:
        found = {name: getattr(value, "value", value) for name, value in metric(targets, predictions).items()}
        return {name: float(value) for name, value in found.items() if _is_number(value)}
    except (ConfigError, RunError):
        raise
    except Exception as error:
        function = getattr(metric, "func", metric)
        name = getattr(function, "__name__", type(function).__name__)
        raise RunError(
            f"metric {name} of {task} fails ({type(error).__name__}: {first_line(error)}): correct it"
        ) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) or (hasattr(value, "dtype") and getattr(value, "ndim", None) == 0)


def _processed(cache: TokenCache, index: int, text: Any, example: dict[str, Any], *, is_target: bool) -> Any:
    """A text as the metrics want it. Raises RunError where the task's postprocessor fails."""
    try:
        return cache.postprocess(text, example=example, is_target=is_target)
    except (ConfigError, RunError):
        raise
    except Exception as error:
        what = "target" if is_target else f"answer {reprlib.repr(text)}"
        raise RunError(
            f"the postprocessor of {cache.task} fails on the {what} of example {index} "
            f"({type(error).__name__}: {first_line(error)}): correct it"
        ) from error


def _named(way: str, values: dict[str, Any]) -> dict[str, Any]:
    return {way + name: value for name, value in values.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops warnings that a metric has no value for constant answers: the report says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
