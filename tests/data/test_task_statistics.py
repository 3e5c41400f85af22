"""`t5x tasks`: every task, counted where its data is."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

pytest.importorskip("seqio")

from jax_prompts import main
from jax_prompts.data.task_statistics import describe_tasks, task_names
from jax_prompts.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
QUICKSTART = ["micro_reviews", "micro_world", "quickstart_reviews"]


@pytest.fixture(autouse=True)
def caches(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "caches"))


def run(capsys, *argv: str) -> tuple[dict, str]:
    main.main(["tasks", *argv])
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), err


def test_without_data_every_task_is_listed(capsys):
    found, err = run(capsys)
    rows = {row["task"]: row for row in found["tasks"]}
    assert rows["super_glue_rte_v102"] == {
        "task": "super_glue_rte_v102",
        "family": "superglue",
        "forms": ["taskless_super_glue_rte_v102", "bert_super_glue_rte_v102"],
        "source": "TFDS super_glue/rte:1.0.2",
        "labels": ["entailment", "not_entailment"],
        "metrics": ["accuracy"],
        "splits": {
            split: {"missing": "give --vocabulary to count"} for split in ("train", "validation", "test")
        },
    }
    assert rows["mr"]["source"] == "files" and rows["quickstart_reviews"]["source"] == "generated"
    assert "taskless_super_glue_rte_v102" not in rows
    assert "span_corruption" in found["mixtures"]["micro_span_corruption"]
    assert "super_glue_rte_v102" in err and "not_entailment" in err


def test_files_are_counted_and_the_rest_is_not_available(tmp_path: pathlib.Path, capsys):
    (tmp_path / "CB").mkdir()
    rows = [
        {"premise": "p " * n, "hypothesis": "h", "label": ("neutral", "entailment")[n == 1], "idx": n}
        for n in (1, 2, 300)
    ]
    (tmp_path / "CB/train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "CB/val.jsonl").write_text("{")
    found, err = run(
        capsys,
        f"--data_dir={tmp_path}",
        "--vocabulary=asset:micro",
        "--json",
        "--inputs_length=100",
        "--targets_length=16",
    )
    row = next(row for row in found["tasks"] if row["task"] == "super_glue_cb_v102")
    train = row["splits"]["train"]
    assert (train["examples"], train["labels"]) == (3, {"entailment": 1, "contradiction": 0, "neutral": 2})
    assert train["inputs"]["p99"] > 250 > train["inputs"]["mean"] > 100
    assert train["targets"]["mean"] < 10
    assert (train["inputs"]["cut"], train["targets"]["cut"]) == (1, 0)
    assert "val.jsonl, line 1: malformed JSON" in row["splits"]["validation"]["missing"]
    assert row["splits"]["test"] == {"missing": "no files under --data_dir"}
    other = next(row for row in found["tasks"] if row["task"] == "glue_sst2_v200")
    assert {facts["missing"] for facts in other["splits"].values()} == {"no files under --data_dir"}
    assert "┃" not in err


def test_real_sizes_and_labels(shared: pathlib.Path, capsys):
    vocabulary = str(shared / "data/t5_vocab/spiece.model")
    found, err = run(
        capsys,
        "--task=super_glue_cb_v102",
        "--task=taskless_mr",
        f"--data_dir={shared / 'data'}",
        f"--vocabulary={vocabulary}",
    )
    cb, mr = found["tasks"]
    assert {split: facts["examples"] for split, facts in cb["splits"].items()} == {
        "train": 250,
        "validation": 56,
        "test": 250,
    }
    assert cb["splits"]["train"]["labels"] == {"entailment": 115, "contradiction": 119, "neutral": 16}
    hidden = {"entailment": 0, "contradiction": 0, "neutral": 0, "hidden": 250}
    assert cb["splits"]["test"]["labels"] == hidden
    (test_row,) = [line for line in err.splitlines() if "│ test " in line and "│ 250 " in line]
    assert test_row.split("│")[7].strip() == "hidden" and "<unk>" not in err and r"\n" not in err
    assert mr["task"] == "taskless_mr" and "test.json" in mr["splits"]["test"]["missing"]
    assert found["mixtures"] == {}
    assert "7,795" in err and "contradiction 47.6 %" in err


@pytest.mark.parametrize(
    ("patterns", "families", "names"),
    [
        (["glue_rte_v200", "super_glue_v102_limited"], [], ["glue_rte_v200", "super_glue_v102_limited"]),
        (["*_rte_*"], [], ["glue_rte_v002", "glue_rte_v200", "super_glue_rte_v102"]),
        (["bert_*glue_r?e*"], ["superglue"], ["bert_super_glue_rte_v102"]),
        (
            ["*_rte_*", "bert_glue_rte_v200"],
            ["glue"],
            ["bert_glue_rte_v200", "glue_rte_v002", "glue_rte_v200"],
        ),
        (["glue_rte_v[2]00", "glue_rte_v200"], [], ["glue_rte_v200"]),
        ([], ["winogrande", "pairs"], ["paws_wiki_v110", "scitail_v100", "winogrande_v120"]),
        (["micro_[ls]*"], ["micro"], ["micro_lm_adaptation", "micro_span_corruption"]),
        (
            ["squad_to_[bd]*"],
            ["mixtures"],
            [f"squad_to_{name}_examples" for name in ("bio_asq", "drop", "duo_rc")],
        ),
    ],
)
def test_patterns_and_families_filter_tasks_and_mixtures(patterns, families, names):
    assert task_names(patterns, families) == names
    found = describe_tasks(patterns, None, None, families=families)
    assert [*(row["task"] for row in found["tasks"]), *found["mixtures"]] == names


def test_a_family_is_the_module_that_registers():
    from tasks import registry

    families = {family.removesuffix("_tasks") for family in registry.__all__}
    every = [row["family"] for row in describe_tasks(["*"], None, None)["tasks"]]
    assert set(every) | {"mixtures"} == families
    for family in families:
        names = task_names([], [family])
        file = next((ROOT / "tasks").rglob(f"{family}.py"), ROOT / "tasks" / family / f"{family}_tasks.py")
        stems = {
            re.split(r"_v\d|_", name.removeprefix("super_glue_").removeprefix("glue_"))[0] for name in names
        }
        assert names and any(stem in file.read_text() for stem in stems), family


def test_a_pattern_counts_what_is_in_data_dir_and_a_name_what_there_is(capsys):
    found, _ = run(capsys, "--task=quickstart_*", "--vocabulary=asset:micro", "--json")
    assert found["tasks"][0]["splits"]["train"] == {"missing": "no files under --data_dir"}
    found, _ = run(capsys, "--task=quickstart_reviews", "--vocabulary=asset:micro", "--json")
    assert found["tasks"][0]["splits"]["train"]["labels"] == {"negative": 1000, "positive": 1000}


def test_names_alone(capsys):
    found, err = run(capsys, "--names", "--family=micro")
    assert found == {"names": [*QUICKSTART, "micro_lm_adaptation", "micro_span_corruption"]}
    assert err.splitlines() == found["names"]
    assert run(capsys, "--names", "--family=micro", "--json") == (found, "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--task=*quickstart*z"], r"registers no task \*quickstart\*z; did you mean .*quickstart_reviews"),
        (
            ["--task=*rte*", "--family=qa"],
            r"registers no task \*rte\* of the family qa; did you mean ",
        ),
        (
            ["--family=quest"],
            "--family quest is none of the families of tasks: glue, micro, mini, mixtures, pairs",
        ),
        (["--task="], "registers no task ; did you mean"),
    ],
)
def test_filters_that_nothing_passes(flags, words, capsys):
    with pytest.raises(SystemExit) as status:
        main.main(["tasks", *flags])
    out, err = capsys.readouterr()
    assert (status.value.code, out, err.count("\n")) == (2, "", 1)
    assert re.search(words, err)


def test_wrong_names_and_settings():
    with pytest.raises(
        ConfigError, match=r"no task super_glue_rte; did you mean .*super_glue_rte_v102.*t5x cache"
    ):
        describe_tasks(["super_glue_rte"], None, None)
    with pytest.raises(ConfigError, match="add --vocabulary"):
        describe_tasks([], "somewhere", None)
