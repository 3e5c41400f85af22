"""Gin files and flags made into settings: what wins, what composes, what is refused."""

import dataclasses
import pathlib

import pytest

from jax_prompts import config, field_types, prompts, runs
from jax_prompts.cli import gin_settings
from jax_prompts.cli.arguments import parse
from jax_prompts.errors import ConfigError, SettingWarning, nearest
from jax_prompts.models.sizes import SIZES

ROOT = pathlib.Path(__file__).parents[2]
QUICKSTART = "--gin_file=gin_configs/quickstart.gin"
LESTER = [
    "--gin_file=gin_configs/models/t5_1_1_lm100k_small.gin",
    "--gin_file=gin_configs/prompts/prompt_tuning.gin",
    "--gin_file=gin_configs/recipes/lester2021.gin",
    "--gin_file=gin_configs/runs/train.gin",
]
TASK = ["--gin.MIXTURE_OR_TASK_NAME=super_glue_rte_v102", "--gin.MODEL_DIR=runs/rte"]


def resolve(*argv, kinds=("TrainRun",)):
    return gin_settings.resolve(parse(["train", *argv]), *kinds)


def run_of(*argv, kinds=("TrainRun",)):
    return resolve(*argv, kinds=kinds)[0]


def refusal(*argv, kinds=("TrainRun",)):
    """What is said of a configuration that cannot work: one line."""
    with pytest.raises(ConfigError) as error:
        resolve(*argv, kinds=kinds)
    assert "\n" not in str(error.value)
    return str(error.value)


# What becomes of it


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("/tmp/x", "/tmp/x"),
        ("runs/rte", "runs/rte"),
        ("'in quotes'", "in quotes"),
        ("it's", "it's"),
        ("2021-run", "2021-run"),
        ("1e-3/x", "1e-3/x"),
        ("None_run", "None_run"),
        ("a=b", "a=b"),
        ("a#b", "a#b"),
        ("two words", "two words"),
        ("(1", "(1"),
        ("%MIXTURE_OR_TASK_NAME", "quickstart_reviews"),
    ],
)
def test_a_value_that_is_none_of_gins_is_text(typed, value):
    assert run_of(QUICKSTART, f"--gin.MODEL_DIR={typed}").model_dir == value


def test_values_of_every_kind():
    run = run_of(
        QUICKSTART,
        "--gin.TRAIN_STEPS=1_000",
        "--gin.LEARNING_RATE=1",
        "--gin.PATIENCE=None",
        "--gin.SCAN_LAYERS=True",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 9, 'targets': %PROMPT_LENGTH}",
        "--gin.PROMPT_LENGTH=6",
        "--gin.INITIALIZER=@ClassLabels()",
        "--gin.ClassLabels.words=('good', 'bad')",
        "--gin.Optimizer.beta2=0.95",
        "--tfds_data_dir=/data/tfds",
    )
    assert (run.training.steps, run.optimizer.learning_rate, run.training.patience) == (1000, 1, None)
    assert run.model.scan_layers is True
    assert run.data.task_feature_lengths == {"inputs": 9, "targets": 6}
    assert run.initializer == prompts.ClassLabels(("good", "bad"))
    assert run.optimizer.beta2 == 0.95
    assert run.data.tfds_data_dir == "/data/tfds"


def test_later_files_and_then_flags_win(tmp_path):
    (tmp_path / "mine.gin").write_text("TRAIN_STEPS = 7\nEVAL_PERIOD = 5\n")
    run = run_of(QUICKSTART, f"--gin_file={tmp_path}/mine.gin", "--gin.EVAL_PERIOD=2", "--gin.EVAL_PERIOD=3")
    assert (run.training.steps, run.training.eval_period) == (7, 3)
    assert run_of(f"--gin_file={tmp_path}/mine.gin", QUICKSTART).training == run_of(QUICKSTART).training


