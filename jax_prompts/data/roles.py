"""Opens the token caches of a run by role, as its protocol and its few-shot settings say."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from jax_prompts.config import Data
from jax_prompts.data import protocols
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.cache_bucket import bring
from jax_prompts.data.cache_key import cache_directory
from jax_prompts.data.open import open_caches
from jax_prompts.data.prompt_design import check_design, designed
from jax_prompts.data.readable import check_labels
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.display import log
from jax_prompts.errors import ConfigError
from jax_prompts.sweep import distinct

Caches = list[tuple[float, TokenCache]]


def open_roles(
    data: Data, vocabulary: Vocabulary | WordPiece, roles: Collection[str] = protocols.ROLES
) -> dict[str, Caches]:
    """The (rate, cache) pairs of those `roles` that the protocol has, each task by its own sizes.

    Demonstrations are of the examples that train: never of those that choose or test, and with FEW_SHOT of that subset.

    Raises:
      ConfigError: see `open_caches`, `protocols` and `prompt_design`; a few-shot subset that cannot be drawn.
      RunError: see `open_caches`.
    """
    protocols.check(data)
    check_design(data, bert=isinstance(vocabulary, WordPiece))
    found = _open_texts(data, vocabulary, roles, trains="train" in roles)
    if not found or not data.prompt_design.changes_text or isinstance(vocabulary, WordPiece):
        return found
    training = found.get("train") or (_shown(data, vocabulary) if data.prompt_design.demonstrations else [])
    return {
        role: [(rate, designed(cache, training, data, vocabulary)) for rate, cache in caches]
        for role, caches in found.items()
    }


def _shown(data: Data, vocabulary: Vocabulary) -> Caches:
    """What would train, to be shown to those that do not."""
    try:
        return _open_texts(data, vocabulary, ["train"], trains=False).get("train", [])
    except ConfigError as error:
        raise ConfigError(f"DEMONSTRATIONS are training examples, and {error}") from error


def _open_texts(
    data: Data, vocabulary: Vocabulary | WordPiece, roles: Collection[str], *, trains: bool
) -> dict[str, Caches]:
    """`open_roles` of texts as the tasks make them; `trains`: whether a model is to learn their labels."""
    if data.protocol == "dev_as_test":
        splits = {role: split_of(data, role) for role in ("train", "validation") if role in roles}
        found = {role: open_caches(data, split, vocabulary) for role, split in splits.items()}
    else:
        found = {role: caches for role, caches in _divided(data, vocabulary).items() if role in roles}
    for _, cache in itertools.chain(*found.values()):
        _check_labels(cache, vocabulary, data, trains=trains)
    if "train" in found:
        found["train"] = [(rate, _few_shot(data, cache)) for rate, cache in found["train"]]
    for role, caches in found.items():
        for _, cache in caches:
            if cache.index_N is not None:
                log(f"{role}: {len(cache)} examples of {cache.task} {cache.split} ({data.protocol})")
    return found


def open_members(
    datas_E: Sequence[Data], vocabulary: Vocabulary | WordPiece
) -> tuple[dict[str, Caches], list[Caches]]:
    """What `open_roles` opens for the first member, and what each member trains on; equal settings, equal caches.

    Raises:
      ConfigError, RunError: see `open_roles`.
    """
    (first, *others), which_E = distinct(datas_E)
    roles = open_roles(first, vocabulary)
    mixtures = [roles["train"], *(open_roles(data, vocabulary, ["train"])["train"] for data in others)]
    return roles, [mixtures[which] for which in which_E]


def examples_of(mixtures_E: Sequence[Caches]) -> int:
    """Examples that members train on, the same number for each.

    Raises:
      ConfigError: members have other numbers, so that an epoch is not the same for all.
    """
    counts = {sum(len(cache) for _, cache in mixture) for mixture in mixtures_E}
    if len(counts) > 1:
        raise ConfigError(
            f"SWEEP gives members {' and '.join(map(str, sorted(counts)))} examples, and with them epochs of other "
            "lengths: start a run for each number"
        )
    return counts.pop()


def _check_labels(cache: TokenCache, vocabulary: Vocabulary | WordPiece, data: Data, *, trains: bool) -> None:
    """Refuses to train on labels that no answer can equal; to score answers, which may be ranked, it warns of them."""
    if cache.labels is None or isinstance(vocabulary, WordPiece):
        return
    try:
        check_labels(
            cache.task, cache.labels, vocabulary, data.task_feature_lengths["targets"] - data.sentinel
        )
    except ConfigError as error:
        if trains:
            raise
        log(f"warning: {error}")


def are_filled(data: Data, vocabulary: Vocabulary | WordPiece) -> bool:
    """Whether caches for training and choice are there; whether they are whole is left to `open_roles`."""
    places = [
        cache_directory(data, split, vocabulary)(data.task) for split in protocols.official_splits(data)
    ]
    return all(bring(place, data.cache_dir) and place.is_dir() for place in places)


def open_role(data: Data, vocabulary: Vocabulary | WordPiece, role: str) -> list[TokenCache]:
    """The caches of one role.

    Raises:
      ConfigError: the protocol has no such role; else see `open_roles`.
      RunError: see `open_roles`.
    """
    found = open_roles(data, vocabulary, [role])
    if role not in found:
        has = "train and validation" if data.protocol == "dev_as_test" else "train, validation and test"
        raise ConfigError(
            f"EVAL_ROLE is {role}, and PROTOCOL {data.protocol} has {has}: set one of them, or another PROTOCOL"
        )
    return [cache for _, cache in found[role]]


def split_of(data: Data, role: str) -> str:
    """Name of a role's examples in records: an official split or slice, or (divided anew) the role."""
    if data.protocol != "dev_as_test":
        return role
    return {"train": data.train_split, "validation": data.eval_split}.get(role, role)


