"""Upstream T5X as programs: training, evaluation and inference of prompts by gin alone, and back to the project."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from several import free_port
from upstream_runs import command, environment, refusal, run

import jax_prompts
from jax_prompts.base_models import t5x
from jax_prompts.formats.arrays import in_memory
from jax_prompts.interop.exchange import convert_prompt
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
UPSTREAM, PROMPTS = "gin_configs/upstream", "gin_configs/prompts"
BASE_STEP, LAST_STEP = 4, 8
RESIDUAL = {"PROMPT_LENGTH": 3, "Residual__hidden": 4}


def trained(peers, folder, model, files, base, devices=1, steps=LAST_STEP, **macros):
    """MODEL_DIR of a run that tuned a prompt."""
    model_dir = str(folder / "run")
    run(peers, "train", files_of(model, files), devices, **settings(model_dir, base, steps), **macros)
    return pathlib.Path(model_dir)


def files_of(model, files):
    inputs = {"tiny_flaxformer.gin": "prompt_tuning.gin"}.get(model, model.removeprefix("tiny_"))
    return [model, f"{UPSTREAM}/{inputs}", *files, f"{UPSTREAM}/train.gin", "tiny_settings.gin"]


def settings(model_dir, base, steps=LAST_STEP):
    return {"MODEL_DIR": str(model_dir), "INITIAL_CHECKPOINT_PATH": str(base), "TRAIN_STEPS": steps}


@pytest.fixture(scope="module")
def base(peers, tmp_path_factory):
    """A checkpoint of the tiny T5, as released ones are."""
    return trained_base(peers, tmp_path_factory.mktemp("base"), "tiny_t5.gin")


@pytest.fixture(scope="module")
def scanned_base(peers, tmp_path_factory):
    return trained_base(peers, tmp_path_factory.mktemp("scanned"), "tiny_scalable_t5.gin")


def trained_base(peers, folder, model):
    macros = {"MODEL_DIR": str(folder), "TRAIN_STEPS": BASE_STEP}
    run(
        peers,
        "train",
        [model, "tiny_base.gin", "tiny_settings.gin"],
        utils__SaveCheckpointConfig__save_dataset=False,
        **macros,
    )
    return folder / f"checkpoint_{BASE_STEP}"


@pytest.fixture(scope="module")
def residual(peers, base, tmp_path_factory):
    files = [f"{PROMPTS}/residual.gin"]
    return trained(peers, tmp_path_factory.mktemp("residual"), "tiny_t5.gin", files, base, **RESIDUAL)


def arrays(checkpoint):
    return {name: array[...] for name, array in t5x.open_checkpoint(str(checkpoint)).items()}


def assert_only_the_prompt_moved(base, model_dir):
    """And every array of it did; the others have the very bytes of the base model."""
    before, start, last = (
        arrays(path)
        for path in (base, model_dir / f"checkpoint_{BASE_STEP}", model_dir / f"checkpoint_{LAST_STEP}")
    )
    own = last.keys() - before.keys()
    assert own and all("prompt/" in name for name in own)
    for name, array in before.items():
        assert last[name].tobytes() == array.tobytes(), name
    for name in own:
        assert not np.array_equal(last[name], start[name]), name


def assert_converted_is_what_the_run_wrote(model_dir, folder):
    """Every evaluation left a prompt file; a checkpoint gives the same prompt."""
    written = sorted((model_dir / "prompts").iterdir())
    assert [path.stem for path in written] == ["6", "8"]
    for path in written:
        converted = folder / f"{path.stem}.safetensors"
        convert_prompt(str(model_dir / f"checkpoint_{path.stem}"), str(converted))
        # But for the order in which a program that is compiled otherwise adds up.
        np.testing.assert_allclose(load_prompt(converted)[0], load_prompt(path)[0], rtol=1e-6, atol=1e-6)
        expected = load_prompt(path)[1]
        if expected.method != "PromptTuning":  # of which a table alone says all
            assert load_prompt(converted)[1] == expected


def predictions(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    inputs = [line.get("input", line.get("inputs"))["inputs_pretokenized"] for line in lines]
    return inputs, [line["prediction"] for line in lines]


def ours(base, prompt, inputs):
    """The project's answers, decoded as T5X decodes."""
    model = jax_prompts.load_model(
        str(base), vocabulary="bytes", inputs_length=20, targets_length=4, batch_size=12
    )
    decoding = jax_prompts.Decoding("beam", num_decodes=1, alpha=0.6)
    answers = model.predict(inputs, model.load_prompt(prompt), decoding=decoding)
    return [
        re.sub(r"<extra_id_\d+>|<unk>", "", answer) for answer in answers
    ]  # which SeqIO's bytes leave out


