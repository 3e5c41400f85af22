"""What the bridge into T5X is made of, without T5X: parameters and their axes, starts, refusals, the restore check."""

import builtins
import importlib
import importlib.util
import pathlib
import sys

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.base_models.open import open_model
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.prompts import (
    METHODS,
    MPT,
    ClassLabels,
    Decomposed,
    Explosive,
    FromFile,
    LSTMPrompt,
    PerLayer,
    PromptMetadata,
    PromptTuning,
    PTuningLSTM,
    PTuningMLP,
    RankProbe,
    Residual,
    SampledVocabulary,
    SuperPos,
    Uniform,
    save_prompt,
)
from jax_prompts.tuned import KINDS
from jax_prompts.upstream import prompt_tuning
from jax_prompts.upstream.folded import Folded
from jax_prompts.upstream.parameters import AXES, Prompt, is_prompt
from jax_prompts.upstream.prompted import check_carried, check_not_packed
from jax_prompts.upstream.restore import check_shapes
from jax_prompts.upstream.start import Start

D = 8
CARRIED = [
    PromptTuning(4),
    Residual(4, hidden=3),
    Residual(4, hidden=3, shared=False),
    LSTMPrompt(4, hidden=3),
    PTuningMLP(4),
    PTuningLSTM(4, hidden=3),
    Decomposed(4, rank=2),
    RankProbe(4),
    Explosive(4, bias=True, norm=True),
    SuperPos(4, rows=3),
    MPT(4),
]


def name_of(method):
    return type(method).__name__


def test_every_method_is_carried_or_refused():
    assert {type(method) for method in CARRIED} | {PerLayer} == set(METHODS)


@pytest.mark.parametrize("method", CARRIED, ids=name_of)
def test_parameters_are_bare_and_have_axes_that_t5x_is_told(method):
    variables = Prompt(method).init(jax.random.key(0), D)
    arrays = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    axes = flax.traverse_util.flatten_dict(variables["params_axes"], sep="/")
    assert {f"{name}_axes" for name in arrays} == axes.keys()
    for name, array in arrays.items():
        names = axes[f"{name}_axes"].names
        assert isinstance(array, jax.Array) and len(names) == array.ndim and set(names) <= set(AXES)
    expected_PD = method.apply({"params": variables["params"]}, D)
    np.testing.assert_array_equal(Prompt(method).apply({"params": variables["params"]}, D), expected_PD)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("prompt/prompt", True),
        ("/prompt/network/down/kernel", True),
        ("/encoder/prompt/prompt/prompt", True),
        ("encoder/layers_0/mlp/wi_0/kernel", False),
        ("token_embedder/embedding", False),
        ("encoder/prompts/table", False),
    ],
)
def test_a_prompts_parameters_are_told_by_their_path(path, expected):
    assert is_prompt(path) is expected


def table(start, rows=5, width=64, key=0):
    """The table of a prompt that starts so, made as T5X makes it: traced."""
    made = jax.jit(lambda key: Prompt(PromptTuning(rows), start).init(key, width))
    return made(jax.random.key(key))["params"]["prompt"]


def test_an_initialiser_sees_the_base_model_and_depends_on_its_seed_alone():
    embedding_VD = open_model("asset:micro").arrays["token_embedder/embedding"][...].astype(np.float32)
    rows = {row.tobytes() for row in embedding_VD}
    start = Start(SampledVocabulary(), "asset:micro")
    first_PD = np.asarray(table(start, width=embedding_VD.shape[1]))
    assert {row.tobytes() for row in first_PD} <= rows
    np.testing.assert_array_equal(first_PD, table(start, width=embedding_VD.shape[1], key=7))
    other = Start(SampledVocabulary(), "asset:micro", seed=1)
    assert not np.array_equal(first_PD, table(other, width=embedding_VD.shape[1]))


class OneLetter:
    vocab_size = 200

    def encode(self, text):
        return [ord(letter) for letter in text]


def test_labels_are_encoded_by_the_vocabulary_of_t5x():
    embedding_VD = open_model("asset:micro").arrays["token_embedder/embedding"][...].astype(np.float32)
    start = Start(ClassLabels(("A", "B")), "asset:micro", OneLetter())
    found_PD = table(start, width=embedding_VD.shape[1])
    np.testing.assert_array_equal(found_PD[:2], embedding_VD[[65, 66]])


