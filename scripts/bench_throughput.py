"""Examples a second of training on a task's real texts: padded to the most, to one length, and in length groups.

    python scripts/bench_throughput.py --vocabulary spiece.model --data_dir SUPERGLUE --task super_glue_rte_v102
    python scripts/bench_throughput.py ... --peft PEFT/bin/python

Each way takes the steps of a run with T5X's settings, on random weights, in turns with the others: batches of the task,
the step as `t5x train` compiles it, arrays put on the device. Beside each stands how much of its products examples
without any padding would need, by count, those of the encoder alone. PEFT, where its environment is named, takes the
same batches, padded to the longest row.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from benchmark import add_task_arguments, in_turns
from peers.peer import Peer, rows_of

from jax_prompts import partition
from jax_prompts.base_models.build import make_vocabulary
from jax_prompts.batches import batches_of
from jax_prompts.config import BaseModel, Data, Optimizer, Training
from jax_prompts.cpu import restart_with_huge_pages
from jax_prompts.data.layout import SpecialTokens
from jax_prompts.data.length_groups import planned
from jax_prompts.data.roles import open_members
from jax_prompts.data.sampler import needed_lengths
from jax_prompts.length_plan import LengthPlan, plan_training
from jax_prompts.models.flops import encoder_flops
from jax_prompts.prompts import PromptTuning
from jax_prompts.runs import TrainRun
from jax_prompts.setup import Setup, set_up
from jax_prompts.state import initial_state
from jax_prompts.step import dropout_keys
from jax_prompts.train_step import TrainStep

RUN_STEPS = 30_000
WAYS = ("padded", "one_length", "groups")


def plan_of(way: str, setup: Setup, mixtures: Any) -> LengthPlan:
    """How a way, one of `WAYS` or a number of groups, pads a run."""
    if way == "padded":
        return LengthPlan(1, (setup.inputs_length,))
    groups = {"one_length": 1, "groups": None}[way] if way in WAYS else int(way)
    data = dataclasses.replace(setup.run.data, length_groups=groups)
    setup = dataclasses.replace(setup, run=dataclasses.replace(setup.run, data=data))
    return plan_training(setup, mixtures, RUN_STEPS)


def way(setup: Setup, mixtures: Any, vocabulary: Any, plan: LengthPlan) -> Any:
    """`take() -> seconds` of one way to pad."""
    tuned, opt_state, frozen, _ = initial_state(setup, vocabulary)
    batches = batches_of(setup, plan, SpecialTokens.of(vocabulary))(mixtures, setup.seeds_E.tolist())
    train_step, steps = TrainStep(setup, plan), itertools.count()

    def take() -> float:
        nonlocal tuned, opt_state
        begun = time.perf_counter()
        keys_E = dropout_keys(setup.seeds_E, next(steps))
        tuned, opt_state, metrics = train_step(
            tuned, opt_state, frozen, next(batches), keys_E, setup.numbers_E
        )
        jax.block_until_ready((tuned, metrics))
        return time.perf_counter() - begun

    return take


def peft(setup: Setup, mixtures: Any, vocabulary: Any, args: argparse.Namespace) -> Any:
    """`take() -> seconds` of PEFT's prompt tuning."""
    peer = Peer("peft", args.peft, args)
    plan = plan_of("one_length", setup, mixtures)
    batches = batches_of(setup, plan, SpecialTokens.of(vocabulary))(mixtures, setup.seeds_E.tolist())
    rows = setup.model.config.vocab_size

    return lambda: peer.step(**rows_of(next(batches), rows))


def unpadded_flops(setup: Setup, lengths_N: np.ndarray) -> float:
    """Of an average example without padding, in a training step."""
    config, prompt = setup.model.config, setup.prompt_length
    return 3 * statistics.fmean(encoder_flops(config, prompt + int(length)) for length in lengths_N)


def padded_flops(setup: Setup, mixtures: Any, plan: LengthPlan, steps: int) -> float:
    """Of an average example as it is padded."""
    needed = needed_lengths(
        mixtures,
        seeds=setup.seeds_E.tolist(),
        batch_size=setup.run.data.batch_size,
        inputs_length=setup.inputs_length,
        groups=plan.groups,
        steps=range(steps),
    )
    config, prompt = setup.model.config, setup.prompt_length
    return 3 * statistics.fmean(
        encoder_flops(config, prompt + planned(plan.lengths, int(length))) for length in needed.ravel()
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_task_arguments(parser, targets=16, prompt=100)
    parser.add_argument("--train_split", default="train")
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument(
        "--ways", nargs="+", default=list(WAYS), help=f"of {', '.join(WAYS)}, and numbers of groups"
    )
    args = parser.parse_args(argv)
    if args.members > 1 and args.peft:
        parser.error("PEFT trains one prompt: leave --members out")

    base = BaseModel(
        args.size, None, args.vocabulary, args.dropout, activation_dtype=args.dtype, weight_dtype=args.dtype
    )
    data = Data(
        task=args.task,
        task_module="tasks.registry",
        task_feature_lengths={"inputs": args.inputs, "targets": args.targets},
        batch_size=args.batch,
        data_dir=args.data_dir,
        train_split=args.train_split,
        eval_split=args.train_split,
    )
    optimizer = Optimizer("adafactor", 0.3, weight_decay=1e-5)
    training = Training(RUN_STEPS, 1000, members=args.members)
    run = TrainRun("", base, data, optimizer, training, PromptTuning(args.prompt))
    mesh, vocabulary = partition.mesh_of(base), make_vocabulary(base)
    _, mixtures = open_members([data] * args.members, vocabulary)
    setup = set_up(run, mesh, vocabulary=vocabulary)
    begun = time.perf_counter()
    plans = {name: plan_of(name, setup, mixtures) for name in args.ways}
    planning_seconds = time.perf_counter() - begun
    ways = {name: way(setup, mixtures, vocabulary, plan) for name, plan in plans.items()}
    if args.peft:
        ways["peft"] = peft(setup, mixtures, vocabulary, args)
    timed = in_turns(ways, args.steps + 1)
    seconds = {name: found[1:] for name, found in timed.items()}
    lengths_N = np.concatenate([cache.input_lengths_N for _, cache in mixtures[0]])
    limit = unpadded_flops(setup, np.minimum(lengths_N, setup.inputs_length))
    first = args.ways[0]
    reports = {}
    for name in ways:
        total = sum(seconds[name])
        reports[name] = {
            "first_step_seconds": timed[name][0],
            "examples_per_second": args.steps * args.batch * args.members / total,
            "speedup": sum(seconds[first]) / total,
        }
    for name, plan in plans.items():
        reports[name] |= {
            "groups": plan.groups,
            "lengths": plan.lengths,
            "share_of_products_that_are_needed": limit / padded_flops(setup, mixtures, plan, 256),
        }
    if args.json:
        print(json.dumps({"settings": vars(args), "planning_seconds": planning_seconds, "ways": reports}))
        return
    print(f"planned in {planning_seconds:.1f} s")
    for name, report in reports.items():
        told = (
            f"{name}: {report['examples_per_second']:.2f} examples/s, {report['speedup']:.2f}x {first}; first step "
            f"{report['first_step_seconds']:.0f} s"
        )
        if name in plans:
            told += (
                f"; {report['groups']} groups, padded to {', '.join(map(str, report['lengths']))}; of its products "
                f"{100 * report['share_of_products_that_are_needed']:.0f} % are needed"
            )
        print(told)


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
