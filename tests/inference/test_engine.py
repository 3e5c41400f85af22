"""The Python interface: rows of one call with other prompts, none, of other kinds; labels scored; bad input."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
from flax.core import meta
from labelled import LabelledCache

import jax_prompts
from jax_prompts import ConfigError, Decoding, Prompt, PromptStore, length_plan, load_model
from jax_prompts.assets import resolve_asset
from jax_prompts.base_models.weights import random_weights, save_model
from jax_prompts.config import BaseModel, Data
from jax_prompts.data.layout import RaggedTokens
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import SettingWarning
from jax_prompts.inference.infer import infer_file
from jax_prompts.main import main
from jax_prompts.models.sizes import SIZES
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import PromptMetadata, save_prompt
from jax_prompts.runs import InferRun
from jax_prompts.scoring.evaluator import Evaluator

ROOT = pathlib.Path(__file__).parents[2]
SIZES["small_of_tests"] = T5Config(4096, 32, 4, 1, 1, 8, 64, ("gelu", "linear"), logits_via_embedding=False)
D, P = 32, 4
LABELS = ("negative", "positive")
# One of the texts is cut, of which a test of its own tells.
pytestmark = pytest.mark.filterwarnings("ignore:.* texts were cut|.* cuts 1 of 4 texts")
TEXTS = ["the soup was cold.", "what a lovely song!", "a film about " * 9, ""]  # one batch; one is cut


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model in the native form, its weights random and large enough for answers that differ."""
    folder = tmp_path_factory.mktemp("model")
    module = T5(SIZES["small_of_tests"])
    weights = meta.unbox(jax.jit(lambda: random_weights(module, jax.random.key(0)))())
    save_model(folder, jax.tree.map(lambda x: x * 1.5, weights), module.config, {})
    shutil.copy(resolve_asset("asset:micro") + "/vocabulary.model", folder)
    return load_model(str(folder), inputs_length=16, targets_length=4, batch_size=4)


def save(path, model, length, seed):
    """A prompt file that belongs to a model, at its embeddings' scale."""
    width = model._model.config.emb_dim
    rows = np.random.default_rng(seed).normal(size=(length, width)).astype(np.float32)
    metadata = PromptMetadata(labels=LABELS, model_fingerprint=model._base["model_fingerprint"])
    save_prompt(path, rows, metadata)
    return path


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    return [save(folder / f"{i}.safetensors", model, length, i) for i, length in enumerate((P, P, 3))]


@pytest.fixture(scope="module")
def prompts(model, files):
    return [model.load_prompt(file) for file in files]


@pytest.fixture(scope="module")
def micro():
    return load_model("asset:micro", inputs_length=16, targets_length=4, batch_size=4)


@pytest.fixture(scope="module")
def of_micro(micro, tmp_path_factory):
    return save(tmp_path_factory.mktemp("prompts") / "prompt.safetensors", micro, P, 0)


