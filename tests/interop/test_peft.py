"""PEFT adapters in and out, against folders that PEFT wrote, and what is refused of them."""

import json
import pathlib
import pickle
import shutil
import zipfile

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jax_prompts.base_models.open import open_model
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.interop import peft
from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.models.t5 import T5
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt
from jax_prompts.prompts.prompt_file import load_file as load_prompt_file

pytestmark = pytest.mark.filterwarnings("ignore::jax_prompts.errors.SettingWarning")

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
BASE = GOLDENS / "t5_v1_1_hf"
MODEL = T5(open_model(str(BASE)).config)
P, D = 5, 32
ADAPTERS = ("prompt_tuning", "prompt_tuning_1sub", "p_tuning_mlp", "p_tuning_lstm_1sub")


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDENS / "peft_prompt_encoder" / "golden.safetensors")


@pytest.fixture(scope="module")
def logits(golden):
    """`logits(prompt_PD)` of the golden adapters' model and batch."""
    flat = {name: jnp.asarray(array[...]) for name, array in open_model(str(BASE)).arrays.items()}
    tree = flax.traverse_util.unflatten_dict(flat, sep="/")
    ids_BS, virtual_BP = golden["adapter.input_ids"], np.arange(96, 96 + P, dtype=np.int32)
    tokens_BL = jnp.concatenate([np.tile(virtual_BP, (len(ids_BS), 1)), ids_BS], axis=1)
    decoder_BU = jnp.asarray(golden["adapter.decoder_input_ids"])
    apply = jax.jit(lambda p: MODEL.apply({"params": tree}, tokens_BL, decoder_BU, p))
    return lambda prompt_PD: np.asarray(apply(prompt_PD))


def config_of(**changes):
    config = {
        "base_model_name_or_path": "t5",
        "num_transformer_submodules": 1,
        "num_virtual_tokens": P,
        "peft_type": "PROMPT_TUNING",
        "task_type": "SEQ_2_SEQ_LM",
        "token_dim": D,
    } | changes
    return {name: value for name, value in config.items() if value != "absent"}


PROMPT_PD = np.random.default_rng(0).normal(size=(P, D)).astype(np.float32)


def adapter(folder, tensors=None, **changes):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config_of(**changes)))
    save_file(
        {"prompt_embeddings": PROMPT_PD} if tensors is None else tensors, folder / "adapter_model.safetensors"
    )
    return folder


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_peft_wrote_is_read_and_gives_its_logits(shared, tmp_path, golden, logits, name):
    target = tmp_path / "p.safetensors"
    found = convert_prompt(str(shared / "goldens" / "peft_prompt_encoder" / f"adapter_{name}"), str(target))
    prompt_PD, metadata = load_prompt(target)
    np.testing.assert_array_equal(prompt_PD, golden[f"adapter.{name}.prompt_used"])
    assert found["unused"] == (
        () if "1sub" in name else ("rows 5 to 9, which PEFT stores and no model reads",)
    )
    assert metadata.method == {"p_tuning_mlp": "PTuningMLP", "p_tuning_lstm_1sub": "PTuningLSTM"}.get(
        name, "PromptTuning"
    )
    assert metadata.base_model == "../../t5_v1_1_hf"
    np.testing.assert_allclose(logits(prompt_PD), golden[f"adapter.{name}.logits"], atol=1e-4)


@pytest.mark.parametrize(("name", "unfolded"), [("prompt_tuning_1sub", False), ("p_tuning_lstm_1sub", True)])
def test_what_is_written_is_what_peft_wrote(shared, tmp_path, name, unfolded):
    theirs = shared / "goldens" / "peft_prompt_encoder" / f"adapter_{name}"
    convert_prompt(str(theirs), str(tmp_path / "p.safetensors"))
    export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "out"), to="peft", unfolded=unfolded)
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (theirs, tmp_path / "out")]
    assert [list(arrays) for arrays in weights] == [["prompt_embeddings"]] * 2
    np.testing.assert_array_equal(*(arrays["prompt_embeddings"] for arrays in weights))
    wanted, written = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (theirs, tmp_path / "out")
    )
    asked_of_the_model = {"num_attention_heads": None, "num_layers": None}
    assert written | {"peft_version": wanted["peft_version"]} == wanted | asked_of_the_model


