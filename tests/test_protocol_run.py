"""Protocols and few-shot subsets through whole runs: test examples scored last, subsets beside the run."""

import json

import pytest

from jax_prompts.main import main

SHORT = {
    "INITIAL_CHECKPOINT_PATH": "None",
    "TRAIN_STEPS": 4,
    "Optimizer.warmup_steps": 0,
    "EVAL_PERIOD": 2,
    "BATCH_SIZE": 8,
    "EVAL_BATCH_SIZE": 40,
    "PROMPT_LENGTH": 4,
    "Residual.hidden": 8,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def t5x(command, capsys, *files, **macros):
    files = files or ("gin_configs/quickstart.gin",)
    flags = [f"--gin_file={file}" for file in files] + [f"--gin.{name}={v}" for name, v in macros.items()]
    main([command, *flags])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_few_shot_with_a_test_role(tmp_path, cache, capsys):
    macros = {**SHORT, "CACHE_DIR": cache, "PROTOCOL": "ept_b1", "FEW_SHOT_PER_CLASS": 8, "MEMBERS": 2}
    runs = {seed: tmp_path / str(seed) for seed in (0, 7)}
    for seed, directory in runs.items():
        summary = t5x("train", capsys, **macros, MODEL_DIR=directory, RANDOM_SEED=seed)
        assert summary == json.loads((directory / "summary.json").read_text())
        assert [set(found["quickstart_reviews"]) for found in summary["test_metrics"]] == [{"accuracy"}] * 2
    subset = json.loads((runs[0] / "subset.json").read_text())
    assert subset == json.loads((runs[7] / "subset.json").read_text())
    assert (subset["protocol"], subset["few_shot_per_class"], subset["subset_seed"]) == ("ept_b1", 8, 42)
    rows = {row["role"]: row["rows"] for row in subset["subsets"]}
    assert {role: len(numbers) for role, numbers in rows.items()} == {
        "train": 16,
        "validation": 200,
        "test": 200,
    }
    assert sorted(rows["validation"] + rows["test"]) == list(range(400))

    predictions = runs[7] / "predictions"
    tested = lines(predictions / "quickstart_reviews-test.jsonl")
    assert len(tested) == 2 * 200
    chosen = lines(predictions / "quickstart_reviews-4.jsonl")
    assert not {row["inputs"] for row in tested} & {row["inputs"] for row in chosen}
    for member in (0, 1):
        answers = [row for row in tested if row["member"] == member]
        accuracy = 100 * sum(row["prediction"] == row["targets"] for row in answers) / len(answers)
        assert summary["test_metrics"][member]["quickstart_reviews"]["accuracy"] == accuracy

    # t5x eval by role says the same of the same file.
    files = ("gin_configs/quickstart.gin", "gin_configs/runs/eval.gin")
    prompt = f"('{runs[7] / 'prompt-1.safetensors'}',)"
    macros |= {"MODEL_DIR": tmp_path / "scores", "PROMPT_FILES": prompt, "RANDOM_SEED": 7}
    report = t5x("eval", capsys, *files, **macros, EVAL_ROLE="test")
    assert (report["split"], report["examples"]) == ("test", {"quickstart_reviews": 200})
    assert list(report["metrics"].values()) == summary["test_metrics"][1:]
    assert len(lines(tmp_path / "scores" / "predictions" / "quickstart_reviews-0-test.jsonl")) == 200


def test_the_tuned_model_is_tested_too(tmp_path, cache, capsys):
    files = ("gin_configs/quickstart.gin", "gin_configs/runs/pretrain.gin")
    macros = {**SHORT, "CACHE_DIR": cache, "PROTOCOL": "ept_b1", "TRAIN_STEPS": 1, "FEW_SHOT": 8}
    summary = t5x("pretrain", capsys, *files, **macros, MODEL_DIR=tmp_path / "model")
    assert set(summary["test_metrics"]["quickstart_reviews"]) == {"accuracy"}
    assert len(lines(tmp_path / "model" / "predictions" / "quickstart_reviews-test.jsonl")) == 200


def test_without_a_protocol_nothing_is_tested_and_no_subset_written(tmp_path, cache, capsys):
    macros = {**SHORT, "CACHE_DIR": cache, "MODEL_DIR": tmp_path / "run", "EVAL_SPLIT": "validation[:40]"}
    summary = t5x("train", capsys, **macros)
    assert "test_metrics" not in summary
    assert not (tmp_path / "run" / "subset.json").exists()
    assert not list((tmp_path / "run" / "predictions").glob("*-test.jsonl"))


def test_cache_lists_the_roles_of_a_run(cache, capsys):
    found = t5x("cache", capsys, CACHE_DIR=cache, MODEL_DIR="never", PROTOCOL="ept_b1", FEW_SHOT=5)["caches"]
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
        ("train", {"FEW_SHOT_PER_CLASS": 100000}, "FEW_SHOT_PER_CLASS is 100000, and quickstart_reviews has"),
        ("train", {"FEW_SHOT": "many"}, "FEW_SHOT is 'many': set it to a whole number or None"),
        ("train", {"PROTOCOL": "attempt_half"}, "or PROTOCOL ept_b1"),
        ("eval", {"EVAL_ROLE": "test"}, "EVAL_ROLE is test, and PROTOCOL dev_as_test has"),
        ("eval", {"EVAL_ROLE": "tset"}, "EVAL_ROLE is 'tset': set it to 'train' or 'validation' or 'test'"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, cache, capsys, command, macros, words):
    files = ["gin_configs/quickstart.gin", *(["gin_configs/runs/eval.gin"] if command == "eval" else [])]
    with pytest.raises(SystemExit) as end:
        t5x(
            command,
            capsys,
            *files,
            **{**SHORT, "CACHE_DIR": cache, "MODEL_DIR": tmp_path / "never", **macros},
        )
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
        "MIXTURE_OR_TASK_NAME": "task_of_no_module",
        "CACHE_DIR": tmp_path,
        "MODEL_DIR": tmp_path / "never",
    }
    settings = {"PROTOCOL": "ept_b1", "FEW_SHOT": 8, **absent, **macros}
    argv = ["train", "--dry_run", "--gin_file=gin_configs/quickstart.gin"]
    argv += [f"--gin.{name}={value}" for name, value in settings.items()]
    if status is None:
        main(argv)
    else:
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == status
    assert list(tmp_path.iterdir()) == []
