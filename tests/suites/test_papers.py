"""The papers' tables: every file expands to runs, published numbers stand where they belong, rows are the paper's."""

import argparse
import math
import pathlib

import pytest
import seqio

import tasks.registry  # noqa: F401
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.dry_run import dry_run
from jax_prompts.suites.cells import cells_of, check

PAPERS = sorted(path.stem for path in pathlib.Path("gin_configs/papers").glob("*.gin"))
AT_ONCE = ("residual2023_table6", "explosive_table6", "decomposed2023_figure3", "lester2021_table1")


def arguments(files, bindings):
    return argparse.Namespace(
        command="suite", gin_file=files, bindings=bindings, gin_search_paths="", tfds_data_dir=None
    )


def suite_of(name):
    return resolve(arguments([f"gin_configs/papers/{name}.gin"], []), "Suite")[0]


def first(parts):
    return dict([next(iter(parts.items()))])


def expanded(suite, name, **kept):
    """Cells of a file with one seed, and with no more of its rows and columns than is told."""
    search = {setting: values[:1] for setting, values in suite.search.items()}
    fewer = {"seeds": (0,), "search": search, "averages": {}, "published": {}, "metrics": {}, **kept}
    bindings = [f"Suite.{field}={value!r}" for field, value in fewer.items()]
    files = [f"gin_configs/papers/{name}.gin"]
    given, _ = resolve(arguments(files, bindings), "Suite")
    make_run = lambda files, bindings: resolve(arguments(files, bindings), "TrainRun")  # noqa: E731
    return cells_of(given, files, bindings, make_run)


@pytest.mark.parametrize(
    "name", [name if name in AT_ONCE else pytest.param(name, marks=pytest.mark.slow) for name in PAPERS]
)
def test_every_file_expands_to_runs_of_tasks_that_there_are(name):
    """All rows of one column, and all columns of one row: the rest is their product."""
    suite = suite_of(name)
    check(suite)
    rows = {cell.row for cell in expanded(suite, name, tasks=first(suite.tasks))}
    one = {axis: first(getattr(suite, axis)) for axis in ("models", "settings", "methods")}
    runs = {cell.column: cell.run for cell in expanded(suite, name, **one)}
    assert len(rows) == len(suite.models) * len(suite.settings) * len(suite.methods)
    assert runs.keys() == suite.tasks.keys()
    for column, run in runs.items():
        task = seqio.get_mixture_or_task(run.data.task)
        shown = suite.metrics.get(column)
        if isinstance(shown, tuple):
            assert shown[0] in [part.name for part in task.tasks]
            shown = shown[1]
        assert run.training.metric == shown  # what chooses a prompt is what its column shows
    alone = {row for row in suite.published if row not in rows}
    assert {row.rpartition(", ")[2] for row in alone} <= PUBLISHED_ALONE


PUBLISHED_ALONE = {"Fine-tuning", "Fine-Tuning"}  # rows that no run makes: quoted, or without the settings


@pytest.mark.parametrize("name", PAPERS)
def test_the_page_counts_the_cells(name):
    suite, page = suite_of(name), pathlib.Path("docs/papers.md").read_text().splitlines()
    (line,) = [line for line in page if f"`{name}.gin`" in line]
    axes = suite.models, suite.settings, suite.methods, suite.tasks, suite.seeds, *suite.search.values()
    assert line.split("|")[3].strip() == f"{math.prod(map(len, axes)):,}"


def test_every_table_and_figure_with_numbers_has_a_file():
    numbered = {
        "lester2021": "figure1 figure3a figure3b figure3c figure3d figure4 table1 table2 table3 table5",
        "residual2023": "table1 table2 table3 table4 table5 table6 table9 figure3 figure4 figure5 figure6",
        "explosive": "table1 table2 table3 table4 table6 "
        "figure2 figure4 figure5 figure7 figure8 figure9 figure10",
        "decomposed2023": "table1 table3 table4 figure3 figure4 figure5 figure6 figure7 figure8 figure9 "
        "figure10 figure11 figure12",
    }
    wanted = {f"{paper}_{item}" for paper, items in numbered.items() for item in items.split()}
    assert wanted <= set(PAPERS)
    page = pathlib.Path("docs/papers.md").read_text()
    assert [name for name in PAPERS if f"`{name}.gin`" not in page] == []