def test_the_package_is_light_and_knows_its_names():
    program = (
        "import sys, jax_prompts\n"
        "assert not {'jax', 'numpy', 'safetensors'} & set(sys.modules)\n"
        "assert not hasattr(jax_prompts, 'nothing')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(hasattr(jax_prompts, name) for name in jax_prompts.__all__)


def test_the_five_lines_of_the_readme(micro, of_micro, tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    shutil.copy(of_micro, tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    shown = []
    for line in filter(None, block.splitlines()):
        if re.match(r"import |\w+ = ", line):
            exec(line, names)
        else:
            shown.append(eval(line, names))
    answers, log_p_NC, array = shown
    assert len(block.split("\n\n")[1].splitlines()) == 5
    assert len(answers) == 1 and isinstance(answers[0], str)
    assert log_p_NC.shape == (1, 2) and (log_p_NC < 0).all()
    assert array.shape == (P, 192) and array.dtype == np.float32


def test_the_command_gives_the_same_answers(micro, of_micro, tmp_path, capsys):
    store = PromptStore(f"file://{tmp_path}/store")
    store.add("b", save(tmp_path / "b.safetensors", micro, P, 1))
    named = {"a": micro.load_prompt(of_micro), "b": micro.load_prompt(store.path("b"))}
    rows = [{"prompt": "ab"[i % 2], "text": text} for i, text in enumerate(TEXTS)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(
        [
            "infer",
            "--gin_file=gin_configs/quickstart_infer.gin",
            "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 4}",
            f"--prompt=a={of_micro}",
            f"--prompt=b={store.path('b')}",
            f"--input={tmp_path / 'in.jsonl'}",
            f"--output={tmp_path / 'out.jsonl'}",
        ]
    )
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["examples"], report["cut"]) == (len(TEXTS), 1)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in found] == TEXTS
    wanted = micro.predict(TEXTS, [named[row["prompt"]] for row in rows])
    assert [row["prediction"] for row in found] == wanted


def test_answers_and_scores_are_those_of_an_evaluation(model, prompts):
    """As `t5x eval` scores a task: generation and rank classification."""
    vocabulary = Vocabulary("asset:micro")
    targets = [LABELS[i % 2] for i in range(len(TEXTS))]
    cache = LabelledCache(targets, LABELS, texts=TEXTS, encode=vocabulary.encode)
    cache.longest_targets = 4
    lengths = {"inputs": 16, "targets": 4}
    data = Data("labelled", "tasks", lengths, 4, eval_batch_size=4, rank_classification=True)
    cache.rows = lambda index_B, rows=cache.rows: [cut(part, 16) for part in rows(index_B)]
    scorer = Evaluator(model._model, vocabulary, [cache], data, Decoding())
    found = scorer([model._params], jax.numpy.asarray(prompts[0].array)[None])[0]["labelled"].predictions
    assert model.predict(TEXTS, prompts[0]) == [row["prediction"] for row in found]
    wanted_NC = [[row["label_log_probabilities"][label] for label in LABELS] for row in found]
    found_NC = model.score_labels(TEXTS, LABELS, prompts[0])
    np.testing.assert_allclose(found_NC, wanted_NC, rtol=2e-5, atol=2e-5)


def cut(rows, length):
    """Texts as a task's features are: cut, with an end of sentence."""
    texts = np.split(rows.values_N, rows.offsets[1:-1])
    return RaggedTokens.of([*text[: length - 1], 1] if len(text) > length else text for text in texts)


def test_each_row_has_its_own_prompt(model, prompts):
    each = [*prompts, None]
    answers = model.predict(TEXTS, each)
    log_p_NC = model.score_labels(TEXTS, LABELS, each)
    assert len(set(answers)) > 2
    assert model.predict(TEXTS, prompts[0])[0] == answers[0]
    assert model.predict(TEXTS, prompts[1])[1] == answers[1]
    for row, prompt in enumerate(each):
        alone_NC = model.score_labels(TEXTS, LABELS, prompt)
        np.testing.assert_allclose(alone_NC[row], log_p_NC[row], rtol=1e-5, atol=1e-5)
        assert np.abs(np.delete(alone_NC - log_p_NC, row, axis=0)).min() > 1e-3


@pytest.mark.parametrize("kind", ["prefix", "decoder_prefix"])
def test_prompts_of_other_kinds_answer_in_one_call(model, prompts, kind):
    width = model._model.config.prompt_width(kind)
    rows = np.random.default_rng(5).normal(size=(P, width)).astype(np.float32)
    deep = Prompt(rows, PromptMetadata(prompt_kind=kind))
    found_NC = model.score_labels(TEXTS, LABELS, [deep, prompts[0], None, deep])
    for prompt, rows in ((deep, [0, 3]), (prompts[0], [1]), (None, [2])):
        wanted_NC = model.score_labels(TEXTS, LABELS, prompt)
        np.testing.assert_allclose(found_NC[rows], wanted_NC[rows], rtol=1e-5, atol=1e-5)


def test_programs_are_compiled_once_a_shape(model, prompts):
    texts = [" ".join(["cold"] * count) for count in range(1, 17)]

    def compiled():
        return sum(program._cache_size() for program in model._programs.values())

    before = compiled()
    for some in (1, 2, 4):
        model.score_labels(texts[:some], LABELS, prompts[0])
        model.score_labels(texts[-some:], LABELS, prompts[0])
    assert compiled() - before <= 6
    before = compiled()
    for some in range(1, 17):
        model.score_labels(texts[:some], LABELS, prompts[some % 2])  # another prompt is no other shape
        model.score_labels(texts[some:], ["fine", "poor"], prompts[0])
    assert compiled() == before
    a, b, shorter = prompts
    model.score_labels(TEXTS, LABELS, [a, b, a, b])
    before = compiled()
    model.score_labels(TEXTS, LABELS, [a, shorter, a, shorter])  # nor is a table of nearly as many rows
    assert compiled() == before


def test_planned_lengths_change_no_answer(monkeypatch):
    micro = load_model("asset:micro", inputs_length=64, targets_length=4, batch_size=4)
    texts = [" ".join(["cold"] * count) for count in range(17, 23)]
    expected = micro.score_labels(texts, LABELS)
    assert not micro._planned[("input", 0)]
    monkeypatch.setattr(length_plan, "_ANSWERING_PROGRAM", (0.0, 0.0))  # compiling seems to cost nothing
    found = micro.score_labels(texts, LABELS)
    assert micro._planned[("input", 0)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_decoding_is_chosen_for_each_call(model, prompts):
    sampled = [model.predict(TEXTS, prompts[0], decoding=Decoding("sample"), seed=seed) for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    with pytest.raises(ConfigError, match="top_k"):
        model.predict(TEXTS, prompts[0], decoding=Decoding(top_k=5))


def test_labels_are_the_prompts_own_where_none_are_given(model, prompts):
    wanted_NC = model.score_labels(TEXTS, LABELS, prompts[0])
    np.testing.assert_array_equal(model.score_labels(TEXTS, prompt=prompts[0]), wanted_NC)
    long = ["negative", "a label longer than any answer may be"]
    found_NC = model.score_labels(TEXTS, long, prompts[0])  # it is not cut
    np.testing.assert_allclose(found_NC[:, 0], wanted_NC[:, 0], rtol=1e-5)
    assert (found_NC[:, 1] < 2 * found_NC[:, 0]).all()


def test_a_prompt_is_an_array_that_can_be_changed(model, files, prompts):
    prompt = prompts[0]
    assert prompt.array.shape == (P, D) and prompt.array.dtype == np.float32
    assert prompt.metadata.labels == LABELS and prompt.name == str(files[0])
    wanted_NC = model.score_labels(TEXTS, LABELS, prompt)
    np.testing.assert_array_equal(
        model.score_labels(TEXTS, LABELS, Prompt(np.array(prompt.array))), wanted_NC
    )
    changed = dataclasses.replace(prompt, array=2 * prompt.array)
    assert (model.score_labels(TEXTS, LABELS, changed) != wanted_NC).any()


def test_texts_that_are_cut_are_told_of(model, prompts):
    ask = model.predict, lambda texts, prompt: model.score_labels(texts, LABELS, prompt)
    with warnings.catch_warnings(record=True, action="always") as caught:
        for each in ask:
            each(TEXTS[:2], prompts[0])
            each(["a " * 8, "a " * 99], prompts[0])
            each(TEXTS * 2, [*prompts, None] * 2)
    counted = ["1 of 2", "2 of 8"] * 2
    assert [str(each.message) for each in caught] == [
        f"{count} texts were cut to what the model reads: inputs_length is 16" for count in counted
    ]
    assert {each.category for each in caught} == {SettingWarning}


def test_anything_in_order_is_a_list(unchecked, model, prompts):
    wanted = model.predict(TEXTS, prompts[0])
    for texts in (iter(TEXTS), tuple(TEXTS), np.array(TEXTS), (np.str_(text) for text in TEXTS)):
        assert model.predict(texts, prompts[0]) == wanted
    wanted_NC = model.score_labels(TEXTS, LABELS, prompts[0])
    np.testing.assert_array_equal(model.score_labels(TEXTS, np.array(LABELS), prompts[0]), wanted_NC)


def test_nothing_to_answer(model, prompts):
    assert model.predict([]) == [] and model.predict([], prompts[0]) == []
    assert model.score_labels([], LABELS, prompts[0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("one text",), "texts are no list of strings"),
        (([3],), "texts are no list of strings"),
        ((None,), "texts are no list of strings"),
        ((5,), "texts are no list of strings"),
        ((b"text",), "texts are no list of strings"),
        (([b"text"],), "texts are no list of strings"),
        ((np.array("text"),), "texts are no list of strings"),
        (({"text": None},), "texts are no list of strings"),
        ((["a", "\ud800"],), r"texts\[1\] holds half a surrogate pair"),
        ((["a"], 5), "a prompt is a int"),
        ((["a"], (each for each in [None])), "a prompt is a generator"),
        ((["a"], Prompt(np.full((P, D), np.nan))), "the prompt holds values that are not finite"),
        ((["a", "b"], [None]), "1 prompts for 2 texts"),
        ((["a"], "prompt.safetensors"), "a prompt is a str: give what load_prompt returns"),
        ((["a"], np.zeros((P, D))), "a prompt is a ndarray"),
        ((["a"], Prompt(np.zeros((P, 8)))), "the prompt has width 8 and the base model 32"),
        ((["a"], Prompt(np.zeros((P, D)), PromptMetadata(model_fingerprint="x"))), "belongs to base model x"),
        ((["a"], Prompt(np.zeros((P, D)), PromptMetadata(prompt_kind="nowhere"))), "kind 'nowhere'"),
    ],
)
def test_what_cannot_be_answered_is_one_line(unchecked, model, arguments, words):
    for ask in (model.predict, lambda texts, prompt=None: model.score_labels(texts, LABELS, prompt)):
        with pytest.raises(ConfigError, match=words) as caught:
            ask(*arguments)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decoding": "beam"}, "decoding is 'beam': give a Decoding"),
        ({"decoding": None}, "decoding is None: give a Decoding"),
        (
            {"decoding": Decoding("beam", num_decodes="3")},
            "Decoding.num_decodes is '3': set it to a whole number",
        ),
        ({"decoding": Decoding("beam", num_decodes=True)}, "Decoding.num_decodes is True"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 10**30}, "seed is 10"),
    ],
)
def test_settings_of_another_type_are_one_line(unchecked, model, settings, words):
    with pytest.raises(ConfigError, match=words) as caught:
        model.predict(["a"], **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["beem", "", None, 5, ["beam"]])
