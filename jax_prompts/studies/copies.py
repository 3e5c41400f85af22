"""One position of a prompt in place of all: copied l times (EPT, section 3.2, figure 4)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_prompts.base_models.build import with_adapters
from jax_prompts.data.roles import split_of
from jax_prompts.display import log
from jax_prompts.errors import ConfigError
from jax_prompts.evaluate import open_evaluation
from jax_prompts.prompts.prompt_paths import prompt_paths
from jax_prompts.runs import EvalRun
from jax_prompts.scoring.best_tracker import selection_metric
from jax_prompts.scoring.evaluator import Evaluator
from jax_prompts.studies.prompt_inputs import read_prompts
from jax_prompts.tuned.leaves import lay_in

LENGTHS = tuple(range(1, 11))
TOGETHER = 50  # prompts that one pass over the examples asks


def copies(
    run: EvalRun, lengths: Sequence[int] = LENGTHS, positions: Sequence[int] | None = None
) -> dict[str, Any]:
    """Scores of each position of a prompt, copied l times, beside the whole prompt's.

    Args:
      run: the model, a task and one prompt file.
      lengths: l, how often.
      positions: which; None: all.

    Raises:
      ConfigError: more than one prompt or task, a length or position that there is not; as `evaluate_run`.
      RunError: something cannot be read.
    """
    if len(run.files_by_task) != 1:
        raise ConfigError("PROMPT_FILES names several tasks: set it to one task and one prompt file")
    ((task, patterns),) = run.files_by_task.items()
    files = prompt_paths("PROMPT_FILES", patterns)
    if len(files) != 1:
        raise ConfigError(
            f"PROMPT_FILES names {len(files)} prompts: set it to the one whose positions are copied"
        )
    (prompt,) = read_prompts(files)
    P = len(prompt.prompt_PD)
    positions = list(range(P)) if positions is None else list(positions)
    _check(lengths, "--copies", 1, 1 << 16)
    _check(positions, "--position", 0, P - 1)
    opened = open_evaluation(run)
    found = opened.prompts(task, files)
    evaluator = opened.evaluator(task)
    model = evaluator.model.clone(prompt_kind=prompt.metadata.prompt_kind)
    model = with_adapters(model, prompt.metadata.adapter_activation)
    evaluator = dataclasses.replace(evaluator, model=model)
    params = lay_in(opened.params, found.leaves[0])
    ((whole, higher),) = _scores(evaluator, params, prompt.prompt_PD[None])
    scores = []
    for length in lengths:
        copied_EPD = copies_of(prompt.prompt_PD[positions], length)
        scores.append([value for value, _ in _scores(evaluator, params, copied_EPD)])
        log(
            f"{length} copies: best {max(scores[-1]):.2f}, mean {statistics.fmean(scores[-1]):.2f}; whole {whole:.2f}"
        )
    return {
        "study": "copies",
        "model": run.model.name,
        "prompt": prompt.described(),
        "task": task,
        "split": split_of(opened.datas[task], run.role),
        "examples": {cache.task: len(cache) for cache in opened.caches[task]},
        "higher_is_better": higher,
        "whole": whole,
        "positions": positions,
        "copies": list(lengths),
        "scores": scores,
    }


def copies_of(prompt_PD: Float[np.ndarray, "P D"], length: int) -> Float[np.ndarray, "P L D"]:
    """A prompt of each position: its vector, so many times."""
    return np.repeat(prompt_PD[:, None], length, axis=1)


def _check(numbers: Sequence[int], flag: str, least: int, most: int) -> None:
    for number in numbers:
        if not least <= number <= most or list(numbers).count(number) > 1:
            raise ConfigError(f"{flag} {number}: give each number once, from {least} to {most:,}")


def _scores(
    evaluator: Evaluator, params: Any, prompts_EPD: Float[np.ndarray, "E P D"]
) -> list[tuple[float, bool]]:
    """The score of each prompt, and whether higher is better; so many at a time that memory is bounded."""
    found = []
    passes = -(-len(prompts_EPD) // TOGETHER)
    each = -(-len(prompts_EPD) // passes)
    for start in range(0, len(prompts_EPD), each):
        part_EPD = jnp.asarray(prompts_EPD[start : start + each], jnp.float32)
        for tasks in evaluator([params] * len(part_EPD), part_EPD):
            found.append(selection_metric({name: scores.metrics for name, scores in tasks.items()}, None))
    return found
