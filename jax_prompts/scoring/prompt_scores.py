"""Scores of prompts, each alone and all as an ensemble.

E prompts, N examples, C candidates for the answer to one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_prompts.base_models.classifier import check_masked_lm
from jax_prompts.base_models.tuned_file import model_of
from jax_prompts.data.cache import TokenCache
from jax_prompts.scoring.answers import Answers
from jax_prompts.scoring.ensemble import agreement, candidates_of, ensemble_of
from jax_prompts.scoring.evaluator import Evaluator
from jax_prompts.scoring.prompt_set import PromptSet
from jax_prompts.scoring.task_evaluator import Scores
from jax_prompts.tuned.leaves import lay_in

Tree = Any


def scores_of(evaluator: Evaluator, params: Tree, prompts: PromptSet) -> dict[str, dict[str, Scores]]:
    """Scores by name and task: of each file, of `ensemble` where there are several of one task, else of `no prompt`."""
    if not prompts.files:
        return {"no prompt": evaluator([params], None)[0]}
    groups = [_Group.of(evaluator, params, prompts, numbers) for numbers in prompts.groups]
    found: dict[int, dict[str, Scores]] = {}
    for group in groups:
        found |= zip(group.numbers, group.evaluator(group.params_E, group.prompts_EPD), strict=True)
    results_E = [found[number] for number in range(len(prompts.files))]
    results = dict(zip(prompts.files, results_E, strict=True))
    if len(results) > 1 and len(prompts.tasks) < 2:
        results["ensemble"] = {
            cache.task: _ensemble(groups, cache, [result[cache.task] for result in results_E])
            for cache in evaluator.caches
            if cache.metrics
        }
    return results


@dataclasses.dataclass(frozen=True)
class _Group:
    """Prompts that one pass asks.

    Attributes:
      numbers: of the prompts.
      evaluator: of their kind.
      params_E, prompts_EPD: what it is given.
    """

    numbers: list[int]
    evaluator: Evaluator
    params_E: list[Tree]
    prompts_EPD: Float[Array, "E P D"] | None

    @classmethod
    def of(cls, evaluator: Evaluator, params: Tree, prompts: PromptSet, numbers: list[int]) -> _Group:
        for number in numbers:
            check_masked_lm(prompts.files[number], prompts.leaves[number], params)
        own = dataclasses.replace(
            evaluator,
            model=model_of(evaluator.model, prompts.leaves[numbers[0]], prompts.metadata[numbers[0]]),
            journal=evaluator.journal.of(asked=[prompts.files[number] for number in numbers]),
        )
        params_E = [lay_in(params, prompts.leaves[number]) for number in numbers]
        has_prompts = len(prompts.prompts[numbers[0]]) > 0
        prompts_EPD = jnp.stack([prompts.prompts[number] for number in numbers]) if has_prompts else None
        return cls(numbers, own, params_E, prompts_EPD)

    def log_p(
        self, cache: TokenCache, examples_N: np.ndarray, texts_NC: Sequence[Sequence[str]]
    ) -> Float[np.ndarray, "N E C"]:
        return self.evaluator.log_p(self.params_E, self.prompts_EPD, cache, examples_N, texts_NC)


def _ensemble(groups: Sequence[_Group], cache: TokenCache, scores_E: Sequence[Scores]) -> Scores:
    """Scores of all prompts as one; its predictions say how far they agree."""
    answers_E = [scores.answers for scores in scores_E if scores.answers is not None]
    candidates_N, log_p_NEC = _candidates(groups, cache, answers_E)
    answers = ensemble_of(answers_E, candidates_N, log_p_NEC)
    # One that has scored these prompts knows targets and baselines already.
    scores = groups[0].evaluator.task_evaluators[cache.task](answers)
    about_N = agreement(answers_E, answers)
    means = {
        name: float(np.mean([about[name] for about in about_N])) for name in ("agreement", "vote_entropy")
    }
    predictions = [{**row, **about} for row, about in zip(scores.predictions, about_N, strict=True)]
    return dataclasses.replace(scores, predictions=predictions, context={**scores.context, **means})


def _candidates(
    groups: Sequence[_Group], cache: TokenCache, answers_E: Sequence[Answers]
) -> tuple[list[list[str]], list[Float[np.ndarray, "E _"]]]:
    """Answers that may be the ensemble's to each example, and how likely the prompts find them.

    Of a classifier they are its classes. A model that answers with text is asked about the different answers that
    prompts gave, where they gave any.
    """
    if answers_E[0].classes is not None:
        classes_E = [answers.classes for answers in answers_E if answers.classes is not None]
        log_p_NEC = np.stack([classes.log_p_NC for classes in classes_E], axis=1)
        return [list(classes_E[0].labels)] * len(log_p_NEC), list(log_p_NEC)
    candidates_N = [
        candidates_of(texts) for texts in zip(*(answers.texts for answers in answers_E), strict=True)
    ]
    log_p_N = [np.zeros((len(answers_E), 1), np.float32)] * len(candidates_N)
    differ_N = np.flatnonzero([len(candidates) > 1 for candidates in candidates_N])
    if len(differ_N):
        most = max(map(len, candidates_N))
        texts_NC = [(candidates_N[n] + most * candidates_N[n][:1])[:most] for n in differ_N]
        log_p_NEC = np.zeros((len(differ_N), len(answers_E), most), np.float32)
        for group in groups:
            log_p_NEC[:, group.numbers] = group.log_p(cache, differ_N, texts_NC)
        for n, log_p_EC in zip(differ_N, log_p_NEC, strict=True):
            log_p_N[n] = log_p_EC[:, : len(candidates_N[n])]
    return candidates_N, log_p_N
