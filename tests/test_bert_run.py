"""BERT through the command line: masked words, a prompt with its classifier, evaluation, answers, bad input."""

import dataclasses
import json
import pathlib
import random
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jax_prompts
from jax_prompts import ConfigError, load_model
from jax_prompts.data.vocabularies.wordpiece import SPECIAL
from jax_prompts.errors import SettingWarning
from jax_prompts.main import main
from jax_prompts.models.bert import BertConfig
from jax_prompts.models.sizes import SIZES
from jax_prompts.prompts import load_prompt
from jax_prompts.prompts.prompt_file import load_file as load_prompt_file

pytestmark = pytest.mark.slow

GOOD, BAD = ("good", "great", "lovely"), ("bad", "awful", "poor")
SIZES["bert_of_tests"] = BertConfig(256, 64, 2, 2, 128, max_length=128)
V, D, F = 256, 64, 128
MICRO = pathlib.Path(jax_prompts.__file__).parent / "assets" / "micro" / "vocabulary.model"
THINGS = ("soup", "film", "room", "song", "walk", "trip")


def rows(count, seed):
    draw = random.Random(seed)
    for number in range(count):
        label = draw.random() < 0.5
        word = draw.choice(GOOD if label else BAD)
        yield {
            "premise": f"the {draw.choice(THINGS)} was {word}",
            "hypothesis": "everybody liked it",
            "label": "entailment" if label else "not_entailment",
            "idx": number,
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Text, official files of RTE and a WordPiece vocabulary, all small."""
    folder = tmp_path_factory.mktemp("bert")
    for split, count, seed in (("train", 400, 1), ("val", 80, 2)):
        file = folder / "data" / "RTE" / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(count, seed)))
    text = [f"{row['premise']} and {row['hypothesis']}" for row in rows(2000, 3)]
    (folder / "text").mkdir()
    (folder / "text" / "all.txt").write_text(
        "\n".join(f"{line}, line {i}" for i, line in enumerate(text)) + "\n"
    )
    words = sorted({*" ".join(text).split(), ",", *"0123456789", *(f"##{digit}" for digit in "0123456789")})
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL.values(), *words]) + "\n")
    return folder


def t5x(capsys, *argv):
    capsys.readouterr()
    main([str(arg) for arg in argv])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def flags(folder, **macros):
    settings = {
        "MODEL_SIZE": "bert_of_tests",
        "VOCABULARY": folder / "vocab.txt",
        "CACHE_DIR": folder / "cache",
        "BATCH_SIZE": 16,
        "EVAL_BATCH_SIZE": 16,
    }
    return [f"--gin.{name}={value}" for name, value in (settings | macros).items()]


def tuning(folder, model_dir, **macros):
    settings = {
        "INITIAL_CHECKPOINT_PATH": folder / "base" / "model",
        "MIXTURE_OR_TASK_NAME": "bert_super_glue_rte_v102",
        "DATA_DIR": folder / "data",
        "MODEL_DIR": model_dir,
        "TASK_FEATURE_LENGTHS": "{'inputs': 24, 'targets': 1}",
    }
    return flags(folder, **(settings | macros))


@pytest.fixture(scope="module")
def pretrained(folder):
    """A BERT whose masked-word loss has fallen."""
    main(
        [
            "pretrain",
            "--gin_file=gin_configs/recipes/micro.gin",
            "--gin_file=gin_configs/runs/pretrain.gin",
            *flags(
                folder,
                MIXTURE_OR_TASK_NAME="masked_lm",
                DATA_DIR=folder / "text",
                MODEL_DIR=folder / "pretrained",
                TASK_FEATURE_LENGTHS="{'inputs': 32, 'targets': 32}",
                TRAIN_STEPS=100,
                EVAL_PERIOD=100,
                LEARNING_RATE=0.003,
            ),
        ]
    )
    lines = (folder / "pretrained" / "metrics" / "eval.jsonl").read_text().splitlines()
    before, after = (json.loads(line)["loss"] for line in lines)
    assert after < 0.6 * before
    return folder


MODEL_TUNING = ["--gin_file=gin_configs/recipes/micro.gin", "--gin_file=gin_configs/runs/pretrain.gin"]


@pytest.fixture(scope="module")
def base(pretrained):
    """The same BERT, all of it tuned on the task: one whose [CLS] has something to say."""
    settings = {"TRAIN_STEPS": 150, "EVAL_PERIOD": 150, "LEARNING_RATE": 0.003}
    start = pretrained / "pretrained" / "model"
    run = pretrained / "base"
    main(["train", *MODEL_TUNING, *tuning(pretrained, run, INITIAL_CHECKPOINT_PATH=start, **settings)])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["untuned_metric"] < 80 < summary["best_metric"]
    return pretrained


TRAIN = ["--gin_file=gin_configs/prompts/residual.gin", "--gin_file=gin_configs/recipes/micro.gin"]
TRAIN += ["--gin_file=gin_configs/runs/train.gin"]


@pytest.fixture(scope="module")
def tuned(base):
    more = {"TRAIN_STEPS": 150, "EVAL_PERIOD": 50, "LEARNING_RATE": 0.01, "MEMBERS": 2, "DROPOUT_RATE": 0.0}
    more |= {"PROMPT_LENGTH": 4, "Residual.hidden": 8}
    main(["train", *TRAIN, *tuning(base, base / "run", **more)])
    return base / "run"


def test_prompt_and_classifier_are_tuned_together(tuned, folder, capsys):
    summary = json.loads((tuned / "summary.json").read_text())
    assert all(member["best_metric"] > 70 for member in summary["members"])
    M, P, C = 8, 4, 2
    assert summary["tuned_parameters"] == 2 * (P * D + 2 * D * M + M + 3 * D + D * C + C)
    assert (
        summary["frozen_parameters"]
        == (V + 128 + 2 + 2) * D + 2 * (4 * D * D + 2 * D * F + F + 9 * D) + D * D + D
    )
    file = tuned / "prompt-0.safetensors"
    prompt_PD, metadata = load_prompt(file)
    assert prompt_PD.shape == (P, D) and metadata.labels == ("entailment", "not_entailment")
    assert {name: array.shape for name, array in load_prompt_file(file)[1].items()} == {
        "classifier/kernel": (D, C), "classifier/bias": (C,)
    }  # fmt: skip

    # The files alone give the scores of training, member by member.
    both = f"('{file}', '{tuned / 'prompt-1.safetensors'}')"
    scored = t5x(capsys, "eval", "--gin_file=gin_configs/runs/eval.gin",
                 *tuning(folder, folder / "eval", PROMPT_FILES=both))  # fmt: skip
    values = [m["bert_super_glue_rte_v102"]["accuracy"] for m in scored["metrics"].values()]
    assert values == [member["best_metric"] for member in summary["members"]]


def test_answers_are_labels(tuned, folder, capsys):
    (folder / "in.jsonl").write_text(
        '{"prompt": "a", "text": "the film was good [SEP] everybody liked it"}\n'
        '{"prompt": "b", "text": "the film was awful [SEP] everybody liked it"}\n'
        '{"prompt": "a", "text": "the soup was poor [SEP] everybody liked it"}\n'
    )
    t5x(capsys, "infer", "--gin_file=gin_configs/runs/infer.gin",
        *tuning(folder, "never")[:3], f"--gin.INITIAL_CHECKPOINT_PATH={folder / 'base' / 'model'}",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 24, 'targets': 1}",
        f"--prompt=a={tuned / 'prompt-0.safetensors'}", f"--prompt=b={tuned / 'prompt-1.safetensors'}",
        f"--input={folder / 'in.jsonl'}", f"--output={folder / 'out.jsonl'}")  # fmt: skip
    found = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in found] == ["a", "b", "a"]
    assert [row["prediction"] for row in found] == ["entailment", "not_entailment", "not_entailment"]

    model = load_model(
        str(folder / "base" / "model"), size="bert_of_tests", vocabulary=str(folder / "vocab.txt")
    )
    a, b = (model.load_prompt(tuned / f"prompt-{member}.safetensors") for member in range(2))
    texts, each = [row["text"] for row in found], [a, b, a]
    assert model.predict(texts, each) == [row["prediction"] for row in found]
    log_p_NC = model.score_labels(texts, prompt=each)  # each by its own classifier
    np.testing.assert_allclose(np.exp(log_p_NC).sum(axis=1), 1, rtol=1e-5)
    assert [a.metadata.labels[c] for c in log_p_NC.argmax(axis=1)] == model.predict(texts, each)
    for row, prompt in enumerate(each):
        alone_NC = model.score_labels(texts, ["not_entailment", "entailment"], prompt)
        np.testing.assert_allclose(alone_NC[row, ::-1], log_p_NC[row], rtol=1e-4, atol=1e-5)
    with pytest.warns(SettingWarning, match="1 of 1 texts were cut"):  # 128 positions
        assert model.predict(["good " * 500], a) == model.predict(["good " * 120], a)
    for prompt, labels, words in (
        (a, ["maybe"], "no label 'maybe'; use entailment, not_entailment"),
        (None, ["entailment"], "give a prompt"),
        (dataclasses.replace(a, leaves={}), None, "holds no classifier"),
        (
            dataclasses.replace(a, leaves={**a.leaves, "classifier/odd": a.leaves["classifier/bias"]}),
            None,
            "holds classifier/odd, which no BERT answers with",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            model.score_labels(texts, labels, prompt)


def refusal(capsys, *argv):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in argv])
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code in (1, 2)
    return lines[-1]


@pytest.mark.parametrize(
    ("macros", "words"),
    [
        ({"SCAN_LAYERS": True}, ["SCAN_LAYERS", "bert_of_tests"]),
        (
            {"TASK_FEATURE_LENGTHS": "{'inputs': 128, 'targets': 1}"},
            ["128 positions", "PROMPT_INSIDE_LENGTH"],
        ),
        ({"MIXTURE_OR_TASK_NAME": "micro_world"}, ["BERT", "class"]),
        ({"VOCABULARY": MICRO}, ["vocabulary.model", "WordPiece", "vocab.txt"]),
    ],
)
def test_refusals(pretrained, tmp_path, capsys, macros, words):
    more = {"TRAIN_STEPS": 50, **macros}
    if "MIXTURE_OR_TASK_NAME" in macros:
        more["DATA_DIR"] = pretrained / "text"
    line = refusal(capsys, "train", *TRAIN, *tuning(pretrained, tmp_path, **more))
    assert all(word in line for word in words), line


def test_a_prompt_of_t5_is_refused(tuned, folder, tmp_path, capsys):
    from jax_prompts.prompts import PromptMetadata, save_prompt

    save_prompt(tmp_path / "p.safetensors", np.zeros((3, D), np.float32), PromptMetadata())
    files = f"('{tmp_path / 'p.safetensors'}',)"
    settings = tuning(folder, tmp_path, PROMPT_FILES=files)
    line = refusal(capsys, "eval", "--gin_file=gin_configs/runs/eval.gin", *settings)
    assert "no classifier" in line


WARP = ["--gin_file=gin_configs/prompts/warp.gin", *TRAIN[1:]]
WORDS = {"VERBALIZER": "{'entailment': 'good', 'not_entailment': 'bad'}"}


@pytest.fixture(scope="module")
def both_heads(base):
    """The BERT whose states have something to say, with the masked-LM head it had before; its directory."""
    folder = base / "both_heads"
    arrays = {
        name: array
        for run, head in (("base", False), ("pretrained", True))
        for name, array in load_file(base / run / "model" / "model.safetensors").items()
        if name.startswith("mlm_") is head and not name.startswith("classifier")
    }
    folder.mkdir()
    save_file(arrays, folder / "model.safetensors")
    shutil.copy(base / "base" / "model" / "config.json", folder)
    return folder


@pytest.fixture(scope="module")
def warp(both_heads, folder):
    more = {"INITIAL_CHECKPOINT_PATH": both_heads, "PROMPT_LENGTH": 6, "MEMBERS": 2, "DROPOUT_RATE": 0.0}
    more |= {"TRAIN_STEPS": 150, "EVAL_PERIOD": 150, "LEARNING_RATE": 0.01, **WORDS}
    settings = [*tuning(folder, folder / "warp", **more), "--gin.Verbalizer.start='labels'"]
    main(["train", *WARP, *settings])
    return folder / "warp"


def test_warp_learns_and_its_files_answer_alone(warp, both_heads, folder, capsys):
    lines = [json.loads(line) for line in (warp / "metrics" / "eval.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert losses[0] > 0.4 and losses[150] < 0.2
    summary = json.loads((warp / "summary.json").read_text())
    P, C, head = 6, 2, D * D + D + 2 * D + V
    assert summary["tuned_parameters"] == 2 * (P * D + D * C + C)
    encoder = (V + 128 + 2 + 2) * D + 2 * (4 * D * D + 2 * D * F + F + 9 * D) + D * D + D
    assert summary["frozen_parameters"] == encoder + head
    files = [warp / f"prompt-{member}.safetensors" for member in range(2)]
    prompt_PD, metadata = load_prompt(files[0])
    assert prompt_PD.shape == (P, D) and metadata.labels == ("good", "bad")
    assert {name: array.shape for name, array in load_prompt_file(files[0])[1].items()} == {
        "verbalizer/kernel": (D, C), "verbalizer/bias": (C,)
    }  # fmt: skip

    settings = {
        "INITIAL_CHECKPOINT_PATH": both_heads,
        "PROMPT_FILES": f"('{files[0]}', '{files[1]}')",
        **WORDS,
    }
    scored = t5x(capsys, "eval", "--gin_file=gin_configs/runs/eval.gin",
                 *tuning(folder, folder / "warp_eval", **settings))  # fmt: skip
    values = [m["bert_super_glue_rte_v102"]["accuracy"] for m in scored["metrics"].values()]
    assert values == [member["best_metric"] for member in summary["members"]]


def test_rows_of_one_batch_are_read_at_mask_and_at_cls(tuned, warp, both_heads, folder, capsys):
    """Classifiers and verbalisers of one encoder answer side by side; a text may hold [MASK] itself."""
    model = load_model(str(both_heads), size="bert_of_tests", vocabulary=str(folder / "vocab.txt"))
    a, b, c = (
        model.load_prompt(file / f"prompt-{member}.safetensors")
        for file, member in ((warp, 0), (warp, 1), (tuned, 0))
    )
    good, bad = "the film was good [SEP] everybody liked it", "the soup was poor [SEP] everybody liked it"
    texts, each = [good, bad, good, bad, good, bad], [a, a, b, b, c, c]
    assert model.predict(texts, each) == ["good", "bad"] * 2 + ["entailment", "not_entailment"]
    log_p_NC = model.score_labels(texts[:4], prompt=each[:4])
    for row in range(4):
        alone_NC = model.score_labels(texts[row : row + 1], prompt=each[row])
        np.testing.assert_allclose(alone_NC[0], log_p_NC[row], rtol=1e-4, atol=1e-5)
    assert model.predict([f"[MASK] {good}", f"[MASK] {bad}"], a) == ["good", "bad"]
    short = dataclasses.replace(a, leaves={**a.leaves, "verbalizer/kernel": np.ones((D, 3))})
    with pytest.raises(ConfigError, match=r"holds verbalizer/kernel \(64, 3\), and 2 labels"):
        model.predict(texts, short)

    (folder / "warp.txt").write_text("\n".join(texts[:2]) + "\n")
    t5x(capsys, "infer", "--gin_file=gin_configs/runs/infer.gin", *flags(folder)[:3],
        f"--gin.INITIAL_CHECKPOINT_PATH={both_heads}", "--gin.TASK_FEATURE_LENGTHS={'inputs': 24, 'targets': 1}",
        f"--prompt=a={warp / 'prompt-0.safetensors'}", f"--input={folder / 'warp.txt'}",
        f"--output={folder / 'warp.jsonl'}")  # fmt: skip
    found = [json.loads(line) for line in (folder / "warp.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in found] == ["good", "bad"]


def test_warp_refuses_what_it_cannot_do(warp, folder, tmp_path, capsys):
    def line_of(**more):
        start = more.pop("start", "random")
        flag = f"--gin.Verbalizer.start='{start}'"
        return refusal(capsys, "train", *WARP, *tuning(folder, tmp_path, TRAIN_STEPS=50, **more), flag)

    start = {"INITIAL_CHECKPOINT_PATH": folder / "both_heads", "PROMPT_LENGTH": 2}
    assert "without its masked-LM head (mlm_bias," in line_of(PROMPT_LENGTH=2)
    assert "'entailment' of bert_super_glue_rte_v102 is no word" in line_of(start="labels", **start)
    assert "set it to 'random' or 'labels'" in line_of(start="words", **start)
    text = {"MIXTURE_OR_TASK_NAME": "masked_lm", "DATA_DIR": folder / "text"}
    text["TASK_FEATURE_LENGTHS"] = "{'inputs': 32, 'targets': 32}"
    assert "masked_lm has no labels" in line_of(**start, **text)
    more = {"PROMPT_FILES": f"('{warp / 'prompt-0.safetensors'}',)", **WORDS}
    line = refusal(capsys, "eval", "--gin_file=gin_configs/runs/eval.gin", *tuning(folder, tmp_path, **more))
    assert "needs a BERT's masked-LM head" in line
