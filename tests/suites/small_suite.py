"""A suite whose cells nothing trains: two rows, two columns, two seeds, two rates. As a program, one of its workers.

`python small_suite.py DIRECTORY SECONDS`: each group takes SECONDS; what was run is added to DIRECTORY/ran.txt.
"""

import argparse
import functools
import os
import pathlib
import sys
import time

from jax_prompts.cli.gin_settings import resolve
from jax_prompts.storage import files, json_text
from jax_prompts.suites import suite, worker
from jax_prompts.suites.cells import cells_of

SUITE = """
include 'gin_configs/recipes/micro.gin'
include 'gin_configs/runs/suite.gin'
TASK_FEATURE_LENGTHS = {'inputs': 48, 'targets': 4}
TRAIN_STEPS = 20
EVAL_PERIOD = 10
Optimizer.warmup_steps = 0
PROMPT_LENGTH = 4
Suite.models = {'micro': ('gin_configs/models/micro.gin',)}
Suite.methods = {
    'PT': ('gin_configs/prompts/prompt_tuning.gin', {'LEARNING_RATE': 0.3}),
    'Residual': ('gin_configs/prompts/residual.gin', {'Residual.hidden': 8}),
}
Suite.tasks = {
    'All': 'quickstart_reviews',
    'Few': ({'MIXTURE_OR_TASK_NAME': 'quickstart_reviews', 'FEW_SHOT_PER_CLASS': 4},),
}
Suite.averages = {'Mean': ('All', 'Few')}
Suite.seeds = (0, 1)
"""


def expanded(directory, text=SUITE, **bindings):
    """(suite, its cells) of a gin text."""
    file = pathlib.Path(directory) / "suite_of_test.gin"
    files.write(file, text)  # whole, while other workers read it
    bindings = {"MODEL_DIR": f"{directory}/suite", **bindings}
    found, cells = _read(str(file), text, tuple(f"{name}={value}" for name, value in bindings.items()))
    return found, list(cells)


@functools.cache
def _read(file, text, bindings):
    """Once for each text: a search asks for the same cells again and again."""

    def arguments(gin_files, given):
        return argparse.Namespace(
            command="suite", gin_file=gin_files, bindings=given, gin_search_paths="", tfds_data_dir=None
        )

    found, _ = resolve(arguments([file], [*bindings]), "Suite")

    def make_run(gin_files, given):
        return resolve(arguments(gin_files, given), "TrainRun")

    return found, cells_of(found, [file], bindings, make_run)


def score_of(run):
    """What stands for the score of a run: a function of its settings."""
    rate, few = run.optimizer.learning_rate, run.data.few_shot_per_class or 0
    return 50.0 + 10 * run.training.seed + 100 * rate - few


def trained(seconds=0.0, ran=None):
    """Stands for `train`: takes a while, then leaves a summary and prompt files."""

    def train(run, config_text):
        directory = run.model_dir
        files.write(f"{directory}/config.gin", config_text)
        time.sleep(seconds)
        variants = [variant.run for variant in run.variants] or [run]
        scores = [score_of(each) for each in variants]
        names = (
            [f"prompt-{e}.safetensors" for e in range(len(variants))]
            if run.variants
            else ["prompt.safetensors"]
        )
        for name, score in zip(names, scores, strict=True):
            files.write(f"{directory}/{name}", f"prompt of {score}")
        lines = [
            {"step": 10, "loss": s} | ({"member": e} if run.variants else {}) for e, s in enumerate(scores)
        ]
        files.write(
            f"{directory}/metrics/train.jsonl", "".join(f"{json_text.dumps(line)}\n" for line in lines)
        )
        metrics = [{"quickstart_reviews": {"accuracy": score}} for score in scores]
        summary = {
            "task": run.data.task,
            "metric": "accuracy",
            "best_metric": scores[0],
            "metrics": metrics if run.variants else metrics[0],
            "best_step": [10] * len(scores) if run.variants else 10,
            "tuned_parameters": 8 * len(scores),
            "examples_per_second": 1.0,
            "wall_seconds": seconds,
            "checkpoint_bytes": 8,
            "last_step": 10,
            "members": [
                {
                    "seed": each.training.seed,
                    "best_metric": score,
                    "best_step": 10,
                    "file": f"{directory}/{name}",
                }
                for each, score, name in zip(variants, scores, names, strict=True)
            ],
        }
        files.write(f"{directory}/summary.json", json_text.dumps(summary))
        if ran is not None:
            with open(ran, "a") as file:
                file.write(f"{os.getpid()} {pathlib.Path(directory).name}\n")
        return summary

    return train


def main():
    directory, seconds = sys.argv[1:]
    found, cells = expanded(directory)
    worker.train = trained(float(seconds), pathlib.Path(directory) / "ran.txt")
    worker._check_data = lambda suite, cells: None
    worker._POLL_SECONDS = 0.1
    print("ready", flush=True)
    suite.run_suite(found, cells)


if __name__ == "__main__":
    main()