@pytest.mark.parametrize("name", PAPERS)
def test_heads_say_the_command_and_what_is_needed(name):
    head = []
    for line in pathlib.Path(f"gin_configs/papers/{name}.gin").read_text().splitlines():
        if not line.startswith("#"):
            break
        head.append(line)
    assert f"#   t5x suite --gin_file=gin_configs/papers/{name}.gin" in head
    text = "\n".join(head)
    assert ("Data: " in text and "Weights: " in text) or "needs neither data nor weights" in text


# Rows of the papers. T5-base tunes the printed number of parameters: R appendix A.6 and table 8, E tables 1 and 4, D
# tables 1 and 4, L table 4. Then rate, epochs or steps, rows a step, prompt and text tokens, start of the table.
BASE = 222_903_552
SAMPLED = "SampledVocabulary(first=None, repeat=True)"
ROWS = {
    "residual2023_table1": {
        #                          tuned  rate  epochs rows prompt text  start
        "T5-Base, Prompt Tuning": (7_680, 0.3, "15 epochs", 8, 10, 502, SAMPLED),
        "T5-Base, PT w/ MLP": (624_784, 0.7, "15 epochs", 8, 10, 502, SAMPLED),
        "T5-Base, PT w/ LSTM": (2_110_392, 0.7, "15 epochs", 8, 10, 502, "None"),
        "T5-Base, Residual PT": (624_784, 0.7, "15 epochs", 8, 10, 502, SAMPLED),
        "T5-Large, Residual PT": (832_912, 0.7, "15 epochs", 8, 10, 502, SAMPLED),
    },
    "residual2023_table1_bert": {
        "BERT, Prompt Tuning": (7_680, 2e-5, "15 epochs", 8, 10, 502, SAMPLED),
        "BERT, Residual PT": (624_784, 2e-5, "15 epochs", 8, 10, 502, SAMPLED),
        # With the head for masked words, in whose place the classifier comes when the data are known.
        "BERT, Fine-tuning": (110_104_890, 1e-6, "30 epochs", 8, 0, 512, "None"),
    },
    "residual2023_table9": {
        "T5-Base, Prompt Tuning": (76_800, 0.3, "20 epochs", 8, 100, 412, SAMPLED),
        "T5-Base, Residual PT": (693_904, 0.7, "20 epochs", 8, 100, 412, SAMPLED),
    },
    "residual2023_table3": {
        "PT": (76_800, 0.3, "20 epochs", 8, 100, 412, SAMPLED),
        "Res-PT": (462_336, 0.7, "20 epochs", 8, 100, 412, SAMPLED),
    },
    "explosive_table1": {
        "T5-base, FT": (BASE, 1e-5, "30000 steps", 16, 0, 256, "None"),
        "T5-base, P-Tuning": (1_779_456, 0.3, "30000 steps", 16, 10, 256, "Uniform(low=-0.5, high=0.5)"),
        "T5-base, ResPrompt": (624_784, 0.3, "30000 steps", 16, 10, 256, "Uniform(low=-0.5, high=0.5)"),
        "T5-base, PT": (7_680, 0.3, "30000 steps", 16, 10, 256, "Uniform(low=-0.5, high=0.5)"),
        "T5-base, EPT": (2_304, 0.3, "30000 steps", 16, 1, 256, "Uniform(low=-0.5, high=0.5)"),
        "T5-base, EPT*": (2_304, 0.3, "30000 steps", 16, 10, 256, "Uniform(low=-0.5, high=0.5)"),
        "T5-Large, P-Tuning": (3_159_040, 0.3, "30000 steps", 16, 10, 256, "Uniform(low=-0.5, high=0.5)"),
        "T5-small, EPT*": (1_536, 0.3, "30000 steps", 16, 10, 256, "Uniform(low=-0.5, high=0.5)"),
    },
    "explosive_table2": {
        "FT": (BASE, 1e-5, "30000 steps", 16, 0, 512, "None"),
        "EPT*": (2_304, 0.3, "30000 steps", 16, 10, 512, "Uniform(low=-0.5, high=0.5)"),
    },
    "explosive_table3": {
        "4 shots, FT": (BASE, 1e-3, "10000 steps", 16, 0, 256, "None"),
        "32 shots, EPT": (2_304, 0.3, "10000 steps", 16, 1, 256, "Uniform(low=-0.5, high=0.5)"),
    },
    "explosive_table4": {
        "PT": (76_800, 0.3, "10 epochs", 16, 100, 348, "Uniform(low=-0.5, high=0.5)"),
        "EPT": (2_304, 0.3, "10 epochs", 16, 1, 348, "Uniform(low=-0.5, high=0.5)"),
    },
    "decomposed2023_table1": {
        "T5-Base, Prompt Tuning": (76_800, 0.3, "100 epochs", 16, 100, 256, SAMPLED),
        "T5-Base, Residual PT": (693_904, 0.3, "100 epochs", 16, 100, 256, SAMPLED),
        "T5-Base, DPT": (8_680, 0.3, "100 epochs", 16, 100, 256, "None"),
        "T5-Large, DPT": (11_240, 0.3, "100 epochs", 16, 100, 256, "None"),
    },
    "decomposed2023_table4": {
        "T5-Small, Residual PT": (416_656, 0.3, "100 epochs", 16, 10, 256, SAMPLED),
        "T5-Large, Residual PT": (832_912, 0.3, "100 epochs", 16, 10, 256, SAMPLED),
    },
    "decomposed2023_figure8": {
        "R = 10, DPT": (11_240, 0.3, "100 epochs", 16, 100, 256, "None"),
        "R = 1,000, DPT": (1_124_000, 0.3, "100 epochs", 16, 100, 256, "None"),
        "R = 10,000, DPT": (11_240_000, 0.3, "100 epochs", 16, 100, 256, "None"),
    },
    "lester2021_figure3a": {
        "T5-XXL, 5 tokens": (20_480, 0.3, "30000 steps", 32, 5, 512, "ClassLabels(words=None, first=5000)"),
        "T5-Base, 100 tokens": (
            76_800,
            0.3,
            "30000 steps",
            32,
            100,
            512,
            "ClassLabels(words=None, first=5000)",
        ),
    },
    "lester2021_figure1_model_tuning": {
        "T5-Base, Model Tuning": (247_577_856, 1e-3, "30000 steps", 128, 0, 512, "None"),
    },
    "lester2021_figure1_multitask": {
        "T5-Base, Model Tuning (Multi-task)": (247_577_856, 1e-3, "30000 steps", 2048, 0, 512, "None"),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.filterwarnings("ignore:Decomposed.rank")
def test_rows_are_those_of_the_paper(name):
    suite = suite_of(name)
    runs = {cell.row: cell.run for cell in expanded(suite, name, tasks=first(suite.tasks))}
    assert {row: _told(runs[row]) for row in ROWS[name]} == ROWS[name]
    for run in runs.values():
        assert run.training.z_loss == (1e-4 if name.startswith("lester") else 0.0)


def _told(run):
    counted, training = dry_run(run), run.training
    until = f"{training.epochs} epochs" if training.steps is None else f"{training.steps} steps"
    batch = counted["batch"]
    return (
        counted["tuned_parameters"],
        run.optimizer.learning_rate,
        until,
        batch["rows"],
        batch["prompt"],
        batch["inputs"],
        repr(run.initializer),
    )
