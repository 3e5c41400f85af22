"""Ranking, words for labels and intervals through whole runs: what metrics, summaries and predictions hold."""

import json

import numpy as np
import pytest

from jax_prompts import load_model
from jax_prompts.main import main

pytestmark = pytest.mark.slow

WORDS = {"positive": "good", "negative": "bad"}
TASK = "quickstart_reviews"
SETTINGS = {
    "INITIAL_CHECKPOINT_PATH": "None",
    "PROMPT_LENGTH": 4,
    "EVAL_SPLIT": "validation[:40]",
    "RANK_CLASSIFICATION": True,
    "BOOTSTRAP": 20,
    "VERBALIZER": WORDS,
}
NAMES = {"accuracy", "rank/accuracy", "rank_normalized/accuracy"}


def t5x(name, *files, **macros):
    flags = [f"--gin.{macro}={value}" for macro, value in macros.items()]
    main([name, "--gin_file=gin_configs/quickstart.gin", *(f"--gin_file={file}" for file in files), *flags])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    training = {"TRAIN_STEPS": 24, "EVAL_PERIOD": 24, "BATCH_SIZE": 8, "Residual.hidden": 8, "MEMBERS": 2}
    place = {"MODEL_DIR": folder / "run", "CACHE_DIR": folder / "cache"}
    t5x("train", **SETTINGS, **training, **place, METRIC="rank/accuracy")
    return folder


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def check(metrics, context, intervals):
    assert metrics.keys() >= NAMES and intervals.keys() == NAMES
    assert context["examples"] == 40
    assert context.keys() >= {"majority_baseline", "all_positive_baseline", "out_of_class_predictions"}
    for name, (low, high) in intervals.items():
        assert low <= metrics[name] <= high


def test_training_reports_them(folder):
    run = folder / "run"
    evaluations = lines(run / "metrics" / "eval.jsonl")
    assert [line["step"] for line in evaluations] == [0, 24, 24]
    for line in evaluations:
        check(line, line["about_scores"], line["intervals"])
    summary = json.loads((run / "summary.json").read_text())
    for member in range(2):
        check(*(summary[part][member][TASK] for part in ("metrics", "about_scores", "intervals")))
        assert summary["members"][member]["best_metric"] == summary["metrics"][member][TASK]["rank/accuracy"]
    for row in lines(run / "predictions" / f"{TASK}-24.jsonl"):
        assert {row["targets"], row["rank"], row["rank_normalized"]} <= set(WORDS.values())
        assert row["label_log_probabilities"].keys() == set(WORDS.values())


def test_evaluation_reports_the_same_and_the_ensemble(folder, capsys):
    files = tuple(str(folder / "run" / f"prompt-{member}.safetensors") for member in range(2))
    capsys.readouterr()
    t5x("eval", "gin_configs/runs/eval.gin", **SETTINGS, MODEL_DIR=folder / "eval", CACHE_DIR=folder / "cache",
        PROMPT_FILES=files)  # fmt: skip
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report == json.loads((folder / "eval" / "eval.json").read_text())
    summary = json.loads((folder / "run" / "summary.json").read_text())
    for member, file in enumerate(files):
        check(*(report[part][file][TASK] for part in ("metrics", "about_scores", "intervals")))
        assert report["metrics"][file] == summary["metrics"][member]
    model = load_model(None, size="micro", vocabulary="asset:micro", inputs_length=48, targets_length=4)
    for member, file in enumerate(files):
        (predictions,) = (folder / "eval" / "predictions").glob(f"{TASK}-{member}-*")
        rows = lines(predictions)
        scores = [list(row["label_log_probabilities"].values()) for row in rows]
        prompt = model.load_prompt(file)
        found_NC = model.score_labels([row["inputs"] for row in rows], prompt=prompt)
        np.testing.assert_allclose(found_NC, scores, rtol=1e-4)
    assert report["ensemble"][TASK].keys() == NAMES | {"mean_log_probability/accuracy", "mean_rank/accuracy"}
    assert report["about_scores"]["ensemble"][TASK]["examples"] == 40


@pytest.mark.parametrize(
    ("macros", "words"),
    [
        ({"VERBALIZER": {"positive": "good", "negativ": "bad"}}, ["VERBALIZER", "negativ", "negative"]),
        ({"VERBALIZER": "good"}, ["VERBALIZER", "dictionary"]),
        ({"RANK_CLASSIFICATION": "yes"}, ["RANK_CLASSIFICATION", "True or False"]),
        ({"BOOTSTRAP": -5}, ["BOOTSTRAP", "-5"]),
    ],
)
def test_bad_settings_are_one_clear_line(folder, capsys, macros, words):
    settings = {
        **SETTINGS,
        "PROMPT_FILES": "()",
        "MODEL_DIR": folder / "never",
        "CACHE_DIR": folder / "cache",
    }
    with pytest.raises(SystemExit) as status:
        t5x("eval", "gin_configs/runs/eval.gin", **{**settings, **macros})
    assert status.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("t5x eval: ") and all(word in last for word in words), last
    assert not (folder / "never").exists()
