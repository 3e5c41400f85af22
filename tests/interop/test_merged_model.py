"""Leaves in a model's weights: the same answers as beside them, and what no weight can hold."""

import dataclasses
import json
import pathlib
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.tuned_file import load_tuned
from jax_prompts.base_models.weights import abstract_weights, load_weights
from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.safetensors import open_safetensors
from jax_prompts.interop.exchange import export_prompt
from jax_prompts.models.bert import Bert
from jax_prompts.models.t5 import T5
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt
from jax_prompts.tuned import IA3, Adapter, BitFit, LoRA, fold_leaves
from jax_prompts.tuned.leaves import by_path, lay_in

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
BASE, BERT = str(GOLDENS / "t5_v1_1_hf"), str(GOLDENS / "bert_hf")
NONE = np.zeros((0, 0), np.float32)
PROMPT_PD = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)


def of(checkpoint, **settings):
    """The model and its weights."""
    config = open_model(checkpoint).config
    base = BaseModel(size=None, checkpoint=checkpoint, vocabulary="", **settings)
    kind = T5 if hasattr(config, "num_encoder_layers") else Bert
    model = make_model(base) if kind is T5 else Bert(config)
    return model, load_weights(base, model)[0]


def leaves_of(kinds, checkpoint=BASE):
    """Leaves of every kind as they are read, away from where they start."""
    model = T5(open_model(checkpoint).config)
    leaves = {}
    for kind in kinds:
        boxed = kind.init(by_path(abstract_weights(model)), jax.random.key(3))
        leaves |= nn.meta.unbox(boxed)
    draw = np.random.default_rng(7)
    leaves = {path: np.asarray(x) + 0.05 * draw.normal(size=x.shape) for path, x in leaves.items()}
    return fold_leaves(kinds, {path: x.astype(np.float32) for path, x in leaves.items()}, training=False)


def logits(model, params):
    draw = np.random.default_rng(2)
    arrays = (jnp.asarray(draw.integers(2, 90, (3, size)), jnp.int32) for size in (9, 4))
    return np.asarray(jax.jit(model.apply)({"params": params}, *arrays))


WHERE = ("query", "key", "value", "out", "wi_0", "wo", "logits_dense")
KINDS = {"lora": (LoRA(rank=3, alpha=5.0, targets=WHERE),), "ia3": (IA3(),), "both": (LoRA(rank=2), IA3())}


@pytest.mark.parametrize("name", KINDS)
def test_merged_answers_are_those_of_leaves_beside_the_model(name, tmp_path):
    leaves = leaves_of(KINDS[name])
    model, weights = of(BASE)
    own = fingerprint(weights)
    save_prompt(tmp_path / "a.safetensors", NONE, PromptMetadata(method="L", model_fingerprint=own), leaves)
    found = export_prompt(
        str(tmp_path / "a.safetensors"), str(tmp_path / "model"), to="model", base_model=BASE
    )
    wanted = logits(model, lay_in(weights, load_tuned(model, tmp_path / "a.safetensors")[1]))
    assert not np.allclose(wanted, logits(model, weights), atol=1e-2)
    for settings in ({}, {"scan_layers": True}):
        merged_model, merged = of(str(tmp_path / "model"), **settings)
        np.testing.assert_allclose(logits(merged_model, merged), wanted, atol=1e-5)
        assert fingerprint(merged) == found["fingerprint"] != own
    assert found["base_fingerprint"] == own and found["prompt"] is None
    described = json.loads((tmp_path / "model" / "config.json").read_text())
    assert described["origin"]["merged"] == "L" and described["fingerprint"] == found["fingerprint"]


def test_weights_of_bfloat16_change_in_float32(tmp_path):
    """An update below the digits of bfloat16 is not lost; what is not touched stays as it was."""
    from jax_prompts.base_models.weights import save_model

    model, weights = of(BASE, weight_dtype="bfloat16")
    save_model(tmp_path / "narrow", weights, model.config, {})
    leaves = {path: 1 + (x - 1) * 1e-3 for path, x in leaves_of([IA3()]).items()}
    save_prompt(tmp_path / "a.safetensors", NONE, PromptMetadata(method="IA3"), leaves)
    export_prompt(
        str(tmp_path / "a.safetensors"),
        str(tmp_path / "model"),
        to="model",
        base_model=str(tmp_path / "narrow"),
    )
    dtypes = {
        name: str(x.dtype) for name, x in open_safetensors(tmp_path / "model/model.safetensors").items()
    }
    changed = {f"{path.rpartition('/')[0]}/kernel" for path in leaves}
    assert {name for name, dtype in dtypes.items() if dtype == "float32"} == changed
    model, params = of(str(tmp_path / "narrow"))
    wanted = logits(model, lay_in(params, load_tuned(model, tmp_path / "a.safetensors")[1]))
    np.testing.assert_allclose(logits(*of(str(tmp_path / "model"))), wanted, atol=1e-5)


