"""The page as a whole: what it holds, markup as text, bad input in one line, many runs."""

import base64
import html.parser
import json
import re
import sys
import zlib

import altair
import pytest
from report_runs import jsonl, make_evaluation, make_run, prediction

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.main import main
from jax_prompts.report import limits, page, tables
from jax_prompts.report.parts import Figure
from jax_prompts.report.report import make_report, sections_of
from jax_prompts.report.series import series_of
from jax_prompts.results.find import find

EVIL = "</script><script>document.title='ran'</script><img src=x onerror=alert(1)>"


class Tags(html.parser.HTMLParser):
    """Tags and text of a page, as a browser splits it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def figures_of(text):
    found = re.search(r'id="figures-data">([^<]*)<', text)[1]
    return json.loads(zlib.decompress(base64.b64decode(found))) if found else None


def report(tmp_path, *paths, **options):
    found = make_report([str(path) for path in paths], str(tmp_path / "page.html"), **options)
    return found, (tmp_path / "page.html").read_text()


@pytest.fixture
def everything(tmp_path):
    rows = [prediction(0, "yes", "no"), prediction(1, "no", "no")]
    make_run(tmp_path / "all" / "run", scores=(80.0, 90.0), predictions=rows, prompts=True, recorded=True)
    for seed in (0, 1):
        make_run(
            tmp_path / "all" / "suite" / "cells" / f"a.b.seed{seed}", settings={"RANDOM_SEED": str(seed)}
        )
    entry = {"mean": 90.0, "deviation": 1.0, "seeds": 2, "complete": False, "published": 91.5,
             "published_deviation": None, "difference": -1.5}  # fmt: skip
    table = {"cells": 2, "table": [{"row": "Residual", "columns": {"RTE": entry}}]}
    (tmp_path / "all" / "suite" / "table.json").write_text(json.dumps(table))
    make_evaluation(tmp_path / "all" / "evaluation", rows, [{**row, "agreement": 0.5} for row in rows])
    return tmp_path / "all"


def test_the_page_has_every_section(tmp_path, everything):
    found, text = report(tmp_path, everything)
    assert found == {
        "output": str(tmp_path / "page.html"), "bytes": len(text.encode()), "runs": 3, "suites": 1, "evaluations": 1,
        "prompts": 0, "studies": 0, "predictions": 10, "figures": 8, "problems": 0,
    }  # fmt: skip
    parsed = Tags(text)
    headings = re.findall(r'<h2 id="[\w-]+">([^<]+)</h2>', text)
    assert headings == [
        "Runs", "Suites", "Evaluations", "Learning curves", "Prompts during training", "Prompts", "Confusion",
        "Lengths and what was cut", "Predictions",
    ]  # fmt: skip
    assert [
        re.findall("<t[hd][^>]*>([^<]*)", line)
        for line in re.findall("<tr>(.*?)</tr>", text.partition('id="suites"')[0])[1:]
    ] == [
        ["run", "rte", "accuracy", "85.00 ± 7.07", "0.00", "50.00", "20", "10", "60", "finished"],
        ["a.b", "rte", "accuracy", "90.00 ± 0.00", "0.00", "50.00", "20", "10", "120", "finished"],
    ]
    assert "90.0 ± 1.0* (91.5, -1.5)" in text
    assert len([tag for tag, _ in parsed.tags if tag == "figure"]) == 8
    assert parsed.tags[0] == ("html", {"lang": "en"})


def test_figures_say_what_they_show(tmp_path, everything):
    _, text = report(tmp_path, everything)
    for figure in figures_of(text)["figures"]:
        assert f'id="{figure["id"]}"' in text
        assert all(view["spec"]["description"] for view in figure["views"])
        assert all(view["spec"]["width"] == "container" for view in figure["views"])


def test_charts_are_valid(everything):
    sections, _, _ = sections_of(find([str(everything)]))
    figures = [part for section in sections for part in section.parts if isinstance(part, Figure)]
    with altair.data_transformers.enable("default", max_rows=None):
        assert all(view.chart.to_dict(validate=True) for figure in figures for view in figure.views)


def test_the_page_asks_the_network_for_nothing(tmp_path, everything):
    _, text = report(tmp_path, everything)
    parsed = Tags(text)
    policy = next(tag["content"] for name, tag in parsed.tags if tag.get("http-equiv"))
    assert "default-src 'none'" in policy and policy.count("'sha256-") == 3
    sources = [tag.get("src") or tag.get("href") for _, tag in parsed.tags]
    assert all(source is None or source[0] == "#" or source.startswith("data:") for source in sources)
    assert text.count("window.vegaEmbed=") == 1


def test_markup_is_text(tmp_path):
    rows = [
        prediction(0, EVIL, "no", labels=(EVIL, "no"), inputs=EVIL),
        prediction(1, "no", EVIL, inputs="a"),
    ]
    run = make_run(tmp_path / "<img src=x onerror=alert(1)>", predictions=rows, settings={
        "MIXTURE_OR_TASK_NAME": repr("<b>task</b>"), "SWEEP": repr(EVIL)})  # fmt: skip
    found, text = report(tmp_path, run)
    parsed = Tags(text)
    scripts = [tag for name, tag in parsed.tags if name == "script"]
    assert [tag.get("type") for tag in scripts] == 2 * ["application/octet-stream"] + 3 * ["module"]
    assert not {name for name, _ in parsed.tags} & {"img", "b"}
    assert not any(name.startswith("on") for _, tag in parsed.tags for name in tag)
    assert "&lt;b&gt;task&lt;/b&gt;" in text
    assert found["predictions"] == 2


def test_control_characters_and_secrets_do_not_reach_the_page():
    shown = page.text("a\x1b[31mb https://user:hunter2@example.org/x?token=abc")
    assert "\x1b" not in shown and "hunter2" not in shown


def test_a_table_of_many_runs_says_what_it_leaves_out(tmp_path):
    for number in range(2000):
        make_run(tmp_path / "runs" / f"run{number:04}", scores=(number / 20,), steps=(0, 10))
    found, text = report(tmp_path, tmp_path / "runs")
    assert found["runs"] == 2000
    assert "1,700 more runs are not in the table." in text
    assert "the 8 lines of the best scores are drawn, of 2000" in text
    assert found["bytes"] < 3e6


def test_fifty_thousand_predictions_stay_under_three_megabytes(tmp_path):
    rows = [
        prediction(
            n, ("yes", "no")[n % 2], "no", inputs=f"example {n} says that {n * n} is {n % 7} and {n % 11}"
        )
        for n in range(2500)
    ]
    run = make_run(tmp_path / "run", scores=tuple(map(float, range(20))), predictions=rows)
    found, _ = report(tmp_path, run)
    assert found["predictions"] == limits.PREDICTIONS
    assert found["bytes"] < 3e6


def test_runs_that_are_unfinished_or_killed_are_shown(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    with (run / "metrics" / "train.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')
    _, text = report(tmp_path, run)
    assert "unfinished" in text and "There are no predictions here." in text


def test_a_run_that_has_only_begun_is_shown(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.gin").write_text("MIXTURE_OR_TASK_NAME = 'rte'\n")
    found, text = report(tmp_path, tmp_path / "run")
    assert (found["figures"], found["predictions"]) == (0, 0)
    assert "unfinished" in text


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics/train.jsonl", "nonsense\n"),
        ("metrics/eval.jsonl", '{"no": "step"}\n'),
        ("predictions/rte-20.jsonl", "[]\n"),
        ("summary.json", "{}"),
        ("prompt.safetensors", "damaged"),
    ],
)
def test_a_damaged_file_is_said_in_the_page(tmp_path, file, content):
    run = make_run(tmp_path / "run", predictions=[prediction(0, "yes", "yes")], prompts=True)
    (run / file).write_text(content)
    make_run(tmp_path / "other")
    _, text = report(tmp_path, run, tmp_path / "other")
    assert "What could not be read" in text and file.rpartition("/")[2] in text


def test_numbers_that_are_null_are_left_out(tmp_path):
    run = make_run(tmp_path / "run")
    jsonl(
        run / "metrics" / "train.jsonl",
        [{"step": 10, "loss": None}, {"step": 20, "loss": "x"}, {"step": 30, "loss": 1.0}],
    )
    _, text = report(tmp_path, run)
    (loss,) = [figure for figure in figures_of(text)["figures"] if figure["id"] == "figure-loss"]
    rows = figures_of(text)["rows"][loss["views"][0]["rows"]]
    assert [(row["step"], row["value"]) for row in rows] == [(30, 1.0)]


@pytest.mark.parametrize(
    "own",
    [
        {"step": "x"},
        {"step": 2**70},
        {"step": 1.5},
        {"task": ["rte"]},
        {"split": {}},
        {"member": "0"},
    ],
)
def test_a_file_with_a_line_of_other_types_is_said(tmp_path, own):
    run = make_run(tmp_path / "run", steps=(0, 10))
    line = {"step": 20, "task": "rte", "split": "validation", "accuracy": 95.0, **own}
    with (run / "metrics" / "eval.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    _, text = report(tmp_path, run)
    assert "figure-score" not in {figure["id"] for figure in figures_of(text)["figures"]}
    assert "eval.jsonl holds a line that no run has written" in text


def test_a_number_that_is_none_is_left_out(tmp_path):
    run = make_run(tmp_path / "run", steps=(0, 10))
    with (run / "metrics" / "eval.jsonl").open("a") as file:
        file.write('{"step": 20, "task": "rte", "split": "validation", "accuracy": true}\n')
    data = figures_of(report(tmp_path, run)[1])
    (score,) = [figure for figure in data["figures"] if figure["id"] == "figure-score"]
    assert [row["step"] for row in data["rows"][score["views"][0]["rows"]]] == [0, 10]


@pytest.mark.parametrize("majority", [[1], {"rte": 1}, None, "x", True])
@pytest.mark.parametrize("cut", [1, {"train": 1}, {"train": {"rte": 1}}, {"train": {"rte": {"inputs": "x"}}}])
def test_a_summary_of_other_types_is_shown_as_far_as_it_goes(tmp_path, majority, cut):
    run = make_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text()) | {"majority_metric": majority, "cut": cut}
    (run / "summary.json").write_text(json.dumps(summary))
    assert tables.runs_section(series_of(find([str(run)]))[0]).parts[0].rows[0][5] == "–"
    assert tables.cuts_table(series_of(find([str(run)]))[0]) is None


@pytest.mark.parametrize("content", ["{", '{"study": "unknown"}', '{"study": "rank"}', '{"study": ["rank"]}'])
def test_a_study_that_cannot_be_drawn_is_said(tmp_path, content):
    (tmp_path / "runs").mkdir()
    make_run(tmp_path / "runs" / "run")
    (tmp_path / "runs" / "study.json").write_text(content)
    _, text = report(tmp_path, tmp_path / "runs")
    assert ("study.json" in text) == (content != "{")  # damaged JSON in a directory is some other file


def test_a_damaged_table_is_said(tmp_path):
    make_run(tmp_path / "suite" / "cells" / "a.seed0")
    for content in (
        '{"table": 1}',
        '{"table": [1]}',
        '{"table": [{"columns": 1}]}',
        '{"table": [{"columns": {"a": 1}}]}',
        "{}",
        "[",
    ):
        (tmp_path / "suite" / "table.json").write_text(content)
        _, text = report(tmp_path, tmp_path / "suite")
        assert "table.json is" in text


def test_figures_are_written_as_png_and_svg(tmp_path, everything):
    make_report([str(everything / "run")], str(tmp_path / "page.html"), str(tmp_path / "figures"))
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"loss.steps.png", "loss.steps.svg", "loss.seconds_of_tuning.png", "confusion.png"} <= names
    assert (tmp_path / "figures" / "loss.steps.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "figures" / "loss.steps.svg").read_text().startswith("<svg")


def test_the_command_prints_what_it_made(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    main(["report", str(run), f"--output={tmp_path / 'page.html'}"])
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"], found["output"]) == (1, str(tmp_path / "page.html"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: (path / "empty").mkdir(), "holds no run"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_no_run_is_one_line(tmp_path, capsys, make, said):
    make(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "empty"), f"--output={tmp_path / 'p.html'}"])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error and "Traceback" not in error


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="could not be written"):
        make_report([str(run)], str(tmp_path / "file" / "page.html"))
    with pytest.raises(RunError, match="could not be written"):
        make_report([str(run)], str(tmp_path / "run"))


def test_without_the_extra_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(ConfigError, match=re.escape("pip install -e '.[report]'")):
        make_report([str(make_run(tmp_path / "run"))], str(tmp_path / "page.html"))


def test_half_a_surrogate_pair_is_shown_as_what_it_is(tmp_path):
    run = make_run(
        tmp_path / "run", predictions=[prediction(0, "yes", "no\ud800"), prediction(1, "no", "no")]
    )
    found, text = report(tmp_path, run)
    assert found["predictions"] == 2 and "\ud800" not in text


@pytest.mark.parametrize("damage", ["", '{"study": "rank"', "[1]"])
def test_a_damaged_study_hides_nothing(tmp_path, capsys, damage):
    run, study = make_run(tmp_path / "run"), tmp_path / "study.json"
    study.write_text(damage)
    found, text = report(tmp_path, run, study)
    assert (found["runs"], found["problems"]) == (1, 1)
    assert "study.json" in text and "not shown: " in capsys.readouterr().err
    with pytest.raises(RunError, match=r"nothing can be shown: .*study\.json"):
        report(tmp_path, study)


def test_a_damaged_evaluation_is_said(tmp_path):
    run, evaluation = make_run(tmp_path / "run"), tmp_path / "eval"
    evaluation.mkdir()
    (evaluation / "eval.json").write_text('{"metrics": [1]}')
    assert report(tmp_path, run, evaluation)[0]["problems"] == 1


def test_a_page_is_not_written_over_what_it_shows(tmp_path, capsys):
    study = tmp_path / "study.json"
    study.write_text('{"study": "rank"}')
    for output, words in (
        (study, "is read, too"),
        (tmp_path, "is a directory"),
        (f"{tmp_path}/none/", "is a directory"),
        ("gs://bucket/folder/", "is a directory"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["report", str(study), f"--output={output}"])
        assert ended.value.code == 2 and words in capsys.readouterr().err
    assert study.read_text() == '{"study": "rank"}'
