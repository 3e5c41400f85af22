"""Ways to compute T5's attention, forward and backward: XLA's, and cuDNN's where the device has it.

    python scripts/bench_attention.py --lengths 312 612 1024 2048

Decides from which length on, if at all, a kernel that does not keep [B, H, L, L] pays: cuDNN's makes the gradient of
the bias, which is frozen here, whether it is wanted or not. The limit is what the products take at the rate of a large
one in the same process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from benchmark import matrix_product_rate

from jax_prompts.cpu import compiler_options, restart_with_huge_pages
from jax_prompts.models.products import contract


def xla(query_BLHK: jax.Array, key_BLHK: jax.Array, value_BLHK: jax.Array, bias: jax.Array) -> jax.Array:
    """As `models/layers.py` has it."""
    logits_BHLL = contract("BLHK,BMHK->BHLM", query_BLHK, key_BLHK, jnp.float32)
    weights_BHLL = jax.nn.softmax(logits_BHLL + bias, axis=-1).astype(value_BLHK.dtype)
    return contract("BHLM,BMHK->BLHK", weights_BHLL, value_BLHK, value_BLHK.dtype)


def cudnn(query_BLHK: jax.Array, key_BLHK: jax.Array, value_BLHK: jax.Array, bias: jax.Array) -> jax.Array:
    bias = bias.astype(query_BLHK.dtype)
    return jax.nn.dot_product_attention(
        query_BLHK, key_BLHK, value_BLHK, bias, scale=1.0, implementation="cudnn"
    )


WAYS: dict[str, Callable[..., jax.Array]] = {"xla": xla, "cudnn": cudnn}


def seconds_of(way: str, args: argparse.Namespace, length: int) -> float | str:
    """A forward and backward pass, the median; or why there is none."""
    shape = args.batch, length, args.heads, args.head_dim
    arrays = [jax.random.normal(jax.random.key(seed), shape, args.dtype) for seed in range(3)]
    bias = jax.random.normal(jax.random.key(3), (1, args.heads, length, length))
    gradient = jax.jit(
        jax.grad(lambda *inputs: jnp.sum(WAYS[way](*inputs).astype(jnp.float32) ** 2), (0, 1, 2)),
        compiler_options=compiler_options(),
    )
    try:
        jax.block_until_ready(gradient(*arrays, bias))
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    found = []
    for _ in range(args.steps):
        begun = time.perf_counter()
        jax.block_until_ready(gradient(*arrays, bias))
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[312, 612, 1024])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head_dim", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    rate = matrix_product_rate(args.dtype)
    reports = {}
    for length in args.lengths:
        # Two products forward, four backward.
        flops = 6 * 2 * args.batch * args.heads * args.head_dim * length**2
        reports[length] = {
            "limit_seconds": flops / rate,
            **{way: seconds_of(way, args, length) for way in WAYS},
        }
    print(json.dumps({"settings": vars(args), "device": jax.devices()[0].device_kind, "seconds": reports}))


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
