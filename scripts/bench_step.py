"""Time of one training step on random weights and tokens, beside the machine's own matrix-product rate.

    python scripts/bench_step.py --json
    python scripts/bench_step.py --methods prompt_tuning residual explosive
    python scripts/bench_step.py --peft PEFT/bin/python --t5x T5X/bin/python --vocabulary spiece.model

Prints seconds a step (median), examples/s, GFLOP/s of its products, the share of the rate that a matrix
product of the same type reaches in the same process, and the peak resident memory. Several methods, and other systems
whose environments are named, take steps in turns and are related to the first.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from benchmark import in_turns, matrix_product_rate
from peers.peer import Peer

from jax_prompts import optim, partition
from jax_prompts.base_models.build import Model, make_model, with_adapters
from jax_prompts.base_models.weights import load_weights, with_axes
from jax_prompts.config import BaseModel, Optimizer
from jax_prompts.cpu import compiler_options, restart_with_huge_pages
from jax_prompts.data.length_groups import group_count
from jax_prompts.errors import ConfigError
from jax_prompts.precompile.accounting import matrix_flops
from jax_prompts.prompts import Method, for_model, init_members, prompt_kind_of
from jax_prompts.prompts.prompt_file import PromptMetadata, save_prompt
from jax_prompts.step import dropout_keys, make_step_parts
from jax_prompts.studies.methods import LEAVES, WITH_LENGTH, tuned_by
from jax_prompts.tuned import ATTEMPT, TunedLeaves, adapter_activation, constants_of, init_leaves
from jax_prompts.tuned.leaves import nested

SOURCES = 6  # prompts of other tasks that ATTEMPT attends to, as in its paper


def random_rows(args: argparse.Namespace, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts [E, B, L] and targets [E, B, U]."""
    draw = np.random.default_rng(0)
    shape = args.members, args.batch
    return tuple(
        draw.integers(3, rows - 128, (*shape, length), dtype=np.int32)
        for length in (args.inputs, args.targets)
    )


def fresh(model: Model, method: Method | None, kinds: Sequence[TunedLeaves], frozen: Any, keys_E: Any) -> Any:
    """What members tune, before the first step."""
    tuned = {}
    if kinds:
        leaves = jax.jit(lambda frozen: init_leaves(kinds, with_axes(model, frozen), keys_E))
        tuned["model"] = leaves(frozen)
    if method is not None:
        tuned["prompt"] = jax.jit(lambda: init_members(method, keys_E, model.config.emb_dim))()
    return tuned


def with_sources(kind: TunedLeaves, prompt_length: int, width: int) -> TunedLeaves:
    """The kind; ATTEMPT with random prompts in files, which it has read."""
    if not isinstance(kind, ATTEMPT):
        return kind
    prompts_SPD = np.random.default_rng(0).normal(size=(SOURCES, prompt_length, width)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for s, prompt_PD in enumerate(prompts_SPD):
            metadata = PromptMetadata(method="PromptTuning", task=f"source_{s}")
            save_prompt(f"{folder}/{s}.safetensors", prompt_PD, metadata)
        kind = dataclasses.replace(kind, sources=(f"{folder}/*",))
        kind.check_sources()
    return kind


def prepare(
    args: argparse.Namespace, base: BaseModel, frozen: Any, name: str
) -> tuple[Callable[[], float], dict]:
    """A function that takes one step of a method, and what compiling it said."""
    method, kinds = tuned_by(name, args.prompt)
    model = make_model(base, prompt_kind=prompt_kind_of(method))
    model = with_adapters(model, adapter_activation(kinds))
    method = for_model(method, model.config.prompt_width)
    kinds = tuple(with_sources(kind, args.prompt, model.config.emb_dim) for kind in kinds)
    rows, length = model.config.vocab_size, 0 if method is None else args.prompt
    seeds_E = jnp.arange(args.members)
    tuned = fresh(model, method, kinds, frozen, jax.vmap(jax.random.key)(seeds_E))
    frozen = {**frozen, **jax.device_put(nested(nn.meta.unbox(constants_of(kinds))))}
    optimizer = optim.make_optimizer(Optimizer(name="adamw", learning_rate=0.3), args.steps)
    state = (tuned, jax.jit(jax.vmap(optimizer.init))(tuned))

    text, targets = random_rows(args, rows)
    prompt = np.broadcast_to(np.arange(rows, rows + length, dtype=np.int32), (*text.shape[:2], length))
    batch = {
        "encoder_input_tokens": np.concatenate([prompt, text], axis=-1),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (0, 0), (1, 0)))[..., :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }
    count = args.groups or group_count(None, args.batch, 1, jax.default_backend())
    groups = jax.device_put([
        {name: np.split(array, count, axis=1)[group] for name, array in batch.items()} for group in range(count)
    ])  # fmt: skip
    key_E = dropout_keys(seeds_E, 0)
    parts = make_step_parts(model, method, optimizer, z_loss=1e-4, normalization="sum", kinds=kinds)
    options, begin = compiler_options(), jax.jit(parts.begin)
    start = time.perf_counter()
    add = jax.jit(parts.add, donate_argnums=0, compiler_options=options)
    traced = add.trace(begin(state[0]), state[0], frozen, groups[0], key_E, {})
    add = traced.lower().compile()
    update = jax.jit(parts.update, donate_argnums=(1, 2), compiler_options=options)
    update = update.lower(begin(state[0]), *state, {}).compile()
    flops = count * matrix_flops(traced.jaxpr.jaxpr)
    facts = {
        "groups": count,
        "compile_seconds": time.perf_counter() - start,
        "step_gflop": flops / 1e9,
        "tuned_parameters": sum(leaf.size for leaf in jax.tree.leaves(state[0])) // args.members,
    }

    def take() -> float:
        nonlocal state
        begun = time.perf_counter()
        so_far = begin(state[0])
        for group in groups:
            so_far = add(so_far, state[0], frozen, group, key_E, {})
        *state, metrics = update(so_far, *state, {})
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - begun

    return take, facts


