"""PEFT's LORA and IA3 and AdapterHub's bottlenecks in and out, against numbers made by hand, and what is refused."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jax_prompts.base_models import hf_t5
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt
from jax_prompts.prompts.prompt_file import load_file as load_prompt_file

I, O, R = 6, 4, 2
DRAW = np.random.default_rng(0)
A_RI, B_OR, B_O = (DRAW.normal(size=shape).astype(np.float32) for shape in ((R, I), (O, R), (O,)))
Q, WO = "encoder.block.3.layer.0.SelfAttention.q", "decoder.block.0.layer.2.DenseReluDense.wo"
NONE = np.zeros((0, 0), np.float32)
LORA = {"peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM", "r": R, "lora_alpha": 3}
IA3 = {"peft_type": "IA3", "task_type": "SEQ_2_SEQ_LM"}


def pair(*modules, start="base_model.model."):
    return {
        f"{start}{module}.lora_{name}.weight": x
        for module in modules
        for name, x in (("A", A_RI), ("B", B_OR))
    }


def adapter(folder, config, tensors):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return str(folder)


def read(tmp_path, config, tensors):
    source = adapter(tmp_path / "a", config, tensors)
    found = convert_prompt(source, str(tmp_path / "a.safetensors"))
    return found, *load_prompt_file(tmp_path / "a.safetensors")[1:]


def test_every_projection_has_one_name_here_and_there():
    known = [
        f"{stack}.block.2.layer.{part}.{module}.{name}"
        for stack, part, module, names in (
            ("encoder", 0, "SelfAttention", "q k v o"),
            ("encoder", 1, "DenseReluDense", "wi wi_0 wi_1 wo"),
            ("decoder", 0, "SelfAttention", "q k v o"),
            ("decoder", 1, "EncDecAttention", "q k v o"),
            ("decoder", 2, "DenseReluDense", "wi wi_0 wi_1 wo"),
        )
        for name in names.split()
    ] + ["lm_head"]
    ours = [hf_t5.projection(name) for name in known]
    assert None not in ours and len(set(ours)) == len(known)
    assert [hf_t5.projection_there(path) for path in ours] == known
    assert hf_t5.projection("encoder.block.2.layer.0.layer_norm") is None
    for path in ("encoder/layers_0/mlp/query", "encoder/layers_0/attention/scale", "token_embedder", "x"):
        assert hf_t5.projection_there(path) is None or hf_t5.projection(hf_t5.projection_there(path)) == path
    assert hf_t5.sublayer("decoder.block.7.layer.1") == "decoder/layers_7/encoder_decoder_attention"
    assert hf_t5.sublayer("encoder.block.7.layer.2") is None


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 3 / 2),
        ({"use_rslora": True}, 3 / 2**0.5),
        ({"alpha_pattern": {"q": 5}}, 5 / 2),
        ({"alpha_pattern": {"v": 9, r"SelfAttention\.q": 8, "q": 5}}, 8 / 2),
        ({"alpha_pattern": {"^q": 7}}, 3 / 2),
        ({"rank_pattern": {"q": 2}, "r": 8}, 3 / 2),
        ({"bias": "all", "layers_to_transform": [3], "init_lora_weights": "gaussian"}, 3 / 2),
    ],
)
def test_lora_is_folded(settings, scale, tmp_path):
    tensors = pair(Q) | {f"base_model.model.{Q}.lora_B.bias": B_O}
    found, leaves, metadata = read(tmp_path, LORA | settings, tensors)
    path = "encoder/layers_3/attention/query"
    np.testing.assert_array_equal(leaves.pop(f"{path}/lora_a"), A_RI.T)
    np.testing.assert_allclose(leaves.pop(f"{path}/lora_b"), B_OR.T * scale, rtol=1e-6)
    np.testing.assert_allclose(leaves.pop(f"{path}/bias"), B_O * scale, rtol=1e-6)
    assert not leaves and metadata.method == "LoRA" and metadata.settings["alpha"] == 3
    assert (found["from"], found["leaves"], found["parameters"]) == ("peft", 3, R * (I + O) + O)
    assert found["length"] == 0


def test_ia3_is_a_column_or_a_row(tmp_path):
    tensors = {f"base_model.model.{Q}.ia3_l": B_O[:, None], f"base_model.model.{WO}.ia3_l": B_O[None]}
    _, leaves, metadata = read(tmp_path, IA3, tensors)
    assert leaves.keys() == {"encoder/layers_3/attention/query/scale", "decoder/layers_0/mlp/wo/input_scale"}
    for leaf in leaves.values():
        np.testing.assert_array_equal(leaf, B_O)
    assert metadata.method == "IA3"
    export_prompt(str(tmp_path / "a.safetensors"), str(tmp_path / "out"), to="peft", base_model="t5-small")
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(written[name], tensor)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["feedforward_modules"] == [WO] and set(config["target_modules"]) == {Q, WO}


def test_lora_goes_out_with_the_rank_of_each(tmp_path):
    leaves = {}
    for path, rank in (("encoder/layers_0/attention/query", 3), ("decoder/layers_1/mlp/wi_0", 1)):
        leaves |= {f"{path}/lora_a": np.ones((I, rank)), f"{path}/lora_b": np.full((rank, O), 0.5)}
    leaves |= {"decoder/logits_dense/lora_a": np.ones((I, 3)), "decoder/logits_dense/lora_b": np.ones((3, 9))}
    metadata = PromptMetadata(method="LoRA", task="rte")
    save_prompt(tmp_path / "p.safetensors", NONE, metadata, leaves)
    found = export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "a"), to="peft", base_model="b")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    own = {"decoder.block.1.layer.2.DenseReluDense.wi_0": 1}
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (
        3,
        3,
        own,
        own,
    )
    assert (found["peft_type"], found["leaves"], config["base_model_name_or_path"]) == ("LORA", 6, "b")
    convert_prompt(str(tmp_path / "a"), str(tmp_path / "again.safetensors"))
    _, again, about = load_prompt_file(tmp_path / "again.safetensors")
    assert about == metadata and again.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(again[path], leaf)


@pytest.mark.parametrize(
    ("leaves", "prompt", "words"),
    [
        (("encoder/layers_0/mlp/adapter/down/kernel",), 0, "mlp/adapter/down/kernel, which PEFT"),
        (("encoder/layers_0/attention/query/bias",), 0, "attention/query/bias, which PEFT"),
        (("encoder/layers_0/pre_mlp_layer_norm/scale",), 0, "norm/scale, which PEFT"),
        (("encoder/layers_0/mlp/wo/lora_a",), 0, "without its lora_b"),
        (("encoder/layers_0/mlp/wo/lora_a", "encoder/layers_0/mlp/wo/lora_b", "encoder/layers_0/mlp/wi/scale"), 0,
         "LoRA and IA3"),
        (("encoder/layers_0/mlp/wo/scale", "encoder/layers_0/mlp/wo/input_scale"), 0, "inputs and outputs"),
        (("encoder/layers_0/attention/key/scale",), 2, "beside a prompt.*--to=model"),
    ],
)  # fmt: skip
def test_what_peft_has_no_place_for_is_named(leaves, prompt, words, tmp_path):
    prompt_PD = np.ones((prompt, 4), np.float32) if prompt else NONE
    arrays = {path: np.ones((2, 2) if "lora" in path else 2, np.float32) for path in leaves}
    save_prompt(tmp_path / "p.safetensors", prompt_PD, PromptMetadata(method="some"), arrays)
    with pytest.raises(ConfigError, match=words):
        export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "a"), to="peft", base_model="b")
    assert not (tmp_path / "a").exists()
    for to in ("npy", "t5x"):
        with pytest.raises(ConfigError, match=r"holds leaves .*--to=model"):
            export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "a"), to=to)


@pytest.mark.parametrize(
    ("leaves", "words"),
    [
        ({"lora_a": np.ones(1), "lora_b": np.ones((2, 3))}, r"\[1\] and \[2, 3\]"),
        ({"lora_a": np.ones((3, 1)), "lora_b": np.ones((2, 3))}, r"\[3, 1\] and \[2, 3\]"),
        ({"lora_a": np.ones((3, 0)), "lora_b": np.ones((0, 3))}, r"\[3, 0\] and \[0, 3\]"),
        ({"scale": np.ones((1, 3))}, "no row of numbers"),
        ({"input_scale": np.ones((3, 1))}, "no row of numbers"),
    ],
)
def test_leaves_of_no_projection_are_not_written(leaves, words, tmp_path):
    leaves = {f"encoder/layers_0/mlp/wo/{name}": leaf for name, leaf in leaves.items()}
    save_prompt(tmp_path / "p.safetensors", NONE, PromptMetadata(method="some"), leaves)
    with pytest.raises(ConfigError, match=words):
        export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "a"), to="peft", base_model="b")
    assert not (tmp_path / "a").exists()


REFUSED = [
    (LORA | {"use_dora": True}, {}, ConfigError, "use_dora"),
    (LORA | {"modules_to_save": ["lm_head"]}, {}, ConfigError, "modules_to_save"),
    (LORA | {"init_lora_weights": "pissa_niter_4"}, {}, ConfigError, "pissa_niter_4"),
    (LORA | {"layer_replication": [[0, 1]]}, {}, ConfigError, "layer_replication"),
    (LORA | {"task_type": "CAUSAL_LM"}, {}, ConfigError, "CAUSAL_LM"),
    (LORA | {"alpha_pattern": {"(a+)+b": 1}}, {}, ConfigError, r"alpha_pattern '\(a\+\)\+b'"),
    (LORA | {"alpha_pattern": [1]}, {}, RunError, "alpha_pattern"),
    (LORA | {"lora_alpha": "8"}, {}, RunError, "lora_alpha"),
    (LORA | {"lora_alpha": float("nan")}, {}, RunError, "cannot be read"),
    (LORA | {"r": 0}, {}, RunError, r"r \[0\]"),
    (LORA | {"r": 5}, {}, RunError, r"has rank 2, and adapter_config.json says \[5\]"),
    (LORA | {"rank_pattern": {"q": "2"}}, {}, RunError, "whole numbers"),
    (LORA, {"base_model.model.shared.lora_embedding_A": A_RI}, ConfigError, "lora_embedding_A"),
    (LORA, {"base_model.model.lm_head.weight": A_RI}, ConfigError, "lm_head.weight"),
    (LORA, {f"base_model.model.{Q}.lora_magnitude_vector": B_O}, ConfigError, "lora_magnitude_vector"),
    (LORA, pair("encoder.block.0.attention.self.query"), ConfigError, "attention.self.query"),
    (LORA, {f"base_model.model.{WO}.lora_A.weight": A_RI}, RunError, "lora_A and lora_B of decoder/layers_0/mlp/wo"),
    (LORA, {f"base_model.model.{Q}.lora_B.weight": B_OR.T.copy()}, RunError, "do not belong together"),
    (LORA, {f"base_model.model.{Q}.lora_A.weight": A_RI[0]}, RunError, r"float32 \[6\]"),
    (LORA, {f"base_model.model.{Q}.lora_A.weight": A_RI.astype(np.int32)}, RunError, "int32"),
    (LORA, {f"base_model.model.{Q}.lora_A.weight": A_RI * np.nan}, RunError, "not finite"),
    (LORA | {"lora_alpha": 1e9}, {f"base_model.model.{Q}.lora_B.weight": B_OR * 1e35}, RunError, "not finite"),
    (LORA, {f"{Q}.lora_A.weight": A_RI}, RunError, "two tensors of encoder/layers_3/attention/query/lora_a"),
    (IA3, {f"base_model.model.{Q}.ia3_l": A_RI}, RunError, "neither a row nor a column"),
    (IA3, pair(Q), ConfigError, "lora_A.weight"),
    ({"peft_type": "LOHA", "task_type": "SEQ_2_SEQ_LM"}, {}, ConfigError, "LOHA adapter"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "tensors", "error", "words"), REFUSED)
def test_refused_in_one_line(config, tensors, error, words, tmp_path):
    tensors = (pair(Q) if config["peft_type"] == "LORA" else {}) | tensors
    with pytest.raises(error, match=words) as caught:
        read(tmp_path, config, tensors)
    assert "\n" not in str(caught.value) and not (tmp_path / "a.safetensors").exists()


def test_damaged_folders(tmp_path):
    for number, (content, words) in enumerate(
        [
            (b"", "not whole|cannot be read|is no|damaged"),
            ((2**40).to_bytes(8, "little") + b"{}", "header of 1,099,511,627,776 bytes"),
        ]
    ):
        folder = tmp_path / str(number)
        adapter(folder, LORA, pair(Q))
        (folder / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(RunError, match=words):
            convert_prompt(str(folder), str(tmp_path / "x.safetensors"))
    adapter(tmp_path / "none", LORA, {})
    with pytest.raises(RunError, match="holds no tensors"):
        convert_prompt(str(tmp_path / "none"), str(tmp_path / "x.safetensors"))


BOTTLENECK = {
    "non_linearity": "swish",
    "mh_adapter": True,
    "output_adapter": True,
    "original_ln_before": False,
}
PARTS = {
    f"encoder.block.1.layer.1.adapters.some.adapter_{name}": x
    for name, x in (("down.0.weight", A_RI), ("down.0.bias", A_RI[:, 0]), ("up.weight", A_RI.T), ("up.bias", A_RI[0]))
}  # fmt: skip


def hub(folder, config, tensors, **described):
    folder.mkdir()
    described = {"config": BOTTLENECK | config, "model_type": "t5", "model_name": "t5-small"} | described
    (folder / "adapter_config.json").write_text(json.dumps(described))
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / "adapter.safetensors")
    return str(folder)


def test_a_bottleneck_of_adapter_hub(tmp_path):
    convert_prompt(hub(tmp_path / "a", {"scaling": 2.0}, PARTS), str(tmp_path / "a.safetensors"))
    _, leaves, metadata = load_prompt_file(tmp_path / "a.safetensors")
    place = "encoder/layers_1/mlp/adapter"
    wanted = {
        f"{place}/down/kernel": A_RI.T,
        f"{place}/down/bias": A_RI[:, 0],
        f"{place}/up/kernel": 2 * A_RI,
        f"{place}/up/bias": 2 * A_RI[0],
    }
    assert leaves.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(leaves[path], leaf)
    assert (metadata.adapter_activation, metadata.base_model) == ("silu", "t5-small")
    assert load_prompt(tmp_path / "a.safetensors")[0].shape == (0, 0)


def test_two_bottlenecks_in_one_file_are_refused(tmp_path):
    other = {name.replace(".some.", ".other."): x for name, x in PARTS.items()}
    with pytest.raises(RunError, match="holds two tensors of encoder/layers_1/mlp/adapter/"):
        convert_prompt(hub(tmp_path / "a", {}, PARTS | other), str(tmp_path / "a.safetensors"))


def test_metadata_that_are_no_texts_are_left_out(tmp_path):
    adapter(tmp_path / "a", LORA, pair(Q))
    file = tmp_path / "a" / "adapter_model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length]) | {"__metadata__": {"a": 1, "library_version": ["x"]}}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    convert_prompt(str(tmp_path / "a"), str(tmp_path / "a.safetensors"))
    assert load_prompt(tmp_path / "a.safetensors")[1].method == "LoRA"


@pytest.mark.parametrize(
    ("config", "described", "tensors", "error", "words"),
    [
        ({"original_ln_before": True}, {}, {}, ConfigError, "seq_bn"),
        ({"ln_after": True}, {}, {}, ConfigError, "ln_after"),
        ({"scaling": "learned"}, {}, {}, ConfigError, "scaling 'learned'"),
        ({"non_linearity": ["relu"]}, {}, {}, ConfigError, "non_linearity"),
        ({"architecture": "lora"}, {}, {}, ConfigError, "kind 'lora'"),
        ({}, {"model_type": "bert"}, {}, ConfigError, "adapter of 'bert'"),
        ({}, {}, {"encoder.invertible_adapters.some.F.0.weight": A_RI}, ConfigError, "invertible_adapters"),
        ({}, {}, {"encoder.block.0.layer.9.adapters.some.adapter_up.weight": A_RI}, ConfigError, "layer.9"),
        (
            {},
            {},
            {"encoder.block.0.layer.0.adapters.some.adapter_up.weight": B_O},
            RunError,
            r"float32 \[4\]",
        ),
    ],
)
def test_other_adapters_of_the_hub_are_named(config, described, tensors, error, words, tmp_path):
    with pytest.raises(error, match=words):
        convert_prompt(
            hub(tmp_path / "a", config, PARTS | tensors, **described), str(tmp_path / "x.safetensors")
        )


class Harmful:
    def __reduce__(self):
        return (print, ("harm",))


def test_code_in_a_pickle_is_not_run(tmp_path, capsys):
    folder = hub(tmp_path / "a", {}, {})
    (tmp_path / "a" / "adapter.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"neither adapter.safetensors nor pytorch_adapter.bin"):
        convert_prompt(folder, str(tmp_path / "x.safetensors"))
    (tmp_path / "a" / "pytorch_adapter.bin").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(RunError):
        convert_prompt(folder, str(tmp_path / "x.safetensors"))
    assert "harm" not in capsys.readouterr().out


def test_the_prompt_alone_of_what_has_none(tmp_path):
    adapter(tmp_path / "a", LORA, pair(Q))
    with pytest.raises(ConfigError, match="holds no prompt: leave --prompt_only out"):
        convert_prompt(str(tmp_path / "a"), str(tmp_path / "x.safetensors"), prompt_only=True)
