"""A prompt on every task whose official files are there: a few steps of training and a few scored answers.

Slow: `pytest -m slow tests/test_every_task.py`.
"""

import json

import pytest

pytest.importorskip("seqio")

import seqio

import tasks.registry  # noqa: F401
from jax_prompts.main import main
from tasks.catalogue import has_files

PLAIN = sorted(
    name
    for name in seqio.TaskRegistry.names()
    if not name.startswith(("taskless_", "bert_", "micro_", "masked_lm", "toy")) and "_v002" not in name
)
FILES = ("models/micro", "prompts/prompt_tuning", "recipes/micro", "runs/train")


@pytest.mark.slow
@pytest.mark.parametrize("task", PLAIN)
def test_a_few_steps(task, shared, tmp_path, capsys):
    data_dir = str(shared / "data")
    there = [split for split in ("train", "validation", "test") if has_files(task, data_dir, split)]
    if not there:
        pytest.skip(f"no official files of {task} under {data_dir}")
    settings = {
        "MIXTURE_OR_TASK_NAME": task,
        "DATA_DIR": data_dir,
        "MODEL_DIR": tmp_path,
        "CACHE_DIR": tmp_path / "caches",
        "TRAIN_SPLIT": there[0],
        "EVAL_SPLIT": f"{there[-1] if 'validation' not in there else 'validation'}[:16]",
        "TASK_FEATURE_LENGTHS": "{'inputs': 32, 'targets': 16}",
        "PROMPT_LENGTH": 4,
        "INITIALIZER": "@SampledVocabulary()",
        "BATCH_SIZE": 8,
        "EVAL_BATCH_SIZE": 16,
        "TRAIN_STEPS": 3,
        "EVAL_PERIOD": 3,
        "Optimizer.warmup_steps": 0,
    }
    flags = [f"--gin_file=gin_configs/{file}.gin" for file in FILES]
    flags += [f"--gin.{name}={value}" for name, value in settings.items()]
    main(["train", *flags])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["last_step"] == 3
    assert summary["metrics"][task]