def test_a_way_of_decoding_that_is_unknown_is_one_line(unchecked, name):
    with pytest.raises(ConfigError, match=r"Decoding\.name = .* is unknown; use ") as caught:
        Decoding(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", [5, None, b"a", "", "a\0b"])
def test_what_is_no_path_is_one_line(unchecked, model, path):
    for ask in (model.load_prompt, PromptStore, lambda path: load_model("asset:micro", vocabulary=path or 5)):
        with pytest.raises(ConfigError, match="is no path"):
            ask(path)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ((np.zeros(D),), r"the prompt has shape \(32,\)"),
        ((None,), r"the prompt has shape \(\)"),
        (([[1], [2, 3]],), "the prompt is no array of numbers"),
        ((np.array([["a"]]),), "the prompt is no array of numbers"),
        ((np.zeros((P, D)), {"task": "a"}), "the prompt has metadata that is none"),
        ((np.zeros((P, D), complex),), "the prompt is no array of numbers"),
    ],
)
def test_what_is_no_prompt_is_one_line(unchecked, model, made, words):
    with pytest.raises(ConfigError, match=words):
        model.predict(["a"], Prompt(*made))


@pytest.mark.parametrize(
    ("labels", "leaves", "words"),
    [
        (["a"], {}, r"the prompt has labels \['a'\]: give a tuple"),
        (5, {}, "the prompt has labels 5: give a tuple"),
        ((), 5, "the prompt has leaves 5"),
        ((), {3: np.ones(2)}, "give arrays by path"),
        ((), {"a": [1.0]}, r"the prompt has a \[1.0\]: give an array"),
        ((), {"a": np.array(["1"])}, "give an array of floats"),
        ((), {"a": np.array([1.0, np.nan])}, "a that is not finite"),
        ((), {"a": np.array([1e300])}, "a that is not finite"),
    ],
)
def test_parts_of_a_prompt_that_are_none_are_one_line(unchecked, model, labels, leaves, words):
    prompt = Prompt(np.zeros((P, D)), PromptMetadata(labels=labels), leaves)
    for ask in (model.predict, model.score_labels):
        with pytest.raises(ConfigError, match=words):
            ask(["a"], prompt=prompt)