def test_residual_is_tuned_and_nothing_else(base, residual, tmp_path):
    assert_only_the_prompt_moved(base, residual)
    assert_converted_is_what_the_run_wrote(residual, tmp_path)
    _, metadata = load_prompt(residual / "prompts" / "8.safetensors")
    assert (metadata.method, metadata.settings["hidden"], metadata.task) == ("Residual", 4, "tiny_bytes")
    start = arrays(residual / f"checkpoint_{BASE_STEP}")["prompt/prompt"]
    rows = {row.tobytes() for row in arrays(base)["token_embedder/embedding"]}
    assert {row.tobytes() for row in start} <= rows  # where SampledVocabulary starts


def test_answers_of_t5x_are_ours(peers, base, residual, tmp_path):
    """Those of training's evaluation, and those of the project with the converted prompt."""
    prompt = tmp_path / "p.safetensors"
    convert_prompt(str(residual / f"checkpoint_{LAST_STEP}"), str(prompt))
    inputs, expected = predictions(residual / "inference_eval" / "tiny_bytes-000008.jsonl")
    assert len(set(expected)) > 1
    assert ours(base, prompt, inputs) == expected


TASK = {"DROPOUT_RATE": 0.0, "utils__DatasetConfig__split": "validation"}
WHOLE = {"utils__RestoreCheckpointConfig__dtype": "float32"}


@pytest.mark.parametrize("program", ["eval", "infer"])
def test_a_base_model_and_a_prompt_file_answer_as_the_run_did(peers, base, residual, tmp_path, program):
    files = ["tiny_t5.gin", f"{UPSTREAM}/t5.gin", f"{UPSTREAM}/{program}.gin", "tiny_task.gin"]
    places = {"PROMPT_FILE": str(residual / "prompts" / "8.safetensors"), "CHECKPOINT_PATH": str(base)}
    places[f"{program.upper()}_OUTPUT_DIR"] = str(tmp_path)
    run(peers, program, files, **places, **TASK, **WHOLE)
    found = {
        "eval": tmp_path / "inference_eval" / f"tiny_bytes-{BASE_STEP:06}.jsonl",
        "infer": tmp_path / "tiny_bytes-predict.jsonl-00000-of-00001",
    }
    assert predictions(found[program]) == predictions(residual / "inference_eval" / "tiny_bytes-000008.jsonl")


def test_t5x_evaluates_a_runs_own_checkpoint_with_the_method(peers, residual, tmp_path):
    files = ["tiny_t5.gin", f"{UPSTREAM}/t5.gin", f"{PROMPTS}/residual.gin", "t5x/configs/runs/eval.gin"]
    places = {"CHECKPOINT_PATH": str(residual / "checkpoint_8"), "EVAL_OUTPUT_DIR": str(tmp_path)}
    run(peers, "eval", [*files, "tiny_task.gin"], **places, **TASK, **WHOLE, **RESIDUAL)
    found, expected = (
        predictions(folder / "inference_eval" / "tiny_bytes-000008.jsonl") for folder in (tmp_path, residual)
    )
    assert found == expected


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(peers, base, residual, tmp_path):
    model_dir, files = tmp_path / "run", files_of("tiny_t5.gin", [f"{PROMPTS}/residual.gin"])
    argv = command(peers, "train", files, **settings(model_dir, base), **RESIDUAL)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(argv, env=environment(), stderr=log, start_new_session=True)
        deadline = time.monotonic() + 300
        while not (model_dir / "checkpoint_6").is_dir() and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (model_dir / f"checkpoint_{LAST_STEP}").exists()
    run(peers, "train", files, **settings(model_dir, base), **RESIDUAL)
    expected, found = (arrays(path / f"checkpoint_{LAST_STEP}") for path in (residual, model_dir))
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


def test_ept_on_two_devices(peers, base, tmp_path):
    """Its bottleneck of one unit is on both, and the model's parts are divided."""
    files = [f"{PROMPTS}/explosive.gin"]
    partitions = {"partitioning__PjitPartitioner__num_partitions": 2}
    model_dir = trained(peers, tmp_path, "tiny_t5.gin", files, base, devices=2, **partitions)
    assert_only_the_prompt_moved(base, model_dir)
    assert_converted_is_what_the_run_wrote(model_dir, tmp_path)
    told = (model_dir / "model-info.txt").read_text()
    down = next(line for line in told.splitlines() if "prompt/network/down/kernel " in line)
    assert "prompt_mlp=1" in down and "partition spec (None, None)" in down
    assert "(None, 'model')" in next(line for line in told.splitlines() if "layers_0/mlp/wi_0/kernel" in line)


