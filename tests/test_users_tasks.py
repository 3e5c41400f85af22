"""A task module written for T5X, as it stands: its caches, and training, evaluation and inference on it."""

import json
import pathlib

import pytest

from jax_prompts.base_models.build import make_vocabulary
from jax_prompts.config import BaseModel, Data
from jax_prompts.data.cache_key import cache_directory
from jax_prompts.data.cuts import count_cuts
from jax_prompts.data.fill import find_task
from jax_prompts.data.open import open_caches
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.main import main
from jax_prompts.scoring.answers import Answers
from jax_prompts.scoring.task_evaluator import TaskEvaluator, metric_names

LENGTHS = {"inputs": 48, "targets": 8}
MICRO = BaseModel(None, "asset:micro", "asset:micro")


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    return str(tmp_path_factory.mktemp("caches"))


@pytest.fixture
def opened(caches):
    """`opened(task)`: its validation cache, of micro's vocabulary."""

    def open_cache(task, model=MICRO, **settings):
        data = Data(task, "users_tasks", LENGTHS, 8, cache_dir=caches, **settings)
        ((_, cache),) = open_caches(data, "validation", make_vocabulary(model))
        return cache

    return open_cache


def test_texts_and_other_features_pass_through(opened):
    cache = opened("users_answers")
    example = cache.example(1)
    assert example == {
        "inputs_pretokenized": "a review: the soup was warm",
        "targets_pretokenized": "good",
        "answers": ["good", "GOOD"],
        "answers_pretokenized": ["good", "GOOD"],  # as SeqIO's tokenising leaves it
        "idx": 1,
    }
    inputs, _ = cache.rows([1])
    assert make_vocabulary(MICRO).decode(inputs.values_N) == "a review: the soup was warm"
    scores = TaskEvaluator(cache)(Answers(["good"] * 16))
    assert scores.metrics == {"any_answer": 50.0, "share": 0.5}
    assert scores.predictions[0]["prediction"] == "good"


def test_a_byte_vocabulary_is_that_of_a_byte_model(opened):
    cache = opened("users_answers", BaseModel("byt5_small", None, "bytes"))
    inputs, targets = cache.rows([0])
    assert bytes(int(i) - 3 for i in inputs.values_N[:-1]) == b"a review: the soup was fine"
    assert targets.values_N.tolist() == [3 + byte for byte in b"good"] + [1]


def test_functions_that_no_cache_can_name_are_the_tasks(opened):
    cache = opened("users_lambda")
    scores = TaskEvaluator(cache)(Answers(["GOOD"] * 16))
    assert scores.metrics == {"same": 50.0, "none": 0.0}
    examples = [cache.example(index) for index in (0, 1)]
    assert metric_names(cache.metrics, cache.postprocess, examples, ranked=False) == ["same", "none"]


def test_token_ids_are_taken_as_they_are(opened):
    inputs, targets = opened("users_ids").rows([0])
    assert inputs.values_N.tolist() == [*map(ord, "the soup was fine"), 1]
    assert targets.values_N.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("task", "length", "wanted"),
    [
        ("users_ids", 48, [2, *map(ord, "the soup was fine"), 1]),
        ("users_ids", 18, [2, *map(ord, "the soup was fin"), 1]),
        ("users_answers", 3, None),
    ],
)
def test_a_t5gemmas_inputs_begin_with_bos_whoever_makes_the_tokens(caches, task, length, wanted):
    plain, vocabulary = make_vocabulary(MICRO), make_vocabulary(MICRO)
    vocabulary.begin_ids = (2,)
    data = Data(task, "users_tasks", LENGTHS | {"inputs": length}, 8, cache_dir=caches)
    ((_, cache),) = open_caches(data, "validation", vocabulary)
    inputs, targets = cache.rows([0])
    found = inputs.values_N.tolist()
    assert found == (wanted or [2, vocabulary.encode(cache.example(0)["inputs_pretokenized"])[0], 1])
    assert targets.values_N[0] != 2
    assert (cache.cut()["inputs"] > 0) == (length < 48)
    directories = {cache_directory(data, "validation", each)(task) for each in (plain, vocabulary)}
    assert len(directories) == 2


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            "users_large_ids",
            ["users_large_ids makes token ids from 1 to 5119 in inputs", "the vocabulary has 0 to "],
        ),
        ("users_negative_ids", ["from -468 to 1 in inputs"]),
        ("users_numbers", ["users_numbers makes inputs of float32 with 1 axes"]),
    ],
)
def test_what_are_no_tokens_of_the_vocabulary_is_refused(opened, task, words):
    with pytest.raises(ConfigError) as error:
        opened(task)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("users_raising", "no such column"),
        ("users_wrongly_tokenised", "TypeError: .*expected type of string"),
    ],
)
def test_preprocessors_that_fail_are_told_by_their_reason(opened, task, reason):
    with pytest.raises(RunError, match=rf"^{task} cannot be read \({reason}.*\): correct its source"):
        opened(task)