def test_calls_leave_nothing_behind():
    before = run_of(QUICKSTART)
    between = run_of(QUICKSTART, "--gin.PROMPT_LENGTH=3", "--gin.Data.tfds_data_dir=x")
    assert (between.method.length, between.data.tfds_data_dir) == (3, "x")
    assert run_of(QUICKSTART) == before
    assert (before.method.length != 3) and before.data.tfds_data_dir is None


def test_gin_files_are_found_from_anywhere_and_in_search_paths(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.gin").write_text(
        "include 'gin_configs/quickstart.gin'\nMODEL_DIR = 'mine'\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run_of(QUICKSTART).model_dir == "runs/quickstart"
    assert run_of("--gin_file=mine.gin", "--gin_search_paths=nowhere,elsewhere").model_dir == "mine"
    assert run_of("--gin_file=elsewhere/mine.gin").model_dir == "mine"
    assert "mine.gin" in refusal("--gin_file=mien.gin", "--gin_search_paths=elsewhere")


def test_the_resolved_text_is_the_whole_run(tmp_path):
    argv = [QUICKSTART, "--gin.Residual.hidden=7", "--gin.DATA_DIR=/" + "long/" * 40]
    run, text = resolve(*argv)
    assert "Optimizer.clipping_threshold = 1.0" in text.splitlines()  # a default that no file mentions
    assert f"DATA_DIR = '/{'long/' * 40}'" in text.splitlines()
    (tmp_path / "config.gin").write_text(text)
    again = f"--gin_file={tmp_path}/config.gin"
    assert resolve(again) == (run, text)
    assert run_of(again, "--gin.Residual.hidden=8").method.hidden == 8


# The gin files


@pytest.mark.parametrize("recipe", ["lester2021", "residual2023"])
@pytest.mark.parametrize("prompt", ["prompt_tuning", "residual"])
@pytest.mark.parametrize("model", sorted(p.stem for p in (ROOT / "gin_configs" / "models").glob("*.gin")))
def test_model_prompt_recipe_and_run_compose(model, prompt, recipe):
    names = [f"models/{model}", f"prompts/{prompt}", f"recipes/{recipe}", "runs/train"]
    files = [f"--gin_file=gin_configs/{name}.gin" for name in names]
    run = run_of(*files, *TASK, "--gin.TRAIN_STEPS=9", "--gin.INITIAL_CHECKPOINT_PATH=asset:micro")
    assert run.model.size in SIZES or model == "checkpoint"
    assert run.optimizer.name == {"lester2021": "adafactor", "residual2023": "adamw"}[recipe]
    assert run.data.prompt_inside_length == (recipe == "residual2023")
    assert type(run.method).__name__ == {"prompt_tuning": "PromptTuning", "residual": "Residual"}[prompt]
    assert run.method.length == {"lester2021": 100, "residual2023": 10}[recipe]
    assert run.training.steps == 9


def test_the_files_are_those_that_were_promised():
    models = "micro t5_small t5_base t5_large t5_3b t5_11b".split()
    models += [f"t5_1_1_lm100k_{size}" for size in "small base large xl xxl".split()]
    promised = [f"models/{name}" for name in models]
    promised += ["prompts/prompt_tuning", "prompts/residual", "recipes/lester2021", "recipes/residual2023"]
    promised += ["runs/train", "runs/eval", "runs/infer", "runs/pretrain", "quickstart", "residual_xxl"]
    missing = [name for name in promised if not (ROOT / "gin_configs" / f"{name}.gin").is_file()]
    assert missing == []


READY = sorted(p.name for p in (ROOT / "gin_configs").glob("*.gin") if p.name != "defaults.gin")


@pytest.mark.parametrize("name", READY)
def test_a_ready_run_is_complete_and_says_how_to_start_it(name):
    text = (ROOT / "gin_configs" / name).read_text()
    command = next(line for line in text.splitlines() if f"--gin_file=gin_configs/{name}" in line)
    assert command.startswith("#   t5x ")
    run_of(f"--gin_file=gin_configs/{name}", kinds=("TrainRun", "InferRun"))


def test_the_clients_run():
    run = run_of("--gin_file=gin_configs/residual_xxl.gin")
    assert run.method == prompts.Residual(length=100, hidden=400)
    assert run.model.checkpoint == "gs://t5-data/pretrained_models/t5x/t5_1_1_lm100k_xxl/checkpoint_1100000"
    assert (run.model.size, run.model.activation_dtype, run.model.weight_dtype) == (
        "t5_1_1_xxl",
        "bfloat16",
        "bfloat16",
    )
    assert run.model.scan_layers
    assert "super_glue" in run.data.task


def test_lesters_recipe_is_the_papers():
    run = run_of(*LESTER, *TASK)
    assert (run.optimizer.learning_rate, run.optimizer.weight_decay, run.optimizer.decay_rate) == (
        0.3,
        1e-5,
        0.8,
    )
    assert not run.optimizer.multiply_by_parameter_scale
    assert (run.data.batch_size, run.training.steps, run.training.loss_normalization) == (32, 30_000, "sum")
    assert run.data.task_feature_lengths["inputs"] == 512
    assert run.initializer == prompts.ClassLabels()


def test_pretraining_leaves_the_prompt_out():
    run, text = resolve(QUICKSTART, "--gin_file=gin_configs/runs/pretrain.gin")
    assert run.method is None
    assert run.initializer is None
    assert "Residual" not in text


# What is refused


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--gin.MODLE_DIR=x", ["MODLE_DIR", "MODEL_DIR"]),
        ("--gin.TRAIN_STEP=3", ["TRAIN_STEP ", "TRAIN_STEPS"]),
        ("--gin.train_steps=3", ["train_steps", "TRAIN_STEPS"]),
        ("--gin.MODEL_DIR=%MODELDIR", ["MODELDIR", "--gin.MODELDIR=VALUE", "MODEL_DIR"]),
        ("--gin.MODEL_DIR=", ["MODEL_DIR is ''", "text"]),
        ("--gin.MODEL_DIR=2021", ["MODEL_DIR is 2021", "text", "quotes"]),
        ("--gin.Data.batchsize=3", ["--gin.Data.batchsize=3", "Data has no field batchsize", "batch_size"]),
        ("--gin.Dta.batch_size=3", ["Dta", "did you mean Data"]),
        ("--gin.config.Data.batch_size=3", ["config.Data", "did you mean Data"]),
        ("--gin.PROMPT=@Residul()", ["--gin.PROMPT", "Residul ", "Residual"]),
        ("--gin.PROMPT=Residual", ["PROMPT is 'Residual'", "@Residual()"]),
        ("--gin.PROMPT=@Residual", ["PROMPT is <function Residual", "@Residual()"]),
        ("--gin.INITIALIZER=Uniform", ["INITIALIZER is 'Uniform'", "@SampledVocabulary()"]),
        ("--gin.TRAIN_STEPS=many", ["TRAIN_STEPS is 'many'", "whole number"]),
        ("--gin.TRAIN_STEPS=1.5", ["TRAIN_STEPS is 1.5", "whole number"]),
        ("--gin.TRAIN_STEPS=True", ["TRAIN_STEPS is True", "whole number"]),
        ("--gin.BATCH_SIZE=None", ["BATCH_SIZE is None", "whole number"]),
        ("--gin.DROPOUT_RATE=O.1", ["DROPOUT_RATE is 'O.1'", "a number"]),
        ("--gin.LEARNING_RATE=@Uniform()", ["LEARNING_RATE is Uniform(", "a number"]),
        ("--gin.LEARNING_RATE=1e999", ["LEARNING_RATE is '1e999'", "a number"]),
        ("--gin.RANDOM_SEED=1e11", ["RANDOM_SEED is 100000000000.0", "whole number"]),
        ("--gin.RANDOM_SEED=99999999999", ["RANDOM_SEED is 99999999999", "below 2,147,483,648"]),
        ("--gin.TRAIN_STEPS=%TRAIN_STEPS", ["macro TRAIN_STEPS stands for itself"]),
        (
            "--gin.METRIC=5",
            ["METRIC is 5: set it to text (in quotes of its own where it reads as a number) or None$"],
        ),
        ("--gin.EVAL_BATCH_SIZE=1.5", ["EVAL_BATCH_SIZE is 1.5: set it to a whole number$"]),
        (
            "--gin.MODEL_DIR=~nobody_of_this_name/x",
            ["~nobody_of_this_name/x is in the home of a user who is not known"],
        ),
        ("--gin.Residual.passes=10000", ["Residual.passes is 10000", "at most 1,000"]),
        ("--gin.PROMPT_LENGTH=1000000000000", ["PROMPT_LENGTH is 1000000000000", "below 2,147,483,648"]),
        ("--gin.Residual.skip=no", ["Residual.skip is 'no': set it to True or False$"]),
        (
            "--gin.SampledVocabulary.first=all",
            ["SampledVocabulary.first is 'all': set it to a whole number or None$"],
        ),
        ("--gin.TUNED=lora", ["TUNED is 'lora'", "@LoRA() or a tuple such as (@LoRA(), @IA3()) or None$"]),
        ("--gin.BOOTSTRAP=10**9", ["BOOTSTRAP is '10**9'", "a whole number"]),
        ("--gin.BOOTSTRAP=-1", ["BOOTSTRAP is -1", "from 0 to"]),
        ("--gin.SCAN_LAYERS=true", ["SCAN_LAYERS is 'true'", "True or False"]),
        ("--gin.ACTIVATION_DTYPE=bf16", ["ACTIVATION_DTYPE is 'bf16'", "'bfloat16'"]),
        ("--gin.Optimizer.name=adam", ["Optimizer.name is 'adam'", "'adamw'"]),
        ("--gin.TASK_FEATURE_LENGTHS=48", ["TASK_FEATURE_LENGTHS is 48", "{'inputs': 512, 'targets': 16}"]),
        ("--gin.PARTITIONS=8", ["PARTITIONS is 8", "a dictionary such as {'fsdp': -1}"]),
        ("--gin.PARTITIONS={'fsdp': '8'}", ["PARTITIONS is {'fsdp': '8'}", "such as {'fsdp': -1}"]),
        ("--gin.VERBALIZER=yes", ["VERBALIZER is 'yes'", "such as {'True': 'yes', 'False': 'no'} or None"]),
        ("--gin.TASK_FEATURE_LENGTHS={'inputs': '48'}", ["TASK_FEATURE_LENGTHS is", "'48'"]),
        ("--gin.PROMPT_LENGTH=0", ["PROMPT_LENGTH", "0", "at least 1"]),
        ("--gin.TrainRun.data=None", ["TrainRun.data is None", "@Data()"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(flag, words):
    said = refusal(QUICKSTART, flag)
    for word in words:
        assert word in f"{said}$"
    assert " object at" not in said


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("alpha=None", "a number"),
        ("alpha=1e999", "a number"),
        ("dropout=a", "a number"),
        ("targets=(1,)", "a tuple"),
    ],
)
def test_wrong_settings_of_leaves_are_refused_before_any_is_made(value, wanted):
    said = refusal(QUICKSTART, "--gin_file=gin_configs/tuned/lora.gin", f"--gin.LoRA.{value}")
    assert said.startswith(f"LoRA.{value.partition('=')[0]} is ")
    assert f": set it to {wanted}" in said


def test_leaves_that_a_later_file_leaves_out_are_named():
    dept, lora = "--gin_file=gin_configs/prompts/dept.gin", "--gin_file=gin_configs/tuned/lora.gin"
    with pytest.warns(SettingWarning, match=r"TUNED does not have DePT: .* TUNED = \(@LoRA\(\), @DePT\(\)\)"):
        run_of(QUICKSTART, dept, lora)
    run = run_of(QUICKSTART, dept, lora, "--gin.TUNED=(@LoRA(), @DePT())")
    assert [type(kind).__name__ for kind in run.leaves] == ["LoRA", "DePT"]


def test_every_dictionary_has_an_example():
    for made in (config.BaseModel, config.OwnTask, config.Data, config.Training, runs.InferRun):
        for field in dataclasses.fields(made):
            if "dict[" in str(field.type):
                wrong = dataclasses.make_dataclass(made.__name__, [(field.name, dict[str, int])])(None)
                ((_, _, wanted),) = field_types.type_errors(wrong)
                assert wanted.startswith("a dictionary such as {")


def test_prompt_files_must_be_several():
    said = refusal(
        QUICKSTART,
        "--gin_file=gin_configs/runs/eval.gin",
        "--gin.PROMPT_FILES=a.safetensors",
        kinds=("EvalRun",),
    )
    assert "PROMPT_FILES is 'a.safetensors': set it to a tuple" in said


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["--gin_file=FILE", "gin_configs/quickstart.gin"]),
        (["--gin_file=gin_configs/quikstart.gin"], ["quikstart.gin is not there", "gin_configs/quickstart.gin"]),
        (["--gin_file=models/micro.gin"], ["gin_configs/models/micro.gin"]),
        (["--gin_file=gin_configs"], ["gin file gin_configs is not there"]),
        ([f"--gin_file={'x' * 300}.gin"], ["x.gin is not there"]),
        (LESTER[:3], ["add --gin_file=gin_configs/runs/train.gin last"]),
        (LESTER, ["MIXTURE_OR_TASK_NAME, MODEL_DIR not set", "--gin.MODEL_DIR=runs/first"]),
        ([*LESTER[1:], *TASK], ["MODEL_SIZE, VOCABULARY not set", "gin_configs/models/micro.gin"]),
        ([LESTER[0], LESTER[2], LESTER[3], *TASK], ["PROMPT not set", "gin_configs/prompts/residual.gin"]),
        ([LESTER[0], LESTER[1], LESTER[3], *TASK], ["LEARNING_RATE, TASK_FEATURE_LENGTHS, TRAIN_STEPS not set"]),
        (
            [LESTER[0], LESTER[1], LESTER[3], *TASK, "--gin.LEARNING_RATE=1", "--gin.TRAIN_STEPS=1",
             "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 2}"],
            ["Optimizer.name is not set", "gin_configs/recipes/lester2021.gin, or --gin.Optimizer.name=VALUE"],
        ),
        (
            [*LESTER, *TASK, "--gin.PROMPT=@Decomposed()", "--gin.INITIALIZER=None"],
            ["Decomposed.length is not set; add for example --gin.Decomposed.length=%PROMPT_LENGTH"],
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_an_example(argv, words):
    said = refusal(*argv)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("TRAIN_STEPS = 3\nEVAL_PERIOD 4\n", ["bad.gin: line 2"]),
        ("TRAIN_STEPS = \n", ["bad.gin: line 1"]),
        ("Data.batchsize = 4\n", ["bad.gin: Data has no field batchsize", "batch_size"]),
        ("MODLE_DIR = 'x'\n", ["MODLE_DIR", "MODEL_DIR"]),
        (
            "from __gin__ import dynamic_registration\n",
            ["bad.gin is a gin file for upstream T5X", "classes of T5X"],
        ),
        ("include 'gin_configs/quikstart.gin'\n", ["bad.gin: includes gin_configs/quikstart.gin"]),
        ("\x00\x01", ["bad.gin"]),
        (b"\xff\xfe\x00", ["bad.gin"]),
    ],
)
def test_a_bad_gin_file_is_named_with_its_line(tmp_path, text, words):
    (tmp_path / "bad.gin").write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refusal(QUICKSTART, f"--gin_file={tmp_path}/bad.gin")
    for word in words:
        assert word in said


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "gin_configs" / "upstream").glob("*.gin")))
def test_gin_files_of_upstream_t5x_are_told(name):
    said = refusal(QUICKSTART, f"--gin_file=gin_configs/upstream/{name}.gin")
    assert f"{name}.gin is a gin file for upstream T5X's own programs" in said


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_gin_files_that_include_each_other_in_a_circle_are_named(tmp_path, names):
    for name, included in zip(names, names[1:] + names[0], strict=True):
        (tmp_path / f"{name}.gin").write_text(f"include '{tmp_path}/{included}.gin'\n")
    said = refusal(QUICKSTART, f"--gin_file={tmp_path}/a.gin")
    way = " includes ".join(f"{tmp_path}/{name}.gin" for name in (*names, "a"))
    assert said == f"{way}: gin files cannot include each other in a circle; take one include out"


