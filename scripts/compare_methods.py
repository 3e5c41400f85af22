"""Trains every method on one task, several seeds side by side; prints scores and the curves of EPT's analysis.

    python scripts/compare_methods.py --output runs/compare --task glue_sst2_v200 --data_dir GLUE

Each run is one `t5x train` in a folder of its own, so that an interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

from jax_prompts.prompts import load_prompt

METHODS = {  # gin file: prompt length; None: the file's
    "prompt_tuning": 10,
    "mlp": 10,
    "lstm": 10,
    "residual": 10,
    "residual_separate": 10,
    "p_tuning_mlp": 10,
    "p_tuning_lstm": 10,
    "decomposed": 100,
    "explosive": None,
    "explosive_star": 10,
    "prefix": 10,
    "prefix_mlp": 10,
    "decoder_prefix": 10,
    "full_prefix": 10,
    "deep": 10,
    "decoder_deep": 10,
    "full_deep": 10,
}


def run_flags(args: argparse.Namespace, method: str, rate: str, folder: pathlib.Path) -> list[str]:
    length = METHODS[method]
    files = (f"models/{args.model}", f"prompts/{method}", f"recipes/{args.recipe}", "runs/train")
    return [
        *(f"--gin_file=gin_configs/{file}.gin" for file in files),
        f"--gin.MIXTURE_OR_TASK_NAME={args.task}",
        f"--gin.DATA_DIR={args.data_dir}",
        f"--gin.MODEL_DIR={folder}",
        f"--gin.LEARNING_RATE={rate}",
        f"--gin.MEMBERS={args.members}",
        *([] if length is None else [f"--gin.PROMPT_LENGTH={length}"]),
        *(f"--gin.{binding}" for binding in args.gin),
    ]


def curve(folder: pathlib.Path, name: str) -> dict[int, float]:
    """A training metric by step, averaged over members."""
    lines = [json.loads(line) for line in (folder / "metrics" / "train.jsonl").read_text().splitlines()]
    steps = sorted({line["step"] for line in lines})
    return {step: statistics.fmean(line[name] for line in lines if line["step"] == step) for step in steps}


def print_row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a folder for the runs")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data_dir", default="None")
    parser.add_argument("--model", default="micro", help="a file of gin_configs/models")
    parser.add_argument("--recipe", default="micro", help="a file of gin_configs/recipes")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--rates", nargs="+", default=["0.03", "0.3"])
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument(
        "--gin", nargs="*", default=[], metavar="NAME=VALUE", help="further settings of every run"
    )
    args = parser.parse_args()

    print_row("method", "prompt", "tuned", "rate", "score", "untuned", "seconds")
    print_row(*["---"] * 7)
    finished = []
    for method in args.methods:
        for rate in args.rates:
            folder = args.output / f"{method}-{rate}"
            flags = run_flags(args, method, rate, folder)
            command = [sys.executable, "-m", "jax_prompts.main", "train", *flags]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print_row(method, "", "", rate, f"failed, status {done.returncode}", "", "")
                continue
            summary = json.loads(done.stdout.splitlines()[-1])
            finished.append((method, rate, folder))
            prompt_PD, _ = load_prompt(summary["members"][0]["file"])
            print_row(
                method,
                prompt_PD.shape[0],
                f"{summary['tuned_parameters'] // args.members:,}",
                rate,
                f"{summary['best_metric']:.1f} ± {summary['best_metric_deviation']:.1f}",
                f"{summary['untuned_metric']:.1f}",
                f"{summary['wall_seconds']:.0f}",
            )

    for title, name in (("mean norm", "prompt_norm"), ("mean cosine", "prompt_similarity")):
        curves = [(method, rate, curve(folder, name)) for method, rate, folder in finished]
        steps = sorted(curves[0][2]) if curves else []
        shown = steps[:: max(1, len(steps) // 5)]
        print(f"\n{title} of the prompt's vectors, over the steps up to the one named\n")
        print_row("method", "rate", *shown)
        print_row(*["---"] * (2 + len(shown)))
        for method, rate, values in curves:
            print_row(method, rate, *(f"{values[step]:.3g}" for step in shown))


if __name__ == "__main__":
    main()