def test_no_base_model_is_opened_where_none_is_needed(tmp_path):
    assert np.abs(table(Start(Uniform(0.0, 0.25), "nowhere"))).max() <= 0.25
    given_PD = np.arange(320, dtype=np.float32).reshape(5, 64)
    save_prompt(tmp_path / "p.safetensors", given_PD, PromptMetadata())
    np.testing.assert_array_equal(table(Start(FromFile(str(tmp_path / "p.safetensors")))), given_PD)
    np.testing.assert_array_equal(table(Start(None)), table(None))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (Start(SampledVocabulary()), "set INITIAL_CHECKPOINT_PATH, or INITIALIZER = None"),
        (Start(ClassLabels(("a",)), "asset:micro"), "needs a vocabulary"),
        (Start(SampledVocabulary(), "nowhere"), "nowhere"),
        (Start(FromFile("nowhere.safetensors")), "nowhere.safetensors does not exist"),
        (Start("sampled"), "INITIALIZER is 'sampled': set it to an initialiser"),
    ],
)
def test_starts_that_cannot_be_made_are_refused(start, words):
    with pytest.raises(ConfigError, match=words):
        table(start, width=192)


def test_a_base_model_of_another_width_is_refused():
    with pytest.raises(
        ConfigError, match="has embeddings of width 192 and the model 64: name the model's own"
    ):
        table(Start(SampledVocabulary(), "asset:micro"), width=64)


@pytest.mark.parametrize(
    ("method", "tuned", "words"),
    [
        (None, None, "PROMPT is None: load a method"),
        ("residual", None, "PROMPT is 'residual': load a method"),
        (PerLayer(4), None, "PROMPT PerLayer is of kind 'prefix': inside upstream T5X"),
        (PerLayer(4, kind="deep"), None, "kind 'deep'"),
        (PromptTuning(4), KINDS[0], "TUNED is"),
    ],
)
def test_what_upstream_cannot_carry_is_refused(method, tuned, words):
    with pytest.raises(ConfigError, match=words):
        check_carried(method, tuned and tuned())


@pytest.mark.parametrize(
    ("several", "words"),
    [
        ({"members": 3}, "MEMBERS is 3: inside upstream T5X a run tunes one prompt"),
        ({"members": "3"}, "MEMBERS is '3'"),
        ({"sweep": {"LEARNING_RATE": (0.1, 0.3)}}, "SWEEP is {'LEARNING_RATE'"),
    ],
)
def test_several_prompts_are_refused(several, words):
    with pytest.raises(ConfigError, match=words):
        check_carried(PromptTuning(4), None, **several)
    with pytest.raises(ConfigError, match=words):
        prompt_tuning.Prompt(PromptTuning(4), **several)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_leaf_is_named(kind):
    with pytest.raises(ConfigError, match=f"TUNED is {kind.__name__}, which is more than a prompt"):
        check_carried(PromptTuning(4), (object.__new__(kind),))


def test_packed_rows_are_refused_with_the_settings():
    check_not_packed(None)
    with pytest.raises(ConfigError, match=r"set train/utils.DatasetConfig.pack = False"):
        check_not_packed(jnp.ones((2, 3), jnp.int32))


def test_a_prompt_file_is_a_method_without_parameters(tmp_path):
    file, prompt_PD = str(tmp_path / "p.safetensors"), np.arange(24, dtype=np.float32).reshape(3, D)
    save_prompt(file, prompt_PD, PromptMetadata(method="Residual"))
    method = Folded(file)
    assert method.length == 3 and check_carried(method, None) is None
    assert Prompt(method).init(jax.random.key(0), D) == {}
    np.testing.assert_array_equal(Prompt(method).apply({}, D), prompt_PD)
    with pytest.raises(ConfigError, match=r"p.safetensors has width 8 and the base model 16"):
        Prompt(method).apply({}, 16)


