"""The papers' parameter counts, from the gin files that users give."""

import pathlib
import sys

import pytest

from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.dry_run import dry_run
from jax_prompts.errors import ConfigError

FROZEN = {"t5_small": 60_506_624, "t5_base": 222_903_552, "t5_large": 737_668_096}
TUNED = {  # by prompt, recipe and further settings: small, base, large
    "prompt_tuning lester2021": (51_200, 76_800, 102_400),
    "prompt_tuning lester2021 PROMPT_LENGTH=10": (5_120, 7_680, 10_240),
    "residual residual2023": (416_656, 624_784, 832_912),
    "residual residual2023 PROMPT_LENGTH=100": (462_736, 693_904, 925_072),
    "residual residual2023 Residual.passes=2": (416_656, 624_784, 832_912),
    "mlp residual2023": (416_656, 624_784, 832_912),
    "decomposed decomposed2023": (6_120, 8_680, 11_240),
    "p_tuning_mlp explosive": (793_088, 1_779_456, 3_159_040),
    "explosive explosive": (1_536, 2_304, 3_072),
    "explosive explosive Explosive.passes=2": (1_536, 2_304, 3_072),
    "explosive_star explosive": (1_536, 2_304, 3_072),
}
OTHERS = {  # by model, prompt, recipe and further settings: tuned, frozen
    "t5_1_1_lm100k_xxl prompt_tuning lester2021 PROMPT_LENGTH=5": (20_480, 11_135_332_352),
    "t5_base residual residual2023 PROMPT_LENGTH=100 Residual.hidden=250 Residual.bias=False": (
        462_336,
        FROZEN["t5_base"],
    ),
    "t5_large decomposed decomposed2023 Decomposed.rank=1000 PROMPT_LENGTH=100": (1_124_000, 737_668_096),
    # Every position a network, 768 wide, of 400: 10 * (768 + 2*768*400 + 400 + 3*768).
    "t5_base residual_separate residual2023": (6_178_720, FROZEN["t5_base"]),
    # P rows of a key and a value at 12 encoder and 12 decoder layers, 768 wide; of 12 states.
    "t5_base prefix explosive INITIALIZER=None": (10 * 24 * 2 * 768, FROZEN["t5_base"]),
    "t5_base residual residual2023_peft": (462_336, FROZEN["t5_base"]),
    # 10 rows of 300, and a direction of 384: 8 * 384 * (300 + 384 + 2).
    "t5_base lstm residual2023 LSTMPrompt.embedding=300 INITIALIZER=None": (2_110_392, FROZEN["t5_base"]),
    "t5_base prefix_mlp explosive": (
        10 * 768 + 768 * 512 + 512 + 513 * 24 * 2 * 768,
        FROZEN["t5_base"],
    ),
    "t5_base deep explosive": (10 * 12 * 768, FROZEN["t5_base"]),
    "bert_base residual residual2023_bert": (624_784, 109_482_240),
    # As transformers counts them.
    "byt5_small prompt_tuning lester2021": (147_200, 299_637_760),
    "umt5_small prompt_tuning lester2021": (51_200, 306_601_984),
    # 32 layers: attention of 4096 x 4096, once and twice, 3 x 4096 x 16384 and norms; 32,128 rows twice; two biases.
    "flan_ul2 prompt_tuning lester2021": (409_600, 19_591_209_984),
}