@pytest.mark.parametrize("feature", ["inputs", "targets"])
def test_texts_that_are_all_empty_are_refused(opened, feature, tmp_path, capsys):
    task = f"users_empty_{feature}"
    cache = opened(task)
    with pytest.raises(
        ConfigError, match=f"{feature} of {task} validation have no tokens: let its preprocess"
    ):
        count_cuts({"validation": [cache]}, 48)
    settings = {"MIXTURE_OR_TASK_NAME": task, "MIXTURE_OR_TASK_MODULE": "users_tasks", "infer.mode": "score"}
    places = {"CACHE_DIR": cache.directory.parent, "INFER_OUTPUT_DIR": tmp_path / "answers"}
    lengths = {"TASK_FEATURE_LENGTHS": LENGTHS, "SCAN_LAYERS": True}
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "infer",
                "--gin_file=gin_configs/quickstart_infer.gin",
                *(f"--gin.{name}={value}" for name, value in {**settings, **places, **lengths}.items()),
            ]
        )
    assert ended.value.code == 2
    assert f"{feature} of {task} validation have no tokens" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "answers").exists()


def test_a_module_that_ends_the_program_is_named(tmp_path, monkeypatch):
    (tmp_path / "ending_tasks.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match=r"ending_tasks cannot be imported \(SystemExit: 0\): correct it"):
        find_task(Data("any", "ending_tasks", LENGTHS, 8))


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        ("users_failing_metric", RunError, "metric fails of users_failing_metric fails (ZeroDivisionError"),
        (
            "users_failing_postprocessor",
            RunError,
            "the postprocessor of users_failing_postprocessor fails on the target of example 0",
        ),
        ("users_texts_alone", ConfigError, "the metrics of users_texts_alone give no number"),
    ],
)
def test_code_that_fails_is_named_in_one_line(opened, task, error, words):
    with pytest.raises(error) as raised:
        TaskEvaluator(opened(task))(Answers(["good"] * 16))
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_a_cache_that_names_what_the_task_has_not_is_refused(opened):
    cache = opened("users_lambda")
    for which in (9, "preprocessor"):
        cache._functions = {"postprocess": {"of_task": which}, "metrics": []}
        with pytest.raises(
            RunError, match="users_lambda of users_tasks has no longer what its token cache says"
        ):
            _ = cache.postprocess


def test_a_task_that_another_import_has_registered_is_told_its_setting(tmp_path, capsys):
    (tmp_path / "mine.gin").write_text("import users_tasks\ninclude 'gin_configs/quickstart.gin'\n")
    settings = {
        "MIXTURE_OR_TASK_NAME": "users_answers",
        "MODEL_DIR": tmp_path / "run",
        "CACHE_DIR": tmp_path / "c",
    }
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "cache",
                f"--gin_file={tmp_path}/mine.gin",
                *(f"--gin.{name}={x}" for name, x in settings.items()),
            ]
        )
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "set MIXTURE_OR_TASK_MODULE to the module that registers it" in last


@pytest.mark.slow
def test_training_evaluation_and_inference(caches, tmp_path, capsys, compiled_once):
    task, metrics = "users_answers", {"any_answer", "share"}
    settings = {
        "MIXTURE_OR_TASK_NAME": task,
        "MIXTURE_OR_TASK_MODULE": "users_tasks",
        "TASK_FEATURE_LENGTHS": LENGTHS,
        "CACHE_DIR": caches,
        "BATCH_SIZE": 8,
        "EVAL_BATCH_SIZE": 8,
        "SCAN_LAYERS": True,
    }
    training = {
        "MODEL_DIR": tmp_path / "run",
        "TRAIN_STEPS": 2,
        "EVAL_PERIOD": 2,
        "Optimizer.warmup_steps": 0,
        "INITIALIZER": "@Uniform()",
    }

    def run(command, *files, **more):
        bindings = [f"--gin.{name}={value}" for name, value in {**settings, **more}.items()]
        main([command, *(f"--gin_file=gin_configs/{file}.gin" for file in files), *bindings])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    trained = run("train", "quickstart", **training)["metrics"][task]
    assert trained.keys() == metrics
    evaluated = run(
        "eval", "quickstart", "runs/eval", CHECKPOINT_PATH=tmp_path / "run", EVAL_OUTPUT_DIR=tmp_path / "eval"
    )
    assert evaluated["metrics"][f"{tmp_path}/run/prompt.safetensors"][task].keys() == metrics
    answered = run(
        "infer", "quickstart_infer", CHECKPOINT_PATH=tmp_path / "run", INFER_OUTPUT_DIR=tmp_path / "answers"
    )
    rows = [json.loads(line) for line in pathlib.Path(answered["files"][0]).read_text().splitlines()]
    assert len(rows) == 16
    predicted = [
        json.loads(line)
        for line in next((tmp_path / "eval" / "predictions").iterdir()).read_text().splitlines()
    ]
    assert all(list(row["inputs"])[2:] == ["answers_pretokenized"] for row in rows)
    assert [row["inputs"]["inputs_pretokenized"] for row in rows] == [row["inputs"] for row in predicted]
