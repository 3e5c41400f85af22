"""Divides official splits into training, validation and test examples: rules by name, and few-shot subsets.

Official test labels are hidden for most tasks, so papers divide what is left in ways of their own. Everything
here is a pure function of its arguments; N counts examples of an official split, before any are taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jax_prompts.config import Data
from jax_prompts.data.random_order import random_order
from jax_prompts.display import log
from jax_prompts.errors import ConfigError, nearest

ROLES = ("train", "validation", "test")


class Share(NamedTuple):
    """Part of an official split for one role: the examples numbered `index_N`, in rising order, or (None) all."""

    split: str
    index_N: Int[np.ndarray, " N"] | None = None


Sizes = Mapping[str, int]
Shares = dict[str, Share]


def rows(protocol: str, task: str, sizes: Sizes, seed: int) -> Shares:
    """The official split and its examples for each role that the protocol has.

    Args:
      protocol: `dev_as_test`: validation chooses and is reported (Lester et al. 2021, Razdaibiedina et al. 2023,
        Xiao et al. 2023). `ept_b1`: by the size of the training split (EPT, appendix B.1). `attempt_half`: by
        task, with PyTorch's permutation of seed 42 (Compacter, ATTEMPT, DePT).
      task: its name; `taskless_` and `bert_` forms get what the plain one gets.
      sizes: examples of the official `train` and `validation`; a task may have one of them alone.
      seed: of the random order in `ept_b1`.

    Raises:
      ConfigError: an unknown protocol, or a split too small to be divided.
    """
    if protocol not in RULES:
        raise ConfigError(f"PROTOCOL {protocol} is unknown: use {nearest(protocol, RULES)}")
    if "validation" not in sizes:
        return {"train": Share("train")}
    shares = RULES[protocol](_plain(task), sizes, seed)
    for role, (split, index_N) in shares.items():
        if index_N is not None and not len(index_N):
            raise ConfigError(
                f"PROTOCOL {protocol} leaves {task} no {role} examples (split {split} has {sizes[split]}): "
                "set PROTOCOL to dev_as_test"
            )
    return shares if "train" in sizes else {role: s for role, s in shares.items() if s.split != "train"}


def official_split(task: str, split: str) -> str:
    """The official name of a task's `train` or `validation`: of MNLI's two, the matched one."""
    return "validation_matched" if split == "validation" and re.search("(^|_)mnli(?!_m)", task) else split


def official_splits(data: Data) -> list[str]:
    """The splits that a run trains on and chooses by: those that are set, or those that its protocol divides."""
    if data.protocol == "dev_as_test":
        return [data.train_split, data.eval_split]
    return [official_split(data.task, split) for split in ("train", "validation")]


def few_shot(task: str, count: int, k: int, seed: int) -> Int[np.ndarray, " K"]:
    """k of `count` examples, in rising order; a smaller k takes some of these.

    Raises:
      ConfigError: there are fewer than k.
    """
    if k > count:
        raise ConfigError(f"FEW_SHOT is {k}, and {task} has {count} training examples: lower it")
    return np.sort(_order(count, f"{_plain(task)} few-shot", seed)[:k])


def few_shot_per_class(
    task: str, label_N: Sequence[str], classes: Iterable[str], k: int, seed: int
) -> Int[np.ndarray, " K"]:
    """k examples of each class, all of a class that has fewer, in rising order; a smaller k takes some of these.

    Args:
      task: its name.
      label_N: the label of each example; those outside `classes` are not taken.
      classes: the task's labels.
      k: examples of each.
      seed: of the random order.

    Raises:
      ConfigError: no class has any.
    """
    taken: dict[str, list[int]] = {label: [] for label in classes}
    for index in _order(len(label_N), f"{_plain(task)} few-shot", seed).tolist():
        taken.get(label_N[index], []).append(index)
    if not any(taken.values()):
        raise ConfigError(f"FEW_SHOT_PER_CLASS is {k}, and no training example of {task} has a label")
    fewer = ", ".join(f"{len(found)} {label}" for label, found in taken.items() if len(found) < k)
    if fewer:
        log(f"FEW_SHOT_PER_CLASS is {k}, and {task} has {fewer} training examples: all of them are taken")
    return np.sort([index for found in taken.values() for index in found[:k]])


def check(data: Data) -> None:
    """Raises ConfigError for settings of protocol and subset that no data could make work."""
    if data.protocol not in RULES:
        raise ConfigError(f"PROTOCOL {data.protocol} is unknown: use {nearest(data.protocol, RULES)}")
    if data.protocol != "dev_as_test" and (data.train_split, data.eval_split) != ("train", "validation"):
        raise ConfigError(
            f"PROTOCOL {data.protocol} chooses the examples itself: leave TRAIN_SPLIT and EVAL_SPLIT out, "
            "or set PROTOCOL to dev_as_test"
        )
    if data.few_shot is not None and data.few_shot_per_class is not None:
        raise ConfigError("FEW_SHOT and FEW_SHOT_PER_CLASS are both set; set one")
    for name, k in (("FEW_SHOT", data.few_shot), ("FEW_SHOT_PER_CLASS", data.few_shot_per_class)):
        if k is not None and k < 1:
            raise ConfigError(f"{name} is {k}; it must be at least 1, or None for all examples")
    if data.subset_seed < 0:
        raise ConfigError(f"SUBSET_SEED is {data.subset_seed}; it must be at least 0")


def torch_order(count: int, first: int | None = None) -> Int[np.ndarray, " N"]:
    """The `first` (None: all) numbers of PyTorch's `randperm(count)` on the CPU, its generator seeded with 42.

    It is Fisher and Yates' shuffle on the numbers of a Mersenne Twister, which NumPy's `RandomState` is as well:
    seeded alike, and its stream frozen.
    """
    order = list(range(count))
    draws = np.random.RandomState(42).randint(0, 2**32, count, np.uint32).tolist()
    for place, draw in enumerate(draws[:first]):
        other = place + draw % (count - place)
        order[place], order[other] = order[other], order[place]
    return np.array(order[:first], np.int64)


def _dev_as_test(task: str, sizes: Sizes, seed: int) -> Shares:
    return {"train": Share("train"), "validation": Share("validation")}


def _ept_b1(task: str, sizes: Sizes, seed: int) -> Shares:
    """Under 10K training examples validation is halved; under 100K 1K of them are held out, else 10K."""
    train = sizes.get("train", 0)
    if train < 10_000:
        return _halved(_order(sizes["validation"], task, seed))
    held_out = 1_000 if train < 100_000 else 10_000
    return _held_out(train, _order(train, task, seed)[:held_out])


def _attempt_half(task: str, sizes: Sizes, seed: int) -> Shares:
    """Two lists of tasks, divided in the order of PyTorch's seed 42, whatever `seed` is; others as they are."""
    if _named(task, HALVED):
        return _halved(torch_order(sizes["validation"]))
    if _named(task, HELD_OUT) and "train" in sizes:
        return _held_out(sizes["train"], torch_order(sizes["train"], min(1000, sizes["train"])))
    if _named(task, "mnli_mismatched"):
        return {"validation": Share("validation")}
    if _named(task, "mnli_matched"):
        return {"test": Share("validation")}
    validation, test = ("validation_mismatched", "validation_matched") if _named(task, "mnli") else ROLES[1:]
    return {"train": Share("train"), "validation": Share(validation), "test": Share(test)}


