"""Instructions and demonstrations through the caches: texts, tokens, keys, roles; settings that cannot work."""

import copy
import dataclasses
import json
import pathlib

import pytest

pytest.importorskip("seqio")

from jax_prompts.config import Data, OwnTask, PromptDesign
from jax_prompts.data import prompt_design
from jax_prompts.data.open import open_caches
from jax_prompts.data.roles import open_members, open_role, open_roles
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError

LABELS = {"0": "no", "1": "yes"}


@pytest.fixture(scope="module")
def micro():
    return Vocabulary("asset:micro")


def write(path, rows):
    path.write_text(
        "".join(json.dumps(dict(zip(("text", "label"), row, strict=True))) + "\n" for row in rows)
    )


TRAINING = [(f"{word} is good", i % 2) for i, word in enumerate("soup film room staff garden wine".split())]


@pytest.fixture
def own(tmp_path):
    """A task of six training examples, one of which is also the first of three to validate on."""
    write(tmp_path / "train.jsonl", TRAINING)
    write(tmp_path / "dev.jsonl", [TRAINING[0], ("cake is good", 1), ("tea is good", 0)])
    return Data(
        task="mine",
        task_module="tasks.registry",
        task_feature_lengths={"inputs": 64, "targets": 4},
        batch_size=2,
        data_dir=str(tmp_path),
        cache_dir=str(tmp_path / "caches"),
        own_task=OwnTask(train="train.jsonl", validation="dev.jsonl", labels=LABELS),
    )


def designed(data, vocabulary, role="validation", **design):
    (cache,) = open_role(dataclasses.replace(data, prompt_design=PromptDesign(**design)), vocabulary, role)
    return cache


def texts(cache):
    return cache.texts("inputs_pretokenized")


def ids(cache, row):
    return cache.rows([row])[0].values_N.tolist()


def test_nothing_changes_where_nothing_is_set(own, micro):
    ((_, plain),) = open_caches(own, "validation", micro)
    for design in (
        {},
        {"seed": 3},
        {"fixed": True},
        {"template": "{inputs}: {targets}."[:8] + " {targets}."},
    ):
        assert designed(own, micro, **design).directory == plain.directory
    assert plain.demonstrations is None


def test_an_instruction_and_the_templates_question_stand_round_the_text(own, micro):
    cache = designed(own, micro, instruction="what is it?", template="text: {inputs} answer: {targets}.")
    assert texts(cache) == [
        f"what is it?\n\ntext: {word} is good answer:" for word in ("soup", "cake", "tea")
    ]
    for row, text in enumerate(texts(cache)):
        assert ids(cache, row) == [*micro.encode(text), 1]
    assert cache.longest_inputs == max(len(ids(cache, row)) for row in range(3))
    assert cache.texts("targets_pretokenized") == ["no", "yes", "no"]
    assert cache.demonstrations is None and cache.cut() == {"inputs": 0, "targets": 0}


def test_a_design_begins_as_texts_of_its_model_do(own, micro):
    """A T5Gemma's begin with <bos>."""
    gemma = copy.copy(micro)
    gemma.begin_ids = (2,)
    cache = designed(own, gemma, instruction="what is it?")
    for row, text in enumerate(texts(cache)):
        assert ids(cache, row) == [2, *micro.encode(text), 1]


def test_demonstrations_stand_between_them(own, micro):
    design = {"template": "{inputs} > {targets}", "separator": " ; ", "instruction": "say yes or no"}
    cache = designed(own, micro, demonstrations=2, **design)
    answered = {f"{text} > {LABELS[str(label)]}" for text, label in TRAINING}
    for text, asked in zip(texts(cache), ("soup", "cake", "tea"), strict=True):
        instruction, *shown, question = text.split(" ; ")
        assert (instruction, question) == ("say yes or no", f"{asked} is good >")
        assert len(shown) == 2 and set(shown) <= answered
        assert sorted(line.rpartition(" ")[2] for line in shown) == ["no", "yes"]
        assert not any(line.startswith(asked) for line in shown)
    assert cache.demonstrations == {"asked": 2, "mean": 2.0, "fewer": 0}
    assert designed(own, micro, demonstrations=2, **design).directory == cache.directory