def test_out_and_in_again_is_exact_with_all_that_is_known(tmp_path):
    metadata = PromptMetadata(
        method="Residual", settings={"length": P, "hidden": 7}, base_model="t5_1_1_small google/t5-v1_1-small",
        model_fingerprint="aaaa", task="super_glue_rte", labels=("a", "b"), score=81.5, step=300, extra={"note": "x"},
    )  # fmt: skip
    first, again = tmp_path / "p.safetensors", tmp_path / "again.safetensors"
    save_prompt(first, PROMPT_PD, metadata)
    result = export_prompt(str(first), str(tmp_path / "out"), to="peft")
    assert result["base_model"] == "google/t5-v1_1-small" and result["peft_type"] == "PROMPT_TUNING"
    convert_prompt(str(tmp_path / "out"), str(again))
    np.testing.assert_array_equal(load_prompt(again)[0], PROMPT_PD)
    assert load_prompt(again)[1] == metadata


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_is_read_as_it_is(tmp_path, dtype):
    half_PD = PROMPT_PD.astype(dtype)
    folder = adapter(tmp_path / "a")
    if dtype == np.float16:
        save_file({"prompt_embeddings": half_PD}, folder / "adapter_model.safetensors")
    else:
        import safetensors.flax

        safetensors.flax.save_file(
            {"prompt_embeddings": jnp.asarray(half_PD)}, folder / "adapter_model.safetensors"
        )
    np.testing.assert_array_equal(peft.read_adapter(folder).prompt_PD, half_PD.astype(np.float32))


def dept(shared, name):
    return str(shared / "data" / "pretrained_prompts" / "dept_t5_base" / name)


def test_depts_adapters_are_read_whole_and_written_back_exactly(shared, tmp_path):
    first, again = tmp_path / "p.safetensors", tmp_path / "again.safetensors"
    found = convert_prompt(dept(shared, "cola"), str(first))
    assert found["leaves"] == 2
    with zipfile.ZipFile(pathlib.Path(dept(shared, "cola")) / "adapter_model.bin") as archive:
        prompt_PD, a_TR, b_RD = (
            np.frombuffer(archive.read(f"adapter_model/data/{number}"), np.float32).reshape(shape)
            for number, shape in enumerate([(80, 768), (256, 15), (15, 768)])
        )
    _, leaves, metadata = load_prompt_file(first)
    np.testing.assert_array_equal(load_prompt(first)[0], prompt_PD)
    np.testing.assert_array_equal(leaves["input_offset/a"], a_TR)
    np.testing.assert_allclose(leaves["input_offset/b"], b_RD * 8 / np.sqrt(15), rtol=1e-6)
    assert metadata.method == "PromptTuning + DePT" and metadata.base_model == "t5-base"
    assert metadata.settings == {"length": 80, "DePT": {"rank": 15, "alpha": 8.0, "max_length": 256}}
    assert export_prompt(str(first), str(tmp_path / "out"), to="peft")["peft_type"] == "PROMPT_TUNING_LORA"
    convert_prompt(str(tmp_path / "out"), str(again))
    assert first.read_bytes() == again.read_bytes()
    for to in ("npy", "t5x"):
        with pytest.raises(ConfigError, match="holds leaves that were tuned inside"):
            export_prompt(str(first), str(tmp_path / to), to=to)


def test_depts_offset_is_left_out_when_told_to(shared, tmp_path):
    target = tmp_path / "p.safetensors"
    with pytest.warns(UserWarning, match=r"left out input_offset/a \[256, 15\]"):
        convert_prompt(dept(shared, "cola"), str(target), prompt_only=True)
    _, leaves, metadata = load_prompt_file(target)
    assert leaves == {} and len(load_prompt(target)[0]) == 80
    assert len(json.loads(metadata.extra["left_out"])) == 2
    assert (metadata.method, metadata.settings) == ("PromptTuning", {"length": 80})


def test_depts_offset_is_missed_where_the_file_has_none(shared, tmp_path):
    with pytest.raises(ConfigError, match="of rank 24, which the file does not hold; --prompt_only"):
        convert_prompt(dept(shared, "nq"), str(tmp_path / "p.safetensors"))


PAIR = {"prompt_encoder.lora_embedding_A": np.ones((7, 2), np.float32),
        "prompt_encoder.lora_embedding_B": np.ones((2, D), np.float32)}  # fmt: skip
DEPT = {"peft_type": "PROMPT_TUNING_LORA", "max_length": 7, "r": 2, "lora_alpha": 3}


