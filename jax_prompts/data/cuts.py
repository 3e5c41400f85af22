"""Counts the texts that TASK_FEATURE_LENGTHS cut, and says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jax_prompts.data.cache import TokenCache
from jax_prompts.display import log
from jax_prompts.errors import ConfigError

WARN_SHARE = 0.01  # of the targets: a cut target cannot be answered


def count_cuts(
    caches: Mapping[str, Sequence[TokenCache]], inputs_length: int
) -> dict[str, dict[str, dict[str, int]]]:
    """Cut `inputs` and `targets`, and `examples` in all, by role and task; says where there are some.

    Args:
      caches: by role.
      inputs_length: text tokens of a row at most, which a prompt inside the length makes fewer.

    Raises:
      ConfigError: every target of a task is cut, or all of its inputs or targets are empty.
    """
    return {
        role: {cache.task: _count(role, cache, inputs_length) for cache in found}
        for role, found in caches.items()
    }


def _count(role: str, cache: TokenCache, inputs_length: int) -> dict[str, int]:
    cut, examples = cache.cut(inputs_length), len(cache)
    where = f"{role} examples of {cache.task}"
    check_tokens(cache)
    if cut["targets"] == examples > 0:
        raise ConfigError(
            f"every target of the {where} is cut: raise 'targets' of TASK_FEATURE_LENGTHS above "
            f"{cache.longest_targets} tokens"
        )
    if any(cut.values()):
        parts = " and ".join(
            f"{count} {name} ({100 * count / examples:.1f} %)" for name, count in cut.items() if count
        )
        warning = "warning: " if cut["targets"] > WARN_SHARE * examples else ""
        log(f"{warning}TASK_FEATURE_LENGTHS cuts {parts} of the {examples} {where}")
    return {**cut, "examples": examples}


def check_tokens(cache: TokenCache, names: Sequence[str] = ("inputs", "targets")) -> None:
    """Raises ConfigError where all `inputs` or all `targets` are empty, so that a batch has no width."""
    longest = {"inputs": cache.longest_inputs, "targets": cache.longest_targets}
    for name in names:
        if len(cache) and not longest[name]:
            raise ConfigError(
                f"{name} of {cache.task} {cache.split} have no tokens: let its preprocessors make a text, or append an "
                "end of sentence"
            )
