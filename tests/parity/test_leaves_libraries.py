"""LoRA and IA3 beside PEFT, adapters beside the `adapters` library, live: files in and out, logits and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("peft", reason="pip install -e '.[parity]'")

import peft
import torch
from pairs import base_of, for_transformers, texts_and_targets

from jax_prompts.base_models.build import with_adapters
from jax_prompts.base_models.tuned_file import load_tuned
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.errors import ConfigError
from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.prompts import load_prompt
from jax_prompts.tuned import IA3, Adapter, LoRA, fresh_leaves
from jax_prompts.tuned.leaves import by_path, lay_in

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def disturbed(model, share=0.1):
    """With numbers in every tuned parameter that are not where they started."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(share * torch.randn_like(parameter))
    return model


def loss_of(logits_BUV, labels_BU):
    log_p_BUV = jax.nn.log_softmax(logits_BUV)
    chosen_BU = jnp.take_along_axis(log_p_BUV, labels_BU[..., None], axis=-1)[..., 0]
    return -jnp.mean(chosen_BU, where=labels_BU > 0)


def compare(adapted, pair, leaves, activation="", gradients=None, scale=1.0):
    """Logits to 1e-4 and, of what is tuned, gradients; `gradients` has theirs by our path."""
    ids_BS, decoder_BU, labels_BU = texts_and_targets(pair.theirs.config.vocab_size, seed=3)
    theirs = adapted(**for_transformers(ids_BS, decoder_BU, labels_BU))
    model, leaves = with_adapters(pair.model, activation), jax.tree.map(jnp.asarray, dict(leaves))

    def logits(leaves):
        batch = jnp.asarray(ids_BS), jnp.asarray(decoder_BU)
        return model.apply({"params": lay_in(pair.params, leaves)}, *batch)

    ours_BUV = np.asarray(jax.jit(logits)(leaves))
    np.testing.assert_allclose(ours_BUV, theirs.logits.detach().numpy(), atol=1e-4)
    assert not np.allclose(ours_BUV, pair.logits(ids_BS, decoder_BU), atol=1e-2)
    if gradients is None:
        return
    theirs.loss.backward()
    found = jax.jit(jax.grad(lambda leaves: loss_of(logits(leaves), labels_BU)))(leaves)
    wanted = gradients(adapted)
    assert wanted.keys() == found.keys()
    for path, gradient in found.items():
        # The file has B with the scale in it: what is tuned there is B, whose gradient is that times the scale.
        gradient = gradient * scale if path.endswith(("lora_b", "/bias")) and scale != 1.0 else gradient
        np.testing.assert_allclose(gradient, wanted[path], atol=1e-4, err_msg=path)
    assert max(np.abs(gradient).max() for gradient in found.values()) > 1e-3


def by_our_paths(tmp_path, pair):
    """Gradients of an adapter of PEFT, renamed as its parameters are."""

    def gradients(adapted):
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.copy_(parameter.grad)
        adapted.save_pretrained(tmp_path / "gradients")
        config = peft.PeftConfig.from_pretrained(tmp_path / "gradients")
        if config.peft_type == "LORA":
            config.lora_alpha, config.use_rslora = config.r, False
            config.save_pretrained(tmp_path / "gradients")
        convert_prompt(str(tmp_path / "gradients"), str(tmp_path / "gradients.safetensors"))
        return load_tuned(pair.model, tmp_path / "gradients.safetensors")[1]

    return gradients


