"""Time of one training step on random weights and tokens, beside the machine's own matrix-product rate.

    python scripts/bench_step.py --json

Prints seconds a step (median), examples/s, GFLOP/s by the compiler's count, the share of the rate that a
float32 matrix product reaches in the same process, and the peak resident memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from jax_prompts import optim
from jax_prompts.config import BaseModel, Optimizer
from jax_prompts.cpu import compiler_options, restart_with_huge_pages
from jax_prompts.prompts import PromptTuning, Residual, Uniform, init_members
from jax_prompts.step import dropout_keys, make_train_step
from jax_prompts.weights import load_weights, make_model

METHODS = {"prompt_tuning": PromptTuning, "residual": Residual}


def matrix_product_rate(size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of a float32 product of two square matrices: what this machine reaches through XLA."""
    product = jax.jit(jnp.matmul)
    a = jax.random.normal(jax.random.key(0), (size, size))
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="t5_1_1_small")
    parser.add_argument("--method", choices=METHODS, default="prompt_tuning")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--inputs", type=int, default=256)
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    args = parser.parse_args()

    base = BaseModel(
        size=args.size,
        checkpoint=None,
        vocabulary="",
        dropout_rate=args.dropout,
        activation_dtype=args.dtype,
        weight_dtype=args.dtype,
    )
    model = make_model(base)
    rows = model.config.vocab_size
    frozen = load_weights(base, model)
    method = METHODS[args.method](length=args.prompt)
    seeds_E = jnp.arange(args.members)
    keys_E = jax.vmap(jax.random.key)(seeds_E)
    tuned = {"prompt": init_members(method, keys_E, model.config.emb_dim, Uniform().table_init(None))}
    optimizer = optim.make_optimizer(Optimizer(name="adamw", learning_rate=0.3), args.steps)
    opt_state = jax.vmap(optimizer.init)(tuned)

    draw = np.random.default_rng(0)
    text = draw.integers(3, rows - 128, (args.members, args.batch, args.inputs), dtype=np.int32)
    prompt = np.broadcast_to(
        np.arange(rows, rows + args.prompt, dtype=np.int32), (*text.shape[:2], args.prompt)
    )
    targets = draw.integers(3, rows - 128, (args.members, args.batch, args.targets), dtype=np.int32)
    batch = {
        "encoder_input_tokens": np.concatenate([prompt, text], axis=-1),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (0, 0), (1, 0)))[..., :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }
    batch = jax.device_put(batch)
    step = make_train_step(model, method, optimizer, z_loss=1e-4, normalization="sum")
    start = time.perf_counter()
    compiled = (
        jax.jit(step, donate_argnums=(0, 1), compiler_options=compiler_options())
        .lower(tuned, opt_state, frozen, batch, dropout_keys(seeds_E, 0))
        .compile()
    )
    compile_seconds = time.perf_counter() - start
    seconds = []
    for index in range(args.steps + 1):
        start = time.perf_counter()
        tuned, opt_state, metrics = compiled(tuned, opt_state, frozen, batch, dropout_keys(seeds_E, index))
        jax.block_until_ready((tuned, metrics))
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])  # the first call touches memory for the first time
    flops = compiled.cost_analysis()["flops"]
    rate = matrix_product_rate()
    report = {
        "settings": vars(args),
        "device": jax.devices()[0].device_kind,
        "seconds_per_step": median,
        "examples_per_second": args.members * args.batch / median,
        "gflops_per_second": flops / median / 1e9,
        "step_gflop": flops / 1e9,
        "matrix_product_gflops_per_second": rate / 1e9,
        "share_of_matrix_product_rate": flops / median / rate,
        "limit_seconds": flops / rate,
        "compile_seconds": compile_seconds,
        "peak_rss_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "model": dataclasses.asdict(base),
    }
    if not args.json:
        print(
            f"{median:.3f} s/step, {report['examples_per_second']:.2f} examples/s, "
            f"{report['gflops_per_second']:.0f} GFLOP/s = {report['share_of_matrix_product_rate']:.0%} of a "
            f"matrix product, limit {report['limit_seconds']:.2f} s, peak {report['peak_rss_gigabytes']:.2f} GB"
        )
    print(json.dumps(report))


if __name__ == "__main__":
    restart_with_huge_pages()  # as `t5x` does
    main()
