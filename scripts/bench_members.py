"""Time of a step of E members beside E steps of one, on random weights and tokens, in turns.

    python scripts/bench_members.py --members 4 15

Takes the arguments of `bench_step.py` besides. The limit is what the products take at the machine's own rate.
"""

from __future__ import annotations

import argparse
import json
import statistics

from bench_step import add_arguments, base_model, prepare
from benchmark import in_turns, matrix_product_rate

from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.weights import load_weights
from jax_prompts.cpu import restart_with_huge_pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.set_defaults(inputs=64, prompt=20)
    parser.add_argument("--members", type=int, nargs="+", default=[4])
    args = parser.parse_args()
    if len(args.methods) > 1:
        parser.error("members are of one method: name one")

    base = base_model(args)
    frozen, _ = load_weights(base, make_model(base))
    counts = [1, *args.members]
    prepared = {
        count: prepare(argparse.Namespace(**{**vars(args), "members": count}), base, frozen, args.methods[0])
        for count in counts
    }
    seconds = in_turns({count: take for count, (take, _) in prepared.items()}, args.steps + 1)
    median = {count: statistics.median(found[1:]) for count, found in seconds.items()}
    rate = matrix_product_rate(args.dtype)
    reports = {
        count: {
            "seconds_per_step": median[count],
            "relative_to_as_many_alone": median[count] / (count * median[1]),
            "limit_seconds": facts["step_gflop"] * 1e9 / rate,
            **facts,
        }
        for count, (_, facts) in prepared.items()
    }
    if not args.json:
        for count, report in reports.items():
            print(
                f"{count} members: {report['seconds_per_step']:.3f} s/step, "
                f"{report['relative_to_as_many_alone']:.3f}x of {count} alone, limit {report['limit_seconds']:.3f} s"
            )
        return
    print(json.dumps({"settings": vars(args), "members": reports}))


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
