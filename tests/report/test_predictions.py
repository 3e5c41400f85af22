"""Predictions behind confusion matrices, lengths and the browser: exact rows, texts once, under 3 MB."""

import base64
import json
import random
import zlib

import pytest
from report_runs import jsonl, make_evaluation, make_run, prediction

from jax_prompts.errors import RunError
from jax_prompts.report import confusion, histograms, limits, predictions
from jax_prompts.report.answers import Answered, is_right, of_run, read_answers
from jax_prompts.results.find import find
from jax_prompts.results.run_files import RunFiles, prediction_rows

ROWS = [
    prediction(0, "yes", "yes"),
    prediction(1, "yes", "no"),
    prediction(2, "no", "maybe"),
    prediction(3, "no", "no"),
]


def unpacked(text):
    return json.loads(zlib.decompress(base64.b64decode(text)))


def test_a_confusion_matrix_has_every_pair_and_a_column_of_answers_that_are_no_label():
    assert confusion.rows_of(ROWS) == [
        {"label": "no", "answer": "no", "count": 1, "share": 50.0},
        {"label": "no", "answer": "yes", "count": 0, "share": 0.0},
        {"label": "no", "answer": "other", "count": 1, "share": 50.0},
        {"label": "yes", "answer": "no", "count": 1, "share": 50.0},
        {"label": "yes", "answer": "yes", "count": 1, "share": 50.0},
        {"label": "yes", "answer": "other", "count": 0, "share": 0.0},
    ]


def test_a_label_that_no_example_has_is_a_row_of_zeros():
    rows = confusion.rows_of([prediction(0, "yes", "no")])
    assert [(row["label"], row["answer"], row["count"], row["share"]) for row in rows] == [
        ("no", "no", 0, 0.0), ("no", "yes", 0, 0.0), ("yes", "no", 1, 100.0), ("yes", "yes", 0, 0.0),
    ]  # fmt: skip


def test_texts_without_labels_have_no_matrix():
    rows = [{"index": 0, "inputs": "a", "targets": "b", "prediction": "c"}]
    assert confusion.section([Answered("run", "", "task", "step 1", rows)]) is None


def test_too_many_classes_are_said():
    rows = [prediction(n, str(n), str(n), labels=[str(n)]) for n in range(limits.CLASSES + 1)]
    section = confusion.section([Answered("run", "", "task", "step 1", rows)])
    assert section.parts == () and "too many" in section.remarks[0]


def test_members_are_counted_together():
    both = [Answered("run", f"member {m}", "rte", "step 20", ROWS) for m in (0, 1)]
    (figure,) = confusion.section(both).parts
    (view,) = figure.views
    assert sum(row["count"] for row in view.rows) == 2 * len(ROWS)


def test_lengths_are_counted_in_bins_of_words():
    assert histograms.rows_of([0, 1, 1, 3], 8) == [
        {"start": 0, "end": 1, "texts": 1, "limit": 8},
        {"start": 1, "end": 2, "texts": 2, "limit": 8},
        {"start": 2, "end": 3, "texts": 0, "limit": 8},
        {"start": 3, "end": 4, "texts": 1, "limit": 8},
    ]
    wide = histograms.rows_of([5, 399], None)
    assert len(wide) == histograms.BINS and wide[0] == {"start": 0, "end": 10, "texts": 1}


def test_an_example_of_several_runs_is_counted_once():
    both = [Answered("a", "", "rte", "step 1", ROWS), Answered("b", "", "rte", "step 2", ROWS)]
    (figure,) = histograms.section(both, {"rte": [{"inputs": 8}]}).parts
    inputs, targets = figure.views
    assert inputs.rows[2] == {"start": 2, "end": 3, "texts": 4, "limit": 8}
    assert "limit" not in targets.rows[0]


def test_different_limits_are_said_and_not_marked():
    section = histograms.section(
        [Answered("a", "", "rte", "step 1", ROWS)], {"rte": [{"inputs": 8}, {"inputs": 16}]}
    )
    assert "limit" not in section.parts[0].views[0].rows[0]
    assert "8, 16 tokens" in section.remarks[0]


@pytest.mark.parametrize("text", ["{}", "{'inputs': x}", "()", "{'inputs': None}", "(" * 500])
def test_lengths_that_are_not_spelled_out_are_unknown(text):
    assert histograms.limits_of({"TASK_FEATURE_LENGTHS": text}) == {}


def test_a_run_answers_at_the_best_step_of_each_member(tmp_path):
    run = make_run(tmp_path / "run", scores=(90.0, 80.0), predictions=ROWS)
    summary = json.loads((run / "summary.json").read_text())
    summary["members"][1]["best_step"] = 10
    (run / "summary.json").write_text(json.dumps(summary))
    jsonl(run / "predictions" / "rte-10.jsonl", [{"member": 1, **prediction(7, "yes", "yes")}])
    jsonl(run / "predictions" / "rte-test.jsonl", [{"member": 0, **prediction(8, "yes", "no")}])
    found = [(each.who, each.when, [row["index"] for row in each.rows]) for each in of_run(RunFiles(run))]
    assert found == [
        ("member 0", "step 20", [0, 1, 2, 3]),
        ("member 0", "test", [8]),
        ("member 1", "step 10", [7]),
        ("member 1", "test", []),
    ]


