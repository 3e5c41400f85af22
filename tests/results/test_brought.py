"""Runs in buckets as `compare`, `report`, `study` and `inspect` read them: as those in directories."""

import json
import pathlib

import pytest
from bucket_servers import amazon_bucket, google_bucket
from made_runs import make_evaluation, make_run, right

from jax_prompts.cli.inspection import describe
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.main import main
from jax_prompts.results.brought import on_this_machine
from jax_prompts.storage import buckets


@pytest.fixture
def url(google, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "cache"))
    return f"{google_bucket(google, monkeypatch)}/runs"


def taken(folder, url):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            buckets.upload(path, f"{url}/{path.relative_to(folder)}")


def reported(capsys, *argv):
    main([*argv])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def runs(url, tmp_path):
    """A folder with two runs and an evaluation, here and in a bucket."""
    folder = tmp_path / "here" / "runs"
    make_run(folder / "a", right("11101111", 4))
    make_run(folder / "model", right("10100111", 4))
    make_evaluation(folder / "of_a", {"p": right("11111111", 4)})
    for name in ("a/checkpoints/20/state", "a/run.lock", "a/tensorboard/events", "a/model/model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("large")
    taken(folder, url)
    return folder


def test_runs_are_compared_as_those_in_directories(url, runs, capsys, tmp_path):
    here = reported(capsys, "compare", str(runs), "--json")
    there = reported(capsys, "compare", url, "--json")
    copy = str(next((tmp_path / "cache" / "brought").glob("*/*/runs")))
    there = json.loads(json.dumps(there).replace(copy, str(runs)))
    assert there == here
    assert not list(pathlib.Path(copy).rglob("*checkpoints*")) and not list(
        pathlib.Path(copy).rglob("run.lock")
    )
    assert {path.name for path in pathlib.Path(copy).iterdir()} == {"a", "model", "of_a"}
    assert len(reported(capsys, "compare", f"{url}/a", f"{url}/model", "--json")["lines"]) == 2


def test_what_is_at_s3_is_read_as_well(amazon, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "cache"))
    url = f"{amazon_bucket(amazon, monkeypatch)}/runs"
    taken(make_run(tmp_path / "run", right("1101", 4)), f"{url}/a")
    assert len(reported(capsys, "compare", f"{url}/a", "--json")["lines"]) == 1


def test_what_has_changed_is_copied_again(url, runs, tmp_path, capsys):
    with on_this_machine([url]) as (copy,):
        assert "copying" in capsys.readouterr().err
    with on_this_machine([url]) as (copy,):
        assert "copying" not in capsys.readouterr().err
    (tmp_path / "new").write_text("# another\n")
    buckets.upload(tmp_path / "new", f"{url}/a/config.gin")
    buckets.remove(f"{url}/a/summary.json")
    with on_this_machine([url]) as (copy,):
        assert "copying 1 files" in capsys.readouterr().err
        assert (pathlib.Path(copy) / "a" / "config.gin").read_text() == "# another\n"
        assert not (pathlib.Path(copy) / "a" / "summary.json").exists()


def test_reports_studies_and_inspection(url, runs, tmp_path, capsys):
    pytest.importorskip("altair")
    page = reported(capsys, "report", f"{url}/a", url + "/of_a", f"--output={url}/report.html")
    here = reported(
        capsys, "report", *(str(runs / name) for name in ("a", "of_a")), f"--output={tmp_path}/here.html"
    )
    assert {**page, "output": "", "bytes": 0} == {**here, "output": "", "bytes": 0}
    assert buckets.stored(url)["report.html"].size == page["bytes"]
    study = reported(capsys, "study", "convergence", f"{url}/a", f"--output={url}/study.json")
    assert study["study"] == "convergence"
    assert reported(capsys, "report", f"{url}/study.json", f"--output={tmp_path}/page.html")["studies"] == 1
    assert describe(f"{url}/a")["kind"] == "finished run"
    buckets.remove(f"{url}/a/summary.json")
    assert describe(f"{url}/a") == {"kind": "unfinished run", "checkpoints": [20]}
    with pytest.raises(SystemExit):
        main(["report", f"{url}/a", f"--figures={url}/figures"])
    assert "--figures" in capsys.readouterr().err


def test_what_cannot_be_read_is_named(url, runs, google, tmp_path):
    with pytest.raises(ConfigError, match=f"{url}x holds nothing"), on_this_machine([f"{url}x"]):
        pass
    (tmp_path / "bad").write_text("{")
    buckets.upload(tmp_path / "bad", f"{url}/a/summary.json")
    with (
        pytest.raises(RunError, match=f"{url}/a/summary.json is damaged"),
        on_this_machine([f"{url}/a"]) as (copy,),
    ):
        from jax_prompts.results.run_files import RunFiles

        _ = RunFiles(copy).summary
    google.faults = lambda method, path: 403
    with pytest.raises(RunError, match=f"{url} cannot be read: http 403"), on_this_machine([url]):
        pass
