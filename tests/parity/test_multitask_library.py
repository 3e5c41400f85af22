"""Multitask prompts beside PEFT, live: a task's folded prompt, and what is written for PEFT, give PEFT's answers."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("peft", reason="pip install -e '.[parity]'")

import peft
import torch
from pairs import for_transformers, mean_loss, texts_and_targets

from jax_prompts.checkpoint import Checkpoints
from jax_prompts.errors import ConfigError
from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.prompts import MPT, PromptMetadata, fold, init_members, load_prompt, save_prompt
from jax_prompts.prompts.prompt_file import settings_of

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

P, R, TASKS = 5, 2, 3


def adapted(pair, **settings):
    """A model with PEFT's multitask prompts, whose products are no longer near zero."""
    torch.manual_seed(5)
    config = peft.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P, num_ranks=R, num_tasks=TASKS, **settings
    )
    model = peft.get_peft_model(type(pair.theirs).from_pretrained(pair.folder), config).eval()
    with torch.no_grad():
        for factor in ("prefix_task_cols", "prefix_task_rows"):
            getattr(model.prompt_encoder["default"], factor).normal_()
    return model


def compare(model, pair, prompt_PD, task):
    """Logits to 1e-4, loss to 1e-5, greedy answers equal; and the prompt matters."""
    ids_BS, decoder_BU, labels_BU = texts_and_targets(pair.theirs.config.vocab_size, seed=3)
    with torch.no_grad():
        task_ids = torch.full((len(ids_BS),), task)
        theirs = model(**for_transformers(ids_BS, None, labels_BU), task_ids=task_ids)
    logits_BUV = pair.logits(ids_BS, decoder_BU, prompt_PD)
    np.testing.assert_allclose(logits_BUV, theirs.logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(mean_loss(logits_BUV, labels_BU), theirs.loss.item(), rtol=1e-5)
    assert np.abs(logits_BUV - pair.logits(ids_BS, decoder_BU)).max() > 0.1
    compare_answers(model, pair, prompt_PD, task)


def compare_answers(model, pair, prompt_PD, task):
    ids_BS, _, _ = texts_and_targets(pair.theirs.config.vocab_size, seed=3)
    task_ids = torch.full((len(ids_BS),), task)
    with torch.no_grad():
        how = {"do_sample": False, "num_beams": 1, "max_new_tokens": 10, "task_ids": task_ids}
        theirs_BU = model.generate(**for_transformers(ids_BS), **how).numpy()[:, 1:]
    ours_BU = pair.greedy(ids_BS, 10, prompt_PD)
    np.testing.assert_array_equal(ours_BU[:, : theirs_BU.shape[1]], theirs_BU)


@pytest.mark.parametrize("task", range(TASKS))
def test_each_task_that_peft_saves_is_read(pair, tmp_path, task):
    model = adapted(pair, num_transformer_submodules=1)
    model.save_pretrained(tmp_path / "a")
    convert_prompt(str(tmp_path / "a"), str(tmp_path / "p.safetensors"), task=task)
    prompt_PD, metadata = load_prompt(tmp_path / "p.safetensors")
    assert (metadata.method, metadata.settings) == ("MPT", {"length": P, "rank": R})
    compare(model, pair, prompt_PD, task)


def test_of_pefts_2p_rows_generate_reads_the_first(pair, tmp_path):
    """PEFT's default: the others stand in front of the decoder's inputs, and its generation leaves them out."""
    model = adapted(pair)
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"rows 5 to 9 .*in front of the decoder"):
        convert_prompt(str(tmp_path / "a"), str(tmp_path / "p.safetensors"), task=1)
    convert_prompt(str(tmp_path / "a"), str(tmp_path / "p.safetensors"), task=1, prompt_only=True)
    compare_answers(model, pair, load_prompt(tmp_path / "p.safetensors")[0], 1)
    ids_BS, _, labels_BU = texts_and_targets(pair.theirs.config.vocab_size, seed=3)
    with torch.no_grad():
        trained = model(**for_transformers(ids_BS, None, labels_BU), task_ids=torch.ones(len(ids_BS)).long())
    assert trained.logits.shape[1] == P + labels_BU.shape[1]


def test_what_is_written_goes_on_in_peft(pair, tmp_path):
    width, method = pair.theirs.config.d_model, MPT(P, rank=R)
    params_E = init_members(method, jax.random.split(jax.random.key(2), 2), width)
    draw = np.random.default_rng(1)
    params_E = jax.tree.map(lambda x: np.float32(draw.normal(size=x.shape)), params_E)
    prompt_PD = np.asarray(fold(method, jax.tree.map(jax.numpy.asarray, params_E), width)[1])
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.save(7, {"prompt": params_E}, (), (), {})
    checkpoints.close()
    metadata = PromptMetadata(method="MPT", settings=settings_of(method), step=7)
    save_prompt(tmp_path / "p.safetensors", prompt_PD, metadata)
    export_prompt(
        str(tmp_path / "p.safetensors"),
        str(tmp_path / "out"),
        to="peft",
        base_model=pair.folder,
        unfolded=True,
    )

    model = peft.AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    assert model.peft_config["default"].peft_type == "MULTITASK_PROMPT_TUNING"
    compare(model, pair, prompt_PD, 0)
    config = peft.PeftConfig.from_pretrained(tmp_path / "out")
    config.inference_mode, config.prompt_tuning_init = False, "EXACT_SOURCE_TASK"
    config.prompt_tuning_init_state_dict_path = str(tmp_path / "out" / "adapter_model.safetensors")
    model = peft.get_peft_model(type(pair.theirs).from_pretrained(pair.folder), config).eval()
    compare(model, pair, prompt_PD, 0)
    assert all(parameter.requires_grad for parameter in model.prompt_encoder["default"].parameters())
    model.save_pretrained(tmp_path / "again")
    convert_prompt(str(tmp_path / "again"), str(tmp_path / "again.safetensors"))
    np.testing.assert_allclose(
        load_prompt(tmp_path / "again.safetensors")[0], prompt_PD, rtol=1e-4, atol=1e-6
    )
