"""PEFT's multitask prompt tuning: one task's prompt in, a tuned product out, and what is refused."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jax_prompts.checkpoint import Checkpoints
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.main import main
from jax_prompts.prompts import MPT, PromptMetadata, fold, init_members, load_prompt, save_prompt
from jax_prompts.prompts.prompt_file import settings_of

pytestmark = pytest.mark.filterwarnings("ignore::jax_prompts.errors.SettingWarning")

T, P, R, D, STEP = 3, 5, 2, 32, 40
DRAW = np.random.default_rng(0)
SHARED_PD = DRAW.normal(size=(P, D)).astype(np.float32)
COLS_TPR = DRAW.normal(size=(T, P, R)).astype(np.float32)
ROWS_TRD = DRAW.normal(size=(T, R, D)).astype(np.float32)


def adapter(folder, *, stacks=1, **changed):
    """An adapter as PEFT writes it, with other tensors by name (None: without)."""
    folder.mkdir()
    config = {
        "peft_type": "MULTITASK_PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": P, "token_dim": D,
        "num_transformer_submodules": stacks, "num_ranks": R, "num_tasks": T, "base_model_name_or_path": "t5-base",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        "prompt_embeddings": np.concatenate([SHARED_PD] * stacks),
        "prefix_task_cols": np.concatenate([COLS_TPR] * stacks, axis=1),
        "prefix_task_rows": ROWS_TRD,
    } | changed
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items() if x is not None}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("task", range(T))
def test_a_task_is_folded(tmp_path, task):
    target = tmp_path / "p.safetensors"
    convert_prompt(str(adapter(tmp_path / "a")), str(target), task=task)
    prompt_PD, metadata = load_prompt(target)
    wanted_PD = SHARED_PD * sum(np.outer(COLS_TPR[task, :, r], ROWS_TRD[task, r]) for r in range(R))
    np.testing.assert_allclose(prompt_PD, wanted_PD, rtol=1e-4, atol=1e-6)
    assert (metadata.method, metadata.settings, metadata.base_model) == (
        "MPT",
        {"length": P, "rank": R},
        "t5-base",
    )


def test_the_only_task_needs_no_number(tmp_path):
    folder = adapter(tmp_path / "a", prefix_task_cols=COLS_TPR[:1], prefix_task_rows=ROWS_TRD[:1])
    convert_prompt(str(folder), str(tmp_path / "p.safetensors"))
    np.testing.assert_allclose(
        load_prompt(tmp_path / "p.safetensors")[0], SHARED_PD * (COLS_TPR[0] @ ROWS_TRD[0]), rtol=1e-5
    )


def test_rows_of_the_decoder_are_named_and_left_out_only_when_told_to(tmp_path):
    folder, target = adapter(tmp_path / "a", stacks=2), tmp_path / "p.safetensors"
    with pytest.raises(
        ConfigError, match=r"rows 5 to 9 \(which PEFT puts in front of the decoder's .*--prompt_only"
    ):
        convert_prompt(str(folder), str(target), task=1)
    found = convert_prompt(str(folder), str(target), task=1, prompt_only=True)
    np.testing.assert_allclose(load_prompt(target)[0], SHARED_PD * (COLS_TPR[1] @ ROWS_TRD[1]), rtol=1e-5)
    assert found["length"] == P and len(found["left_out"]) == 1


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (None, "has prompts of tasks 0, 1, 2: choose one with --task=NUMBER"),
        (3, "has prompts of tasks 0, 1, 2, and none for --task=3"),
        (-1, "and none for --task=-1"),
    ],
)
def test_tasks_are_listed_where_none_is_chosen(tmp_path, task, words):
    with pytest.raises(ConfigError) as caught:
        convert_prompt(str(adapter(tmp_path / "a")), str(tmp_path / "p.safetensors"), task=task)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_many_tasks_are_not_all_listed(tmp_path):
    cols, rows = np.ones((99, P, 1), np.float32), np.ones((99, 1, D), np.float32)
    folder = adapter(tmp_path / "a", prefix_task_cols=cols, prefix_task_rows=rows)
    with pytest.raises(ConfigError, match=r"tasks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 ... 98: choose"):
        convert_prompt(str(folder), str(tmp_path / "p.safetensors"))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prefix_task_cols": None}, "no tensor prefix_task_cols:"),
        (
            {"prefix_task_cols": None, "prefix_task_rows": None},
            "no tensor prefix_task_cols nor prefix_task_rows:",
        ),
        ({"prompt_embeddings": None}, "no tensor prompt_embeddings"),
        (
            {"prefix_task_cols": COLS_TPR[:, :, :1]},
            "[3, 5, 1] and prefix_task_rows [3, 2, 32], which do not belong",
        ),
        ({"prefix_task_cols": COLS_TPR[:2]}, "do not belong to a shared prompt [5, 32]"),
        ({"prefix_task_cols": COLS_TPR[0]}, "do not belong"),
        ({"prefix_task_rows": ROWS_TRD[:, :, :8]}, "do not belong"),
        ({"prefix_task_cols": COLS_TPR[:0], "prefix_task_rows": ROWS_TRD[:0]}, "do not belong"),
        ({"prefix_task_rows": ROWS_TRD * np.nan}, "not finite"),
    ],
)
def test_tensors_that_are_no_product_are_one_line(tmp_path, changed, words):
    with pytest.raises(RunError) as caught:
        convert_prompt(str(adapter(tmp_path / "a", **changed)), str(tmp_path / "p.safetensors"), task=0)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"), [("a", "which has one prompt"), ("p.npy", "is none: leave it out")]
)
def test_task_is_for_adapters_with_several(tmp_path, capsys, source, words):
    folder = adapter(tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text()) | {"peft_type": "PROMPT_TUNING"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    np.save(tmp_path / "p.npy", SHARED_PD)
    with pytest.raises(SystemExit) as stopped:
        main(["convert", str(tmp_path / source), str(tmp_path / "p.safetensors"), "--task=0"])
    assert stopped.value.code == 2 and words in capsys.readouterr().err


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """What a run of two members leaves, as far as an export reads it."""
    directory, method = tmp_path_factory.mktemp("run"), MPT(P, rank=R, factors="normal")
    params_E = init_members(method, jax.random.split(jax.random.key(1), 2), D)
    checkpoints = Checkpoints(directory / "checkpoints", keep=1)
    checkpoints.save(STEP, {"prompt": params_E}, (), (), {})
    checkpoints.close()
    metadata = PromptMetadata(method="MPT", settings=settings_of(method), step=STEP, task="rte")
    for member, prompt_PD in enumerate(fold(method, params_E, D)):
        save_prompt(directory / f"prompt-{member}.safetensors", np.asarray(prompt_PD), metadata)
    return directory


def test_unfolded_it_is_a_task_of_pefts_and_comes_back(model_dir, tmp_path):
    file = model_dir / "prompt-1.safetensors"
    result = export_prompt(str(file), str(tmp_path / "out"), to="peft", unfolded=True)
    assert (result["peft_type"], result["encoder"]) == ("MULTITASK_PROMPT_TUNING", None)
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {name: x.shape for name, x in tensors.items()} == {
        "prompt_embeddings": (P, D), "prefix_task_cols": (1, P, R), "prefix_task_rows": (1, R, D)
    }  # fmt: skip
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["num_tasks"], config["num_ranks"], config["num_transformer_submodules"]) == (1, R, 1)
    convert_prompt(str(tmp_path / "out"), str(tmp_path / "again.safetensors"))
    again_PD, metadata = load_prompt(tmp_path / "again.safetensors")
    prompt_PD, before = load_prompt(file)
    np.testing.assert_allclose(again_PD, prompt_PD, rtol=1e-4, atol=1e-9)
    assert metadata == before


def test_folded_it_is_prompt_tuning(model_dir, tmp_path):
    result = export_prompt(str(model_dir / "prompt-0.safetensors"), str(tmp_path / "out"), to="peft")
    assert result["peft_type"] == "PROMPT_TUNING"
    assert list(load_file(tmp_path / "out" / "adapter_model.safetensors")) == ["prompt_embeddings"]


def test_without_the_checkpoint_there_are_no_factors(model_dir, tmp_path):
    save_prompt(tmp_path / "p.safetensors", *load_prompt(model_dir / "prompt-0.safetensors"))
    with pytest.raises(
        ConfigError, match="no checkpoint of its step beside it, and the factors are nowhere else"
    ):
        export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "out"), to="peft", unfolded=True)
    assert not (tmp_path / "out").exists()