@pytest.mark.parametrize(
    ("tensors", "changes", "words"),
    [
        ({"prompt_encoder.lora_embedding_B": None}, {}, "lora_embedding_A without the other of the pair"),
        ({}, {"max_length": 8}, "A [7, 2] and B [2, 32], and its settings say max_length 8, r 2"),
        ({}, {"r": "absent"}, "r None"),
        ({}, {"r": [2]}, "r [2]"),
        ({}, {"lora_alpha": "8"}, "lora_alpha '8', which is no number"),
        ({}, {"lora_alpha": float("nan")}, "cannot be read: NaN"),
        ({"prompt_encoder.lora_embedding_B": np.ones((3, D), np.float32)}, {}, "B [3, 32]"),
        ({"prompt_encoder.lora_embedding_A": np.full((7, 2), np.inf, np.float32)}, {}, "not finite"),
    ],
)
def test_a_dept_adapter_whose_files_contradict_each_other_is_refused(tmp_path, tensors, changes, words):
    tensors = {"prompt_embeddings": PROMPT_PD} | PAIR | tensors
    tensors = {name: array for name, array in tensors.items() if array is not None}
    with pytest.raises(RunError) as caught:
        peft.read_adapter(adapter(tmp_path / "a", tensors, **(DEPT | changes)))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"peft_type": "LOHA"}, ConfigError, "LOHA adapter (it changes weights of the model)"),
        ({"peft_type": "absent"}, ConfigError, "None adapter"),
        ({"peft_type": ["LORA"]}, ConfigError, "LORA"),
        ({"task_type": "CAUSAL_LM"}, ConfigError, "CAUSAL_LM"),
        ({"num_virtual_tokens": 4}, RunError, "says 4 virtual tokens of width 32 for 1 stacks"),
        ({"num_virtual_tokens": 10**12, "num_transformer_submodules": "absent"}, RunError, "[5, 32]"),
        ({"num_virtual_tokens": 0}, RunError, "num_virtual_tokens 0"),
        ({"num_virtual_tokens": "5"}, RunError, "num_virtual_tokens '5'"),
        ({"token_dim": 16}, RunError, "of width 16"),
        ({"num_transformer_submodules": 2}, RunError, "for 2 stacks"),
        ({"num_transformer_submodules": 1.0, "token_dim": True}, RunError, "token_dim True"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused_by_name(tmp_path, changes, kind, words):
    with pytest.raises(kind) as caught:
        peft.read_adapter(adapter(tmp_path / "a", **changes))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"prompt": PROMPT_PD}, "no tensor prompt_embeddings (it has prompt)"),
        ({"prompt_embeddings": PROMPT_PD[0]}, "not a prompt [P, D]"),
        ({"prompt_embeddings": PROMPT_PD.astype(np.int32)}, "int32"),
        ({"prompt_embeddings": PROMPT_PD * np.inf}, "not finite"),
    ],
)
def test_tensors_that_are_no_prompt_are_refused(tmp_path, tensors, words):
    with pytest.raises(RunError) as caught:
        peft.read_adapter(adapter(tmp_path / "a", tensors))
    assert words in str(caught.value)


def test_other_tuned_tensors_are_named(tmp_path):
    folder = adapter(tmp_path / "a", {"prompt_embeddings": PROMPT_PD, "classifier.weight": PROMPT_PD})
    with pytest.raises(ConfigError, match=r"classifier.weight \[5, 32\] \(tuned beside the prompt\)"):
        convert_prompt(str(folder), str(tmp_path / "p.safetensors"))


@pytest.mark.parametrize(
    "content", [b"", b"{nonsense", b"[1, 2]", b"[" * 100_000, b"\xff\xfe", b" " * (2**20 + 1)]
)
def test_settings_that_are_none_are_one_line(tmp_path, content):
    folder = adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(RunError) as caught:
        peft.read_adapter(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 7, 40, 200])
def test_a_truncated_file_is_one_line(tmp_path, size):
    file = adapter(tmp_path / "a") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(RunError, match="cannot be read as safetensors"):
        peft.read_adapter(file.parent)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "ran",))

    folder = adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    with zipfile.ZipFile(folder / "adapter_model.bin", "w") as archive:
        archive.writestr("adapter_model/data.pkl", pickle.dumps({"prompt_embeddings": Code()}, protocol=2))
    with pytest.raises(RunError, match=r"adapter_model\.bin"):
        peft.read_adapter(folder)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_none_are_refused(tmp_path):
    folder = adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"adapter_model\.bin cannot be read"):
        peft.read_adapter(folder)
    (folder / "adapter_model.safetensors").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="not an ordinary file"):
        peft.read_adapter(folder)


def test_what_cannot_be_a_prompt_of_peft_is_refused(tmp_path):
    files = {}
    for name, metadata, head in (
        ("keys", PromptMetadata(prompt_kind="prefix"), None),
        ("deep", PromptMetadata(prompt_kind="deep"), None),
        ("bert", PromptMetadata(labels=("a", "b")), {"classifier/kernel": PROMPT_PD}),
    ):
        files[name] = str(tmp_path / f"{name}.safetensors")
        save_prompt(files[name], PROMPT_PD, metadata, head)
    for name, words in (("keys", "self-attention"), ("deep", "'deep'"), ("bert", r"\[CLS\]")):
        with pytest.raises(ConfigError, match=words):
            export_prompt(files[name], str(tmp_path / "out"), to="peft")
    assert not (tmp_path / "out").exists()


def test_nothing_half_written_or_replaced(tmp_path, monkeypatch):
    save_prompt(tmp_path / "p.safetensors", PROMPT_PD, PromptMetadata())
    shutil.copy(tmp_path / "p.safetensors", tmp_path / "kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="full exists"):
        export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "full"), to="peft")

    def no_space(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", no_space)
    with pytest.raises(RunError, match="No space left"):
        export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "out"), to="peft")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "kept", "p.safetensors"]
