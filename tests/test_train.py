"""Whole runs through the command line: resuming, stopping, what is left behind, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jax_prompts.main import main
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt

ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
SHORT = {
    "INITIAL_CHECKPOINT_PATH": "None",
    "SCAN_LAYERS": True,
    "TRAIN_STEPS": 24,
    "EVAL_PERIOD": 12,
    "CHECKPOINT_PERIOD": 6,
    "BATCH_SIZE": 8,
    "PROMPT_LENGTH": 4,
    "Residual.hidden": 8,
    "EVAL_SPLIT": "validation[:40]",
    "Training.log_period": 4,
    "DROPOUT_RATE": 0.1,
}


def command(name, *flags, gin_file="gin_configs/quickstart.gin", **macros):
    settings = [f"--gin.{macro}={value}" for macro, value in macros.items()]
    return [sys.executable, "-m", "jax_prompts.main", name, f"--gin_file={gin_file}", *settings, *flags]


def t5x(name, *flags, **macros):
    return subprocess.run(
        command(name, *flags, **macros), env=ENV, capture_output=True, text=True, timeout=600
    )


def without_tensorflow(command):
    """Runs a command in a Python that cannot import TensorFlow or SeqIO."""
    program = (
        "import sys\n"
        "sys.modules['tensorflow'] = sys.modules['seqio'] = None\n"  # importing them now raises
        "from jax_prompts.main import main\n"
        "main(sys.argv[1:])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *command[3:]], env=ENV, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory, compile_cache):
    ENV.update(compile_cache)
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache):
    """(MODEL_DIR, last line of stdout) of a run that nothing disturbed, and that compiled its step once."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    run = command("train", **SHORT, MODEL_DIR=directory, CACHE_DIR=cache)
    done = subprocess.run(run, env=ENV | {"JAX_LOG_COMPILES": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for program in ("add_gradients", "update"):
        assert done.stderr.count(f"Finished XLA compilation of jit({program})") == 1
    return directory, json.loads(done.stdout.splitlines()[-1])


def numbers(directory):
    """Everything in a MODEL_DIR that must not depend on interruptions."""
    summary = json.loads((directory / "summary.json").read_text())
    for timing in ("examples_per_second", "wall_seconds", "checkpoint_bytes"):
        del summary[timing]
    for member in summary["members"]:
        del member["file"]
    metrics = {p.name: p.read_text() for p in (directory / "metrics").iterdir() if p.stem != "seconds"}
    predictions = {p.name: p.read_text() for p in (directory / "predictions").iterdir()}
    prompt_PD, _ = load_prompt(directory / "prompt.safetensors")
    return summary, metrics, predictions, prompt_PD.tobytes()


def records(directory, name):
    text = (directory / "metrics" / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_leaves_what_it_promises(uninterrupted):
    directory, last_line = uninterrupted
    summary = json.loads((directory / "summary.json").read_text())
    assert last_line == summary
    assert summary["frozen_parameters"] == 4_082_688
    assert summary["tuned_parameters"] == 4 * 192 + 2 * 192 * 8 + 8 + 3 * 192
    assert {"best_metric", "best_step", "untuned_metric", "metrics", "checkpoint_bytes"} <= summary.keys()
    assert "test_metrics" not in summary  # validation is reported, and all examples are used
    assert not (directory / "subset.json").exists()
    assert summary["best_step"] in (12, 24)
    lines, evaluations = (records(directory, name) for name in ("train", "eval"))
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    assert all(0 <= line["answer_accuracy"] <= line["token_accuracy"] <= 100 for line in lines)
    assert [line["step"] for line in evaluations] == [0, 12, 24]
    assert all({"loss", "token_accuracy", "accuracy"} <= line.keys() for line in evaluations)
    assert summary["losses"]["quickstart_reviews"]["loss"] == pytest.approx(
        next(line["loss"] for line in evaluations if line["step"] == summary["best_step"])
    )
    prompts, seconds = (records(directory, name) for name in ("prompt", "seconds"))
    assert [line["step"] for line in prompts] == [0, 12, 24]
    assert all(line["rank"] == 4 for line in prompts)
    assert [line["step"] for line in seconds] == [4, 8, 12, 16, 20, 24]
    assert all(0 < line["tuning_seconds"] < line["wall_seconds"] for line in seconds)
    assert summary["wall_seconds"] > seconds[-1]["wall_seconds"]
    assert len((directory / "predictions" / "quickstart_reviews-24.jsonl").read_text().splitlines()) == 40
    assert list((directory / "tensorboard").iterdir())
    prompt_PD, metadata = load_prompt(directory / "prompt.safetensors", prompt_width=lambda _: 192)
    assert prompt_PD.shape == (4, 192)
    assert np.isfinite(prompt_PD).all()
    assert (metadata.method, metadata.task, metadata.labels) == (
        "Residual",
        "quickstart_reviews",
        ("negative", "positive"),
    )
    assert metadata.metric == summary["metric"] == "accuracy"
    assert summary["checkpoint_bytes"] < 200_000  # tuned parameters and their optimiser, not the 16 MB model


@pytest.mark.slow
@pytest.mark.parametrize("after", ["checkpoints/6", "checkpoints/18"])
def test_killed_and_started_again_ends_with_the_same_numbers(uninterrupted, tmp_path, cache, after):
    directory = tmp_path / "killed"
    run = command("train", **SHORT, MODEL_DIR=directory, CACHE_DIR=cache)
    process = subprocess.Popen(run, env=ENV, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (directory / after).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (directory / "summary.json").exists()
    done = t5x("train", **SHORT, MODEL_DIR=directory, CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stderr
    assert numbers(directory) == numbers(uninterrupted[0])


@pytest.mark.slow
def test_sigterm_saves_exits_75_and_resumes(uninterrupted, tmp_path, cache):
    """It resumes without TensorFlow, since the cache is filled."""
    directory = tmp_path / "stopped"
    run = command("train", **SHORT, MODEL_DIR=directory, CACHE_DIR=cache)
    process = subprocess.Popen(run, env=ENV, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 300
    while not (directory / "checkpoints" / "6").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 75, stderr
    assert "run the same command again" in stderr.splitlines()[-1]
    done = without_tensorflow(run)
    assert done.returncode == 0, done.stderr
    assert numbers(directory) == numbers(uninterrupted[0])


@pytest.mark.slow
def test_ctrl_c_saves_and_meanwhile_nobody_else_writes_there(tmp_path, cache, capsys):
    directory = tmp_path / "stopped"
    run = command("train", **SHORT | {"TRAIN_STEPS": 100_000}, MODEL_DIR=directory, CACHE_DIR=cache)
    process = subprocess.Popen(run, env=ENV, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 300
    while not (directory / "checkpoints" / "6").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(SystemExit) as status:
        main(run[3:])
    assert status.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"is in use by another run (process {process.pid} on " in line
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 75, stderr
    assert "stopped by Ctrl-C at step" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert not (directory / "run.lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["examples of", "frozen parameters", "before tuning"])
def test_ctrl_c_before_the_first_step_is_one_line(tmp_path, cache, moment):
    run = command("train", **SHORT, MODEL_DIR=tmp_path / "run", CACHE_DIR=cache)
    uncompiled = {name: value for name, value in ENV.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    process = subprocess.Popen(run, env=uncompiled, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while moment not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "t5x train: stopped by Ctrl-C"
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_a_run_that_moved_writes_its_prompt_again_without_a_step(uninterrupted, tmp_path, cache):
    directory = tmp_path / "moved"
    shutil.copytree(uninterrupted[0], directory)
    prompt = directory / "prompt.safetensors"
    before = prompt.read_bytes()
    prompt.unlink()
    done = t5x("train", **SHORT, MODEL_DIR=f"{tmp_path}/./moved/", CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    assert f"{prompt} is written again, from the checkpoint of step 24" in done.stderr
    assert "step 24/24" not in done.stderr
    assert prompt.read_bytes() == before
    assert numbers(directory) == numbers(uninterrupted[0])
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary == json.loads((directory / "summary.json").read_text())
    assert summary == uninterrupted[1] | {"members": [uninterrupted[1]["members"][0] | {"file": str(prompt)}]}

    # It ends as when it finished, and what it says to try next works.
    (row,) = [line for line in done.stderr.splitlines() if line.startswith("│ prompt.safetensors")]
    scores = [f"{summary[name]:.2f}" for name in ("best_metric", "untuned_metric", "majority_metric")]
    assert [cell.strip() for cell in row.split("│")[2:-1]] == [*scores, str(summary["best_step"])]
    (ask,) = [line for line in done.stderr.splitlines() if line.startswith("  echo ")]
    program = f't5x() {{ "{sys.executable}" -m jax_prompts.main "$@"; }}; cd /; {ask}'
    asked = subprocess.run(
        ["bash", "-c", program], env=ENV | {"PYTHONPATH": os.getcwd()}, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout.splitlines()[0])
    assert (answer["prompt"], answer["text"]) == ("quickstart_reviews", "a text")


@pytest.mark.slow
def test_a_longer_run_goes_on_as_if_it_had_been_so_from_the_start(tmp_path, cache):
    settings = SHORT | {"Optimizer.schedule": "constant", "Optimizer.warmup_steps": 2, "CACHE_DIR": cache}
    whole = t5x("train", **settings, MODEL_DIR=tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for steps in (12, 24):
        longer = t5x("train", **settings | {"TRAIN_STEPS": steps}, MODEL_DIR=tmp_path / "longer")
        assert longer.returncode == 0, longer.stderr
    assert "resuming at step 12" in longer.stderr
    assert numbers(tmp_path / "longer") == numbers(tmp_path / "whole")
    assert "TRAIN_STEPS = 24" in (tmp_path / "longer" / "config.gin").read_text()


@pytest.mark.slow
def test_eval_and_infer_from_a_filled_cache_import_no_tensorflow(uninterrupted, tmp_path, cache):
    run, _ = uninterrupted
    score = command("eval", gin_file="gin_configs/quickstart.gin", **SHORT, CACHE_DIR=cache, MODEL_DIR="None",
                    PROMPT_FILES=f"('{run / 'prompt.safetensors'}',)")  # fmt: skip
    score.insert(-1, "--gin_file=gin_configs/runs/eval.gin")
    done = without_tensorflow(score)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "summary.json").read_text())
    (found,) = json.loads(done.stdout.splitlines()[-1])["metrics"].values()
    assert found["quickstart_reviews"]["accuracy"] == summary["best_metric"]

    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("the soup was cold.\nwhat a lovely song!\n")
    flags = (
        "--prompt",
        f"p={run / 'prompt.safetensors'}",
        "--input",
        source,
        "--output",
        target,
    )
    ask = command("infer", *map(str, flags), gin_file="gin_configs/quickstart_infer.gin",
                  INITIAL_CHECKPOINT_PATH="None", SCAN_LAYERS=True)  # fmt: skip
    done = without_tensorflow(ask)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    assert [answer["text"] for answer in answers] == ["the soup was cold.", "what a lovely song!"]
    assert json.loads(done.stdout.splitlines()[-1])["examples"] == 2


def test_another_configuration_is_refused_and_nothing_is_lost(uninterrupted, cache, capsys):
    directory, _ = uninterrupted
    before = numbers(directory)
    with pytest.raises(SystemExit) as status:
        main(command("train", **{**SHORT, "LEARNING_RATE": 0.5}, MODEL_DIR=directory, CACHE_DIR=cache)[3:])
    assert status.value.code == 2
    stderr = capsys.readouterr().err
    assert "another configuration" in stderr
    assert "LEARNING_RATE" in stderr
    assert numbers(directory) == before


def test_prompt_of_another_model_is_refused(tmp_path, capsys):
    narrow = tmp_path / "narrow.safetensors"
    save_prompt(narrow, np.zeros((4, 8), np.float32), PromptMetadata(base_model="other"))
    flags = ("--prompt", f"p={narrow}", "--input", os.devnull, "--output", str(tmp_path / "answers.jsonl"))
    gin_file = "gin_configs/quickstart_infer.gin"
    with pytest.raises(SystemExit) as status:
        main(command("infer", *flags, gin_file=gin_file, INITIAL_CHECKPOINT_PATH="None")[3:])
    assert status.value.code == 2
    assert "narrow.safetensors has width 8" in capsys.readouterr().err


@pytest.mark.slow
def test_damaged_checkpoint_falls_back_to_the_one_before(uninterrupted, tmp_path, cache):
    directory = tmp_path / "damaged"
    shutil.copytree(uninterrupted[0], directory)
    newest = max((directory / "checkpoints").iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    for file in (newest / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:500])
    done = t5x("train", **SHORT, MODEL_DIR=directory, CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    assert "damaged" in done.stderr
    assert "resuming at step 18" in done.stderr
    assert numbers(directory) == numbers(uninterrupted[0])


@pytest.mark.parametrize(
    ("macros", "words"),
    [
        ({"MODLE_DIR": "x"}, ["MODLE_DIR", "MODEL_DIR"]),
        ({"MIXTURE_OR_TASK_NAME": "quickstart_review"}, ["quickstart_review", "quickstart_reviews"]),
        ({"PROMPT_LENGTH": 0}, ["PROMPT_LENGTH", "0"]),
        ({"PROMPT_LENGTH": 47, "PROMPT_INSIDE_LENGTH": True}, ["PROMPT_LENGTH", "47", "room"]),
        ({"MODEL_SIZE": "mikro"}, ["mikro", "micro"]),
        ({"DATA_DIR": "/no/such/directory"}, ["DATA_DIR", "/no/such/directory"]),
        ({"Residual.hiden": 4}, ["hiden", "hidden"]),
        ({"Decoding.name": "gredy"}, ["gredy", "greedy"]),
    ],
)
def test_bad_settings_are_one_clear_line(uninterrupted, tmp_path, cache, macros, words, capsys):
    settings = {**SHORT, "MODEL_DIR": tmp_path / "never", "CACHE_DIR": cache, **macros}
    with pytest.raises(SystemExit) as status:
        main(command("train", **settings)[3:])
    assert status.value.code == 2
    stderr = capsys.readouterr().err
    last = stderr.splitlines()[-1]
    assert last.startswith("t5x train: ")
    for word in words:
        assert word in last
    assert "Traceback" not in stderr
    assert not (tmp_path / "never").exists()


def test_the_clients_command_resolves_and_says_what_cannot_be_reached(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(command("train", "--dry_run", gin_file="gin_configs/residual_xxl.gin")[3:])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["frozen_parameters"] == 11_135_332_352
    assert report["frozen_bytes"] == 2 * 11_135_332_352
    assert report["tuned_parameters"] == 100 * 4096 + 2 * 4096 * 400 + 400 + 3 * 4096