def test_the_same_for_all_texts_where_they_are_fixed(own, micro):
    shown = [text.rpartition("\n\n")[0] for text in texts(designed(own, micro, demonstrations=2, fixed=True))]
    assert shown[1] == shown[2]
    draws = [texts(designed(own, micro, demonstrations=2, fixed=True, seed=seed))[1] for seed in range(8)]
    assert len(set(draws)) > 3


def test_a_training_example_is_shown_to_others_alone(own, micro):
    cache = designed(own, micro, "train", demonstrations=4)
    for (text, _), read in zip(TRAINING, texts(cache), strict=True):
        assert read.endswith(f"\n\n{text}") and read.count(text) == 1


def test_words_for_labels_are_shown_and_sentinels_are_not(own, micro):
    data = dataclasses.replace(own, verbalizer={"no": "bad", "yes": "good"}, sentinel=True)
    cache = designed(data, micro, demonstrations=2, template="{inputs} = {targets}")
    for row, text in enumerate(texts(cache)):
        first, second, _ = text.split("\n\n")
        assert {first.rpartition(" ")[2], second.rpartition(" ")[2]} == {"bad", "good"}
        assert "<extra_id_0>" not in text
        sentinel, *_ = cache.rows([row])[1].values_N.tolist()
        assert [sentinel] == micro.encode("<extra_id_0>")


def test_few_shot_runs_show_of_what_they_train_on(own, micro):
    data = dataclasses.replace(own, few_shot_per_class=1, prompt_design=PromptDesign(demonstrations=2))
    roles = open_roles(dataclasses.replace(data, prompt_design=PromptDesign()), micro)
    ((_, training),) = roles["train"]
    found = open_roles(data, micro, ["validation"])
    assert list(found) == ["validation"]
    ((_, cache),) = found["validation"]
    for text in texts(cache)[1:]:
        shown = [line.rpartition(" ")[0] for line in text.split("\n\n")[:-1]]
        assert sorted(shown) == sorted(texts(training))
    with pytest.raises(
        ConfigError, match=r"DEMONSTRATIONS is 2, 1 of a class, and mine has 0 .* besides the one"
    ):
        open_roles(data, micro, ["train"])


def test_examples_that_are_held_out_are_not_shown(toy, small_vocabulary):
    data = dataclasses.replace(toy, task="toy_qnli", protocol="attempt_half")
    data = dataclasses.replace(data, task_feature_lengths={"inputs": 200, "targets": 8})
    plain = open_roles(data, small_vocabulary)
    training = {text for _, cache in plain["train"] for text in texts(cache)}
    held_out = {text for _, cache in plain["validation"] for text in texts(cache)} - training
    assert held_out
    data = dataclasses.replace(data, prompt_design=PromptDesign(demonstrations=4, separator=" | "))
    roles = open_roles(data, small_vocabulary)
    for role, caches in roles.items():
        ((_, cache),) = caches
        ((_, before),) = plain[role]
        assert len(cache) == len(before)
        same = cache.index_N is before.index_N is None
        assert same or cache.index_N.tolist() == before.index_N.tolist()
        assert [cache.example(i)["idx"] for i in range(9)] == [before.example(i)["idx"] for i in range(9)]
        for text in texts(cache):
            shown = [line.rpartition(" ")[0] for line in text.split(" | ")[:-1]]
            assert set(shown) <= training


def test_demonstrations_that_have_no_room_are_left_out_farthest_first(own, micro, capsys):
    whole = designed(own, micro, demonstrations=4, fixed=True)
    lengths = [len(ids(whole, row)) for row in range(3)]
    data = dataclasses.replace(own, task_feature_lengths={"inputs": max(lengths) - 1, "targets": 4})
    cache = designed(data, micro, demonstrations=4, fixed=True)
    for row, (text, before) in enumerate(zip(texts(cache), texts(whole), strict=True)):
        fits = lengths[row] < max(lengths)
        assert text == (before if fits else before.partition("\n\n")[2])
        assert ids(cache, row) == [*micro.encode(text), 1]
    fewer = sum(length == max(lengths) for length in lengths)
    assert cache.demonstrations == {"asked": 4, "mean": pytest.approx(4 - fewer / 3), "fewer": fewer}
    said = f"warning: DEMONSTRATIONS is 4, and {fewer} of 3 texts of mine validation leave room for fewer"
    assert said in capsys.readouterr().err
    designed(data, micro, demonstrations=4, fixed=True)
    assert said in capsys.readouterr().err  # each time, though the cache is there


