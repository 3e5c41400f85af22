"""Tables: means over seeds, averages of columns, published numbers, what is not complete."""

import pytest
from small_suite import expanded, score_of

from jax_prompts.suites import table
from jax_prompts.suites.table import as_json, comma_separated, latex, legend, lines_of, make_table, markdown

PUBLISHED = {
    "Suite.published": "{'micro, PT': {'All': (80.0, 1.5), 'Mean': 79.5}, 'Adapter_1': {'Few': 33.3}}",
    "Suite.source": "A paper, table 1",
}


def summaries_of(cells):
    return {
        cell.name: {
            "best_metric": score_of(cell.run),
            "metrics": {"quickstart_reviews": {"accuracy": score_of(cell.run), "f1": 1.0}},
        }
        for cell in cells
    }


def test_means_averages_and_published_numbers(tmp_path):
    suite, cells = expanded(
        tmp_path, **PUBLISHED, **{"Suite.metrics": "{'All': 'accuracy', 'Few': 'accuracy'}"}
    )
    table = make_table(suite, cells, summaries_of(cells))
    assert list(table) == ["micro, PT", "micro, Residual", "Adapter_1"]
    pt = table["micro, PT"]
    assert pt["All"].values == (80.0, 90.0) and pt["Few"].values == (76.0, 86.0)
    assert pt["Mean"].values == (78.0, 88.0)  # of each seed, then over seeds
    assert pt["Mean"].mean == 83.0
    assert pt["Mean"].deviation == pytest.approx(50**0.5)
    assert (pt["All"].published, pt["All"].published_deviation, pt["All"].difference) == (80.0, 1.5, 5.0)
    assert table["Adapter_1"]["Few"].published == 33.3 and table["Adapter_1"]["Few"].mean is None
    assert lines_of(table, ["All", "Few", "Mean"]) == [
        ["micro, PT", "85.0±7.1 (80, +5.0)", "81.0±7.1", "83.0±7.1 (79.5, +3.5)"],
        ["micro, Residual", "57.0±7.1", "53.0±7.1", "55.0±7.1"],
        ["Adapter_1", "-", "- (33.3)", "-"],
    ]
    assert markdown(suite, table).splitlines()[:3] == [
        "|  | All | Few | Mean |",
        "| --- | ---: | ---: | ---: |",
        "| micro, PT | 85.0±7.1 (80, +5.0) | 81.0±7.1 | 83.0±7.1 (79.5, +3.5) |",
    ]
    assert "A paper, table 1" in legend(suite)
    lines = comma_separated(table).splitlines()
    assert lines[1].startswith('"micro, PT",All,85.0,7.07') and lines[1].endswith(",2,True,80.0,1.5,5.0")
    text = latex(suite, table)
    assert r"Adapter\_1 & - & - (33.3) & - \\" in text and r"85.0$\pm$7.1" in text
    assert as_json(table)[0]["columns"]["Mean"]["complete"] is True


def test_what_is_not_complete_is_marked(tmp_path):
    suite, cells = expanded(tmp_path)
    found = summaries_of([cell for cell in cells if (cell.column, cell.seed) != ("Few", 1)])
    row = make_table(suite, cells, found)["micro, PT"]
    assert row["All"].complete and not row["Few"].complete
    assert row["Mean"].values == (39.5,) and not row["Mean"].complete  # seed 0 has both columns
    assert (
        lines_of({"micro, PT": row}, ["Few", "Mean"])[0][1:] == ["38.5*", "39.5*"]
        or row["Few"].mean is not None
    )
    row = make_table(suite, cells, summaries_of([cell for cell in cells if cell.column == "All"]))[
        "micro, PT"
    ]
    assert row["Few"].mean is None and row["Mean"].mean == row["All"].mean and not row["Mean"].complete


def test_a_score_that_is_not_defined_is_left_out_and_leaves_its_row_incomplete(tmp_path):
    """Null in files: the correlation of constant answers."""
    suite, cells = expanded(tmp_path, **{"Suite.metrics": "{'All': 'accuracy', 'Few': 'accuracy'}"})
    summaries = summaries_of(cells)
    (undefined,) = (cell for cell in cells if (cell.row, cell.column, cell.seed) == ("micro, PT", "Few", 1))
    summaries[undefined.name] = {"best_metric": None, "metrics": {"quickstart_reviews": {"accuracy": None}}}
    row = make_table(suite, cells, summaries)["micro, PT"]
    assert row["Few"].values == (76.0,) and not row["Few"].complete and row["All"].complete
    assert row["Mean"].values == (78.0,) and not row["Mean"].complete
    assert table.score_of([undefined], summaries) is None


@pytest.mark.parametrize(("search_by", "chosen"), [("suite", (0.1, 0.1)), ("task", (0.1, 0.3))])
def test_the_best_of_what_is_searched_is_shown(tmp_path, search_by, chosen):
    settings = {"Suite.search": "{'LEARNING_RATE': (0.1, 0.3)}", "Suite.search_by": search_by}
    suite, cells = expanded(tmp_path, **settings)
    summaries = summaries_of(cells)
    for cell in cells:  # All is much better with 0.1, Few a little with 0.3
        gain = {("All", 0.1): 50.0, ("Few", 0.3): 10.0}.get(
            (cell.column, cell.searched["LEARNING_RATE"]), 0.0
        )
        summaries[cell.name]["best_metric"] = gain
    row = make_table(suite, cells, summaries)["micro, PT"]
    assert tuple(dict(row[column].chosen)["LEARNING_RATE"] for column in ("All", "Few")) == chosen
    unfinished = {name: s for name, s in summaries.items() if "rate=0.1" not in name or "seed0" in name}
    row = make_table(suite, cells, unfinished)["micro, PT"]  # 0.1 is not finished: it cannot be compared
    assert dict(row["All"].chosen)["LEARNING_RATE"] == 0.3
    assert not row["All"].complete  # and may yet be better


def test_a_column_may_show_one_task_of_a_mixture(tmp_path):
    shown = "{'All': ('judged', 'f1'), 'Few': ('judged', None)}"
    suite, cells = expanded(tmp_path, **{"Suite.metrics": shown})
    metrics = {"tuned": {"f1": 90.0, "accuracy": 90.0}, "judged": {"f1": 10.0, "accuracy": 20.0}}
    summaries = {cell.name: {"best_metric": 90.0, "metrics": metrics} for cell in cells}
    row = make_table(suite, cells, summaries)["micro, PT"]
    assert (row["All"].mean, row["Few"].mean) == (10.0, 15.0)