def test_two_processes_leave_what_one_does(peers, base, tmp_path):
    """Each has half of the rows and all of the prompt; one of them writes its file."""
    model_dir, files = tmp_path / "run", files_of("tiny_t5.gin", [f"{PROMPTS}/residual.gin"])
    macros = {**settings(model_dir, base), **RESIDUAL, "utils__SaveCheckpointConfig__save_dataset": False}
    together = ["--multiprocess_gpu", f"--coordinator_address=127.0.0.1:{free_port()}", "--process_count=2"]
    argv = [*command(peers, "train", files, **macros), *together]
    processes = [
        subprocess.Popen([*argv, f"--process_index={index}"], env=environment(), stderr=subprocess.DEVNULL)
        for index in range(2)
    ]
    try:
        assert [process.wait(timeout=600) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert_only_the_prompt_moved(base, model_dir)
    assert_converted_is_what_the_run_wrote(model_dir, tmp_path)


def test_scanned_layers(peers, scanned_base, tmp_path):
    """EPT* in scalable_t5, on two devices; its answers are ours."""
    files, macros = [f"{PROMPTS}/explosive_star.gin"], {"PROMPT_LENGTH": 4}
    model_dir = trained(peers, tmp_path, "tiny_scalable_t5.gin", files, scanned_base, devices=2, **macros)
    assert_only_the_prompt_moved(scanned_base, model_dir)
    assert_converted_is_what_the_run_wrote(model_dir, tmp_path)
    inputs, expected = predictions(model_dir / "inference_eval" / "tiny_bytes-000008.jsonl")
    assert ours(scanned_base, tmp_path / "8.safetensors", inputs) == expected


@pytest.mark.parametrize("method", ["decomposed", "prompt_tuning"])
def test_the_original_prompt_tuning_takes_our_methods(peers, base, tmp_path, method):
    """And answers as ours does, in its run and with the run's prompt file."""
    files, macros = [f"{PROMPTS}/{method}.gin"], {"PROMPT_LENGTH": 3, "INITIALIZER": None}
    macros |= {"Decomposed__rank": 2} if method == "decomposed" else {}
    model_dir = trained(peers, tmp_path, "tiny_flaxformer.gin", files, base, **macros)
    assert_only_the_prompt_moved(base, model_dir)
    assert_converted_is_what_the_run_wrote(model_dir, tmp_path)
    prompt = model_dir / "prompts" / "8.safetensors"
    inputs, expected = predictions(model_dir / "inference_eval" / "tiny_bytes-000008.jsonl")
    assert ours(base, prompt, inputs) == expected
    files = [
        "tiny_flaxformer.gin",
        *(f"{UPSTREAM}/{name}.gin" for name in ("prompt_tuning", "eval")),
        "tiny_task.gin",
    ]
    places = {
        "PROMPT_FILE": str(prompt),
        "CHECKPOINT_PATH": str(base),
        "EVAL_OUTPUT_DIR": str(tmp_path / "eval"),
    }
    run(peers, "eval", files, PROMPT_LENGTH=3, **places, **TASK, **WHOLE)
    found = predictions(tmp_path / "eval" / "inference_eval" / f"tiny_bytes-{BASE_STEP:06}.jsonl")
    assert found == (inputs, expected)


@pytest.mark.parametrize(
    ("files", "macros", "words"),
    [
        (
            ["residual.gin"],
            {"train/utils.DatasetConfig.pack": True},
            "set train/utils.DatasetConfig.pack = False",
        ),
        (["prefix.gin"], {}, "PROMPT PerLayer is of kind 'prefix': inside upstream T5X"),
        (["dept.gin"], {}, "TUNED is DePT, which is more than a prompt"),
        (
            [],
            {},
            "PROMPT is None: load a method after the input layer, such as --gin_file=",
        ),
    ],
    ids=["packing", "prefix", "dept", "none"],
)
def test_settings_that_cannot_work_end_in_one_clear_line(peers, base, tmp_path, files, macros, words):
    files = files_of("tiny_t5.gin", [f"{PROMPTS}/{file}" for file in files])
    assert words in refusal(peers, "train", files, **settings(tmp_path / "run", base), **macros)


def test_a_released_checkpoint_of_another_relative_bias_is_named(peers, base, tmp_path):
    wrong = {name: in_memory(array) for name, array in arrays(base).items()}
    wrong["encoder/relpos_bias/rel_embedding"] = in_memory(np.zeros((4, 32), np.float32))
    write_checkpoint(tmp_path / "checkpoint_4", wrong, 4)
    files = files_of("tiny_t5.gin", [f"{PROMPTS}/residual.gin"])
    line = refusal(
        peers, "train", files, **settings(tmp_path / "run", tmp_path / "checkpoint_4"), INITIALIZER=None
    )
    assert "encoder/relpos_bias/rel_embedding is (4, 32), and the model's (2, 32)" in line


def test_a_prompt_file_of_another_width_is_named(peers, base, tmp_path):
    file = str(tmp_path / "wide.safetensors")
    save_prompt(file, np.ones((3, 24), np.float32), PromptMetadata())
    files = ["tiny_t5.gin", f"{UPSTREAM}/t5.gin", f"{UPSTREAM}/eval.gin", "tiny_task.gin"]
    macros = {"CHECKPOINT_PATH": str(base), "EVAL_OUTPUT_DIR": str(tmp_path / "out"), "DROPOUT_RATE": 0.0}
    line = refusal(peers, "eval", files, PROMPT_FILE=file, **macros)
    assert "wide.safetensors has width 24 and the base model 16" in line
