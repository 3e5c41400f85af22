"""Protocols and few-shot subsets through whole runs: test examples scored last, subsets beside the run."""

import json
import os
import subprocess
import sys

import pytest

from jax_prompts.main import main

ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
QUICKSTART = "gin_configs/quickstart.gin"
SHORT = {
    "SCAN_LAYERS": True,
    "TRAIN_STEPS": 2,
    "EVAL_PERIOD": 2,
    "Optimizer.warmup_steps": 0,
    "BATCH_SIZE": 8,
    "EVAL_BATCH_SIZE": 40,
    "PROMPT_LENGTH": 4,
    "Residual.hidden": 8,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, compile_cache):
    ENV.update(compile_cache)
    return tmp_path_factory.mktemp("cache")


def arguments(command, *files, **macros):
    flags = [f"--gin_file={file}" for file in files or (QUICKSTART,)]
    return [command, *flags, *(f"--gin.{name}={value}" for name, value in macros.items())]


def t5x(command, *files, **macros):
    """The last line of stdout of a process of its own."""
    program = [sys.executable, "-m", "jax_prompts.main", *arguments(command, *files, **macros)]
    done = subprocess.run(program, env=ENV, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_few_shot_with_a_test_role(tmp_path, cache):
    run = tmp_path / "run"
    macros = {**SHORT, "CACHE_DIR": cache, "PROTOCOL": "ept_b1", "FEW_SHOT_PER_CLASS": 8}
    summary = t5x("train", **macros, MEMBERS=2, MODEL_DIR=run)
    assert summary == json.loads((run / "summary.json").read_text())

    subset = json.loads((run / "subset.json").read_text())
    assert (subset["protocol"], subset["few_shot_per_class"], subset["subset_seed"]) == ("ept_b1", 8, 42)
    rows = {row["role"]: row["rows"] for row in subset["subsets"]}
    assert (len(rows["train"]), len(rows["validation"]), len(rows["test"])) == (16, 200, 200)
    assert sorted(rows["validation"] + rows["test"]) == list(range(400))

    tested = lines(run / "predictions" / "quickstart_reviews-test.jsonl")
    chosen = lines(run / "predictions" / "quickstart_reviews-2.jsonl")
    assert not {row["inputs"] for row in tested} & {row["inputs"] for row in chosen}
    for member in (0, 1):
        answers = [row for row in tested if row["member"] == member]
        assert len(answers) == 200
        accuracy = 100 * sum(row["prediction"] == row["targets"] for row in answers) / 200
        assert summary["test_metrics"][member]["quickstart_reviews"]["accuracy"] == pytest.approx(accuracy)

    # t5x eval by role says the same of the same file.
    macros |= {"MODEL_DIR": tmp_path / "scores", "PROMPT_FILES": f"('{run / 'prompt-1.safetensors'}',)"}
    report = t5x("eval", QUICKSTART, "gin_configs/runs/eval.gin", **macros, EVAL_ROLE="test")
    assert (report["split"], report["examples"]) == ("test", {"quickstart_reviews": 200})
    assert list(report["metrics"].values()) == summary["test_metrics"][1:]
    assert len(lines(tmp_path / "scores" / "predictions" / "quickstart_reviews-0-test.jsonl")) == 200


@pytest.mark.slow
def test_the_tuned_model_is_tested_too(tmp_path, cache):
    run = tmp_path / "model"
    macros = {**SHORT, "CACHE_DIR": cache, "PROTOCOL": "ept_b1", "FEW_SHOT": 8, "TRAIN_STEPS": 1}
    summary = t5x("pretrain", QUICKSTART, "gin_configs/runs/pretrain.gin", **macros, MODEL_DIR=run)
    tested = lines(run / "predictions" / "quickstart_reviews-test.jsonl")
    accuracy = 100 * sum(row["prediction"] == row["targets"] for row in tested) / 200
    assert summary["test_metrics"]["quickstart_reviews"]["accuracy"] == pytest.approx(accuracy)


def test_cache_lists_the_roles_of_a_run(cache, capsys):
    main(arguments("cache", CACHE_DIR=cache, MODEL_DIR="never", PROTOCOL="ept_b1", FEW_SHOT=5))
    found = json.loads(capsys.readouterr().out)["caches"]
    assert [(row["split"], row["examples"]) for row in found] == [
        ("train", 5),
        ("validation", 200),
        ("test", 200),
    ]


@pytest.mark.parametrize(
    ("command", "macros", "words"),
    [
        ("train", {"PROTOCOL": "ept_b2"}, "PROTOCOL ept_b2 is unknown: use ept_b1"),
        (
            "train",
            {"PROTOCOL": "ept_b1", "EVAL_SPLIT": "validation[:40]"},
            "leave TRAIN_SPLIT and EVAL_SPLIT",
        ),
        ("train", {"FEW_SHOT": 0}, "FEW_SHOT is 0"),
        ("train", {"FEW_SHOT": 100000}, "FEW_SHOT is 100000, and quickstart_reviews has"),
        ("train", {"FEW_SHOT": "many"}, "FEW_SHOT is 'many': set it to a whole number or None"),
        ("train", {"PROTOCOL": "attempt_half"}, "use PROTOCOL ept_b1"),
        ("eval", {"EVAL_ROLE": "test"}, "EVAL_ROLE is test, and PROTOCOL dev_as_test has"),
        ("eval", {"EVAL_ROLE": "tset"}, "EVAL_ROLE is 'tset': set it to 'train' or 'validation' or 'test'"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, cache, capsys, command, macros, words):
    files = [QUICKSTART, *(["gin_configs/runs/eval.gin"] if command == "eval" else [])]
    settings = {**SHORT, "CACHE_DIR": cache, "MODEL_DIR": tmp_path / "never", **macros}
    with pytest.raises(SystemExit) as end:
        main(arguments(command, *files, **settings))
    assert end.value.code == 2
    stderr = capsys.readouterr().err
    assert words in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("macros", "status"), [({}, None), ({"PROTOCOL": "ept"}, 2), ({"SUBSET_SEED": -1}, 2)]
)
def test_a_dry_run_checks_the_protocol_without_data(tmp_path, capsys, macros, status):
    absent = {
        "MIXTURE_OR_TASK_NAME": "super_glue_rte_v102",
        "CACHE_DIR": tmp_path,
        "MODEL_DIR": tmp_path / "never",
    }
    settings = {"PROTOCOL": "ept_b1", "FEW_SHOT": 8, **absent, **macros}
    argv = [*arguments("train", **settings), "--dry_run"]
    if status is None:
        main(argv)
    else:
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == status
    assert list(tmp_path.iterdir()) == []
