"""Counts of parameters, without weights, against the papers' and against the gin files of methods."""

import argparse
import pathlib

import pytest

from jax_prompts.cli.gin_settings import resolve
from jax_prompts.errors import ConfigError
from jax_prompts.studies.methods import LEAVES, WITH_LENGTH, tuned_by
from jax_prompts.studies.parameters import parameters

GIN = pathlib.Path(__file__).parents[2] / "gin_configs"


@pytest.fixture(scope="module")
def found():
    return parameters((100, 10))


def rows(found, model):
    (own,) = (each for each in found["models"] if each["model"] == model)
    return own, {(row["method"], row["length"]): row for row in own["methods"]}


@pytest.mark.slow
def test_counts_of_the_papers(found):
    xxl, of = rows(found, "t5_1_1_xxl")
    prompt = of["prompt_tuning", 100]
    assert prompt["tuned"] == prompt["kept"] == 409_600  # Lester et al., table 4
    assert prompt["percent"] < 0.01
    assert (
        of["model_tuning", None]["percent"] == 100 and of["model_tuning", None]["tuned"] == xxl["parameters"]
    )
    _, of = rows(found, "t5_1_0_large")
    assert of["decomposed", 100]["tuned"] == 11_240  # Xiao et al., table 1: 11.2K
    assert of["residual", 100]["tuned"] == 925_072  # and 925K
    _, of = rows(found, "t5_1_0_base")
    assert of["explosive", 10]["tuned"] == 2_304  # EPT, abstract: 2.3K
    assert of["residual", 10]["kept"] == 7_680
    assert of["dept", 10]["tuned"] == 7_680 + 45 * (256 + 768)  # Shi & Lipani, section 2
    counts = {name: of[name, None]["tuned"] for name in LEAVES}
    assert counts == {  # Asai et al. 2022, table 1: 1.9M, 1.1M, 280K; PEFT's LoRA
        "adapter": 1_855_104,
        "adapter_drop": 1_101_984,
        "bitfit": 280_932,
        "lora": 884_736,
        "ia3": 129_024,
    }


@pytest.mark.slow
def test_every_size_and_method_is_counted(found):
    assert len(found["models"]) == 10
    for model in found["models"]:
        assert len(model["methods"]) == 1 + len(LEAVES) + 2 * len(WITH_LENGTH)
        assert all(row["tuned"] > 0 for row in model["methods"])


@pytest.mark.parametrize("name", sorted([*WITH_LENGTH, *LEAVES]))
def test_methods_are_those_of_the_gin_files(name):
    """`explosive_star` is `explosive` at another length."""
    room = "tuned" if name in LEAVES else "prompts"
    files = [GIN / "models/micro.gin", GIN / room / f"{name}.gin", GIN / "recipes/lester2021.gin"]
    bindings = ["MODEL_DIR=x", "MIXTURE_OR_TASK_NAME=x", "PROMPT_LENGTH=20"]
    if name == "attempt":
        bindings.append("ATTEMPT.sources=('/dev/null/none',)")
    args = argparse.Namespace(
        command="train",
        gin_file=[str(file) for file in [*files, GIN / "runs/train.gin"]],
        bindings=bindings,
        gin_search_paths="",
        tfds_data_dir=None,
    )
    run = resolve(args, "TrainRun")[0]
    assert (run.method, run.leaves) == tuned_by(name, 20)


def test_every_gin_file_is_counted():
    """`warp` has no place in a T5."""
    assert {file.stem for file in (GIN / "prompts").glob("*.gin")} == {*WITH_LENGTH, "explosive_star", "warp"}
    assert {file.stem for file in (GIN / "tuned").glob("*.gin")} == {*LEAVES}


@pytest.mark.parametrize("lengths", [(0,), (1 << 21,), (5, 5)])
def test_lengths_that_no_prompt_has(lengths):
    with pytest.raises(ConfigError, match="--length"):
        parameters(lengths)