def peers_of(args: argparse.Namespace) -> dict[str, Peer]:
    """The other systems whose environments are named."""
    pythons = {"peft": args.peft, "t5x": args.t5x}
    return {name: Peer(name, python, args) for name, python in pythons.items() if python}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is computed."""
    parser.add_argument("--size", default="t5_1_1_small")
    parser.add_argument("--methods", nargs="+", choices=[*WITH_LENGTH, *LEAVES], default=["prompt_tuning"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--inputs", type=int, default=256)
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--groups", type=int, help="parts of the batch; as a run has them, if not given")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--weight_dtype", choices=("float32", "bfloat16", "int8", "int4"), help="--dtype, if not given"
    )
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")


def base_model(args: argparse.Namespace) -> BaseModel:
    """Random weights."""
    return BaseModel(
        size=args.size,
        checkpoint=None,
        vocabulary="",
        dropout_rate=args.dropout,
        activation_dtype=args.dtype,
        weight_dtype=args.weight_dtype or args.dtype,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--peft", help="Python of an environment with torch, transformers and peft")
    parser.add_argument("--t5x", help="Python of one with t5x, flaxformer and prompt_tuning")
    parser.add_argument("--vocabulary", help="T5's, spiece.model, which T5X wants")
    args = parser.parse_args()
    if args.members > 1 and (args.peft or args.t5x):
        parser.error("other systems train one prompt: leave --members out")
    if args.t5x and not args.vocabulary:
        parser.error("--t5x wants --vocabulary=spiece.model")

    base = base_model(args)
    peers = peers_of(args)
    try:
        model = make_model(base)
        frozen, _ = load_weights(base, model)
        prepared = {name: prepare(args, base, frozen, name) for name in args.methods}
    except ConfigError as error:  # such as int4 with a size that it does not divide
        parser.error(str(error))
    texts, targets = (rows[0].tolist() for rows in random_rows(args, model.config.vocab_size))
    takes = {name: take for name, (take, _) in prepared.items()}
    takes |= {name: functools.partial(peer.step, texts, targets) for name, peer in peers.items()}
    seconds = in_turns(takes, args.steps + 1)
    for peer in peers.values():
        peer.close()
    rate = matrix_product_rate(args.dtype)
    first = statistics.median(seconds[args.methods[0]][1:])
    reports = {}
    for name, (_, facts) in prepared.items():
        median = statistics.median(seconds[name][1:])  # the first call touches memory for the first time
        flops = facts["step_gflop"] * 1e9
        reports[name] = {
            "seconds_per_step": median,
            "relative_to_first": median / first,
            "examples_per_second": args.members * args.batch / median,
            "gflops_per_second": flops / median / 1e9,
            "share_of_matrix_product_rate": flops / median / rate,
            "limit_seconds": flops / rate,
            **facts,
        }
    others = {
        name: {
            "seconds_per_step": statistics.median(seconds[name][1:]),
            "relative_to_it": first / statistics.median(seconds[name][1:]),
            "peak_rss_gigabytes": peer.peak_rss_gigabytes,
        }
        for name, peer in peers.items()
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if not args.json:
        for name, report in reports.items():
            print(
                f"{name}: {report['seconds_per_step']:.3f} s/step ({report['relative_to_first']:.3f}x), "
                f"{report['examples_per_second']:.2f} examples/s, {report['gflops_per_second']:.0f} GFLOP/s = "
                f"{report['share_of_matrix_product_rate']:.0%} of a matrix product, "
                f"limit {report['limit_seconds']:.2f} s, tuned {report['tuned_parameters']:,}"
            )
        for name, report in others.items():
            print(
                f"{name}: {report['seconds_per_step']:.3f} s/step, of which {args.methods[0]} takes "
                f"{report['relative_to_it']:.3f}; peak {report['peak_rss_gigabytes']:.2f} GB"
            )
        print(f"peak {peak:.2f} GB")
    settings = {**vars(args), "device": jax.devices()[0].device_kind, "model": dataclasses.asdict(base)}
    on_device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    machine = {
        "matrix_product_gflops_per_second": rate / 1e9,
        "peak_rss_gigabytes": peak,
        "peak_device_gigabytes": on_device and on_device / 1e9,
        "weights_gigabytes": partition.byte_count(frozen) / 1e9,
    }
    # One method, one flat object.
    results = reports[args.methods[0]] if len(reports) == 1 else {"methods": reports}
    print(json.dumps({"settings": settings, **machine, **results, "peers": others}))


if __name__ == "__main__":
    restart_with_huge_pages()  # as `t5x` does
    main()