def test_a_gin_file_may_be_included_twice(tmp_path):
    (tmp_path / "once.gin").write_text("TRAIN_STEPS = 5\n")
    (tmp_path / "twice.gin").write_text(2 * f"include '{tmp_path}/once.gin'\n")
    assert run_of(QUICKSTART, f"--gin_file={tmp_path}/twice.gin").training.steps == 5


def test_a_byte_order_mark_is_left_out(tmp_path):
    (tmp_path / "included.gin").write_text("TRAIN_STEPS = 5\n", encoding="utf-8-sig")
    (tmp_path / "marked.gin").write_text(f"include '{tmp_path}/included.gin'\n", encoding="utf-8-sig")
    run = run_of(QUICKSTART, f"--gin_file={tmp_path}/marked.gin")
    assert run.training.steps == 5


def test_nearest_ignores_case_and_never_lists_everything():
    many = [f"name_{number}" for number in range(40)]
    assert nearest("model_dir", ["MODEL_DIR", *many]).startswith("MODEL_DIR")
    assert (
        nearest("model_dir", ["MODEL_DIR", "XYZ"])
        == nearest("MODEL_DIRR", ["MODEL_DIR", "XYZ"])
        == "MODEL_DIR"
    )
    assert nearest("?", many).count(" or ") <= 2
    assert nearest("?", ["train", "eval"]) == "eval or train"


