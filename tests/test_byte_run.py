"""A umT5 of bytes through the command line: train, eval, infer, pretrain, studies."""

import json

import pytest

pytest.importorskip("seqio")

from jax_prompts.base_models.weights import load_weights, save_model
from jax_prompts.config import BaseModel
from jax_prompts.main import main
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import load_prompt

pytestmark = pytest.mark.slow
CONFIG = T5Config(384, 16, 2, 2, 2, 8, 24, ("gelu", "linear"), False, relpos_in_layers=True)
TASK = "quickstart_reviews"


def t5x(name, *given, **macros):
    main([name, *given, *(f"--gin.{macro}={value}" for macro, value in macros.items())])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two members on random weights."""
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "model").mkdir()
    origin = {"tokenizer_class": "ByT5Tokenizer"}
    save_model(folder / "model", load_weights(BaseModel(None, None, ""), T5(CONFIG))[0], CONFIG, origin)
    training = {"TRAIN_STEPS": 4, "EVAL_PERIOD": 4, "BATCH_SIZE": 8, "MEMBERS": 2, "PROMPT_LENGTH": 4}
    training |= {"Optimizer.warmup_steps": 0, "INITIALIZER": "@ClassLabels()", "SCAN_LAYERS": True}
    t5x(
        "train",
        "--gin_file=gin_configs/quickstart.gin",
        **training,
        **model(folder),
        MODEL_DIR=folder / "run",
    )
    return folder


def model(folder):
    return {
        "MODEL_SIZE": None,
        "INITIAL_CHECKPOINT_PATH": folder / "model",
        "VOCABULARY": None,
        "CACHE_DIR": folder / "cache",
        "TASK_FEATURE_LENGTHS": "{'inputs': 96, 'targets': 10}",
        "EVAL_SPLIT": "validation[:16]",
        "RANK_CLASSIFICATION": True,
    }


def printed(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_training_leaves_prompts(folder):
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert [loss[TASK]["loss"] > 0 for loss in summary["losses"]] == [True, True]
    for member in range(2):
        prompt_PD, metadata = load_prompt(folder / "run" / f"prompt-{member}.safetensors")
        assert prompt_PD.shape == (4, 16)
        assert metadata.tokenizer_fingerprint


def test_eval_scores_unscanned_layers_alike(folder, capsys):
    files = f"('{folder}/run/prompt-*.safetensors',)"
    settings = ["--gin_file=gin_configs/quickstart.gin", "--gin_file=gin_configs/runs/eval.gin"]
    t5x("eval", *settings, **model(folder), PROMPT_FILES=files, MODEL_DIR=folder / "eval")
    scores = printed(capsys)["metrics"]
    summary = json.loads((folder / "run" / "summary.json").read_text())
    for member, trained in enumerate(summary["metrics"]):
        found = scores[f"{folder}/run/prompt-{member}.safetensors"][TASK]
        assert found["rank/accuracy"] == trained[TASK]["rank/accuracy"]


def test_infer_answers_any_text(folder, capsys):
    lines = ["a text", "naïve 日本 🙂", "<extra_id_0> of </s> it"]
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    run = f"--gin_file={folder}/run/config.gin"
    t5x("infer", run, "--gin_file=gin_configs/runs/infer.gin", f"--prompt=a={folder}/run/prompt-0.safetensors",
        f"--input={folder}/in.jsonl", f"--output={folder}/out.jsonl")  # fmt: skip
    assert printed(capsys)["examples"] == 3
    answers = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [answer["text"] for answer in answers] == lines


def test_neighbours_are_letters(folder, capsys):
    t5x("study", "neighbours", f"{folder}/run", f"--gin_file={folder}/run/config.gin")
    assert len(printed(capsys)["prompts"]) == 2


def test_pretraining_begins_from_random_weights(folder, capsys):
    (folder / "text").mkdir()
    line = "A quick brown fox jumps over the lazy dog near the old river bank every morning.\n"
    (folder / "text" / "a.txt").write_text("".join(f"{i} {line}" for i in range(400)))
    settings = model(folder) | {
        "DATA_DIR": folder / "text",
        "MODEL_DIR": folder / "pretrained",
        "MIXTURE_OR_TASK_NAME": "span_corruption",
        "TASK_FEATURE_LENGTHS": "{'inputs': 128, 'targets': 32}",
        "TRAIN_STEPS": 2,
        "EVAL_PERIOD": 2,
        "EVAL_SPLIT": "validation",
        "RANK_CLASSIFICATION": False,
        "BATCH_SIZE": 8,
        "EVAL_BATCH_SIZE": 8,
        "LEARNING_RATE": 0.01,
        "Optimizer.name": "adafactor",
    }
    files = [f"--gin_file=gin_configs/{name}.gin" for name in ("models/checkpoint", "runs/pretrain")]
    t5x("pretrain", *files, **settings)
    assert printed(capsys)["last_step"] == 2
    t5x("inspect", str(folder / "pretrained" / "model"))
    sizes = printed(capsys)["sizes"]
    assert (sizes["relpos_in_layers"], sizes["vocab_size"]) == (True, 384)