@pytest.mark.parametrize(
    ("metadata", "leaves", "words"),
    [
        (PromptMetadata(prompt_kind="prefix"), {}, "of kind 'prefix'"),
        (
            PromptMetadata(method="LoRA"),
            {"encoder/layers_0/lora": np.ones(2)},
            "holds 1 leaves beside its prompt",
        ),
    ],
)
def test_prompt_files_of_more_than_a_prompt_are_refused(metadata, leaves, words, tmp_path):
    file = str(tmp_path / "p.safetensors")
    save_prompt(file, np.ones((3, D), np.float32), metadata, leaves)
    with pytest.raises(ConfigError, match=words):
        Folded(file)
    with pytest.raises(ConfigError, match="does not exist"):
        Folded(str(tmp_path / "absent.safetensors"))


def test_the_original_codes_masks_have_the_prompts_length():
    x_embed = jnp.ones((2, 5, D), jnp.bfloat16)
    prompt = prompt_tuning.Prompt(Residual(4, hidden=3), length=4)
    variables = prompt.init(jax.random.key(0), x_embed[..., 0], x_embed)
    assert "network" in variables["params"]
    prompt_PD = prompt.apply({"params": variables["params"]}, x_embed[..., 0], x_embed)
    assert (prompt_PD.shape, prompt_PD.dtype) == ((4, D), jnp.bfloat16)
    with pytest.raises(
        ConfigError, match="PROMPT_LENGTH is 100 and PROMPT has 4 rows: set PROMPT_LENGTH = 4"
    ):
        prompt_tuning.Prompt(PromptTuning(4), length=100)
    with pytest.raises(ConfigError, match="PROMPT is None"):
        prompt_tuning.Prompt()


def spec(*shape):
    """What stands in a legacy checkpoint for an array outside."""
    return {"driver": "zarr", "kvstore": {"driver": "file"}, "metadata": {"shape": list(shape)}}


MODEL = {
    "token_embedder": {"embedding": jnp.zeros((9, D))},
    "encoder": {"relpos_bias": {"rel_embedding": jnp.zeros((2, 32))}},
    "prompt": {"prompt": jnp.zeros((3, D))},
}


def restored(target, **options):
    state = {"target": target, "state": {"step": 3}}
    assert check_shapes(state, {"target": MODEL, "state": {}}, **options) is state


def legacy(heads=2, **parts):
    bias = np.zeros((heads, 32), np.float32)
    return {
        "token_embedder": {"embedding": spec(9, D)},
        "encoder": {"relpos_bias": {"rel_embedding": bias}},
        **parts,
    }


def test_a_base_model_without_a_prompt_is_restored_and_one_with_it():
    restored(legacy())
    restored(legacy(other={"more": np.ones(3)}))
    restored(legacy(prompt=MODEL["prompt"]), is_resuming=True)
    restored(jax.tree.map(lambda _: object(), MODEL), is_resuming=True)  # Orbax tells no shapes


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (legacy(heads=4), {}, r"encoder/relpos_bias/rel_embedding is \(4, 32\), and the model's \(2, 32\)"),
        (
            legacy(token_embedder={"embedding": spec(9, 16)}),
            {},
            r"embedding is \(9, 16\), and the model's \(9, 8\)",
        ),
        (legacy(encoder={}), {}, r"rel_embedding \(2, 32\) is missing"),
        (legacy(), {"is_resuming": True}, r"prompt/prompt \(3, 8\) is missing"),
    ],
)
def test_parameters_of_another_model_are_named(target, options, words):
    with pytest.raises(RunError, match=words):
        restored(target, **options)


@pytest.mark.parametrize("folder", ["prompts", "upstream"])
def test_gin_inside_t5x_finds_files_as_those_of_a_package(folder):
    """It asks Python where the folder lies, and fails on one that is no package."""
    assert pathlib.Path(importlib.util.find_spec(f"gin_configs.{folder}").origin).name == "__init__.py"


@pytest.mark.parametrize("module", ["t5", "scalable_t5", "rules", "save"])
def test_without_t5x_there_is_one_clear_line(module, monkeypatch):
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "t5x":
            raise ModuleNotFoundError("No module named 't5x'", name="t5x")
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, f"jax_prompts.upstream.{module}", raising=False)
    with pytest.raises(
        ConfigError, match=r"upstream T5X cannot be imported \(No module named 't5x'\): install it"
    ):
        importlib.import_module(f"jax_prompts.upstream.{module}")
