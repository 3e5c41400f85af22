"""P-Tuning unfolded: PEFT's names and layouts of the encoder, found in the checkpoints of the run that tuned it."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jax_prompts.checkpoint import Checkpoints
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.interop.exchange import export_prompt
from jax_prompts.interop.peft_encoder import torch_names
from jax_prompts.prompts import (
    PromptMetadata,
    PTuningLSTM,
    PTuningMLP,
    fold,
    init_members,
    load_prompt,
    save_prompt,
)
from jax_prompts.prompts.prompt_file import settings_of

pytestmark = pytest.mark.filterwarnings("ignore::jax_prompts.errors.SettingWarning")

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "peft_prompt_encoder" / "golden.safetensors"
P, D, STEP = 6, 32, 40


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("mlp", PTuningMLP(P, hidden=24)),
        ("lstm2", PTuningLSTM(P, hidden=16)),
        ("lstm1", PTuningLSTM(P, hidden=12, layers=1)),
    ],
)
def test_names_and_shapes_are_pefts(name, method):
    golden = {
        n.removeprefix(f"{name}.w."): x for n, x in load_file(GOLDEN).items() if n.startswith(f"{name}.w.")
    }
    params_E = init_members(method, jax.random.split(jax.random.key(0), 1), D)
    named = torch_names(jax.tree.map(lambda x: x[0], params_E))
    assert {n: x.shape for n, x in named.items()} == {n: x.shape for n, x in golden.items()}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """What a run of two members leaves, as far as an export reads it."""
    directory = tmp_path_factory.mktemp("run")
    method = PTuningMLP(P, hidden=D)
    params_E = init_members(method, jax.random.split(jax.random.key(1), 2), D)
    checkpoints = Checkpoints(directory / "checkpoints", keep=1)
    checkpoints.save(STEP, {"prompt": params_E}, (), (), {})
    checkpoints.close()
    metadata = PromptMetadata(method="PTuningMLP", settings=settings_of(method), step=STEP)
    for member, prompt_PD in enumerate(fold(method, params_E, D)):
        save_prompt(directory / f"prompt-{member}.safetensors", np.asarray(prompt_PD), metadata)
    return directory


def test_a_members_encoder_goes_with_its_prompt(model_dir, tmp_path):
    file = model_dir / "prompt-1.safetensors"
    result = export_prompt(str(file), str(tmp_path / "out"), to="peft", unfolded=True)
    assert (result["peft_type"], result["encoder"]) == ("P_TUNING", "prompt_encoder.safetensors")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["encoder_reparameterization_type"], config["encoder_hidden_size"]) == ("MLP", D)
    encoder = load_file(tmp_path / "out" / "prompt_encoder.safetensors")
    x_PD = encoder["embedding.weight"]
    for number in (0, 2, 4):  # as torch.nn.Linear computes
        x_PD = np.maximum(x_PD, 0) if number else x_PD
        x_PD = x_PD @ encoder[f"mlp_head.{number}.weight"].T + encoder[f"mlp_head.{number}.bias"][None]
    np.testing.assert_allclose(x_PD, load_prompt(file)[0], atol=1e-5)
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")["prompt_embeddings"]
    np.testing.assert_array_equal(stored, load_prompt(file)[0])


def test_without_the_checkpoint_there_is_no_encoder(model_dir, tmp_path):
    shutil.copy(model_dir / "prompt-0.safetensors", tmp_path / "p.safetensors")
    with pytest.warns(UserWarning, match=r"no prompt_encoder\.safetensors"):
        result = export_prompt(
            str(tmp_path / "p.safetensors"), str(tmp_path / "out"), to="peft", unfolded=True
        )
    assert result["encoder"] is None and result["peft_type"] == "P_TUNING"
    assert not (tmp_path / "out" / "prompt_encoder.safetensors").exists()


def test_another_runs_checkpoint_is_not_taken(model_dir, tmp_path):
    prompt_PD, metadata = load_prompt(model_dir / "prompt-0.safetensors")
    shutil.copytree(model_dir / "checkpoints", tmp_path / "checkpoints")
    save_prompt(tmp_path / "p.safetensors", prompt_PD * 1.01, metadata)
    with pytest.raises(RunError, match="no member that gives"):
        export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "out"), to="peft", unfolded=True)

    other = PromptMetadata(method="PTuningLSTM", settings={"length": P}, step=STEP)
    save_prompt(tmp_path / "p.safetensors", prompt_PD, other)
    with pytest.raises(RunError, match="no member that gives"):
        export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "out"), to="peft", unfolded=True)


def test_only_p_tuning_has_an_encoder(tmp_path):
    file = tmp_path / "p.safetensors"
    for method in ("", "Residual"):
        save_prompt(file, np.ones((P, D), np.float32), PromptMetadata(method=method))
        with pytest.raises(ConfigError, match="--unfolded is for prompts of PTuningMLP, PTuningLSTM and MPT"):
            export_prompt(str(file), str(tmp_path / "out"), to="peft", unfolded=True)
    save_prompt(file, np.ones((P, D), np.float32), PromptMetadata(method="PTuningMLP", settings={"size": 3}))
    with pytest.raises(RunError, match="settings"):
        export_prompt(str(file), str(tmp_path / "out"), to="peft", unfolded=True)
    save_prompt(
        file, np.ones((P, D), np.float32), PromptMetadata(method="PTuningMLP", settings={"length": P})
    )
    with pytest.raises(ConfigError, match="--to=npy"):
        export_prompt(str(file), str(tmp_path / "out.npy"), to="npy", unfolded=True)
