"""How much each way to pad computes of a task's encoder, by count: lengths, groups, packing, nothing in vain.

    python scripts/padding_table.py --vocabulary spiece.model --data_dir SUPERGLUE --task super_glue_rte_v102

Products with the rows of many batches padded to the most, relative to those of each way; larger is better.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from jax_prompts.base_models.build import make_config, make_vocabulary
from jax_prompts.config import BaseModel, Data
from jax_prompts.data.layout import static_length
from jax_prompts.data.length_groups import plan_lengths, planned
from jax_prompts.data.roles import open_members
from jax_prompts.data.sampler import needed_lengths
from jax_prompts.models.flops import encoder_flops


def packed_rows(lengths: Iterable[int], width: int) -> int:
    """Rows of a width that examples fill, first fit, longest first."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        place = next((i for i, filled in enumerate(rows) if filled + length <= width), None)
        if place is None:
            rows.append(length)
        else:
            rows[place] += length
    return len(rows)


def relative(config: Any, lengths_SB: np.ndarray, longest: int, prompt: int, most: int) -> dict[str, float]:
    """Products padded to `most`, relative to those of each way."""

    def flops(length: int) -> float:
        return encoder_flops(config, prompt + length)

    steps, batch = lengths_SB.shape
    ways = {"one length": flops(static_length(most, longest))}
    for groups in (1, 2, 4, 8):
        needed_N = lengths_SB.reshape(steps, groups, -1)[..., -1].ravel()
        plan = plan_lengths(None, needed_N, longest, most, flops, 0.0)
        ways[f"{groups} groups"] = float(np.mean([flops(planned(plan, length)) for length in needed_N]))
    rows = np.mean([packed_rows((lengths_B + prompt).tolist(), prompt + longest) for lengths_B in lengths_SB])
    ways["packed"] = float(rows) * flops(longest) / batch
    ways["no padding"] = float(np.mean([flops(length) for length in lengths_SB.ravel()]))
    return {name: flops(most) / count for name, count in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", required=True, help="T5's, spiece.model")
    parser.add_argument("--data_dir", help="official files; without it TFDS")
    parser.add_argument("--task", nargs="+", default=["super_glue_rte_v102"])
    parser.add_argument("--prompt", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--size", default="t5_1_1_base")
    parser.add_argument("--batch", type=int, default=32, help="a multiple of 8")
    parser.add_argument("--inputs", type=int, default=512)
    parser.add_argument("--batches", type=int, default=200)
    args = parser.parse_args()

    base = BaseModel(args.size, None, args.vocabulary)
    vocabulary = make_vocabulary(base)
    for task in args.task:
        lengths = {"inputs": args.inputs, "targets": 16}
        data = Data(task, "tasks.registry", lengths, args.batch, data_dir=args.data_dir)
        _, mixtures = open_members([data], vocabulary)
        lengths_SB = needed_lengths(  # of each row by itself
            mixtures, seeds=[0], batch_size=args.batch, inputs_length=args.inputs, groups=args.batch,
            steps=range(args.batches),
        )  # fmt: skip
        longest = min(args.inputs, max(cache.longest_inputs for _, cache in mixtures[0]))
        for prompt in args.prompt:
            ways = relative(make_config(base), lengths_SB, longest, prompt, args.inputs)
            shown = {name: round(value, 2) for name, value in ways.items()}
            print(json.dumps({"task": task, "prompt": prompt, **shown}))


if __name__ == "__main__":
    main()