RULES: dict[str, Callable[[str, Sizes, int], Shares]] = {
    "dev_as_test": _dev_as_test,
    "ept_b1": _ept_b1,
    "attempt_half": _attempt_half,
}
# The tasks of ATTEMPT's two lists, as they are spelt in the names of tasks here.
HALVED = "cola|wnli|rte|cb|copa|multirc|wic|wsc|mrpc|stsb|boolq|xsum|sci_?tail"
HELD_OUT = (
    "qqp|qnli|record|sst2|squad|snli|anli|amazon(_polarity)?|yelp(_polarity)?|winogrande|"
    "news_?qa|search_?qa|trivia_?qa|nq|natural_?questions|hotpot_?qa"
)


def _halved(order_N: Int[np.ndarray, " N"]) -> Shares:
    half = len(order_N) // 2
    return {
        "train": Share("train"),
        "validation": Share("validation", np.sort(order_N[:half])),
        "test": Share("validation", np.sort(order_N[half:])),
    }


def _held_out(train: int, held_out_K: Int[np.ndarray, " K"]) -> Shares:
    return {
        "train": Share("train", np.setdiff1d(np.arange(train), held_out_K, assume_unique=True)),
        "validation": Share("train", np.sort(held_out_K)),
        "test": Share("validation"),
    }


def _order(count: int, name: str, seed: int) -> Int[np.ndarray, " N"]:
    return random_order(count, [seed, *name.encode()])


def _plain(task: str) -> str:
    return re.sub(r"^(taskless|bert)_", "", task)


def _named(task: str, names: str) -> bool:
    """Whether one of `names` is a word, or words, of the task's name."""
    return re.search(rf"(^|_)({names})(_|$)", task) is not None
