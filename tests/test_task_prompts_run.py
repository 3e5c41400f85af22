"""A run that tunes a prompt of each task of a mixture: files, scores, resuming, members."""

import json
import shutil

import numpy as np
import pytest
import seqio

import tasks.registry  # noqa: F401  which registers what is mixed
from jax_prompts.main import main
from jax_prompts.prompts import load_prompt

TASKS = ("micro_world", "quickstart_reviews")
FILES = [f"--gin_file=gin_configs/{file}.gin" for file in ("models/micro", "recipes/micro", "runs/train")]
SHORT = {
    "SCAN_LAYERS": "True",
    "MIXTURE_OR_TASK_NAME": "reviews_and_world",
    "TASK_FEATURE_LENGTHS": "{'inputs': 48, 'targets': 8}",
    "LENGTH_GROUPS": "1",
    "BATCH_SIZE": "8",
    "TRAIN_STEPS": "6",
    "Optimizer.warmup_steps": "0",
    "EVAL_PERIOD": "3",
    "CHECKPOINT_PERIOD": "3",
    "EVAL_SPLIT": "validation[:24]",
    "PROMPT_LENGTH": "4",
    "INITIALIZER": "@SampledVocabulary()",
    "PROMPT_OF_EACH_TASK": "True",
}


@pytest.fixture(scope="module", autouse=True)
def mixture():
    if "reviews_and_world" not in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.add("reviews_and_world", [(task, 1.0) for task in TASKS])


def train(capsys, directory, prompt, **settings):
    flags = [f"--gin.{name}={value}" for name, value in (SHORT | settings).items()]
    main(
        [
            "train",
            f"--gin_file=gin_configs/prompts/{prompt}.gin",
            *FILES,
            *flags,
            f"--gin.MODEL_DIR={directory}",
        ]
    )
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def score(capsys, task, file):
    settings = SHORT | {"MIXTURE_OR_TASK_NAME": task, "PROMPT_FILES": f"('{file}',)", "MODEL_DIR": "None"}
    flags = [f"--gin.{name}={settings[name]}" for name in settings if name not in ("PROMPT_OF_EACH_TASK",)]
    main(["eval", *FILES[:1], "--gin_file=gin_configs/runs/eval.gin", *flags])
    (found,) = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"].values()
    return found[task]


@pytest.mark.slow
def test_each_task_ends_with_a_file_that_scores_as_in_the_run(capsys, tmp_path):
    run = tmp_path / "run"
    summary = train(capsys, run, "mpt", SHARED_BY_TASKS="('prompt',)")
    P, D = 4, 192
    assert summary["tuned_parameters"] == P * D + len(TASKS) * (P + D)
    assert summary["members"][0]["file"] == str(run / "prompts")
    for task in TASKS:
        file = run / "prompts" / f"{task}.safetensors"
        prompt_PD, found = load_prompt(file)
        assert (prompt_PD.shape, found.task, found.method) == ((P, D), task, "MPT")
        assert found.step == summary["best_step"]
        assert score(capsys, task, file) == pytest.approx(summary["metrics"][task], rel=1e-6)
    labels = {task: load_prompt(run / "prompts" / f"{task}.safetensors")[1].labels for task in TASKS}
    assert labels == {"micro_world": (), "quickstart_reviews": ("negative", "positive")}

    # Killed behind its first checkpoint, without one of its files, it ends with the same bytes.
    before = {file.name: file.read_bytes() for file in (run / "prompts").iterdir()}
    shutil.rmtree(run / "checkpoints" / "6")
    (run / "summary.json").unlink()
    (run / "prompts" / "micro_world.safetensors").unlink()
    again = train(capsys, run, "mpt", SHARED_BY_TASKS="('prompt',)")
    assert {file.name: file.read_bytes() for file in (run / "prompts").iterdir()} == before
    assert again["metrics"] == summary["metrics"]


@pytest.mark.slow
def test_members_each_have_prompts_of_all_tasks_beside_a_shared_attention(capsys, tmp_path):
    source = train(capsys, tmp_path / "source", "prompt_tuning")["members"][0]["file"]
    sources = f"('{source}/micro_world.safetensors', '{source}/quickstart_reviews.safetensors')"
    settings = {"ATTEMPT.sources": sources, "ATTEMPT.bottleneck": "4"}
    both = train(capsys, tmp_path / "both", "attempt", MEMBERS="2", **settings)
    alone = train(capsys, tmp_path / "alone", "attempt", RANDOM_SEED="1", **settings)
    assert [member["file"] for member in both["members"]] == [
        str(tmp_path / "both" / f"prompts-{e}") for e in (0, 1)
    ]
    for task in TASKS:
        of_member, of_run = (
            load_prompt(tmp_path / place / f"{task}.safetensors")[0]
            for place in ("both/prompts-1", "alone/prompts")
        )
        np.testing.assert_allclose(of_member, of_run, rtol=1e-4, atol=1e-5)
        assert not np.array_equal(of_member, load_prompt(tmp_path / f"both/prompts-0/{task}.safetensors")[0])
    for task, metrics in alone["metrics"].items():
        assert both["metrics"][1][task] == pytest.approx(metrics, rel=1e-4)


def test_settings_that_cannot_work_are_named(capsys, tmp_path):
    for settings, message in (
        (
            {"PROMPT_OF_EACH_TASK": "False", "SHARED_BY_TASKS": "('prompt',)"},
            "set PROMPT_OF_EACH_TASK = True",
        ),
        ({"SHARED_BY_TASKS": "('table',)"}, "SHARED_BY_TASKS table: MPT has prompt, u, v"),
    ):
        with pytest.raises(SystemExit):
            train(capsys, tmp_path / "run", "mpt", **settings)
        assert message in capsys.readouterr().err
