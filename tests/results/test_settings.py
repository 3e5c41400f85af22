"""What differs between runs, by the names that people set, and what makes runs the same but for their seeds."""

import pytest

from jax_prompts.results.settings import differing, resolved, short_names, value_of, with_own, without_seeds

RUN = {
    "LEARNING_RATE": "0.3",
    "MODEL_DIR": "'runs/a'",
    "PROMPT": "@Residual()",
    "PROMPT_LENGTH": "10",
    "RANDOM_SEED": "0",
    "Optimizer.learning_rate": "%LEARNING_RATE",
    "Residual.hidden": "400",
    "Residual.length": "%PROMPT_LENGTH",
    "TrainRun.method": "%PROMPT",
    "TrainRun.model_dir": "%MODEL_DIR",
    "Training.keep": "2",
    "Training.seed": "%RANDOM_SEED",
}


def test_references_are_followed_and_text_is_left_alone():
    found = resolved({"A": "%B", "B": "{'x': %C, 'y': '%C'}", "C": "3", "D": "%NOTHING", "E": "'it\\'s %C'"})
    assert found == {
        "A": "{'x': 3, 'y': '%C'}",
        "B": "{'x': 3, 'y': '%C'}",
        "C": "3",
        "D": "%NOTHING",
        "E": "'it\\'s %C'",
    }
    assert resolved({"A": "%B", "B": "%A"})["A"] in ("%A", "%B")  # in a circle: it ends


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, []),
        ({"MODEL_DIR": "'runs/b'"}, []),
        ({"LEARNING_RATE": "0.1"}, ["LEARNING_RATE"]),
        ({"Residual.hidden": "8"}, ["Residual.hidden"]),
        ({"Optimizer.learning_rate": "0.1"}, ["Optimizer.learning_rate"]),
        ({"PROMPT_LENGTH": "20", "Training.keep": "3"}, ["PROMPT_LENGTH", "Training.keep"]),
        ({"RANDOM_SEED": "1"}, ["RANDOM_SEED"]),
    ],
)
def test_only_what_differs_is_named_and_only_once(change, names):
    assert differing([RUN, {**RUN, **change}]) == names


def test_fields_with_the_values_of_another_macro_are_named():
    # Training.keep changes as PROMPT_LENGTH does, by chance: it does not refer to it.
    a, b = {**RUN, "Training.keep": "10"}, {**RUN, "PROMPT_LENGTH": "20", "Training.keep": "20"}
    assert differing([a, b]) == ["PROMPT_LENGTH", "Training.keep"]


def test_fields_of_another_method_follow_from_the_method():
    other = {name: text for name, text in RUN.items() if not name.startswith("Residual.")}
    other |= {"PROMPT": "@PromptTuning()", "PromptTuning.length": "%PROMPT_LENGTH"}
    assert differing([RUN, other]) == ["PROMPT"]
    assert differing([RUN, other, {**RUN, "Residual.hidden": "8"}]) == ["PROMPT", "Residual.hidden"]


def test_members_of_a_sweep_have_settings_of_their_own():
    members = [with_own(RUN, {"LEARNING_RATE": rate, "INITIALIZER": "@Uniform()"}) for rate in (0.1, 0.2)]
    assert differing(members) == ["LEARNING_RATE"]
    assert resolved(members[1])["Optimizer.learning_rate"] == "0.2"
    assert members[0]["INITIALIZER"] == "@Uniform()"
    assert with_own(RUN, {"Optimizer.name": "adamw"})["Optimizer.name"] == "'adamw'"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"RANDOM_SEED": "1"}, True),
        ({"MEMBERS": "3"}, True),
        ({"MODEL_DIR": "'runs/b'"}, True),
        ({"LEARNING_RATE": "0.1"}, False),
        ({"Residual.hidden": "8"}, False),
    ],
)
def test_seeds_and_places_set_no_runs_apart(change, same):
    assert (without_seeds(RUN) == without_seeds({**RUN, **change})) is same


def test_values_are_python_values():
    assert value_of(RUN, "Optimizer.learning_rate") == 0.3
    assert [value_of(RUN, name) for name in ("PROMPT", "no such")] == [None, None]
    assert value_of({"A": "(" * 5000}, "A") is None


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/w/runs/a", "/w/runs/b"], ["a", "b"]),
        (["/w/a/cells/x", "/w/b/cells/x"], ["a", "b"]),
        (["/w/a/cells/x", "/w/b/cells/y"], ["a/cells/x", "b/cells/y"]),
        (["/w/runs/a"], ["a"]),
        (["/w/runs", "/w/runs/a"], ["runs", "runs/a"]),
        ([], []),
    ],
)
def test_names_are_what_differs_in_paths(paths, names):
    assert short_names(paths) == names


@pytest.mark.parametrize(
    "settings",
    [
        {"A": "%A %A"},
        {f"M{n}": f"%M{n + 1} %M{n + 1}" for n in range(25)},
        {"A": "%X " + "\\'" * 20_000},
    ],
)
def test_text_that_nobody_wrote_takes_no_time(settings):
    assert max(map(len, resolved(settings).values())) < 1_000_000
