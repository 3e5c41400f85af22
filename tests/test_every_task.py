"""Every task whose official files are there: a few steps of training and a few scored answers, and the average.

Slow: `pytest -m slow tests/test_every_task.py`.
"""

import json
import re

import pytest

pytest.importorskip("seqio")

import seqio

import tasks.registry  # noqa: F401
from jax_prompts.main import main
from tasks.catalogue import has_files
from tasks.classification import label_classes

PLAIN = sorted(
    name
    for name in seqio.TaskRegistry.names()
    if not name.startswith(("taskless_", "bert_", "micro_", "mini_", "masked_lm", "toy"))
    and "_v002" not in name
)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]
TEXT = ("prefix_lm", "span_corruption")  # of any text, a little of which is enough
FILES = ("models/micro", "prompts/prompt_tuning", "recipes/micro", "runs/train")


@pytest.mark.parametrize("task", PLAIN)
def test_a_few_steps(task, shared, tmp_path, capsys):
    data_dir = str(shared / "data")
    if task in TEXT:
        data_dir = str(tmp_path / "text")
        (tmp_path / "text").mkdir()
        (tmp_path / "text/a.txt").write_text("".join(f"Line {i} of a short text.\n" for i in range(2000)))
    there = [split for split in ("train", "validation", "test") if has_files(task, data_dir, split)]
    if not there:
        pytest.skip(f"no official files of {task} under {data_dir}")
    settings = {
        "SCAN_LAYERS": True,
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
    labels = label_classes(seqio.TaskRegistry.get(task)) or ()
    words = {label: " ".join(re.findall("[A-Za-z0-9/]+", label)) for label in labels}
    if set(words) != set(words.values()):  # letters that the micro vocabulary lacks
        settings["VERBALIZER"] = words
    flags = [f"--gin_file=gin_configs/{file}.gin" for file in FILES]
    flags += [f"--gin.{name}={value}" for name, value in settings.items()]
    main(["train", *flags])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["last_step"] == 3
    assert summary["metrics"][task]


def test_the_average_over_superglue(shared, tmp_path, capsys):
    for folder in (shared / "data/superglue").iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "ReCoRD").mkdir()
    (tmp_path / "ReCoRD/val.jsonl").symlink_to(shared / "data/record_explorer/record_123.jsonl")
    settings = {
        "SCAN_LAYERS": True,
        "MIXTURE_OR_TASK_NAME": "super_glue_v102_proportional",
        "DATA_DIR": tmp_path,
        "MODEL_DIR": tmp_path / "scores",
        "CACHE_DIR": tmp_path / "caches",
        "EVAL_SPLIT": "validation[:16]",
        "TASK_FEATURE_LENGTHS": "{'inputs': 32, 'targets': 8}",
        "RANK_CLASSIFICATION": True,
    }
    flags = [f"--gin_file=gin_configs/{file}.gin" for file in ("models/micro", "runs/eval")]
    flags += [f"--gin.{name}={value}" for name, value in settings.items()]
    main(["eval", *flags])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    metrics, averages = report["metrics"]["no prompt"], report["averages"]["no prompt"]
    assert len(metrics) == 8
    generated = [{k: v for k, v in found.items() if "/" not in k} for found in metrics.values()]
    by_hand = sum(sum(found.values()) / len(found) for found in generated) / 8
    assert averages["super_glue"]["average"] == pytest.approx(by_hand) and by_hand > 0
    assert averages["rank/super_glue"] == {"average": None, "missing": ["record", "wsc"]}
    assert averages["all_tasks"]["refused"].startswith("unlike metrics")