def counts(model, prompt, recipe, *settings):
    files = f"models/{model} prompts/{prompt} recipes/{recipe} runs/train".split()
    report = dry_run_of(files, *settings, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102", "BATCH_SIZE=16")
    return report["tuned_parameters"], report["frozen_parameters"]


def dry_run_of(files, *settings):
    flags = [f"--gin_file=gin_configs/{file}.gin" for file in files]
    flags += [f"--gin.{setting}" for setting in ("MODEL_DIR=never", *settings)]
    return dry_run(resolve(parse(["train", *flags]), "TrainRun")[0])


@pytest.mark.parametrize("words", TUNED)
def test_parameter_counts_of_the_papers(words):
    for (size, frozen), tuned in zip(FROZEN.items(), TUNED[words], strict=True):
        assert counts(size, *words.split()) == (tuned, frozen)


@pytest.mark.filterwarnings("ignore:Decomposed.rank 1000 is above")
@pytest.mark.parametrize("words", OTHERS)
def test_counts_of_other_settings(words):
    assert counts(*words.split()) == OTHERS[words]


def test_record_on_bert():
    files = "models/bert_base prompts/residual recipes/residual2023_bert runs/train".split()
    report = dry_run_of(files, "MIXTURE_OR_TASK_NAME=bert_super_glue_record_v102", "BATCH_SIZE=16")
    assert report["task"] == "bert_super_glue_record_v102"
    assert (report["tuned_parameters"], report["frozen_parameters"]) == OTHERS[
        "bert_base residual residual2023_bert"
    ]


@pytest.mark.parametrize("size", FROZEN)
def test_model_tuning_tunes_everything(size):
    files = [f"models/{size}", "recipes/explosive", "runs/pretrain"]
    report = dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102")
    assert (report["tuned_parameters"], report["frozen_parameters"]) == (FROZEN[size], 0)


@pytest.mark.parametrize("recipe", ["lester2021", "decomposed2023", "residual2023"])
def test_released_recipes_differ_from_the_papers_and_resolve(recipe):
    runs = []
    for name in (recipe, f"{recipe}_released"):
        files = ["models/t5_small", "prompts/residual", f"recipes/{name}", "runs/train"]
        flags = [f"--gin_file=gin_configs/{file}.gin" for file in files]
        flags += ["--gin.MODEL_DIR=never", "--gin.MIXTURE_OR_TASK_NAME=super_glue_rte_v102"]
        runs.append(resolve(parse(["train", *flags]), "TrainRun")[0])
    assert runs[0].optimizer != runs[1].optimizer
    assert runs[0].data == runs[1].data


def test_networks_larger_than_the_model_are_refused():
    settings = ["MIXTURE_OR_TASK_NAME=quickstart_reviews", "PROMPT_LENGTH=100", "Residual.hidden=400"]
    files = ["models/micro", "prompts/residual_separate", "recipes/micro", "runs/train"]
    with pytest.raises(ConfigError, match=r"Residual would tune 15,476,800 .* 4,082,688"):
        dry_run_of(files, *settings)


MODELS = pathlib.Path(__file__).parents[1] / "gin_configs" / "models"


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", sorted(file.stem for file in MODELS.glob("*.gin") if file.stem != "checkpoint")
)
def test_every_model_of_a_gin_file_has_shapes(model):
    task = "bert_super_glue_rte_v102" if model.startswith("bert") else "super_glue_rte_v102"
    recipe = "residual2023_bert" if model.startswith("bert") else "lester2021"
    files = [f"models/{model}", "prompts/prompt_tuning", f"recipes/{recipe}", "runs/train"]
    report = dry_run_of(files, f"MIXTURE_OR_TASK_NAME={task}", "PROMPT_LENGTH=10")
    assert report["tuned_parameters"] >= 10 * 128
    assert report["frozen_parameters"] > report["tuned_parameters"]


READY = {  # at the top of gin_configs/: method, task, tuned and frozen parameters, rows, devices along fsdp
    "residual_xxl": ("Residual", "taskless_super_glue_rte_v102", 3_699_088, 11_135_332_352, 32, 8),
    "prompt_xxl": ("PromptTuning", "taskless_super_glue_rte_v102", 409_600, 11_135_332_352, 32, 8),
    "residual_base": ("Residual", "super_glue_rte_v102", 624_784, FROZEN["t5_base"], 8, 1),
    "decomposed_large": ("Decomposed", "super_glue_rte_v102", 11_240, FROZEN["t5_large"], 16, 1),
    "explosive_base": ("Explosive", "super_glue_boolq_v102", 2_304, FROZEN["t5_base"], 16, 1),
}


@pytest.mark.parametrize("name", READY)
def test_ready_runs(name):
    """Complete as they are; a task is chosen by its macro."""
    flags = [f"--gin_file=gin_configs/{name}.gin"]
    found = dry_run(resolve(parse(["train", *flags]), "TrainRun")[0])
    parameters = found["tuned_parameters"], found["frozen_parameters"]
    whose = found["method"], found["task"], *parameters, found["batch"]["rows"], found["mesh"]["fsdp"]
    assert whose == READY[name]
    assert found["initial_checkpoint"].startswith("gs://t5-data/")
    run, _ = resolve(parse(["train", *flags, "--gin.MIXTURE_OR_TASK_NAME=super_glue_cb_v102"]), "TrainRun")
    assert run.data.task == "super_glue_cb_v102"


def test_frozen_bytes_by_part_and_dtype():
    files = ["models/t5_1_1_small", "prompts/prompt_tuning", "recipes/lester2021", "runs/train"]
    found = dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102", "WEIGHT_DTYPE=int8")
    rows, layers, D, joined, mlp = 32_128, 8, 512, 384, 1024
    attention, scales = 4 * D * joined, 3 * joined + D  # query, key, value; out
    encoder_rest = layers * (D * mlp + 2 * D) + D + 32 * 6  # wo and norms; the last norm, relative positions
    decoder_rest = layers * (D * mlp + 3 * D) + D + 32 * 6 + rows * D
    assert found["frozen_bytes_by_part"] == {
        "token_embedder": {"bfloat16": 2 * rows * D},
        "encoder": {
            "int8": layers * (attention + 2 * D * mlp),
            "float32": 4 * layers * (scales + 2 * mlp),
            "bfloat16": 2 * encoder_rest,
        },
        "decoder": {
            "int8": layers * (2 * attention + 2 * D * mlp),
            "float32": 4 * layers * (2 * scales + 2 * mlp),
            "bfloat16": 2 * decoder_rest,
        },
    }
    assert found["frozen_bytes"] == sum(sum(part.values()) for part in found["frozen_bytes_by_part"].values())


