"""What scores are worth: constant answers by hand and on the official label counts, constants warned of, intervals."""

import json
import math

import numpy as np
import pytest
from labelled import LabelledCache
from sklearn.metrics import f1_score, matthews_corrcoef

from jax_prompts.errors import ConfigError
from jax_prompts.scoring.answers import Answers
from jax_prompts.scoring.baselines import constant_answers, shares, warn_of_answers
from jax_prompts.scoring.best_tracker import BestTracker, choosing_tasks, selection_metric
from jax_prompts.scoring.bootstrap import intervals
from jax_prompts.scoring.task_evaluator import TaskEvaluator, check_metrics, report
from tasks.metrics import correlations
from tasks.metrics.labels import accuracy, f1_with_invalid
from tasks.text.postprocessors import score


def f1(targets, predictions):
    return {"f1": 100 * float(f1_score(targets, predictions, labels=[1], average="macro"))}


def matthews(targets, predictions):
    return {"matthews_corrcoef": 100 * float(matthews_corrcoef(targets, predictions))}


def pearson(targets, predictions):
    return {"pearson_corrcoef": 100 * float(np.corrcoef(targets, predictions)[0, 1])}


def context(cache, texts=None):
    return TaskEvaluator(cache)(Answers(texts or [cache.targets[0]] * len(cache))).context


def test_baselines_by_hand():
    cache = LabelledCache(["no", "yes", "no", "no"], ("no", "yes"), metrics=[accuracy, f1])
    assert context(cache, ["no", "no", "maybe", "yes"]) == {
        "examples": 4,
        "majority_baseline": {"accuracy": 75.0, "f1": 0.0},
        "all_positive_baseline": {"accuracy": 25.0, "f1": 40.0},
        "identical_predictions": 50.0,
        "out_of_class_predictions": 25.0,
        "constant_predictor": False,
    }


def test_answers_of_the_baselines():
    assert constant_answers(("a", "b", "c"), ["b", "c", "c"], [1, 2, 2]) == {"majority": "c"}
    # Hidden labels do not count, and where all are hidden there is no baseline.
    assert constant_answers(("a", "b"), ["<unk>", "<unk>", "a"], [-1, -1, 0]) == {
        "majority": "a",
        "all_positive": "b",
    }
    assert constant_answers(("a", "b"), ["<unk>"], [-1]) == {}
    # WSC as generation: the metric compares right and wrong, whatever the text.
    assert constant_answers(None, ["Bob", "Ann", "Bob"], [0, 0, 1]) == {"majority": 0, "all_positive": 1}
    assert constant_answers(None, ["Bob", "Ann"], [-1, 1]) == {"majority": 1}
    # Free text, and numbers that are no classes.
    assert constant_answers(None, ["x", "y", "y"], [["x"], ["y"], ["y"]]) == {"majority": "y"}
    assert constant_answers(None, ["0.2", "3.0", "3.0"], [0.2, 3.0, 3.0]) == {"majority": 3.0}


def test_hidden_targets_are_said_and_do_not_count(capsys):
    cache = LabelledCache(["<unk>", "<unk>"], ("no", "yes"), metrics=[accuracy])
    warn_of_answers({"rte": context(cache, ["no", "yes"])}, "p.safetensors")
    assert "no target of rte is public, so that p.safetensors's scores say nothing" in capsys.readouterr().err
    one_right_one_no_class = f1_with_invalid([-1, 1, 0, -1], [1, 1, 5, 0])
    assert one_right_one_no_class == {"f1": pytest.approx(200 / 3)}
    assert math.isnan(f1_with_invalid([-1, -1], [0, 1])["f1"])


def test_texts_as_long_as_a_book_are_compared_without_filling_memory():
    texts = ["a"] * 10_000 + ["b" * 10_000_000]
    assert accuracy(texts, ["a"] * 10_001)["accuracy"] == pytest.approx(100 * 10_000 / 10_001)


def test_a_correlation_has_no_value_for_a_constant():
    cache = LabelledCache(["1.0", "2.0", "2.0"], None, metrics=[pearson])
    cache.postprocess = lambda text, **_: float(text)
    found = context(cache, ["1.0", "2.0", "3.0"])
    assert found["majority_baseline"] == {"pearson_corrcoef": None}
    json.dumps(found, allow_nan=False)


