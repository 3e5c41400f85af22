"""The rows of docs/scaling.md, from reports in the form of `t5x precompile`."""

import json
import pathlib

import pytest

from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve

SCRIPTS = pathlib.Path(__file__).parent.parent.parent / "scripts"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import scaling_table

    return scaling_table


def report(*, fits=True):
    """Of one row: its three programs, of which the training step may not fit."""
    step = {
        "fits": fits, "bytes_per_chip": 3 << 29, "flops_per_chip": 26.27e12, "memory_traffic_bytes": 9.1e10,
        "collective_bytes_per_chip": 6.94e9, "compiler_seconds": 0.298, "predicted_seconds": 0.414,
        "examples_per_second": 77.3, "collectives": {"all-gather": {"sent": 1.0, "sent_in_lines": 0.0}},
    }  # fmt: skip
    refused = {**dict.fromkeys(step), "fits": False, "bytes_per_chip": 3 << 29}
    programs = {
        "train": step if fits else refused,
        "eval": {**step, "predicted_seconds": 0.0801},
        "decode": {**step, "predicted_seconds": 1.5},
    }
    return {"hbm_per_chip": 1 << 30, "programs": programs}


def printed(script, capsys, folder, only="xl/residual/v4"):
    script.main(["--output", str(folder), "--only", only])
    return capsys.readouterr().out.splitlines()


def test_rows_are_the_markdown_of_the_docs_in_order(script, tmp_path, monkeypatch, capsys):
    asked = []

    def compiled(row, limit):
        asked.append(row)
        fits = row.partitions != {"model": 16}
        found = report(fits=fits)
        return {
            "row": row.name,
            **found,
            "programs": {name: found["programs"][name] for name in row.programs},
        }

    monkeypatch.setattr(script, "compiled", compiled)
    lines = printed(script, capsys, tmp_path)
    step = "26.27 TFLOP | 91.0 GB | 6.94 GB | 298 ms | 414 ms | 77.3"
    rows = [line for line in lines if line.startswith(("| XXL", "| XL"))]
    place = "| {} | Residual | v4:2x2x4 | 16 | `{}` | 1.50 of 1.00 GiB"
    assert rows == [
        f"{place.format('XXL', data_and_model)} | {step} | 80 ms | 1500 ms |"
        if data_and_model != {"model": 16}
        else f"{place.format('XXL', data_and_model)}: does not fit | - | - | - | - | - | - | 80 ms | 1500 ms |"
        for data_and_model in ({"data": 4, "model": 4}, {"fsdp": -1}, {"fsdp": 4, "model": 4}, {"model": 16})
    ] + [f"{place.format('XL', {'data': 4, 'model': 4})} | {step} | - | - |"]
    head = next(line for line in lines if line.startswith("| model"))
    assert head.count("|") == rows[0].count("|")
    assert len(asked) == 5
    assert printed(script, capsys, tmp_path) == lines
    assert len(asked) == 5  # kept


@pytest.mark.parametrize("lost", ["programs", "sent_in_lines"])
def test_rows_of_an_older_script_are_refused(script, tmp_path, lost, capsys):
    line = {"row": "xl", **report()}
    if lost == "programs":
        del line["programs"]
    else:
        del line["programs"]["train"]["collectives"]["all-gather"]["sent_in_lines"]
    (tmp_path / "rows.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(SystemExit, match="rows of an earlier version"):
        printed(script, capsys, tmp_path)


def test_every_row_is_a_run_that_can_be_resolved(script):
    for rows, _ in script.TABLES.values():
        assert len({row.name for row in rows}) == len(rows)
    for row in (script.STEPS[0], script.LIMITS[-1], script.WEAK[0]):
        run, _ = resolve(parse(["train", *row.flags(script.SETTINGS)]), "TrainRun")
        assert run.model.partitions == row.partitions
        assert run.model.remat == "minimal"