def test_a_prompt_beside_the_leaves_is_a_prompt_of_the_merged_model(tmp_path):
    metadata = PromptMetadata(method="PromptTuning", task="rte", labels=("a", "b"))
    save_prompt(tmp_path / "a.safetensors", PROMPT_PD, metadata, leaves_of([LoRA(rank=2)]))
    found = export_prompt(str(tmp_path / "a.safetensors"), str(tmp_path / "m"), to="model", base_model=BASE)
    _, merged = of(str(tmp_path / "m"))
    prompt_PD, about = load_prompt(found["prompt"], model_fingerprint=fingerprint(merged))
    np.testing.assert_array_equal(prompt_PD, PROMPT_PD)
    assert (about.task, about.labels, about.base_model) == ("rte", ("a", "b"), str(tmp_path / "m"))


def test_biases_of_a_bert_and_scales_over_them(tmp_path):
    """By hand: (x W + b) * s is x (W s) + b s; the classifier, which is no weight of the model, is a file beside."""
    arrays = {name: array[...] for name, array in open_model(BERT).arrays.items()}
    path = next(name for name in arrays if name.endswith("value/bias")).removesuffix("/bias")
    scale, bias = (np.random.default_rng(seed).normal(size=arrays[f"{path}/bias"].shape) for seed in (1, 2))
    width = arrays[f"{path}/kernel"].shape[0]
    leaves = {
        f"{path}/scale": scale,
        f"{path}/bias": bias,
        "classifier/kernel": np.ones((width, 2)),
        "classifier/bias": np.ones(2),
    }
    save_prompt(tmp_path / "a.safetensors", NONE, PromptMetadata(method="IA3", labels=("a", "b")), leaves)
    found = export_prompt(str(tmp_path / "a.safetensors"), str(tmp_path / "m"), to="model", base_model=BERT)
    merged = {name: array[...] for name, array in open_model(str(tmp_path / "m")).arrays.items()}
    for name, wanted in (("kernel", arrays[f"{path}/kernel"] * scale), ("bias", bias * scale)):
        np.testing.assert_allclose(merged.pop(f"{path}/{name}"), wanted, rtol=1e-5, atol=1e-6)
    for name, array in merged.items():
        np.testing.assert_array_equal(array, arrays[name])
    assert open_safetensors(found["prompt"]).keys() == {"classifier/kernel", "classifier/bias"}


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([Adapter(bottleneck=3, norms=False)], r"no place for \(.*adapter/down/kernel.* and [0-9]+ more"),
        ([BitFit(logits=False)], "no place for .*attention/.*/bias"),
        ([], "holds nothing that weights could take"),
    ],
)
def test_what_no_weight_can_hold_is_named(kinds, words, tmp_path):
    leaves = leaves_of(kinds)
    save_prompt(tmp_path / "a", PROMPT_PD, PromptMetadata(method="some"), leaves)
    with pytest.raises(ConfigError, match=words):
        export_prompt(str(tmp_path / "a"), str(tmp_path / "m"), to="model", base_model=BASE)
    assert not (tmp_path / "m").exists()


def test_numbers_past_float32_and_a_classifier_of_a_t5_are_refused(tmp_path):
    leaves = leaves_of([LoRA(rank=2)])
    for beside, error, words in (
        ({path: np.full_like(leaf, 1e38) for path, leaf in leaves.items()}, RunError, "is not finite"),
        ({"classifier/bias": np.ones(2)}, ConfigError, "a BERT's classifier"),
    ):
        save_prompt(tmp_path / "a", NONE, PromptMetadata(method="LoRA"), {**leaves, **beside})
        with warnings.catch_warnings(), pytest.raises(error, match=words):
            warnings.simplefilter("error")
            export_prompt(str(tmp_path / "a"), str(tmp_path / "m"), to="model", base_model=BASE)
        assert not (tmp_path / "m").exists()


def test_only_into_its_own_model(tmp_path):
    metadata = PromptMetadata(method="LoRA", model_fingerprint="0" * 16, base_model="tiny there")
    save_prompt(tmp_path / "a", NONE, metadata, leaves_of([LoRA(rank=2)]))
    unknown = dataclasses.replace(metadata, model_fingerprint="")
    save_prompt(tmp_path / "b", NONE, unknown, {"encoder/layers_9/mlp/wo/scale": np.ones(32, np.float32)})
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    for name, target, base, words in (
        ("a", "m", BASE, "belongs to base model 0000000000000000 and this run has .*tiny there"),
        ("b", "m", BASE, r"does not fit the model \(1 leaves.*\+ encoder/layers_9/mlp/wo/scale.*tiny there"),
        ("b", "m", None, "--base_model=CHECKPOINT"),
        ("b", "m", str(tmp_path), "holds no model|no whole model"),
    ):
        with pytest.raises(ConfigError, match=words):
            export_prompt(str(tmp_path / name), str(tmp_path / target), to="model", base_model=base)
    own = dataclasses.replace(metadata, model_fingerprint="")
    save_prompt(tmp_path / "c", NONE, own, leaves_of([LoRA(rank=2)]))
    with pytest.raises(ConfigError, match="there exists"):
        export_prompt(str(tmp_path / "c"), str(tmp_path / "there"), to="model", base_model=BASE)
    assert not (tmp_path / "m").exists()