def test_an_answer_that_is_no_number_counts_as_wrong_and_is_said(capsys):
    cache = LabelledCache(
        ["1.0", "2.0", "3.0", "4.0"], None, metrics=[correlations.pearson, correlations.spearman]
    )
    cache.postprocess = score
    for text in ("nan", "inf", "-Infinity", "1e999", "two"):
        found = TaskEvaluator(cache)(Answers(["1.0", "2.0", "3.0", text]))
        assert found.metrics == {
            "pearson_corrcoef": pytest.approx(100 * np.corrcoef([1, 2, 3, 4], [1, 2, 3, -1])[0, 1]),
            "spearman_corrcoef": pytest.approx(-20),
        }
        assert found.context["unreadable_predictions"] == 1
    warn_of_answers({"a_task": found.context}, "prompt.safetensors")
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of prompt.safetensors's 4 answers to a_task are no numbers, and count as wrong" in said
    assert context(cache, ["1", "2", "3", "4"])["unreadable_predictions"] == 0
    assert "unreadable_predictions" not in context(LabelledCache(["no", "yes"], ("no", "yes")), ["no", "x"])


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("folder", "labels", "count", "majority", "published"),
    [
        ("BoolQ", (False, True), 3270, True, 62.2),
        ("WiC", (False, True), 638, None, 50.0),
        ("RTE", ("entailment", "not_entailment"), 277, "entailment", 52.7),
        ("CB", ("entailment", "contradiction", "neutral"), 56, "contradiction", 50.0),
        ("WSC", (False, True), 104, False, 63.5),
    ],
)
def test_published_constant_predictors(shared, folder, labels, count, majority, published):
    found = [row["label"] for row in lines(shared / "data" / "superglue" / folder / "val.jsonl")]
    assert len(found) == count
    cache = LabelledCache(map(str, found), tuple(map(str, labels)))
    worth = context(cache)
    assert round(worth["majority_baseline"]["accuracy"], 1) == published
    if majority is not None:
        assert max(set(found), key=found.count) == majority
    assert ("all_positive_baseline" in worth) == (len(labels) == 2)


def test_published_constants_of_other_metrics(shared):
    passages = lines(shared / "data" / "superglue" / "MultiRC" / "val.jsonl")
    answers = [a["label"] for row in passages for q in row["passage"]["questions"] for a in q["answers"]]
    assert len(answers) == 4848
    cache = LabelledCache([str(bool(label)) for label in answers], ("False", "True"), metrics=[f1])
    assert round(context(cache)["all_positive_baseline"]["f1"], 1) == 59.9

    rows = (shared / "data" / "glue" / "CoLA" / "dev.tsv").read_text().splitlines()
    labels = ("unacceptable", "acceptable")
    targets = [labels[int(row.split("\t")[1])] for row in rows]
    assert len(targets) == 1043
    cache = LabelledCache(targets, labels, metrics=[matthews])
    assert context(cache)["majority_baseline"] == {"matthews_corrcoef": 0.0}


def test_constant_predictors_are_warned_of(capsys):
    cache = LabelledCache(["yes", "no", "no"], ("no", "yes"), task="a_task")
    worth = {
        task: judge
        for task, judge in report({"a_task": TaskEvaluator(cache)(Answers(["no"] * 3))})[
            "about_scores"
        ].items()
    }
    assert worth["a_task"]["constant_predictor"]
    warn_of_answers(worth, "run/prompt.safetensors")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for word in ("warning: run/prompt.safetensors", "3 examples of a_task", "constant", "accuracy 66.67"):
        assert word in line, line

    # Not where one answer differs, nor where there is but one answer to give.
    assert not context(cache, ["no", "no", "yes"])["constant_predictor"]
    assert not context(LabelledCache(["no", "no"], ("no", "yes")), ["no", "no"])["constant_predictor"]
    warn_of_answers({"a_task": context(cache, ["no", "no", "yes"])}, "x")
    assert capsys.readouterr().err == ""


def test_constant_ranks_are_warned_of_by_name(capsys):
    worth = {"examples": 2, "constant_predictor": False, "rank/constant_predictor": True}
    warn_of_answers({"a_task": worth}, "x")
    assert "(rank)" in capsys.readouterr().err


def test_texts_that_are_no_label_are_counted_letter_for_letter():
    found = shares(["yes", "Yes", "yes ", "no"], ("no", "yes"), True)
    assert found["out_of_class_predictions"] == 50.0
    assert "out_of_class_predictions" not in shares(["a"], None, True)


