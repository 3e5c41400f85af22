"""Averages of benchmarks: the papers' numbers, and what is refused."""

import pytest

from jax_prompts.scoring.averages import averages

GLUE = {"cola": "matthews_corrcoef", "stsb": "pearson_corrcoef"}
# T5-Large fine-tuning and EPT* on T5-base, Table 1 of the EPT paper; the tables have one decimal.
FINE_TUNING = {"cola": 61.7, "mrpc": 89.4, "rte": 88.5, "stsb": 91.9, "mnli_matched": 89.7, "qnli": 94.4, "qqp": 91.4,
               "sst2": 95.9}  # fmt: skip
EPT_STAR = {"boolq": 77.0, "cb": 82.7, "wic": 65.3, "wsc": 58.3, "multirc": 72.4}


def glue(values, form="glue_{}_v002", **more):
    return {form.format(task): {GLUE.get(task, "accuracy"): value, **more} for task, value in values.items()}


def super_glue(form="super_glue_{}_v102"):
    return {
        form.format("boolq"): {"accuracy": 80.0},
        form.format("cb"): {"mean_3class_f1": 70.0, "accuracy": 90.0},
        form.format("copa"): {"accuracy": 60.0},
        form.format("multirc"): {"f1": 70.0, "exact_match": 30.0},
        form.format("record"): {"em": 60.0, "f1": 62.0},
        form.format("rte"): {"accuracy": 75.0},
        form.format("wic"): {"accuracy": 65.0},
        form.format("wsc"): {"accuracy": 63.0},
    }


def test_averages_of_the_papers():
    assert round(averages(glue(FINE_TUNING))["glue_ept"]["average"], 1) == 87.9
    tasks = {f"super_glue_{task}_v102": {"accuracy": value} for task, value in EPT_STAR.items()}
    tasks["super_glue_cb_v102"] = {"mean_3class_f1": 80.7, "accuracy": 84.7}
    tasks["super_glue_multirc_v102"] = {"f1": 72.4, "exact_match": 1.0}
    assert round(averages(tasks)["super_glue_ept"]["average"], 1) == 71.1


def test_tasks_of_two_metrics_are_averaged_first():
    found = averages(super_glue())
    assert found["super_glue"] == {"average": pytest.approx((80 + 80 + 60 + 50 + 61 + 75 + 65 + 63) / 8)}
    assert found["super_glue_ept"] == {"average": pytest.approx((80 + 80 + 70 + 65 + 63) / 5)}


def test_all_of_glue():
    values = {**FINE_TUNING, "wnli": 60.0, "mnli_mismatched": 88.7}
    tasks = glue(values, "taskless_glue_{}_v200")
    tasks["taskless_glue_mrpc_v200"] = {"f1": 92.4, "accuracy": 89.4}
    tasks["taskless_glue_qqp_v200"] = {"f1": 88.4, "accuracy": 91.4}
    tasks["taskless_glue_stsb_v200"]["spearman_corrcoef"] = 90.9
    found = averages(tasks)
    wanted = (61.7 + 89.2 + 90.9 + 94.4 + 89.9 + 88.5 + 95.9 + 91.4 + 60.0) / 9
    assert found["taskless_glue"] == {"average": pytest.approx(wanted)}
    assert found["taskless_glue_ept"]["average"] is not None


def test_an_incomplete_set_is_marked():
    tasks = super_glue()
    del tasks["super_glue_copa_v102"], tasks["super_glue_record_v102"]
    tasks["super_glue_rte_v102"] = {"loss": 1.0, "token_accuracy": 50.0}  # not scored by its metric
    found = averages(tasks)
    assert found["super_glue"] == {"average": None, "missing": ["copa", "record", "rte"]}
    assert found["super_glue_ept"]["average"] is not None


def test_kinds_are_not_mixed():
    tasks = super_glue()
    tasks["taskless_super_glue_rte_v102"] = tasks.pop("super_glue_rte_v102")
    found = averages(tasks)
    assert found["super_glue"] == {"average": None, "missing": ["rte"]}
    assert found["taskless_super_glue"]["average"] is None


def test_two_tasks_for_one_column_are_refused():
    tasks = super_glue()
    tasks["super_glue_wsc_v102_simple_eval"] = {"accuracy": 70.0}
    found = averages(tasks)["super_glue"]
    assert found["average"] is None
    assert "super_glue_wsc_v102, super_glue_wsc_v102_simple_eval" in found["refused"]
    del tasks["super_glue_wsc_v102"]
    assert averages(tasks)["super_glue"]["average"] is not None


def test_unlike_metrics_are_not_averaged():
    found = averages({"a": {"accuracy": 1.0}, "b": {"f1": 2.0, "em": 3.0}})
    assert found == {"all_tasks": {"refused": "unlike metrics: a: accuracy; b: em, f1"}}
    alike = averages({"a": {"f1": 1.0, "em": 5.0}, "b": {"em": 3.0, "f1": 2.0}})
    assert alike == {"all_tasks": {"f1": 1.5, "em": 4.0}}


def test_ranked_answers_have_averages_of_their_own():
    tasks = super_glue()
    for metrics in tasks.values():
        metrics |= {f"rank/{name}": value + 1 for name, value in list(metrics.items())}
    del tasks["super_glue_record_v102"]["rank/em"], tasks["super_glue_record_v102"]["rank/f1"]
    found = averages(tasks)
    assert found["super_glue"]["average"] is not None
    assert found["rank/super_glue"] == {"average": None, "missing": ["record"]}
    assert "rank_normalized/super_glue" not in found


def test_one_task_has_no_average():
    assert averages({"super_glue_rte_v102": {"accuracy": 1.0}}) == {}
