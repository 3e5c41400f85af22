"""Runs on quantised weights: what they tune answers on any weights of the same model."""

import json
import pathlib

import numpy as np
import pytest

import jax_prompts
from jax_prompts.main import main

ROOT = pathlib.Path(__file__).parents[1]
TEXTS = [
    f"review: {text} sentiment:" for text in ("a fine film", "a dull film", "great", "bad", "awful and slow")
]


def train(capsys, *arguments):
    main(["train", f"--gin_file={ROOT}/gin_configs/quickstart.gin", *arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
def test_what_is_tuned_beside_narrow_weights_answers_beside_wide_ones(weight_dtype, tmp_path, capsys):
    settings = ["--gin.TRAIN_STEPS=40", "--gin.EVAL_PERIOD=20", f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    summary = train(
        capsys,
        *settings,
        f"--gin_file={ROOT}/gin_configs/tuned/lora.gin",
        f"--gin.WEIGHT_DTYPE={weight_dtype}",
    )
    assert summary["best_metric"] > 60
    scores = []
    for dtype in ("float32", weight_dtype):
        model = jax_prompts.load_model("asset:micro", weight_dtype=dtype)
        prompt = model.load_prompt(tmp_path / "run" / "prompt.safetensors")
        scores.append(model.score_labels(TEXTS, ["good", "bad"], prompt))
    np.testing.assert_allclose(*scores, atol={"int8": 0.2, "int4": 2.0}[weight_dtype])
    assert np.abs(scores[0] - scores[1]).max() > 0


def test_the_whole_model_is_not_tuned_in_whole_numbers(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(
            capsys,
            "--dry_run",
            f"--gin.MODEL_DIR={tmp_path / 'run'}",
            "--gin.PROMPT=None",
            "--gin.INITIALIZER=None",
            "--gin.WEIGHT_DTYPE=int8",
        )
    assert "WEIGHT_DTYPE is 'int8', which is of frozen weights, and the whole" in capsys.readouterr().err
