"""T5X's words: those that mean the same, those that say different things, and those that nothing here knows."""

import pathlib

import numpy as np
import pytest
from bucket_servers import google_bucket
from made_runs import make_run, right

from jax_prompts.cli import gin_settings, t5x_words
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.macros import read_macros
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.interop.t5x_prompt import check_without_prompt
from jax_prompts.main import main
from jax_prompts.prompts import PromptMetadata, save_prompt
from jax_prompts.storage import files

ROOT = pathlib.Path(__file__).parents[2]
EVAL = ["eval", "--gin_file=gin_configs/quickstart.gin", "--gin_file=gin_configs/runs/eval.gin"]
INFER = ["infer", "--gin_file=gin_configs/quickstart_infer.gin", "--input=in", "--output=out"]


def run_of(argv, *more):
    kind = {"eval": "EvalRun", "infer": "InferRun", "train": "TrainRun"}[argv[0]]
    return gin_settings.resolve(parse([*argv, *(f"--gin.{binding}" for binding in more)]), kind)[0]


def refusal(argv, *more, error=ConfigError):
    with pytest.raises(error) as raised:
        run_of(argv, *more)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_demo_of_prompt_tuning_is_understood():
    """The flags of its sst2-demo-eval.sh, but for gin files."""
    run = run_of(
        EVAL,
        "MIXTURE_OR_TASK_NAME='quickstart_reviews'",
        "MIXTURE_OR_TASK_MODULE='tasks.registry'",
        "TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
        "CHECKPOINT_PATH='gs-mounted/t5_1_1_lm100k_base/checkpoint_1100000'",
        "EVAL_OUTPUT_DIR='runs/of_demo'",
        "utils.DatasetConfig.split='validation[:8]'",
        "utils.DatasetConfig.batch_size=128",
        "USE_CACHED_TASKS=False",
        "PROMPT_FILE='sst2.safetensors'",
    )
    assert run.output_dir == "runs/of_demo"
    assert run.model.checkpoint == "gs-mounted/t5_1_1_lm100k_base/checkpoint_1100000"
    assert run.prompt_files == ("sst2.safetensors",)
    assert (run.data.eval_split, run.data.eval_batch_size) == ("validation[:8]", 128)
    assert run.data.task_feature_lengths == {"inputs": 512, "targets": 8}


@pytest.mark.parametrize(
    ("bindings", "found"),
    [
        (["RestoreCheckpointConfig.dtype='bfloat16'"], lambda run: run.model.weight_dtype == "bfloat16"),
        (
            ["partitioning.PjitPartitioner.num_partitions=4"],
            lambda run: run.model.partitions == {"data": -1, "model": 4},
        ),
        (["MIXTURE_OR_TASK_SPLIT=test"], lambda run: run.data.eval_split == "test"),
        (["evaluate.output_dir=x"], lambda run: run.output_dir == "x"),
        (["eval_script.evaluate.output_dir=x"], lambda run: run.output_dir == "x"),
        (
            ["utils.RestoreCheckpointConfig.path=asset:micro"],
            lambda run: run.model.checkpoint == "asset:micro",
        ),
        (["utils.DatasetConfig.use_cached=False", "utils.RestoreCheckpointConfig.mode=specific"], bool),
        (["EVAL_OUTPUT_DIR=a", "MODEL_DIR=a"], lambda run: run.output_dir == "a"),
        (["EVAL_OUTPUT_DIR=a", "EVAL_OUTPUT_DIR=b"], lambda run: run.output_dir == "b"),
    ],
)
def test_words_that_mean_the_same(bindings, found):
    assert found(run_of(EVAL, *bindings))


def test_a_flag_wins_over_a_file_and_a_later_file_over_an_earlier_one(tmp_path):
    (tmp_path / "t5x.gin").write_text("EVAL_OUTPUT_DIR = 'theirs'\nCHECKPOINT_PATH = 'base'\n")
    (tmp_path / "ours.gin").write_text("MODEL_DIR = 'ours'\n")
    theirs, ours = (f"--gin_file={tmp_path}/{name}.gin" for name in ("t5x", "ours"))
    run = run_of([*EVAL, theirs])
    assert (run.output_dir, run.model.checkpoint) == ("theirs", "base")
    assert run_of([*EVAL, ours, theirs]).output_dir == "theirs"
    assert run_of([*EVAL, theirs, ours]).output_dir == "ours"
    assert run_of([*EVAL, ours], "EVAL_OUTPUT_DIR=flag").output_dir == "flag"