def test_an_activation_that_is_no_name_is_one_line(unchecked, model):
    metadata = PromptMetadata(adapter_activation=["relu"])
    with pytest.raises(ConfigError, match=r"adapter_activation \['relu'\]"):
        model.predict(["a"], Prompt(np.zeros((P, D)), metadata))


def test_a_prompt_of_nothing_beside_others_is_the_bare_model(model, prompts):
    nothing = Prompt(np.zeros((0, 0)))
    texts = ["the film", "a plate", "the film"]
    found = model.score_labels(texts, ["a", "b"], [nothing, prompts[0], None])
    np.testing.assert_array_equal(found, model.score_labels(texts, ["a", "b"], [None, prompts[0], None]))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((), "labels is"),
        ("yes", "labels are no list of strings"),
        (5, "labels are no list of strings"),
        ([1, 2], "labels are no list of strings"),
        (["yes", "\udcff"], r"labels\[1\] holds half a surrogate pair"),
        (["x" * 100_000, "y"], r"label 'x+\.\.\.x+' has 100,00\d tokens, over 1,024: give a shorter one"),
        (None, "the prompts do not all name the same labels"),
        (["\u4e00", "\u4e01"], "are the same tokens"),
        (["yes", "no", "yes"], "labels hold 'yes' 2 times: leave it there once"),
    ],
)
def test_labels_that_cannot_be_scored_are_one_line(unchecked, model, labels, words):
    with pytest.raises(ConfigError, match=words):
        model.score_labels(TEXTS, labels)


