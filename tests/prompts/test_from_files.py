"""Starts from several source prompts: their mean, what they share, and what does not go together."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.prompts import MPT, Base, FromFiles, PromptMetadata, fold, init_members, save_prompt
from jax_prompts.prompts.shared_prompt import decompose

P, D = 4, 8
BASE = Base(jnp.zeros((20, D)))
SOURCES_KPD = np.random.default_rng(0).normal(size=(3, P, D)).astype(np.float32)


@pytest.fixture
def paths(tmp_path):
    """Three source prompts of one base model."""
    files = [tmp_path / f"{task}.safetensors" for task in ("mnli", "sst2", "squad")]
    for file, prompt_PD in zip(files, SOURCES_KPD, strict=True):
        save_prompt(
            file, prompt_PD, PromptMetadata(task=file.stem, model_fingerprint="aaaa", base_model="t5")
        )
    return tuple(map(str, files))


def start(initializer, length=P, base=BASE):
    return initializer.table_init(base)(jax.random.key(0), (length, D), jnp.float32)


def test_the_mean_and_the_weighted_mean(paths):
    np.testing.assert_allclose(start(FromFiles(paths)), SOURCES_KPD.mean(0), rtol=1e-5, atol=1e-6)
    weighted = start(FromFiles(paths, weights=(6, 3.0, 0)))
    np.testing.assert_allclose(weighted, (2 * SOURCES_KPD[0] + SOURCES_KPD[1]) / 3, rtol=1e-5, atol=1e-6)


def test_a_shared_prompt_starts_mpt(paths):
    table_init = FromFiles(paths, combine="shared").table_init(BASE)
    keys_E = jax.random.split(jax.random.key(0), 2)
    params_E = jax.jit(lambda keys_E: init_members(MPT(P, rank=2), keys_E, D, table_init))(keys_E)
    wanted_PD = decompose(SOURCES_KPD).start_PD
    for prompt_PD in fold(MPT(P, rank=2), params_E, D):  # of both members
        np.testing.assert_allclose(prompt_PD, wanted_PD, rtol=1e-5, atol=1e-6)


def test_gin_takes_paths_and_weights(paths):
    files = "models/micro prompts/mpt recipes/micro runs/train".split()
    flags = [f"--gin_file=gin_configs/{file}.gin" for file in files]
    flags += ["--gin.MODEL_DIR=never", "--gin.MIXTURE_OR_TASK_NAME=quickstart_reviews"]
    flags += [
        "--gin.INITIALIZER=@FromFiles()",
        f"--gin.FromFiles.paths={paths!r}",
        "--gin.FromFiles.weights=(1, 2, 3)",
    ]
    run, _ = resolve(parse(["train", *flags]), "TrainRun")
    assert run.initializer == FromFiles(paths, weights=(1, 2, 3))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"paths": ()}, "FromFiles.paths is ()"),
        ({"paths": "a.safetensors"}, "set it to ('FILE', 'FILE', ...)"),
        ({"paths": (3,)}, "FromFiles.paths is (3,)"),
        ({"paths": ("a", "b", "a")}, "names a twice"),
        ({"paths": ("a",), "combine": "average"}, "FromFiles.combine is 'average': set it to"),
        ({"paths": ("a",), "combine": ["mean"]}, "FromFiles.combine"),
        ({"paths": ("a", "b"), "weights": (1.0,)}, "each of the 2 paths a number"),
        ({"paths": ("a", "b"), "weights": (1.0, -1.0)}, "none below 0"),
        ({"paths": ("a", "b"), "weights": (0, 0)}, "and one above"),
        ({"paths": ("a", "b"), "weights": (float("nan"), 1)}, "FromFiles.weights is (nan, 1)"),
        ({"paths": ("a", "b"), "weights": ("1", "2")}, "FromFiles.weights is ('1', '2')"),
        ({"paths": ("a", "b"), "weights": 1}, "FromFiles.weights is 1"),
        ({"paths": ("a", "b"), "weights": (1, 1), "combine": "shared"}, "leave them out"),
    ],
)
def test_wrong_settings_are_one_line(unchecked, settings, words):
    with pytest.raises(ConfigError) as caught:
        FromFiles(**settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


OTHER = {
    "length": (np.ones((P + 1, D)), {}, r"other.safetensors has 5 prompt tokens and .*mnli.safetensors 4"),
    "width": (np.ones((P, D + 1)), {}, r"other.safetensors has width 9 and the base model 8"),
    "model": (
        np.ones((P, D)),
        {"model_fingerprint": "bbbb"},
        r"base model aaaa \(t5\) and .*other.* to bbbb",
    ),
    "kind": (np.ones((P, D)), {"prompt_kind": "deep"}, r"of kind input and .*other.safetensors of kind deep"),
}


@pytest.mark.parametrize(("prompt_PD", "metadata", "words"), OTHER.values(), ids=OTHER)
def test_sources_that_do_not_go_together_are_named(paths, tmp_path, prompt_PD, metadata, words):
    other = tmp_path / "other.safetensors"
    save_prompt(other, prompt_PD.astype(np.float32), PromptMetadata(**metadata))
    with pytest.raises(ConfigError, match=words) as caught:
        FromFiles((*paths, str(other))).table_init(BASE)
    assert "\n" not in str(caught.value)


def test_a_source_that_is_nothing_without_its_leaves(paths, tmp_path):
    other = str(tmp_path / "other.safetensors")
    leaves = {"input_offset/a": np.ones((3, 2)), "input_offset/b": np.ones((2, D))}
    save_prompt(other, SOURCES_KPD[0], PromptMetadata(method="PromptTuning, DePT"), leaves)
    with pytest.raises(
        ConfigError, match=r"FromFiles.paths .*other.* holds 2 leaves inside the model \(P.*DePT"
    ):
        FromFiles((*paths, other)).table_init(BASE)
    save_prompt(other, SOURCES_KPD[0], PromptMetadata(), {"classifier/kernel": np.ones((D, 2))})
    FromFiles((*paths, other)).table_init(BASE)  # a BERT's answer is no part of its prompt


def test_unknown_base_models_are_not_compared(paths, tmp_path):
    save_prompt(tmp_path / "old.safetensors", SOURCES_KPD[0], PromptMetadata())
    start(FromFiles((*paths, str(tmp_path / "old.safetensors"))))


def test_files_that_are_none_are_named(paths, tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.safetensors does not exist"):
        FromFiles((*paths, str(tmp_path / "absent.safetensors"))).table_init(BASE)
    half = tmp_path / "half.safetensors"
    half.write_bytes((tmp_path / "mnli.safetensors").read_bytes()[:50])
    with pytest.raises(RunError, match=r"half\.safetensors is not a whole prompt file"):
        FromFiles((*paths, str(half))).table_init(BASE)
    with pytest.raises(ConfigError, match=re.escape("has 4 rows and the method's table 7: use other files")):
        start(FromFiles(paths), length=7)
