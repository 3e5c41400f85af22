"""Prefix tuning adapters in and out, without PEFT: which slot is which layer's, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.interop.peft import read_adapter
from jax_prompts.models.sizes import SIZES
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt

pytestmark = pytest.mark.filterwarnings("ignore::jax_prompts.errors.SettingWarning")

P, WIDTH = 3, 6


def rows_of(slots):
    return np.random.default_rng(0).normal(size=(P, slots * 2 * WIDTH)).astype(np.float32)


def adapter(folder, slots, rows=None, **changes):
    config = {
        "base_model_name_or_path": "t5",
        "num_attention_heads": 2,
        "num_layers": slots,
        "num_transformer_submodules": 2,
        "num_virtual_tokens": P,
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "task_type": "SEQ_2_SEQ_LM",
        "token_dim": WIDTH,
    } | changes
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    rows = rows_of(slots) if rows is None else rows
    save_file({"prompt_embeddings": rows}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("slots", "read", "never"),
    [(1, [0], ""), (2, [0, 0], "slots 1 of 2"), (3, [0, 2, 1], ""), (4, [0, 2, 0, 2], "slots 1, 3 of 4")],
)
def test_layers_have_the_slots_that_peft_gives_them(tmp_path, slots, read, never):
    found = read_adapter(adapter(tmp_path / "a", slots))
    rows = rows_of(slots).reshape(P, slots, 2 * WIDTH)
    np.testing.assert_array_equal(found.prompt_PD.reshape(P, slots, -1), rows[:, read])
    assert never in "".join(found.unused) and bool(found.unused) == bool(never)
    assert (found.metadata.prompt_kind, found.metadata.method) == ("decoder_prefix", "PerLayer")


def test_out_and_in_again_is_exact_with_all_that_is_known(tmp_path):
    config = SIZES["t5_1_1_small"]
    prompt_PW = (
        np.random.default_rng(1).normal(size=(P, config.prompt_width("decoder_prefix"))).astype(np.float32)
    )
    metadata = PromptMetadata(
        method="PerLayer", settings={"length": P}, prompt_kind="decoder_prefix",
        base_model="t5_1_1_small google/t5-v1_1-small", task="rte",
    )  # fmt: skip
    first, again = tmp_path / "p.safetensors", tmp_path / "again.safetensors"
    save_prompt(first, prompt_PW, metadata)
    result = export_prompt(str(first), str(tmp_path / "out"), to="peft")
    assert (result["peft_type"], result["width"]) == ("PREFIX_TUNING", prompt_PW.shape[1])
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    wanted = {"num_layers": 16, "num_attention_heads": 6, "token_dim": 384, "num_transformer_submodules": 2}
    assert written | wanted == written
    slots = load_file(tmp_path / "out" / "adapter_model.safetensors")["prompt_embeddings"]
    assert slots.shape == (P, 16 * 2 * 384)
    convert_prompt(str(tmp_path / "out"), str(again))
    np.testing.assert_array_equal(load_prompt(again)[0], prompt_PW)
    assert load_prompt(again)[1] == metadata


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"task_type": "CAUSAL_LM"}, ConfigError, "CAUSAL_LM"),
        ({"task_type": "FEATURE_EXTRACTION"}, ConfigError, "FEATURE_EXTRACTION"),
        ({"num_transformer_submodules": 1}, ConfigError, "of one stack"),
        ({"num_layers": 3}, RunError, "at 3 layers, and the file holds [3, 24]"),
        ({"num_layers": None}, RunError, "num_layers None"),
        ({"num_layers": 10**12}, RunError, "[3, 24]"),
        ({"token_dim": 4}, RunError, "of width 4"),
        ({"num_virtual_tokens": 4}, RunError, "says 4 virtual tokens"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused(tmp_path, changes, kind, words):
    with pytest.raises(kind) as caught:
        read_adapter(adapter(tmp_path / "a", 2, **changes))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def save(path, kind, base_model, width=None):
    width = width or SIZES["micro"].prompt_width("decoder_prefix")
    metadata = PromptMetadata(prompt_kind=kind, base_model=base_model)
    save_prompt(path, np.ones((P, width), np.float32), metadata)
    return str(path)


@pytest.mark.parametrize("kind", ["prefix", "full_prefix", "decoder_deep", "full_deep"])
def test_other_kinds_are_told_which_one_peft_has(tmp_path, kind):
    file = save(tmp_path / "p.safetensors", kind, "micro asset:micro")
    with pytest.raises(ConfigError, match=f"{kind}.*decoder's self-attention alone.*decoder_prefix"):
        export_prompt(file, str(tmp_path / "out"), to="peft")


@pytest.mark.parametrize("to", ["npy", "t5x"])
def test_other_systems_have_no_place_for_it(tmp_path, to):
    file = save(tmp_path / "p.safetensors", "decoder_prefix", "micro asset:micro")
    with pytest.raises(ConfigError, match="input alone"):
        export_prompt(file, str(tmp_path / "out"), to=to)


@pytest.mark.parametrize("base_model", ["", "google/t5-base-lm-adapt", "bert_tiny somewhere"])
def test_layers_and_heads_have_to_be_known(tmp_path, base_model):
    file = save(tmp_path / "p.safetensors", "decoder_prefix", base_model)
    with pytest.raises(ConfigError, match="--base_model=FOLDER"):
        export_prompt(file, str(tmp_path / "out"), to="peft")


def test_a_prompt_of_another_model_is_refused(tmp_path):
    file = save(tmp_path / "p.safetensors", "decoder_prefix", "micro asset:micro", width=10)
    with pytest.raises(ConfigError, match="has width 10"):
        export_prompt(file, str(tmp_path / "out"), to="peft")
    assert not (tmp_path / "out").exists()