def test_what_refers_to_a_word_of_t5xs_finds_it(tmp_path):
    (tmp_path / "mine.gin").write_text("EVAL_OUTPUT_DIR = %NAME\nNAME = 'a'\nEvalRun.role = %WORD\n")
    run = run_of([*EVAL, f"--gin_file={tmp_path}/mine.gin"], "MIXTURE_OR_TASK_SPLIT=train", "WORD=train")
    assert (run.output_dir, run.role, run.data.eval_split) == ("a", "train", "train")


@pytest.mark.parametrize(
    ("bindings", "words"),
    [
        (
            ["EVAL_OUTPUT_DIR=a", "MODEL_DIR=b"],
            ["EVAL_OUTPUT_DIR (MODEL_DIR = 'a') and MODEL_DIR = 'b'", "leave one"],
        ),
        (
            ["EvalRun.output_dir=b", "EVAL_OUTPUT_DIR=a"],
            ["EvalRun.output_dir", "EVAL_OUTPUT_DIR", "leave one out"],
        ),
        (["CHECKPOINT_PATH=a", "INITIAL_CHECKPOINT_PATH=b"], ["CHECKPOINT_PATH", "different things"]),
        (["CHECKPOINT_PATH=a.safetensors", "PROMPT_FILE=b"], ["PROMPT_FILES = ('b',)", "different things"]),
        (["DatasetConfig.split=a", "EVAL_SPLIT=b"], ["DatasetConfig.split (EVAL_SPLIT = 'a')"]),
        (["USE_CACHED_TASKS=True"], ["USE_CACHED_TASKS is True", "CACHE_DIR"]),
        (["utils.DatasetConfig.shuffle=True"], ["DatasetConfig.shuffle is True", "order"]),
        (["Evaluator.num_examples=8"], ["Evaluator.num_examples", "EVAL_SPLIT takes slices"]),
        (["EVALUATOR_NUM_EXAMPLES=8"], ["EVALUATOR_NUM_EXAMPLES", "EVAL_SPLIT takes slices"]),
        (["decoding.beam_search.alpha=0.6"], ["beam_search.alpha", "Decoding.alpha"]),
        (["EVAL_OUTPUT_DRI=x"], ["EVAL_OUTPUT_DRI is unknown"]),
    ],
)
def test_what_cannot_be_taken_is_named(bindings, words):
    said = refusal(EVAL, *bindings)
    for word in words:
        assert word in said


def test_training_says_what_its_own_words_are():
    train = ["train", "--gin_file=gin_configs/quickstart.gin"]
    assert "INITIAL_CHECKPOINT_PATH" in refusal(train, "CHECKPOINT_PATH=x")
    assert "CHECKPOINT_PERIOD" in refusal(train, "utils.SaveCheckpointConfig.period=5")
    assert "TRAIN_SPLIT" in refusal(train, "train/utils.DatasetConfig.split=x")
    assert run_of(train, "USE_CACHED_TASKS=False").model_dir == "runs/quickstart"


def test_a_gin_file_with_words_of_t5x_that_say_different_things(tmp_path):
    (tmp_path / "both.gin").write_text("EVAL_OUTPUT_DIR = 'a'\nMODEL_DIR = 'b'\n")
    said = refusal([*EVAL, f"--gin_file={tmp_path}/both.gin"])
    assert "both.gin" in said and "EVAL_OUTPUT_DIR" in said and "leave one out" in said
    (tmp_path / "class.gin").write_text("utils.DatasetConfig.split = 'test'\n")
    said = refusal([*EVAL, f"--gin_file={tmp_path}/class.gin"])
    assert "utils.DatasetConfig is T5X's" in said and "split: EVAL_SPLIT" in said


# CHECKPOINT_PATH