def test_bytes_of_each_device_follow_the_mesh():
    settings = ["MIXTURE_OR_TASK_NAME=super_glue_rte_v102", "Optimizer.name=adamw"]
    files = ["models/t5_1_1_lm100k_xxl", "prompts/residual", "recipes/residual2023", "runs/train"]
    settings += ["PARTITIONS={'fsdp': 4, 'model': 2}", "MICROBATCHES=2"]
    found = dry_run_of(files, *settings)
    assert found["mesh"] == {"data": 1, "fsdp": 4, "model": 2}
    here = found["bytes_per_device"]
    vectors = 4096 * 2 * (24 * 2 + 24 * 3 + 2)  # scales of norms, which `model` does not divide
    relative = 2 * 64 * 32 * 2  # position biases, which `fsdp` does not
    assert here["frozen"] == (found["frozen_bytes"] - vectors - relative) / 8 + vectors / 4 + relative / 2
    assert found["tuned_bytes"] / 8 < here["tuned"] < found["tuned_bytes"] / 7
    assert found["optimizer_bytes"] / 8 < here["optimizer"] < found["optimizer_bytes"] / 7


def test_rows_that_microbatches_and_mesh_do_not_divide_are_refused():
    files = ["models/t5_base", "prompts/residual", "recipes/residual2023", "runs/train"]
    with pytest.raises(ConfigError, match="MICROBATCHES = 2 does not divide the rows of BATCH_SIZE = 8"):
        dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102", "MICROBATCHES=2")
    for macro in ("BATCH_SIZE", "EVAL_BATCH_SIZE"):
        with pytest.raises(ConfigError, match=rf"^{macro} is 0; it must be at least 1"):
            dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102", f"{macro}=0")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["PROMPT=@Residual()", "Residual.length=10"], "the whole model is tuned: set PROMPT = None"),
        (["INITIAL_CHECKPOINT_PATH=None", "MODEL_SIZE=micro"], "a checkpoint is read"),
        (["Optimizer.step_offset=1000000"], "the checkpoint says its step"),
        (["SCAN_LAYERS=True"], "layers are single"),
    ],
)
def test_optimisers_that_cannot_go_on(settings, words):
    files = ["models/micro", "recipes/lester2021_model_tuning", "runs/train"]
    dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102")
    with pytest.raises(ConfigError, match=words):
        dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102", *settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["DROPOUT_RATE=1.0"], "DROPOUT_RATE is 1.0: set it to at least 0 and below 1"),
        (["DROPOUT_RATE=-0.1"], "DROPOUT_RATE is -0.1"),
        (["RANDOM_SEED=-1"], "RANDOM_SEED is -1"),
        (["RANDOM_SEED=2147483647", "MEMBERS=2"], "RANDOM_SEED is 2147483647: set it, and that of the last member"),
        (["Training.z_loss=-1.0"], "z_loss is -1.0"),
        (["Training.keep=0"], "keep is 0; it must be at least 1"),
        (["MIXTURE_OR_TASK_NAME=super_glue_rte"], "super_glue_rte is not registered .* use .*super_glue_rte_v102"),
        (["MIXTURE_OR_TASK_MODULE=tasks.no_such"], "no module tasks.no_such"),
        (["MIXTURE_OR_TASK_MODULE=."], r"MIXTURE_OR_TASK_MODULE '\.' names no module"),
        (["METRIC=acuracy"], "METRIC .*'acuracy' is no metric of super_glue_rte_v102; use accuracy"),
        (["METRIC=rank/accuracy"], "is no metric of super_glue_rte_v102"),
        (["TRAIN_SPLIT=trian"], "has no split 'trian': use train"),
        (["EVAL_SPLIT=dev"], "has no split 'dev'"),
        (["VERBALIZER={'yes': 'a'}"], "VERBALIZER names 'yes', which is no label"),
        ([f"CACHE_DIR={__file__}"], r"CACHE_DIR .* \(it is a file\)"),
        ([f"CACHE_DIR={__file__}/below"], r"CACHE_DIR .* \(.*test_dry_run.py is a file\)"),
        ([f"MODEL_DIR={__file__}/below"], r"MODEL_DIR .* \(.*test_dry_run.py is a file\)"),
        (["OWN_TASK=@OwnTask()", "MIXTURE_OR_TASK_NAME=mine"], "OWN_TASK has no files"),
    ],
)  # fmt: skip
def test_settings_out_of_range_and_tasks_that_do_not_exist(settings, words):
    files = ["models/micro", "prompts/residual", "recipes/residual2023", "runs/train"]
    dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102")
    with pytest.raises(ConfigError, match=words):
        dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102", *settings)


def test_a_dry_run_writes_nothing(tmp_path):
    files = ["models/micro", "prompts/residual", "recipes/residual2023", "runs/train"]
    places = [f"{name}={tmp_path / 'a' / name}" for name in ("MODEL_DIR", "CACHE_DIR")]
    dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte_v102", *places)
    assert list(tmp_path.iterdir()) == []


def test_without_seqio_the_task_is_not_checked(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax_prompts.data.fill", None)
    files = ["models/micro", "prompts/residual", "recipes/residual2023", "runs/train"]
    dry_run_of(files, "MIXTURE_OR_TASK_NAME=super_glue_rte")
    assert "whether there is a task super_glue_rte is not checked" in capsys.readouterr().err
