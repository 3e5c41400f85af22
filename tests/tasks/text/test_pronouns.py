"""What a pronoun stands for: WSC's spans and marks on real sentences, DPR, WNLI's heuristic, the Residual form."""

from __future__ import annotations

import json
import pathlib

import pytest
import seqio

import tasks.registry  # noqa: F401
from tasks.errors import TaskError
from tasks.metrics.answers import normalized, normalized_match
from tasks.sources.seqio_sources import as_dataset
from tasks.text import pronouns
from tasks.text.pronouns import mark_first, mark_pronoun, substituted
from tasks.wsc import repair_spans


def _texts(task_name: str, data: pathlib.Path, split: str) -> list[dict]:
    task = seqio.TaskRegistry.get(task_name)
    dataset = task.source.at(data).get_dataset(split, shuffle=False)
    for step in task.preprocessors[:-2]:
        dataset = step(dataset)
    return list(dataset.as_numpy_iterator())


def test_spans_of_the_official_files_are_repaired(shared: pathlib.Path):
    changed, absent = 0, []
    for name in ("train", "val", "test"):
        for line in (shared / "data/superglue/WSC" / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            row |= row.pop("target")
            repaired = repair_spans(row)
            for span in ("span1_text", "span2_text"):
                changed += repaired[span] != row[span]
                if repaired[span] not in row["text"]:
                    absent.append(repaired[span])
    assert changed > 90
    assert sorted(absent) == ["Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin"]


def test_repairs():
    row = {
        "text": "the Cat saw it .",
        "span1_text": "The\nCat.",
        "span1_index": 0,
        "span2_text": "it",
        "span2_index": 3,
    }
    assert repair_spans(row)["span1_text"] == "the Cat"
    assert row["span1_text"] == "The\nCat."
    assert repair_spans({**row, "span1_text": "cat", "span1_index": 1})["span1_text"] == "Cat"


def test_wsc_trains_on_right_referents_and_marks_every_real_pronoun(shared: pathlib.Path):
    train = _texts("super_glue_wsc_v102_simple_train", shared / "data", "train")
    assert len(train) == 259 and {row["label"] for row in train} == {1}
    validation = _texts("super_glue_wsc_v102_simple_eval", shared / "data", "validation")
    assert len(validation) == 104 and sum(row["label"] for row in validation) == 38
    assert len(_texts("super_glue_wsc_v102_simple_eval", shared / "data", "test")) == 146
    assert all(row["inputs"].count(b"*") == 2 for row in train + validation)


@pytest.mark.parametrize("index", [0, 1, 4, -2])
def test_a_pronoun_in_the_wrong_place_is_named(index: int):
    with pytest.raises(TaskError, match=f"'he' is not word {index} of .*correct span2_index"):
        mark_pronoun("he left as he", "he", index)


def test_residual_scores_the_first_word_of_right_referents(shared: pathlib.Path):
    train = _texts("residual_super_glue_wsc", shared / "data", "train")
    validation = _texts("residual_super_glue_wsc", shared / "data", "validation")
    assert (len(train), len(validation)) == (259, 38)
    words = [row["targets"].decode() for row in train + validation]
    assert all(" " not in word for word in words)
    assert sum(not normalized(word) for word in words[:259]) == 70
    assert sum(not normalized(word) for word in words[259:]) == 8
    assert normalized_match(["The", "Bob."], ["a", "bob"]) == {"exact_match": 100}
    multirc = seqio.TaskRegistry.get("residual_super_glue_multirc")
    assert multirc.postprocess_fn("true", example={"idx/question": 3}, is_target=True) == {
        "value": 1,
        "group": 3,
    }
    assert [function.__name__ for function in multirc.metric_fns] == [
        "grouped_accuracy",
        "grouped_exact_match",
    ]
    raw = {"question": "q<br>", "answer": "<b>a</b>", "paragraph": "p", "label": 0, "idx": {"question": 3}}
    (row,) = multirc.preprocessors[0](as_dataset([raw])).as_numpy_iterator()
    assert row["inputs"] == b"multirc question: q<br> answer: <b>a</b> paragraph: p"
    assert row["targets"] == b"false"


def test_dpr(tmp_path: pathlib.Path):
    (tmp_path / "dpr").mkdir()
    lines = ["Bob asked Tom if he can lend some, he said.", "he", "Bob,Tom", "Tom", ""]
    (tmp_path / "dpr" / "train.c.txt").write_text("\n".join(lines * 2))
    rows = _texts("taskless_dpr_v001_simple", tmp_path, "train")
    assert [(row["inputs"], row["targets"], row["label"]) for row in rows] == [
        (b"Bob asked Tom if *he* can lend some, he said.", b"Tom", 1)
    ] * 2
    (tmp_path / "dpr" / "test.c.txt").write_text("\n".join([*lines, "A saw B.", "he", "A,B", "C"]))
    with pytest.raises(TaskError, match=r"test\.c\.txt, line 6: 'C' is none of two candidates"):
        _texts("dpr_v001_simple", tmp_path, "test")
    (tmp_path / "dpr" / "test.c.txt").write_text("\n".join(lines[:3]))
    with pytest.raises(TaskError, match=r"test\.c\.txt, line 1: four lines"):
        _texts("dpr_v001_simple", tmp_path, "test")
    assert mark_first("She said she, too.", "she") == "She said *she*, too."


def test_wnli_finds_the_referents_of_real_examples(shared: pathlib.Path):
    known = json.loads((shared / "goldens/task_text/metrics/task_glue_wnli_simple.json").read_text())
    # One has no words directly before or behind a pronoun of its premise ("hear over it", "hear the subway").
    for split, count in {"validation": 70, "test": 146}.items():
        rows = _texts("glue_wnli_v200_simple_eval", shared / "data", split)
        found = [row for row in rows if row["targets"]]
        assert len(found) == count
        assert all(row["inputs"].count(b"*") == 2 for row in found)
        if split == "validation":
            referents = {row["targets"].decode() for row in rows}
            assert {example["targets_pretokenized"] for example in known["examples"]} <= referents


@pytest.mark.parametrize(
    ("premise", "hypothesis", "expected"),
    [
        # With nothing in common, the first pronoun and no referent.
        ("Ann left. She slept and it ended.", "Bea ate.", ("Ann left. *She* slept and it ended.", "")),
        # Of pronouns with as many words in common, the first; else the one with most.
        ("It sat and it sat.", "The cat sat.", ("*It* sat and it sat.", "The cat")),
        ("It sat and it sat down.", "The cat sat down.", ("It sat and *it* sat down.", "The cat")),
        # The referent begins at its last article, each counted where it first stands.
        ("Ann watched. It glowed.", "The lamp on a pole glowed.", ("Ann watched. *It* glowed.", "a pole")),
        ("It sat.", "The cat of the house sat.", ("*It* sat.", "The cat of the house")),
        ("It sat.", "Each of an old man's cats sat.", ("*It* sat.", "an old man's cats")),
        # It is spelt as the hypothesis first spells it.
        ("Ann will ask if he came.", "Ann will ask if Will came.", ("Ann will ask if *he* came.", "will")),
        # ... with the possessive 's, which goes afterwards.
        (
            "The man raised his hand.",
            "The man raised the man's hand.",
            ("The man raised *his* hand.", "the man"),
        ),
        # The words round the pronoun may stand anywhere in the hypothesis.
        ("Bob wanted his car.", "Clever Bob wanted Tom's car.", ("Bob wanted *his* car.", "Tom")),
        ("Bob saw him.", "Then Bob saw Tom.", ("Bob saw *him* .", "Tom")),
        (
            "Ann said that she left, at last.",
            "Clearly Bea left, at last.",
            ("Ann said that *she* left, at last.", "Clearly Bea"),
        ),
        # Inner marks belong to the referent.
        ("Ann met him, and left.", "Ann met Mr. Hill, and left.", ("Ann met *him* , and left.", "Mr. Hill")),
    ],
)
def test_wnli_marks_a_pronoun_and_names_its_referent(
    premise: str, hypothesis: str, expected: tuple[str, str]
):
    assert substituted(premise, hypothesis) == expected


@pytest.mark.parametrize("premise", ["Ann left.", "Ann (she left) knew."])
def test_wnli_without_a_pronoun_is_refused(premise: str):
    with pytest.raises(TaskError, match="has no pronoun"):
        substituted(premise, "Bea left.")


def test_two_texts_alone_have_their_pronoun_elsewhere():
    text = 'Ann smiled. "Good for him," he said. '
    assert mark_pronoun(text, "he", 5) == 'Ann smiled. "Good for him," *he* said. '
    (text,) = [text for text in pronouns._MISPLACED if "Good for him" in text]
    assert mark_pronoun(text, "him", 22).endswith('"Good for *him* ," he said.')
