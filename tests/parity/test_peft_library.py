"""Prompts beside PEFT, live: what it saves is read here, what is written here it loads, with the same answers."""

import copy

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("peft", reason="pip install -e '.[parity]'")

import peft
import torch
from pairs import base_of, for_transformers, mean_loss, texts_and_targets
from safetensors.torch import load_file

from jax_prompts.checkpoint import Checkpoints
from jax_prompts.errors import ConfigError
from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.prompts import (
    Explosive,
    PromptMetadata,
    PTuningLSTM,
    PTuningMLP,
    Residual,
    fold,
    init_members,
    load_prompt,
    save_prompt,
)
from jax_prompts.prompts.prompt_file import settings_of

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

P = 5


def compare(adapted, pair, prompt_PD):
    """Logits to 1e-4, loss to 1e-5, greedy answers equal; and the prompt matters."""
    ids_BS, decoder_BU, labels_BU = texts_and_targets(pair.theirs.config.vocab_size, seed=3)
    how = {"do_sample": False, "num_beams": 1, "max_new_tokens": 10}
    with torch.no_grad():
        theirs = adapted(**for_transformers(ids_BS, decoder_BU, labels_BU))
        theirs_BU = adapted.generate(**for_transformers(ids_BS), **how).numpy()[:, 1:]
    logits_BUV = pair.logits(ids_BS, decoder_BU, prompt_PD)
    np.testing.assert_allclose(logits_BUV, theirs.logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(mean_loss(logits_BUV, labels_BU), theirs.loss.item(), rtol=1e-5)
    ours_BU = pair.greedy(ids_BS, 10, prompt_PD)
    np.testing.assert_array_equal(ours_BU[:, : theirs_BU.shape[1]], theirs_BU)
    assert np.abs(logits_BUV - pair.logits(ids_BS, decoder_BU)).max() > 0.1


METHODS = (Residual(P, hidden=6), Explosive(P), PTuningMLP(P), PTuningLSTM(P, hidden=9))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_folded_prompt_is_a_prompt_tuning_adapter(pair, tmp_path, method):
    width = pair.theirs.config.d_model
    params_E = init_members(method, jax.random.split(jax.random.key(2), 1), width)
    prompt_PD = 3 * np.asarray(fold(method, params_E, width)[0])
    prompt_PD += np.random.default_rng(1).normal(size=prompt_PD.shape).astype(np.float32)
    save_prompt(tmp_path / "p.safetensors", prompt_PD, PromptMetadata(method=type(method).__name__))
    export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "out"), to="peft", base_model=pair.folder)
    adapted = peft.AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    config = adapted.peft_config["default"]
    assert (config.peft_type, config.num_virtual_tokens, config.num_transformer_submodules) == (
        "PROMPT_TUNING",
        P,
        1,
    )
    compare(adapted, pair, prompt_PD)
    adapted.save_pretrained(tmp_path / "again")
    convert_prompt(str(tmp_path / "again"), str(tmp_path / "again.safetensors"))
    np.testing.assert_array_equal(load_prompt(tmp_path / "again.safetensors")[0], prompt_PD)


UNFOLDED = (PTuningMLP(P), PTuningMLP(P, hidden=9), PTuningLSTM(P, hidden=9), PTuningLSTM(P, layers=1))


@pytest.mark.parametrize("method", UNFOLDED, ids=str)
def test_p_tuning_unfolded_goes_on_in_peft(pair, tmp_path, method):
    width = pair.theirs.config.d_model
    params_E = init_members(method, jax.random.split(jax.random.key(2), 2), width)
    prompt_PD = np.asarray(fold(method, params_E, width)[1])
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.save(7, {"prompt": params_E}, (), (), {})
    checkpoints.close()
    metadata = PromptMetadata(method=type(method).__name__, settings=settings_of(method), step=7)
    save_prompt(tmp_path / "prompt-1.safetensors", prompt_PD, metadata)
    export_prompt(str(tmp_path / "prompt-1.safetensors"), str(tmp_path / "out"), to="peft", unfolded=True)

    adapted = peft.PeftModel.from_pretrained(base_of(pair), tmp_path / "out").eval()
    assert adapted.peft_config["default"].peft_type == "P_TUNING"
    ids_BS, decoder_BU, _ = texts_and_targets(pair.theirs.config.vocab_size)
    inputs = for_transformers(ids_BS, decoder_BU)
    wanted_BUV = pair.logits(ids_BS, decoder_BU, prompt_PD)
    with torch.no_grad():
        np.testing.assert_allclose(adapted(**inputs).logits.numpy(), wanted_BUV, atol=1e-4)

    config = peft.PeftConfig.from_pretrained(tmp_path / "out")
    config.inference_mode = False
    trainable = peft.get_peft_model(base_of(pair), config).eval()
    encoder = trainable.prompt_encoder["default"]
    encoder.load_state_dict(load_file(tmp_path / "out" / "prompt_encoder.safetensors"))
    with torch.no_grad():
        np.testing.assert_allclose(trainable(**inputs).logits.numpy(), wanted_BUV, atol=1e-4)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


CONFIGS = {
    "prompt tuning, 2P rows": peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P),
    "prompt tuning": peft.PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P, num_transformer_submodules=1
    ),
    "p-tuning": peft.PromptEncoderConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P, encoder_hidden_size=9),
    "p-tuning lstm": peft.PromptEncoderConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P, encoder_hidden_size=9,
        encoder_reparameterization_type="LSTM",
    ),
}  # fmt: skip


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_peft_saves_is_read(pair, tmp_path, config, safe):
    torch.manual_seed(5)
    config = copy.deepcopy(config)  # PEFT fills it in
    adapted = peft.get_peft_model(base_of(pair), config).eval()
    adapted.save_pretrained(tmp_path / "a")
    if not safe:  # as PEFT 0.x did
        tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
        torch.save(tensors, tmp_path / "a" / "adapter_model.bin")
        (tmp_path / "a" / "adapter_model.safetensors").unlink()
    found = convert_prompt(str(tmp_path / "a"), str(tmp_path / "p.safetensors"))
    assert bool(found["unused"]) == (config.num_transformer_submodules == 2)
    compare(adapted, pair, load_prompt(tmp_path / "p.safetensors")[0])


def test_another_kind_is_named(pair, tmp_path):
    config = peft.LoHaConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q"])
    adapted = peft.get_peft_model(base_of(pair), config)
    adapted.save_pretrained(tmp_path / "a")
    with pytest.raises(ConfigError, match="LOHA adapter"):
        convert_prompt(str(tmp_path / "a"), str(tmp_path / "p.safetensors"))