def test_a_run_stands_for_its_prompts(tmp_path):
    one = make_run(tmp_path / "one", right("1101"))
    several = make_run(tmp_path / "several", right("1101"), right("1111"))
    for word in ("CHECKPOINT_PATH", "utils.RestoreCheckpointConfig.path"):
        run = run_of(EVAL, f"{word}={one}/")
        assert run.prompt_files == (f"{one}/prompt.safetensors",)
        assert run.model.checkpoint == "asset:micro"
    files_of_members = tuple(f"{several}/prompt-{member}.safetensors" for member in (0, 1))
    assert run_of(EVAL, f"CHECKPOINT_PATH={several}").prompt_files == files_of_members
    assert run_of(INFER, f"CHECKPOINT_PATH={one}").prompt_files == (f"{one}/prompt.safetensors",)
    said = refusal(EVAL, f"CHECKPOINT_PATH={one}", "PROMPT_FILE=other.safetensors")
    assert "CHECKPOINT_PATH" in said and "PROMPT_FILE " in said and "leave one out" in said
    (one / "checkpoints" / "20").mkdir(parents=True)
    for inside in ("checkpoints", "checkpoints/20", "checkpoints/"):
        assert f"name the run, {one}" in refusal(EVAL, f"CHECKPOINT_PATH={one}/{inside}")


def test_what_a_run_has_tuned_or_not_yet(tmp_path):
    unfinished = make_run(tmp_path / "run", right("1101"), finished=False)
    assert "no prompt file yet" in refusal(EVAL, f"CHECKPOINT_PATH={unfinished}")
    (unfinished / "model").mkdir()
    (unfinished / "model" / "config.json").write_text("{}")
    assert run_of(EVAL, f"CHECKPOINT_PATH={unfinished}").model.checkpoint == f"{unfinished}/model"


def test_a_run_of_t5xs_is_no_run_of_this_project(tmp_path):
    (tmp_path / "config.gin").write_text("train_script.train.model_dir = 'x'\n")
    assert run_of(EVAL, f"CHECKPOINT_PATH={tmp_path}").model.checkpoint == str(tmp_path)


def test_a_run_in_a_bucket(google, monkeypatch, tmp_path):
    url = f"{google_bucket(google, monkeypatch)}/runs/a"
    made = make_run(tmp_path / "run", right("1101"))
    for name in ("config.gin", "prompt.safetensors"):
        files.write(f"{url}/{name}", (made / name).read_bytes())
    assert run_of(EVAL, f"CHECKPOINT_PATH={url}").prompt_files == (f"{url}/prompt.safetensors",)
    assert run_of(EVAL, f"CHECKPOINT_PATH={url}/none").model.checkpoint == f"{url}/none"
    google.faults = lambda method, path: 403
    assert "config.gin cannot be read: http 403" in refusal(EVAL, f"CHECKPOINT_PATH={url}", error=RunError)


def test_a_checkpoint_of_t5xs_with_a_prompt_in_it_is_not_scored_without_it(tmp_path, capsys):
    prompt_PD = np.ones((2, 192), np.float32)
    save_prompt(tmp_path / "prompt.safetensors", prompt_PD, PromptMetadata())
    checkpoint = tmp_path / "checkpoint_5"
    main(
        [
            "export",
            str(tmp_path / "prompt.safetensors"),
            str(checkpoint),
            "--to=t5x",
            "--base_model=asset:micro",
        ]
    )
    for argv in (EVAL, INFER, [*INFER[:2], "--gin.MIXTURE_OR_TASK_NAME=x", "--gin.INFER_OUTPUT_DIR=y"]):
        with pytest.raises(SystemExit) as ended:
            main([*argv, f"--gin.CHECKPOINT_PATH={checkpoint}"])
        last = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2 and f"t5x convert {checkpoint} prompt.safetensors" in last
    check_without_prompt("asset:micro")
    check_without_prompt(str(tmp_path / "nothing"))


def test_prompts_of_flags_and_settings_are_not_mixed(tmp_path):
    with pytest.raises(SystemExit) as ended:
        main([*INFER, "--gin.PROMPT_FILE=a.safetensors", "--prompt=b=c.safetensors"])
    assert ended.value.code == 2


# The page


def test_every_word_is_on_the_page_and_means_a_setting():
    page = (ROOT / "docs" / "configuration.md").read_text()
    macros = {macro.name for macro in read_macros()}
    for command, same in t5x_words.SAME.items():
        for word, ours in same.items():
            assert f"`{word}`" in page, (command, word)
            assert ours in macros or "." in ours


def test_a_word_alone_describes_no_inference():
    argv = [
        "infer",
        "--gin_file=gin_configs/quickstart.gin",
        "--gin.infer.mode='score'",
        "--gin.INFER_OUTPUT_DIR='x'",
    ]
    with pytest.raises(ConfigError, match=r"add --gin_file=gin_configs/runs/infer\.gin last"):
        gin_settings.resolve(parse(argv), "InferTaskRun")