def test_a_long_text_is_cut_before_the_templates_question(own, micro, tmp_path):
    write(tmp_path / "dev.jsonl", [("good " * 80, 1), ("tea is good", 0), ("cake is good", 0)])
    cache = designed(
        own, micro, demonstrations=2, instruction="one two", template="{inputs} answer: {targets}"
    )
    tokens = ids(cache, 0)
    head, tail = micro.encode("one two"), [*micro.encode("answer:"), 1]
    assert len(tokens) == 64
    assert (tokens[: len(head)], tokens[-len(tail) :]) == (head, tail)
    assert tokens[len(head) : -len(tail)] == micro.encode("good " * 80)[: 64 - len(head) - len(tail)]
    assert cache.cut() == {"inputs": 1, "targets": 0}
    assert cache.demonstrations == {"asked": 2, "mean": pytest.approx(4 / 3), "fewer": 1}


@pytest.mark.parametrize(
    ("lengths", "design", "reason"),
    [
        (64, {"demonstrations": 7}, "is 7, 4 of a class, and mine has 2 .*'no' besides the one"),
        (64, {"demonstrations": 7, "balanced": False}, "DEMONSTRATIONS is 7, and mine has 5 different"),
        (64, {"demonstrations": 10**9}, "DEMONSTRATIONS is 1000000000, 500000000 of a class"),
        (7, {"demonstrations": 2}, "no room for one beside most texts of mine validation in 7 tokens"),
        (
            7,
            {"instruction": "say it " * 9},
            "INSTRUCTION and PromptDesign.template have .* tokens and leave no room",
        ),
        (6, {"instruction": "say it now"}, "cut every text of mine validation in 6 tokens"),
    ],
)
def test_designs_that_cannot_work(own, micro, lengths, design, reason):
    data = dataclasses.replace(own, task_feature_lengths={"inputs": lengths, "targets": 4})
    with pytest.raises(ConfigError, match=reason) as raised:
        designed(data, micro, **design)
    assert "\n" not in str(raised.value)
    assert [path.name.count("-") for path in pathlib.Path(own.cache_dir).iterdir()] in (
        [2],
        [2, 2],
    )  # nothing is left


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"demonstrations": -1}, "DEMONSTRATIONS is -1"),
        ({"seed": -1}, "DEMONSTRATIONS_SEED is -1"),
        ({"template": "{inputs}"}, "PromptDesign.template is '{inputs}'"),
        ({"template": "{targets} {inputs}"}, "and then {targets}"),
        ({"template": "{inputs} {inputs} {targets}"}, "PromptDesign.template"),
    ],
)
def test_settings_without_meaning(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        PromptDesign(**settings)


def test_a_task_without_training_examples(own, micro):
    data = dataclasses.replace(own, own_task=OwnTask(validation="dev.jsonl", labels=LABELS))
    with pytest.raises(ConfigError, match=r"DEMONSTRATIONS are training examples, and .*no split 'train'"):
        designed(data, micro, demonstrations=1)
    assert len(designed(data, micro, instruction="say it")) == 3


def test_a_mixture_shows_what_its_one_training_task_has(toy, small_vocabulary):
    data = dataclasses.replace(toy, task="toy_and_dev", task_feature_lengths={"inputs": 64, "targets": 8})
    data = dataclasses.replace(data, prompt_design=PromptDesign(demonstrations=2))
    assert [cache.task for cache in open_role(data, small_vocabulary, "validation")] == ["toy_ten"]
    train, other = (open_caches(toy, "train", small_vocabulary)[0][1] for _ in range(2))
    assert prompt_design.source_of("elsewhere", [(1.0, train)]) is train
    other.task = "toy_other"
    assert prompt_design.source_of("toy_other", [(1.0, train), (2.0, other)]) is other
    with pytest.raises(ConfigError, match=r"elsewhere has no training examples .* trains on 2 tasks"):
        prompt_design.source_of("elsewhere", [(1.0, train), (2.0, other)])


def test_tasks_that_make_their_own_tokens_are_refused(own, micro, tmp_path):
    (tmp_path / "text.txt").write_text("a line of text that is long enough for a span\n" * 50)
    data = dataclasses.replace(own, task="span_corruption", own_task=None, eval_split="train")
    data = dataclasses.replace(data, task_feature_lengths={"inputs": 16, "targets": 16})
    for design in ({"demonstrations": 1}, {"instruction": "text:"}):
        with pytest.raises(ConfigError, match="span_corruption makes its tokens by itself"):
            designed(data, micro, **design)


def test_berts_and_prompts_inside_the_length_are_refused(own, micro, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good"]))
    with pytest.raises(ConfigError, match="a BERT reads two segments"):
        designed(own, WordPiece(str(tmp_path / "vocab.txt")), demonstrations=1)
    with pytest.raises(ConfigError, match="PROMPT_INSIDE_LENGTH is True"):
        designed(dataclasses.replace(own, prompt_inside_length=True), micro, demonstrations=1)


def test_a_damaged_cache_is_made_again(own, micro, capsys):
    cache = designed(own, micro, demonstrations=2)
    before = texts(cache)
    (cache.directory / "tokens.arrow").write_bytes(b"no arrow")
    assert texts(designed(own, micro, demonstrations=2)) == before
    assert "tokens.arrow is damaged; making it again" in capsys.readouterr().err


def test_other_files_make_another_cache(own, micro, tmp_path):
    first = designed(own, micro, demonstrations=2)
    write(tmp_path / "train.jsonl", [("pie is good", 0), ("bread is good", 1)])
    second = designed(own, micro, demonstrations=2)
    assert second.directory != first.directory
    assert {text.count("pie is good no") for text in texts(second)} == {1}


def test_members_of_other_seeds_train_on_the_same_texts(own, micro):
    data = dataclasses.replace(own, prompt_design=PromptDesign(demonstrations=2))
    roles, mixtures = open_members([data, data], micro)
    assert list(roles) == ["train", "validation"] and mixtures[0] is mixtures[1]


@pytest.fixture
def superglue(shared, tmp_path):
    folder = shared / "data" / "superglue"
    if not folder.is_dir():
        pytest.skip(f"SuperGLUE's files are not in {folder}")
    return Data(
        task="super_glue_cb_v102",
        task_module="tasks.registry",
        task_feature_lengths={"inputs": 1024, "targets": 16},
        batch_size=2,
        data_dir=str(folder),
        cache_dir=str(tmp_path / "caches"),
        prompt_design=PromptDesign(demonstrations=3),
        eval_split="validation[:20]",
    )


@pytest.fixture
def t5(shared):
    return Vocabulary(str(shared / "data" / "t5_vocab" / "spiece.model"))


def test_superglue_cb_has_one_of_each_class(superglue, t5):
    (cache,) = open_role(superglue, t5, "validation")
    plain = dataclasses.replace(superglue, prompt_design=PromptDesign())
    (training,) = open_role(plain, t5, "train")
    answered = dict(zip(texts(training), training.texts("targets_pretokenized"), strict=True))
    (before,) = open_role(plain, t5, "validation")
    for row, (text, question) in enumerate(zip(texts(cache), texts(before), strict=True)):
        assert text.endswith(f"\n\n{question}")
        shown = [line.rpartition(" ") for line in text.removesuffix(f"\n\n{question}").split("\n\ncb ")]
        assert sorted(answer for _, _, answer in shown) == ["contradiction", "entailment", "neutral"]
        assert all(answered["cb " + line.removeprefix("cb ")] == answer for line, _, answer in shown)
        assert ids(cache, row) == [*t5.encode(text), 1]
        assert cache.example(row)["idx"] == before.example(row)["idx"]
    crowded = dataclasses.replace(superglue, prompt_design=PromptDesign(demonstrations=49))
    with pytest.raises(ConfigError, match=r"17 of a class, and super_glue_cb_v102 has 16 .*'neutral'"):
        open_role(crowded, t5, "validation")


def test_superglue_wsc_shows_its_training_task(superglue, t5):
    data = dataclasses.replace(superglue, task="super_glue_wsc_and_dev_v102_simple")
    (cache,) = open_role(data, t5, "validation")
    assert cache.task == "super_glue_wsc_v102_simple_eval"
    assert all(text.count("wsc: ") == 4 for text in texts(cache))