def test_intervals_are_those_of_the_binomial():
    draw = np.random.default_rng(1)
    right = draw.random(400) < 0.8
    targets, predictions = [1] * 400, [int(x) for x in right]
    (low, high) = intervals(accuracy, targets, predictions, 1000)["accuracy"]
    share = right.mean()
    half = 196 * math.sqrt(share * (1 - share) / 400)
    assert low == pytest.approx(100 * share - half, abs=0.6)
    assert high == pytest.approx(100 * share + half, abs=0.6)
    first, again, other = (intervals(accuracy, targets, predictions, 50, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_groups_are_drawn_whole_and_count_each_time():
    def groups(targets, predictions):
        found = {}
        for target, prediction in zip(targets, predictions, strict=True):
            found.setdefault(tuple(target["group"]), []).append(target["value"] == prediction["value"])
        assert all(len(answers) == 3 for answers in found.values())
        return {"exact_match": 100 * np.mean([all(answers) for answers in found.values()]), "n": len(found)}

    targets = [{"group": ("question", i // 3), "value": 1} for i in range(60)]
    predictions = [{"value": int(i >= 30)} for i in range(60)]
    found = intervals(groups, targets, predictions, 500)
    assert found["n"] == [20, 20]
    low, high = found["exact_match"]
    assert 20 <= low < 50 < high <= 80  # 20 groups, half of them right: 50 +- 22


def test_a_metric_without_value_on_a_draw_has_no_interval():
    found = intervals(lambda t, p: {"x": float("nan"), "y": 1.0}, [1, 2], [1, 2], 10)
    assert found == {"x": [None, None], "y": [1.0, 1.0]}


def test_reports_hold_intervals_only_when_asked_for():
    cache = LabelledCache(["no", "yes"] * 20, ("no", "yes"), task="a_task")
    texts = ["no"] * 30 + ["yes"] * 10
    plain, asked = (report({"a_task": TaskEvaluator(cache, n)(Answers(texts))}) for n in (0, 100))
    assert plain.keys() == {"metrics", "about_scores"}
    assert asked.keys() == {"metrics", "about_scores", "intervals"}
    low, high = asked["intervals"]["a_task"]["accuracy"]
    assert low < asked["metrics"]["a_task"]["accuracy"] < high
    assert [
        row["out_of_class"] for row in TaskEvaluator(cache)(Answers(["no", "other"] * 20)).predictions
    ] == [
        False,
        True,
    ] * 20


def test_prompts_are_chosen_by_generated_answers_unless_told():
    metrics = {"a_task": {"f1": 40.0, "accuracy": 60.0, "rank/f1": 99.0, "rank_normalized/f1": 98.0}}
    assert selection_metric(metrics, None) == (50.0, True)
    assert selection_metric(metrics, "rank/f1") == (99.0, True)


def test_tasks_that_do_not_choose_are_reported_alone():
    metrics = {"tuned": {"accuracy": 60.0}, "judged": {"f1": 10.0}}
    assert selection_metric(metrics, None, ["tuned"]) == (60.0, True)
    assert selection_metric(metrics, "accuracy", ["tuned"]) == (60.0, True)
    tracker = BestTracker.fresh(None, 1, ["tuned"])
    for step, (tuned, judged) in enumerate([(60.0, 10.0), (50.0, 90.0)]):
        tracker.update(step, {0: {"metrics": {"tuned": {"accuracy": tuned}, "judged": {"f1": judged}}}})
    assert [(best["value"], best["step"]) for best in tracker.chosen().values()] == [(60.0, 0)]
    with pytest.raises(ConfigError, match="EVAL_SPLIT"):
        choosing_tasks([LabelledCache(["a"], None, chooses=False)])


def test_a_metric_that_is_not_there_is_refused_before_anything_is_scored():
    cache = LabelledCache(["no", "yes"], ("no", "yes"), task="a_task")
    judged = LabelledCache(["no", "yes"], ("no", "yes"), task="judged", metrics=[f1], chooses=False)
    unscored = LabelledCache(["no", "yes"], None, task="unscored", metrics=())
    check_metrics("accuracy", [cache, judged], ranked=False)
    check_metrics("rank/accuracy", [cache], ranked=True)
    check_metrics("loss", [unscored], ranked=False)
    check_metrics(None, [cache, judged, unscored], ranked=False)
    for name, ranked, caches in (
        ("acuracy", False, [cache]),
        ("rank/accuracy", False, [cache]),
        ("f1", True, [cache, judged]),
        ("accuracy", False, [cache, unscored]),
    ):
        with pytest.raises(ConfigError, match=f"METRIC .*{name!r} is no metric of"):
            check_metrics(name, caches, ranked=ranked)


def test_any_number_is_better_than_none():
    selection = BestTracker.fresh(None, 1)
    steps = [(1, float("nan")), (2, float("nan")), (3, 10.0), (4, float("nan")), (5, 10.0), (6, 11.0)]
    improved = [
        step
        for step, value in steps
        if selection.update(step, {0: {"metrics": {"a_task": {"pearson": value}}}})
    ]
    assert improved == [1, 3, 6]
    assert selection.chosen() == {
        0: {"metric": "pearson", "value": 11.0, "step": 6, "metrics": {"a_task": {"pearson": 11.0}}}
    }


def test_answers_that_are_no_labels_are_warned_of(capsys):
    about = {"examples": 4, "majority_baseline": {"accuracy": 75.0}}
    about |= {"out_of_class_predictions": 50.0, "constant_predictor": False}
    warn_of_answers({"rte": about}, "prompt.safetensors")
    assert (
        "warning: 50 % of prompt.safetensors's answers to rte are none of its labels"
        in capsys.readouterr().err
    )
    warn_of_answers({"rte": {**about, "out_of_class_predictions": 5.0}}, "prompt.safetensors")
    assert capsys.readouterr().err == ""
