"""Initialisers: which rows of the embedding a prompt starts at, under jit, vmap and eval_shape."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.base_models.build import make_vocabulary
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError, SettingWarning
from jax_prompts.partition import mesh_of
from jax_prompts.prompts import (
    Base,
    ClassLabels,
    FromFile,
    PromptMetadata,
    PromptTuning,
    SampledVocabulary,
    Text,
    Uniform,
    init_members,
    save_prompt,
)
from jax_prompts.prompts.init import task_words
from jax_prompts.setup import set_up
from jax_prompts.state import initial_state

V, D = 60, 8
EMBEDDING_VD = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Letters:
    """A vocabulary of letters: a is 3, b is 4 ..."""

    size: int = 50

    def encode(self, text):
        return [ord(letter) - ord("a") + 3 for letter in text if letter.isalpha()]


BASE = Base(jnp.asarray(EMBEDDING_VD), Letters(), ("ab", "c"))
KEY = jax.random.key(0)


def rows_of(table_PD):
    """The embedding row that each row of a table equals, bit for bit; -1 where there is none."""
    equal_PV = (np.asarray(table_PD)[:, None] == EMBEDDING_VD[None]).all(-1)
    return [int(row.argmax()) if row.any() else -1 for row in equal_PV]


def test_uniform_has_the_bounds_of_paper_and_code():
    paper_PD = Uniform().table_init(BASE)(KEY, (200, D), jnp.float32)
    code_PD = Uniform(0.0, 0.5).table_init(BASE)(KEY, (200, D), jnp.float32)
    assert -0.5 <= paper_PD.min() < -0.45 and 0.45 < paper_PD.max() < 0.5
    assert 0 <= code_PD.min() < 0.05 and 0.45 < code_PD.max() < 0.5


def test_first_pieces_are_sampled_without_repetition_or_special_ids():
    rows = rows_of(SampledVocabulary(first=10).table_init(BASE)(KEY, (10, D), jnp.float32))
    assert sorted(rows) == list(range(3, 13)) and rows != sorted(rows)


def test_all_pieces_of_the_vocabulary_but_no_unused_row():
    rows = rows_of(SampledVocabulary(first=None).table_init(BASE)(KEY, (47, D), jnp.float32))
    assert sorted(rows) == list(range(3, 50))
    clamped = rows_of(SampledVocabulary(first=5000).table_init(BASE)(KEY, (47, D), jnp.float32))
    assert sorted(clamped) == list(range(3, 50))
    without = Base(BASE.embedding_VD)
    assert max(rows_of(SampledVocabulary(None).table_init(without)(KEY, (57, D), jnp.float32))) == V - 1


def test_bytes_are_drawn_without_the_sentinels_that_byt5_has_not_learnt():
    base = Base(jnp.tile(jnp.arange(384.0)[:, None], (1, D)), Vocabulary("bytes"))
    rows_P = SampledVocabulary().table_init(base)(KEY, (256, D), jnp.float32)[:, 0]
    assert sorted(rows_P.tolist()) == list(range(3, 259))
    assert SampledVocabulary(None).table_init(base)(KEY, (381, D), jnp.float32).max() == 383
    labels = dataclasses.replace(base, labels=("é",))
    first_D = ClassLabels().table_init(labels)(KEY, (2, D), jnp.float32)[0]
    assert np.allclose(first_D, (198 + 172) / 2)


def test_more_rows_than_pieces_repeat():
    rows = rows_of(SampledVocabulary(first=4).table_init(BASE)(KEY, (9, D), jnp.float32))
    assert len(rows) == 9 and set(rows) <= {3, 4, 5, 6}


def test_labels_are_means_of_their_pieces():
    table_PD = ClassLabels().table_init(BASE)(KEY, (5, D), jnp.float32)
    np.testing.assert_allclose(table_PD[0], (EMBEDDING_VD[3] + EMBEDDING_VD[4]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(table_PD[1], EMBEDDING_VD[5])
    rest = rows_of(table_PD[2:])
    assert -1 not in rest
    named_PD = ClassLabels(words=("z",)).table_init(BASE)(KEY, (2, D), jnp.float32)
    np.testing.assert_array_equal(named_PD[0], EMBEDDING_VD[28])


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("taskless_super_glue_record_v102", "commonsense reasoning reading comprehension"),
        ("super_glue_wsc_and_dev_v102_simple", "commonsense pronoun resolution"),
        ("squad_v010_allanswers", ""),
    ],
)
def test_words_in_place_of_labels(task, words):
    assert task_words(task) == tuple(words.split())


def test_a_run_on_free_text_starts_from_the_words_of_its_task():
    files = "models/micro prompts/prompt_tuning recipes/micro runs/train".split()
    flags = [f"--gin_file=gin_configs/{file}.gin" for file in files]
    flags += ["--gin.MODEL_DIR=never", "--gin.MIXTURE_OR_TASK_NAME=super_glue_record_v102"]
    run, _ = resolve(parse(["train", *flags]), "TrainRun")
    vocabulary = make_vocabulary(run.model)
    setup = set_up(run, mesh_of(run.model), vocabulary=vocabulary, labels=[None])
    tuned, _, frozen, _ = initial_state(setup, vocabulary)
    ids = vocabulary.encode("comprehension")
    mean_D = np.asarray(frozen["token_embedder"]["embedding"])[np.array(ids)].mean(axis=0)
    np.testing.assert_allclose(np.asarray(tuned["prompt"]["prompt"])[0, 3], mean_D, rtol=1e-5, atol=1e-5)


def test_labels_beyond_the_prompt_are_left_out():
    table_PD = ClassLabels(words=("a", "b", "c")).table_init(BASE)(KEY, (2, D), jnp.float32)
    assert rows_of(table_PD) == [3, 4]


def test_text_is_in_order_then_sampled():
    assert rows_of(Text("bad cab").table_init(BASE)(KEY, (4, D), jnp.float32)) == [4, 3, 6, 5]
    rows = rows_of(Text("bad").table_init(BASE)(KEY, (6, D), jnp.float32))
    assert rows[:3] == [4, 3, 6] and all(row >= 3 for row in rows[3:])


@pytest.fixture
def prompt_file(tmp_path):
    prompt_PD = np.random.default_rng(1).normal(size=(4, D)).astype(np.float32)
    save_prompt(tmp_path / "other.safetensors", prompt_PD, PromptMetadata(task="other"))
    return tmp_path / "other.safetensors", prompt_PD


def test_another_prompt(prompt_file):
    path, prompt_PD = prompt_file
    np.testing.assert_array_equal(FromFile(str(path)).table_init(BASE)(KEY, (4, D), jnp.float32), prompt_PD)
    save_prompt(path, prompt_PD, PromptMetadata(method="Residual"))
    with pytest.warns(SettingWarning, match="folded from Residual.*MODEL_DIR"):
        FromFile(str(path)).table_init(BASE)


@pytest.mark.parametrize(
    "initializer", [Uniform(), SampledVocabulary(9), ClassLabels(), Text("abc")], ids=repr
)
def test_jit_vmap_and_eval_shape(initializer):
    """With the embedding as an argument, so that it may be sharded, abstract or large."""
    method = PromptTuning(length=6)
    keys_E = jax.random.split(KEY, 3)

    def make(keys_E, embedding_VD):
        return init_members(
            method, keys_E, D, initializer.table_init(Base(embedding_VD, Letters(), ("ab", "c")))
        )

    embedding_VD = jnp.asarray(EMBEDDING_VD, jnp.bfloat16)
    tables_EPD = jax.jit(make)(keys_E, embedding_VD)["prompt"]
    table_init = initializer.table_init(Base(embedding_VD, Letters(), ("ab", "c")))
    for e in range(3):
        alone_PD = method.init(keys_E[e], D, table_init)["params"]["prompt"].unbox()
        np.testing.assert_array_equal(alone_PD, tables_EPD[e])
    assert (tables_EPD[0, -1] != tables_EPD[1, -1]).any()

    shapes = jax.eval_shape(make, keys_E, jax.ShapeDtypeStruct((V, D), jnp.bfloat16))
    assert shapes["prompt"].shape == (3, 6, D) and shapes["prompt"].dtype == jnp.float32

    mesh = jax.make_mesh((jax.device_count(),), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(None, "model")
    if D % jax.device_count() == 0:
        sharded_VD = jax.device_put(embedding_VD, jax.sharding.NamedSharding(mesh, spec))
        np.testing.assert_array_equal(jax.jit(make)(keys_E, sharded_VD)["prompt"], tables_EPD)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Uniform(0.5, 0.5), ["Uniform.low", "Uniform.high"]),
        (lambda: SampledVocabulary(0), ["SampledVocabulary.first", "0"]),
        (lambda: ClassLabels(words=()), ["ClassLabels.words"]),
        (lambda: ClassLabels(words="true"), ["ClassLabels.words", "true"]),
        (lambda: ClassLabels().table_init(Base(BASE.embedding_VD, Letters())), ["ClassLabels", "words"]),
        (lambda: ClassLabels().table_init(Base(BASE.embedding_VD, None, ("a",))), ["vocabulary"]),
        (lambda: Text("abc").table_init(Base(BASE.embedding_VD)), ["Text", "BaseModel.vocabulary"]),
        (lambda: Text("!").table_init(BASE), ["Text", "'!'"]),
        (
            lambda: SampledVocabulary().table_init(Base(BASE.embedding_VD, Letters(99))),
            ["99", "60", "vocabulary"],
        ),
        (lambda: SampledVocabulary().table_init(Base(BASE.embedding_VD, Letters(3))), ["vocabulary", "3"]),
        (
            lambda: SampledVocabulary(9, repeat=False).table_init(BASE)(KEY, (10, D)),
            ["9 pieces", "10 different", "SuperPos.rows", "SampledVocabulary.repeat"],
        ),
        (lambda: FromFile("/absent/p.safetensors").table_init(BASE), ["/absent/p.safetensors"]),
    ],
)
def test_wrong_settings_are_named(unchecked, make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_another_prompt_must_fit(prompt_file):
    path, _ = prompt_file
    with pytest.raises(ConfigError, match=r"other.safetensors has width 8 and the base model 5"):
        FromFile(str(path)).table_init(Base(jnp.zeros((V, 5))))
    with pytest.raises(
        ConfigError, match=r"other.safetensors has 4 rows and the method's table 7: use another file"
    ):
        FromFile(str(path)).table_init(BASE)(KEY, (7, D), jnp.float32)