def subset_records(
    datas_E: Sequence[Data], roles: dict[str, Caches], mixtures_E: Sequence[Caches]
) -> dict[str, Any] | None:
    """What `subset_record` says of each member, once where all are the same."""
    records = [
        subset_record(data, {**roles, "train": mixture})
        for data, mixture in zip(datas_E, mixtures_E, strict=True)
    ]
    return records[0] if all(record == records[0] for record in records) else {"members": records}


def subset_record(data: Data, found: dict[str, Caches]) -> dict[str, Any] | None:
    """Rows taken of the official splits, as plain JSON; None where all were."""
    subsets = [
        {"role": role, "task": cache.task, "split": cache.split, "rows": cache.index_N.tolist()}
        for role, caches in found.items()
        for _, cache in caches
        if cache.index_N is not None
    ]
    settings = ("protocol", "few_shot", "few_shot_per_class", "subset_seed")
    return {**{name: getattr(data, name) for name in settings}, "subsets": subsets} if subsets else None


def mixture_record(caches: Caches) -> dict[str, list[Any]]:
    """Rate and SHA-256 of all tokens of each task trained on, as plain JSON."""
    return {cache.task: [rate, cache.tokens["sha256"]] for rate, cache in caches}


def assert_same_data(model_dir: str, before: dict[str, list[Any]], now: dict[str, list[Any]]) -> None:
    """Raises ConfigError where a run would go on with other data than it began with; both are `mixture_record`s."""
    for task in sorted(before.keys() | now.keys()):
        if before.get(task) != now.get(task):
            raise ConfigError(
                f"MODEL_DIR {model_dir} holds a run that began with other data of {task}: bring the files and the "
                "vocabulary back, or choose another MODEL_DIR"
            )


def _divided(data: Data, vocabulary: Vocabulary | WordPiece) -> dict[str, Caches]:
    @functools.cache
    def opened(split: str) -> dict[str, tuple[float, TokenCache]]:
        official = protocols.official_split(data.task, split)
        return {cache.task: (rate, cache) for rate, cache in open_caches(data, official, vocabulary)}

    official = {split: opened(split) for split in ("train", "validation")}
    found: dict[str, Caches] = {}
    for task in {**official["train"], **official["validation"]}:
        sizes = {
            split: len(caches[task][1].first_rows) for split, caches in official.items() if task in caches
        }
        for role, share in protocols.rows(data.protocol, task, sizes, data.subset_seed).items():
            try:
                rate, cache = opened(share.split)[task]
            except (ConfigError, KeyError) as error:  # of a mixture, the other tasks may have it
                reason = "there is none" if isinstance(error, KeyError) else error
                raise ConfigError(
                    f"PROTOCOL {data.protocol} takes split {share.split} of {task}: {reason}; use PROTOCOL ept_b1"
                ) from error
            chosen = cache if share.index_N is None else cache.subset(cache.rows_of(share.index_N))
            found.setdefault(role, []).append((rate, chosen))
    return found


def _few_shot(data: Data, cache: TokenCache) -> TokenCache:
    if data.few_shot is not None:
        chosen = protocols.few_shot(cache.task, len(cache.first_rows), data.few_shot, data.subset_seed)
        return cache.subset(cache.rows_of(chosen))
    if data.few_shot_per_class is None:
        return cache
    if cache.labels is None:
        k = min(data.few_shot_per_class, len(cache.first_rows))
        log(f"FEW_SHOT_PER_CLASS: {cache.task} has no classes, so that {k} examples in all are taken")
        chosen = protocols.few_shot(cache.task, len(cache.first_rows), k, data.subset_seed)
        return cache.subset(cache.rows_of(chosen))
    labels = cache.texts("targets_pretokenized")
    chosen = protocols.few_shot_per_class(
        cache.task, labels, cache.labels, data.few_shot_per_class, data.subset_seed
    )
    return cache.subset(chosen)