def test_models_that_cannot_be_loaded_are_one_line(unchecked, tmp_path):
    with pytest.raises(ConfigError, match="holds no model"):
        load_model(str(tmp_path))
    with pytest.raises(ConfigError, match="no vocabulary lies beside None"):
        load_model(None, size="micro")
    with pytest.raises(ConfigError, match=r"mikro.*micro"):
        load_model("asset:micro", size="mikro")
    with pytest.raises(ConfigError, match="batch_size is 0"):
        load_model("asset:micro", batch_size=0)
    run = InferRun(BaseModel("micro", None, None), {"inputs": 8, "targets": 2}, batch_size=0)
    with pytest.raises(ConfigError, match="EVAL_BATCH_SIZE is 0; it must be at least 1"):
        infer_file(run, {}, "-", "-")
    with pytest.raises(ConfigError, match=r"nothing\.model"):
        load_model("asset:micro", vocabulary="nothing.model")
    for settings, words in (
        ({"size": 5}, "BaseModel.size is 5"),
        ({"inputs_length": "a"}, "inputs_length is 'a'"),
        ({"targets_length": 1.5}, "targets_length is 1.5"),
        ({"batch_size": True}, "batch_size is True"),
        ({"partitions": "data"}, "BaseModel.partitions is 'data'"),
        ({"partitions": {"data": "all"}}, "BaseModel.partitions is {'data': 'all'}"),
        ({"activation_dtype": "float16"}, "BaseModel.activation_dtype is 'float16'"),
        ({"scan_layers": "yes"}, "BaseModel.scan_layers is 'yes'"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            load_model("asset:micro", **settings)
        assert "\n" not in str(caught.value)


def test_prompts_that_cannot_be_loaded_are_one_line(model, of_micro):
    with pytest.raises(ConfigError, match="has width 192 and the base model 32"):
        model.load_prompt(of_micro)
    with pytest.raises(ConfigError, match="does not exist"):
        model.load_prompt("absent.safetensors")