def test_a_run_under_way_answers_at_its_last_step(tmp_path):
    run = make_run(tmp_path / "run", finished=False, predictions=ROWS)
    jsonl(run / "predictions" / "rte-0.jsonl", [prediction(0, "yes", "untuned")])
    (answered,) = of_run(RunFiles(run))
    assert (answered.when, len(answered.rows)) == ("step 20", 4)


def test_half_a_last_row_is_left_out_and_a_bad_one_is_said(tmp_path):
    file = tmp_path / "rte-1.jsonl"
    file.write_text(json.dumps(ROWS[0]) + '\n{"index": 1, "inp')
    assert [row["index"] for row in prediction_rows(file)] == [0]
    file.write_text("[1]\n")
    with pytest.raises(RunError, match="no run has written"):
        list(prediction_rows(file))


def test_ensembles_come_first_with_their_agreement(tmp_path):
    ensemble = [{**row, "agreement": 0.5 + row["index"] / 6} for row in ROWS]
    make_evaluation(tmp_path / "evaluation", ROWS, ensemble)
    make_run(tmp_path / "run", predictions=ROWS)
    answered, left_out = read_answers(find([str(tmp_path)]), [])
    assert [(each.run, each.who) for each in answered] == [
        ("evaluation", "ensemble"), ("evaluation", "prompt 0"), ("evaluation", "prompt 1"), ("run", ""),
    ]  # fmt: skip
    assert left_out == []
    columns, cut = predictions.columns_of(answered, 100)
    assert cut == 0
    assert columns["sources"][0]["agreement"] == [50, 67, 83, 100]
    assert "agreement" not in columns["sources"][1]


def test_every_text_is_kept_once():
    answered = [Answered("a", "", "rte", "step 1", ROWS), Answered("b", "", "rte", "step 2", ROWS[1:])]
    columns, _ = predictions.columns_of(answered, 100)
    assert columns["tasks"] == ["rte"] and columns["labels"] == [["no", "yes"]]
    assert columns["examples"]["input"] == ["text 0", "text 1", "text 2", "text 3"]
    assert sorted(columns["texts"]) == ["maybe", "no", "yes"]
    assert columns["sources"][0]["examples"] == {"first": 0, "count": 4}
    assert columns["sources"][1]["examples"] == {"first": 1, "count": 3}
    assert columns["sources"][0]["right"] == "1001"
    said = [columns["texts"][number] for number in columns["sources"][0]["answers"]]
    assert said == ["yes", "no", "maybe", "no"]


def test_the_same_number_of_another_text_is_another_example():
    other = [prediction(0, "yes", "yes", inputs="another")]
    answered = [Answered("a", "", "rte", "step 1", ROWS), Answered("b", "", "rte", "step 1", other)]
    columns, _ = predictions.columns_of(answered, 100)
    assert columns["examples"]["index"] == [0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("yes", "yes", True),
        (" yes", "yes", False),
        ("Yes", "yes", False),
        (None, "", True),
        (1.5, "1.5", True),
    ],
)
def test_an_answer_is_right_when_it_is_the_target(answer, target, right):
    assert is_right({"prediction": answer, "targets": target}) is right


@pytest.mark.parametrize(("share", "percent"), [(1e308, 0), (-1, 0), ("x", 0), (None, 0), (0.335, 34)])
def test_agreement_is_a_percentage(share, percent):
    rows = [prediction(0, "yes", "yes", agreement=1.0), prediction(1, "yes", "no", agreement=share)]
    columns, _ = predictions.columns_of([Answered("a", "ensemble", "rte", "validation", rows)], 100)
    assert columns["sources"][0]["agreement"] == [100, percent]


def test_long_texts_are_cut_with_a_mark():
    answered = [Answered("a", "", "t", "step 1", [prediction(0, "yes", "no", inputs="x" * 5000)])]
    text, remarks = predictions.packed(answered)
    assert unpacked(text)["examples"]["input"] == ["x" * limits.CHARACTERS[0] + "…"]
    assert remarks == [f"1 texts are cut to {limits.CHARACTERS[0]} characters, which … marks."]


def test_fifty_thousand_predictions_of_different_texts_stay_small():
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(8000)]
    rows = [
        prediction(n, "yes", "no", inputs=" ".join(draw.choices(words, k=60)))
        for n in range(limits.PREDICTIONS)
    ]
    text, remarks = predictions.packed([Answered("a", "", "t", "step 1", rows)])
    assert len(text) < 1.9e6
    assert len(unpacked(text)["examples"]["input"]) == limits.PREDICTIONS
    assert "50,000 texts are cut" in remarks[0]


def test_what_is_over_the_limit_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PREDICTIONS", 6)
    for name in "abc":
        make_run(tmp_path / name, predictions=ROWS)
    answered, left_out = read_answers(find([str(tmp_path)]), [])
    assert [len(each.rows) for each in answered] == [4, 2]
    assert "6 are in this page; 2 more of the last file, and those of 1 further" in left_out[0]
