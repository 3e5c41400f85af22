"""What benchmarks share: steps in turns, the rate that limits them, and the arguments of those on a task's examples."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp

Name = TypeVar("Name", bound=Hashable)


def in_turns(takes: Mapping[Name, Callable[[], float]], rounds: int) -> dict[Name, list[float]]:
    """The seconds of each, one of each in every round, so that a slow minute is everybody's."""
    seconds: dict[Name, list[float]] = {name: [] for name in takes}
    for _ in range(rounds):
        for name, take in takes.items():
            seconds[name].append(take())
    return seconds


def matrix_product_rate(dtype: str, repeats: int = 5) -> float:
    """FLOP/s of products of two square matrices, sums in float32: what this machine reaches through XLA."""
    # An accelerator is done with a small one before it is asked for the next.
    size, queued = (2048, 1) if jax.default_backend() == "cpu" else (8192, 10)
    product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready([product(a, a) for _ in range(queued)])
        seconds.append(time.perf_counter() - start)
    return queued * 2 * size**3 / min(seconds)


def add_task_arguments(parser: argparse.ArgumentParser, *, targets: int, prompt: int) -> None:
    """Which examples, of which model; PEFT beside it.

    Args: the parser; defaults of --targets and --prompt.
    """
    parser.add_argument("--vocabulary", required=True, help="T5's, spiece.model")
    parser.add_argument("--data_dir", help="official files; without it TFDS")
    parser.add_argument("--task", default="super_glue_rte_v102")
    parser.add_argument("--size", default="t5_1_1_small")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--inputs", type=int, default=512)
    parser.add_argument("--targets", type=int, default=targets)
    parser.add_argument("--prompt", type=int, default=prompt)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peft", help="Python of an environment with torch, transformers and peft")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
