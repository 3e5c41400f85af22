"""Prompt design through commands: what `t5x eval` reports, what training reads, settings that are refused."""

import json

import pytest

from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.config import PromptDesign
from jax_prompts.errors import ConfigError
from jax_prompts.main import main
from jax_prompts.partition import mesh_of
from jax_prompts.setup import set_up

TASK = "quickstart_reviews"


def arguments(command, *files, **macros):
    flags = [f"--gin.{name}={value}" for name, value in macros.items()]
    return [command, *(f"--gin_file=gin_configs/{file}.gin" for file in files), *flags]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, compiled_once):
    """eval.json and rows of predictions of the bare model behind some demonstrations."""
    caches = tmp_path_factory.mktemp("caches")

    def run(**macros):
        folder = tmp_path_factory.mktemp("eval")
        settings = {
            "SCAN_LAYERS": True,
            "MIXTURE_OR_TASK_NAME": TASK,
            "TASK_FEATURE_LENGTHS": {"inputs": 128, "targets": 4},
            "EVAL_SPLIT": "validation[:16]",
            "MODEL_DIR": folder,
            "CACHE_DIR": caches,
            **macros,
        }
        main(arguments("eval", "models/micro", "runs/prompt_design", **settings))
        (file,) = (folder / "predictions").iterdir()
        return json.loads((folder / "eval.json").read_text()), [
            *map(json.loads, file.read_text().splitlines())
        ]

    return run


@pytest.mark.slow
def test_the_bare_model_is_scored_by_generation_and_by_rank(evaluated):
    plain, asked = evaluated(DEMONSTRATIONS=0)
    found, rows = evaluated()
    assert "demonstrations" not in plain
    assert found["demonstrations"] == {TASK: {"asked": 4, "mean": 4.0, "fewer": 0}}
    assert found["metrics"]["no prompt"][TASK].keys() == {
        "accuracy", "rank/accuracy", "rank_normalized/accuracy",
    }  # fmt: skip
    assert found["losses"] != plain["losses"]
    assert [row["inputs"].rpartition("\n\n")[2] for row in rows] == [row["inputs"] for row in asked]
    assert [row["targets"] for row in rows] == [row["targets"] for row in asked]
    for row in rows:
        shown = row["inputs"].split("\n\n")[:-1]
        answers = sorted(text.rpartition(" ")[2] for text in shown)
        assert answers == ["negative", "negative", "positive", "positive"]


def resolved(command, *files, **macros):
    return resolve(parse(arguments(command, *files, **macros)), "TrainRun")[0]


def test_macros_and_fields_set_it():
    run = resolved(
        "train",
        "quickstart",
        DEMONSTRATIONS=3,
        INSTRUCTION="Praise or blame?",
        DEMONSTRATIONS_SEED=7,
        **{"PromptDesign.balanced": False, "PromptDesign.template": "{inputs} = {targets}"},
    )
    assert run.data.prompt_design == PromptDesign(
        3, "Praise or blame?", 7, balanced=False, template="{inputs} = {targets}"
    )
    assert resolved("train", "quickstart").data.prompt_design == PromptDesign()


@pytest.mark.parametrize(
    ("macros", "reason"),
    [
        ({"DEMONSTRATIONS": -1}, "DEMONSTRATIONS is -1"),
        ({"DEMONSTRATIONS": "four"}, "DEMONSTRATIONS is 'four': set it to a whole number"),
        ({"DEMONSTRATIONS": "True"}, "DEMONSTRATIONS is True: set it to a whole number"),
        ({"DEMONSTRATIONS_SEED": 1.5}, "DEMONSTRATIONS_SEED is 1.5: set it to a whole number"),
        ({"INSTRUCTION": 3}, "INSTRUCTION is 3: set it to text"),
        ({"PromptDesign.template": "{inputs}"}, "PromptDesign.template is '{inputs}'"),
        ({"PromptDesign.template": 3}, "PromptDesign.template is '?3"),
        ({"PromptDesign.separator": 3}, "PromptDesign.separator is 3"),
        ({"PromptDesign.sed": 3}, "PromptDesign has no field sed; did you mean seed"),
        ({"DEMONSTRATIONS": 1, "PROMPT_INSIDE_LENGTH": True}, "PROMPT_INSIDE_LENGTH is True"),
        (
            {"DEMONSTRATIONS": 1, "SWEEP": {"SUBSET_SEED": (1, 2)}, "FEW_SHOT": 8},
            "SWEEP changes the examples that train",
        ),
        ({"SWEEP": {"DEMONSTRATIONS": (1, 2)}}, "SWEEP changes PromptDesign.demonstrations"),
    ],
)
def test_settings_that_are_refused(macros, reason):
    with pytest.raises(ConfigError, match=reason) as raised:
        run = resolved("train", "quickstart", **macros)
        set_up(run, mesh_of(run.model))
    assert "\n" not in str(raised.value)


def test_a_bert_is_refused_before_its_data_are_read():
    run = resolved(
        "train",
        "models/bert_tiny",
        "prompts/prompt_tuning",
        "recipes/residual2023_bert",
        "runs/train",
        MODEL_DIR="nowhere",
        MIXTURE_OR_TASK_NAME="bert_super_glue_rte_v102",
        PROMPT_INSIDE_LENGTH=False,
        TASK_FEATURE_LENGTHS={"inputs": 64, "targets": 4},
        PROMPT_LENGTH=4,
        INITIALIZER="@Uniform()",
        TRAIN_STEPS=2,
        INSTRUCTION="is it so?",
    )
    with pytest.raises(ConfigError, match="a BERT reads two segments"):
        set_up(run, mesh_of(run.model))


@pytest.mark.slow
def test_prompts_are_tuned_behind_demonstrations(tmp_path):
    settings = {
        "SCAN_LAYERS": True,
        "TRAIN_STEPS": 4,
        "EVAL_PERIOD": 2,
        "BATCH_SIZE": 8,
        "Residual.hidden": 8,
        "PROMPT_LENGTH": 2,
    }
    settings |= {"FEW_SHOT_PER_CLASS": 4, "EVAL_SPLIT": "validation[:16]", "DEMONSTRATIONS": 2}
    place = {"MODEL_DIR": tmp_path / "run", "CACHE_DIR": tmp_path / "caches"}
    lengths = {"TASK_FEATURE_LENGTHS": {"inputs": 96, "targets": 4}, "Optimizer.warmup_steps": 0}
    main(arguments("train", "quickstart", **settings, **place, **lengths))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["demonstrations"] == {TASK: {"asked": 2, "mean": 2.0, "fewer": 0}}
    (subset,) = json.loads((tmp_path / "run" / "subset.json").read_text())["subsets"]
    assert (subset["role"], len(subset["rows"])) == ("train", 8)