LORAS = {
    "as it is": ({"r": 8, "lora_alpha": 8}, 1.0),
    "everywhere": (
        {"r": 3, "lora_alpha": 7, "target_modules": ["q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"]}, 7 / 3
    ),
    "rank-stabilised, with biases": ({"r": 4, "lora_alpha": 3, "use_rslora": True, "lora_bias": True}, 1.5),
    "some layers": ({"r": 2, "lora_alpha": 2, "layers_to_transform": [0], "layers_pattern": "block"}, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("case", LORAS)
def test_lora_of_peft_is_read_with_its_gradients(pair, tmp_path, case):
    settings, scale = LORAS[case]
    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", **settings)
    adapted = disturbed(peft.get_peft_model(base_of(pair), config).eval())
    adapted.save_pretrained(tmp_path / "a")
    found = convert_prompt(str(tmp_path / "a"), str(tmp_path / "a.safetensors"))
    leaves = load_tuned(pair.model, tmp_path / "a.safetensors")[1]
    tuned = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert found["parameters"] == sum(leaf.size for leaf in leaves.values()) == tuned
    compare(adapted, pair, leaves, gradients=by_our_paths(tmp_path, pair), scale=scale)


def test_ranks_and_scales_by_pattern(pair, tmp_path):
    config = peft.LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=2, lora_alpha=4,
        rank_pattern={"v": 5, "encoder.block.0.layer.0.SelfAttention.q": 3},
        alpha_pattern={"v": 9, "EncDecAttention.q": 1},
    )  # fmt: skip
    adapted = disturbed(peft.get_peft_model(base_of(pair), config).eval())
    adapted.save_pretrained(tmp_path / "a")
    convert_prompt(str(tmp_path / "a"), str(tmp_path / "a.safetensors"))
    leaves = load_tuned(pair.model, tmp_path / "a.safetensors")[1]
    assert {leaf.shape[1] for path, leaf in leaves.items() if path.endswith("lora_a")} == {2, 3, 5}
    compare(adapted, pair, leaves)
    there_and_back(pair, tmp_path, leaves)


def there_and_back(pair, tmp_path, leaves):
    """What is written of a file loads in PEFT with equal answers, and gives the same file again."""
    export_prompt(str(tmp_path / "a.safetensors"), str(tmp_path / "out"), to="peft", base_model=pair.folder)
    compare(peft.PeftModel.from_pretrained(base_of(pair), tmp_path / "out").eval(), pair, leaves)
    convert_prompt(str(tmp_path / "out"), str(tmp_path / "again.safetensors"))
    again = load_tuned(pair.model, tmp_path / "again.safetensors")[1]
    assert again.keys() == leaves.keys()
    jax.tree.map(np.testing.assert_array_equal, dict(again), dict(leaves))
    assert load_prompt(tmp_path / "again.safetensors")[1] == load_prompt(tmp_path / "a.safetensors")[1]


def test_ia3_of_peft_is_read_with_its_gradients_and_written(pair, tmp_path):
    config = peft.IA3Config(
        task_type="SEQ_2_SEQ_LM",
        target_modules=["k", "v", "q", "wo", "wi_0"],
        feedforward_modules=["wo", "wi_0"],
    )
    adapted = disturbed(peft.get_peft_model(base_of(pair), config).eval())
    adapted.save_pretrained(tmp_path / "a")
    convert_prompt(str(tmp_path / "a"), str(tmp_path / "a.safetensors"))
    leaves = load_tuned(pair.model, tmp_path / "a.safetensors")[1]
    compare(adapted, pair, leaves, gradients=by_our_paths(tmp_path, pair))
    there_and_back(pair, tmp_path, leaves)


def test_what_is_tuned_by_default_and_where_it_starts(pair):
    """Of a T5 PEFT tunes the projections that we do, from the same distributions."""
    boxed = by_path(abstract_weights(pair.model))
    for kind, config in (
        (LoRA(), peft.LoraConfig(task_type="SEQ_2_SEQ_LM", lora_alpha=8)),
        (IA3(), peft.IA3Config(task_type="SEQ_2_SEQ_LM")),
    ):
        ours = fresh_leaves([kind], boxed, jax.random.key(0))
        theirs = {
            name: p.detach().numpy()
            for name, p in peft.get_peft_model(base_of(pair), config).named_parameters()
            if p.requires_grad
        }
        assert sum(box.value.size for box in ours.values()) == sum(x.size for x in theirs.values())
        for end, other in (("lora_a", "lora_A"), ("lora_b", "lora_B"), ("scale", "ia3_l")):
            a = [np.asarray(box.value).ravel() for path, box in ours.items() if path.endswith(end)]
            b = [x.ravel() for name, x in theirs.items() if other in name]
            assert len(a) == len(b)
            if a:  # uniform within 1 / sqrt(I), 0, and 1
                a, b = np.concatenate(a), np.concatenate(b)
                np.testing.assert_allclose([a.std(), np.abs(a).max()], [b.std(), np.abs(b).max()], rtol=0.1)


adapters = pytest.importorskip("adapters", reason="pip install -e '.[parity]'")

BOTTLENECKS = {
    "double_seq_bn": adapters.DoubleSeqBnConfig(reduction_factor=4),
    "cross, scaled, gelu": adapters.DoubleSeqBnConfig(
        reduction_factor=4, cross_adapter=True, non_linearity="gelu_new", scaling=2.0
    ),
    "one layer": adapters.DoubleSeqBnConfig(reduction_factor=4, leave_out=[1], non_linearity="relu"),
}


@pytest.mark.parametrize("case", BOTTLENECKS)
def test_bottlenecks_of_the_adapters_library_are_read(pair, tmp_path, case):
    safe = case != "one layer"  # which comes as a pickle
    config, model = BOTTLENECKS[case], base_of(pair)
    adapters.init(model)
    model.add_adapter("some", config=config)
    model.train_adapter("some")
    disturbed(model.eval())
    model.save_adapter(str(tmp_path / "a"), "some", use_safetensors=safe)
    convert_prompt(str(tmp_path / "a"), str(tmp_path / "a.safetensors"))
    leaves = load_tuned(pair.model, tmp_path / "a.safetensors")[1]
    metadata = load_prompt(tmp_path / "a.safetensors")[1]
    assert (metadata.method, metadata.settings["bottleneck"]) == (
        "Adapter",
        pair.theirs.config.d_model // 4,
    )

    def gradients(model):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(parameter.grad)
        model.save_adapter(str(tmp_path / "gradients"), "some", use_safetensors=safe)
        convert_prompt(str(tmp_path / "gradients"), str(tmp_path / "gradients.safetensors"))
        return load_tuned(pair.model, tmp_path / "gradients.safetensors")[1]

    unscaled = config.scaling == 1.0
    compare(model, pair, leaves, metadata.adapter_activation, gradients if unscaled else None)
    if case == "double_seq_bn":
        kind = Adapter(bottleneck=pair.theirs.config.d_model // 4, norms=False)
        assert fresh_leaves([kind], by_path(abstract_weights(pair.model)), jax.random.key(0)).keys() == (
            leaves.keys()
        )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (adapters.SeqBnConfig(), "original_ln_before"),
        (adapters.ParBnConfig(), "is_parallel"),
        (adapters.DoubleSeqBnConfig(non_linearity="gelu"), "non_linearity"),
        (adapters.CompacterConfig(reduction_factor=2, phm_dim=2), "phm_layer|non_linearity"),
        (adapters.LoRAConfig(), "kind 'lora'"),
    ],
)
def test_other_adapters_are_refused_by_name(pair, tmp_path, config, words):
    model = base_of(pair)
    adapters.init(model)
    model.add_adapter("some", config=config)
    model.save_adapter(str(tmp_path / "a"), "some")
    with pytest.raises(ConfigError, match=words):
        convert_prompt(str(tmp_path / "a"), str(tmp_path / "a.safetensors"))
