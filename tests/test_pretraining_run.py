"""Pre-training through the command line: what it refuses to go on with."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("seqio")

from jax_prompts.main import main

pytestmark = pytest.mark.slow
TEXT = "A quick brown fox jumps over the lazy dog near the old river bank every morning.\n"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of two steps, and what starts it again."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "text").mkdir()
    (folder / "text/a.txt").write_text("".join(f"{i} {TEXT}" for i in range(1000)))
    settings = {
        "INITIAL_CHECKPOINT_PATH": None,
        "MODEL_DIR": folder / "model",
        "CACHE_DIR": folder / "caches",
        "DATA_DIR": folder / "text",
        "MIXTURE_OR_TASK_NAME": "span_corruption",
        "TASK_FEATURE_LENGTHS": "{'inputs': 24, 'targets': 12}",
        "BATCH_SIZE": 8,
        "EVAL_BATCH_SIZE": 8,
        "EVAL_SPLIT": "validation",
        "TRAIN_STEPS": 2,
        "EVAL_PERIOD": 2,
        "LEARNING_RATE": 0.01,
        "Optimizer.name": "adafactor",
    }
    main(_arguments(settings))
    return folder, settings


def _arguments(settings):
    files = [f"--gin_file=gin_configs/{name}.gin" for name in ("models/micro", "runs/pretrain")]
    return ["pretrain", *files, *(f"--gin.{name}={value}" for name, value in settings.items())]


def _refused(settings, capsys) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(_arguments(settings))
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_it_goes_on_with_the_same_data(begun, capsys):
    _, settings = begun
    main(_arguments(settings))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["last_step"] == 2


def test_it_does_not_go_on_with_other_data(begun, capsys):
    folder, settings = begun
    file = folder / "text/a.txt"
    before = file.read_text()
    file.write_text(before.replace("lazy", "busy", 1))
    try:
        assert "began with other data of span_corruption" in _refused(settings, capsys)
    finally:
        file.write_text(before)


def test_a_vocabulary_of_another_size_is_refused(begun, train_vocabulary, tmp_path, capsys):
    _, settings = begun
    line = _refused({**settings, "MODEL_DIR": tmp_path, "VOCABULARY": train_vocabulary(TEXT.strip())}, capsys)
    assert "ids and micro 4096 embedding rows" in line


def test_a_model_is_not_adapted_with_another_vocabulary(begun, tmp_path, capsys):
    folder, settings = begun
    adapted = {"INITIAL_CHECKPOINT_PATH": folder / "model/model", "MODEL_DIR": tmp_path / "adapted"}
    line = _refused({**settings, **adapted, "VOCABULARY": "asset:mini", "MODEL_SIZE": "mini"}, capsys)
    assert "set VOCABULARY to that one" in line
