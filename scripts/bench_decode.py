"""Examples a second of answering a task by generation, beside PEFT's `generate` with the same weights and prompt.

    python scripts/bench_decode.py --vocabulary spiece.model --data_dir SUPERGLUE --task super_glue_rte_v102 \
        --peft PEFT/bin/python

Random weights of T5.1.1: `t5x eval`'s evaluator answers, greedily, the task's examples, once with compiling and then
again, the better of two rounds; and then with one token an answer, which is what the encoder costs. PEFT, where its
environment is named, has the same weights and prompt, and answers, in turns, the same examples in batches of as many
rows, each padded to its longest: in the order of the task, as is usual, and sorted by length, as here. How many answers
are equal is counted.
"""

from __future__ import annotations

import argparse
import copy
import json
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from benchmark import add_task_arguments
from peers.peer import Peer

from jax_prompts.base_models.build import make_model, make_vocabulary
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import BaseModel, Data, Decoding
from jax_prompts.cpu import restart_with_huge_pages
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.roles import open_role
from jax_prompts.decoding import EOS
from jax_prompts.scoring.evaluator import Evaluator

ROUNDS = 2


def answers(evaluator: Evaluator, params: Any, prompt_PD: np.ndarray) -> tuple[list[str], float]:
    """The answers to a task's examples, and the seconds they took."""
    begun = time.perf_counter()
    (scores,) = evaluator([params], prompt_PD[None])
    (found,) = scores.values()
    return [row["prediction"] for row in found.predictions], time.perf_counter() - begun


def peer_answers(
    peer: Peer, cache: TokenCache, batch_size: int, limit: int, by_length: bool
) -> tuple[list[list[int]], float]:
    """PEFT's, in the order of the examples."""
    inputs, _ = cache.rows(range(len(cache)))
    whole = [row.tolist() for row in np.split(inputs.values_N, inputs.offsets[1:-1])]
    texts = [row if len(row) <= limit else [*row[: limit - 1], EOS] for row in whole]
    order = list(range(len(texts)))
    if by_length:
        order.sort(key=lambda number: -len(texts[number]))
    ids: list[list[int]] = [[] for _ in texts]
    seconds = 0.0
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        answer = peer.ask("generate", texts=[texts[row] for row in rows], tokens=cache.longest_targets)
        seconds += answer["seconds"]
        for row, found in zip(rows, answer["ids"], strict=True):
            ids[row] = found
    return ids, seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_task_arguments(parser, targets=32, prompt=20)
    parser.add_argument("--eval_split", default="validation")
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as folder:
        peer, checkpoint, prompt_PD = None, None, None
        if args.peft:
            peer = Peer("peft", args.peft, argparse.Namespace(**vars(args), dropout=0.0))
            checkpoint, prompt_file = folder, pathlib.Path(folder, "prompt.npy")
            peer.ask("save", base_dir=folder, prompt_file=str(prompt_file))
            prompt_PD = np.load(prompt_file)[: args.prompt]
        base = BaseModel(
            args.size, checkpoint, args.vocabulary, activation_dtype=args.dtype, weight_dtype=args.dtype
        )
        model, vocabulary = make_model(base), make_vocabulary(base)
        params, _ = load_weights(base, model)
    if prompt_PD is None:
        prompt_PD = np.asarray(params["token_embedder"]["embedding"][: args.prompt], np.float32)
    data = Data(
        task=args.task,
        task_module="tasks.registry",
        task_feature_lengths={"inputs": args.inputs, "targets": args.targets},
        batch_size=args.batch,
        eval_batch_size=args.batch,
        data_dir=args.data_dir,
        eval_split=args.eval_split,
    )
    (cache,) = open_role(data, vocabulary, "validation")
    evaluator = Evaluator(model, vocabulary, [cache], data, Decoding())
    _, first = answers(evaluator, params, prompt_PD)
    orders = {"peft": False, "peft_by_length": True} if peer else {}
    seconds: dict[str, float] = {}
    for _ in range(ROUNDS):
        ours, ours_seconds = answers(evaluator, params, prompt_PD)
        seconds["ours"] = min(ours_seconds, seconds.get("ours", ours_seconds))
        found = {}
        for name, by_length in orders.items():
            found[name], of_peer = peer_answers(peer, cache, args.batch, args.inputs, by_length)
            seconds[name] = min(of_peer, seconds.get(name, of_peer))
    short = copy.copy(cache)
    short.longest_targets = 1
    evaluator = Evaluator(model, vocabulary, [short], data, Decoding())
    answers(evaluator, params, prompt_PD)
    report = {
        "examples": len(cache),
        "tokens_an_answer": cache.longest_targets,
        "first_examples_per_second": len(cache) / first,
        "examples_per_second": len(cache) / seconds["ours"],
        "examples_per_second_of_one_token": len(cache) / answers(evaluator, params, prompt_PD)[1],
    }
    for name, ids in found.items():
        theirs = [vocabulary.decode(np.array(row)) for row in ids]
        report[f"{name}_examples_per_second"] = len(cache) / seconds[name]
        report[f"relative_to_{name}"] = seconds[name] / seconds["ours"]
        report[f"equal_to_{name}"] = sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(cache)
    if peer is not None:
        peer.close()
    if not args.json:
        for name, value in report.items():
            print(f"{name.replace('_', ' ')}: {value:.4g}")
        return
    print(json.dumps({"settings": vars(args), **report}))


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
