"""T5X checkpoints that hold the parameters of a method: folded by what the prompt files of their run say."""

import pathlib
import shutil

import flax.traverse_util
import jax
import numpy as np
import pytest

from jax_prompts.base_models.open import open_model
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.arrays import in_memory
from jax_prompts.interop.exchange import convert_prompt
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.prompts import Explosive, PromptMetadata, Residual, load_prompt, save_prompt
from jax_prompts.prompts.prompt_file import settings_of
from jax_prompts.upstream.parameters import Prompt

BASE = str(pathlib.Path(__file__).parents[1] / "goldens" / "t5_v1_1_hf")
D = 32
METHOD = Residual(5, hidden=3)
EMBEDDING = {"token_embedder/embedding": np.ones((40, D), np.float32)}  # of the model what a fold looks at


def prompt_arrays(method, prefix):
    """Parameters of a method as a network inside T5X has them, and the prompt that they give."""
    params = Prompt(method).init(jax.random.key(3), D)["params"]
    arrays = {
        prefix + name: np.asarray(x) for name, x in flax.traverse_util.flatten_dict(params, sep="/").items()
    }
    return arrays, np.asarray(method.apply({"params": params}, D))


def run_of(folder, method, prefix="prompt/", *, described=None, known=True, model=EMBEDDING):
    """A checkpoint and what the run that wrote it left beside; the prompt."""
    arrays, prompt_PD = prompt_arrays(method, prefix)
    write_checkpoint(folder / "checkpoint_12", {n: in_memory(x) for n, x in (model | arrays).items()}, 12)
    described = described or method
    if known:
        metadata = PromptMetadata(
            method=type(described).__name__, settings=settings_of(described), task="rte", step=10
        )
        save_prompt(folder / "prompts" / "10.safetensors", np.zeros_like(prompt_PD), metadata)
    return str(folder / "checkpoint_12"), prompt_PD


@pytest.mark.parametrize("prefix", ["prompt/", "encoder/prompt/prompt/"], ids=["ours", "original"])
@pytest.mark.parametrize("method", [METHOD, Explosive(6, vectors=2)], ids=["residual", "explosive"])
def test_both_trees_are_folded(tmp_path, method, prefix):
    checkpoint, prompt_PD = run_of(tmp_path, method, prefix)
    file = str(tmp_path / "p.safetensors")
    assert convert_prompt(checkpoint, file)["from"] == "t5x"
    found_PD, metadata = load_prompt(file)
    np.testing.assert_array_equal(found_PD, prompt_PD)
    assert (metadata.method, metadata.settings) == (type(method).__name__, settings_of(method))
    assert (metadata.task, metadata.step) == ("rte", 12)


@pytest.mark.filterwarnings("ignore:.*holds a prompt beside the model")
def test_the_model_beside_it_is_the_base_model(tmp_path):
    model = {name: array[...] for name, array in open_model(BASE).arrays.items()}
    checkpoint, _ = run_of(tmp_path, METHOD, model=model)
    with pytest.warns(UserWarning, match="holds a prompt beside the model"):
        assert open_model(checkpoint).arrays.keys() == model.keys()


def test_a_method_that_nothing_tells_is_refused_with_the_place(tmp_path):
    checkpoint, _ = run_of(tmp_path, METHOD, known=False)
    file = str(tmp_path / "p.safetensors")
    with pytest.raises(ConfigError, match=r"\(network/.*put a prompt file of its run into .*/prompts/"):
        convert_prompt(checkpoint, file)


@pytest.mark.parametrize("described", [Residual(5, hidden=4), Residual(4, hidden=3), Explosive(5)])
def test_parameters_of_another_method_than_the_files_are_refused(tmp_path, described):
    checkpoint, _ = run_of(tmp_path, METHOD, described=described)
    with pytest.raises(
        RunError, match=f"holds no {type(described).__name__} as in the prompt files beside it"
    ):
        convert_prompt(checkpoint, str(tmp_path / "p.safetensors"))


def test_a_file_of_a_method_that_is_none_is_refused(tmp_path):
    checkpoint, prompt_PD = run_of(tmp_path, METHOD)
    file = tmp_path / "prompts" / "11.safetensors"
    save_prompt(file, prompt_PD, PromptMetadata(method="Residual", settings={"width": 3}))
    with pytest.raises(RunError, match="the prompt's settings are none of Residual"):
        convert_prompt(checkpoint, str(tmp_path / "p.safetensors"))
    save_prompt(file, prompt_PD, PromptMetadata(method="Elsewhere"))
    with pytest.raises(
        ConfigError, match=r"11.safetensors: the prompt was folded from Elsewhere, none of .*own run"
    ):
        convert_prompt(checkpoint, str(tmp_path / "p.safetensors"))
    file.write_bytes(b"damaged")
    with pytest.raises(RunError, match="is not a whole prompt file"):
        convert_prompt(checkpoint, str(tmp_path / "p.safetensors"))


def test_of_a_runs_folder_the_checkpoints_are_named(tmp_path):
    run_of(tmp_path, METHOD)
    shutil.copytree(tmp_path / "checkpoint_12", tmp_path / "checkpoint_9")
    with pytest.raises(ConfigError, match="it has checkpoint_9, checkpoint_12, name one"):
        convert_prompt(str(tmp_path), str(tmp_path / "p.safetensors"))


def test_numbers_that_are_not_finite_and_a_model_that_is_not_whole_are_refused(tmp_path):
    arrays, _ = prompt_arrays(METHOD, "prompt/")
    run_of(tmp_path, METHOD)
    for name, changed, words in (
        (
            "checkpoint_13",
            EMBEDDING | arrays | {"prompt/prompt": np.full((5, D), np.nan, np.float32)},
            "not finite",
        ),
        ("checkpoint_14", arrays, "no whole T5X checkpoint"),
    ):
        write_checkpoint(tmp_path / name, {n: in_memory(np.asarray(x)) for n, x in changed.items()}, 13)
        with pytest.raises(RunError, match=words):
            convert_prompt(str(tmp_path / name), str(tmp_path / "p.safetensors"))
        shutil.rmtree(tmp_path / name)