def test_an_error_of_a_constructor_shows_no_address():
    error = TypeError("unhashable type: 'list'\n  In call to configurable 'Residual' (<function f at 0x7f>)")
    assert gin_settings._explain(None, error) == "unhashable type: 'list' (in Residual)"


def test_a_list_is_a_tuple_to_what_the_compiler_hashes():
    run = run_of(QUICKSTART, "--gin_file=gin_configs/tuned/lora.gin", "--gin.LoRA.targets=['query']")
    assert run.tuned.targets == ("query",)
    hash(run.leaves)


def test_epochs_of_a_flag_are_not_overruled_by_steps_of_a_file():
    words = "TRAIN_STEPS is 300, and counts before TRAIN_EPOCHS: add --gin.TRAIN_STEPS=None"
    assert words in refusal(QUICKSTART, "--gin.TRAIN_EPOCHS=3")
    settings = run_of(QUICKSTART, "--gin.TRAIN_EPOCHS=3", "--gin.TRAIN_STEPS=None").training
    assert (settings.steps, settings.epochs) == (None, 3)


@pytest.mark.parametrize("lengths", ["[8, 48]", "(8, 48)"])
def test_a_list_is_as_good_as_a_tuple(lengths):
    assert run_of(QUICKSTART, f"--gin.LENGTH_GROUPS={lengths}").data.length_groups == (8, 48)
