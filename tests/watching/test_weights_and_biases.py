"""Weights & Biases: what an offline run there holds, and that none of its failures reaches a run."""

import os
import signal
import struct
import subprocess
import sys
import types

import pytest

from jax_prompts.errors import ConfigError
from jax_prompts.watching import weights_and_biases
from jax_prompts.watching.hparams import Session
from jax_prompts.watching.weights_and_biases import WeightsAndBiases, check_usable

BLOCK = 32 * 1024  # of W&B's file, whose records lie in LevelDB's log format
PROGRAM = """
import os, pathlib, signal, sys
from jax_prompts.watching.hparams import Session
from jax_prompts.watching.weights_and_biases import WeightsAndBiases

directory, how = pathlib.Path(sys.argv[1]), sys.argv[2]
watching = WeightsAndBiases(directory, {"Optimizer.learning_rate": 0.3, "Data.task": "rte"})
watching.scalars(5, {"train/loss": 2.5})
watching.scalars(10, {"train/loss": 1.25, "eval/rte/accuracy": float("nan")})
watching.flush()
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sessions = [Session("hparams", {"seed": 0}, {"best_metric": 75.0, "test/accuracy": 60.0})]
if how == "finished":
    watching.finish(sessions, {"last_step": 10, "members": [{"best_metric": 75.0}]})
watching.close(failed=how == "failed")
"""


def ran(directory, how, **environment):
    """(exit status, stderr) of a program that watches."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory), how],
        env={**os.environ, "HOME": str(directory), "WANDB_MODE": "offline", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def kept(directory):
    """The records of every offline run in a MODEL_DIR, by kind, the runs in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    runs = []
    for file in sorted((directory / "wandb").glob("offline-run-*/*.wandb")):
        data, at, parts, records = file.read_bytes(), 7, b"", []
        while at + 7 <= len(data):
            if BLOCK - at % BLOCK < 7:
                at += BLOCK - at % BLOCK
                continue
            _, size, kind = struct.unpack_from("<IHB", data, at)
            parts, at = parts + data[at + 7 : at + 7 + size], at + 7 + size
            if kind in (1, 4):  # whole, or the last part
                records.append(Record.FromString(parts))
                parts = b""
        runs.append(records)
    return [
        {
            kind: [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]
            for kind in ("run", "history", "summary", "exit")
        }
        for records in runs
    ]


def values(items):
    """Values of a record by name; W&B's own left out."""
    found = {"/".join(item.nested_key) or item.key: item.value_json for item in items}
    return {name: value for name, value in found.items() if not name.startswith("_")}


@pytest.mark.slow
def test_an_offline_run_is_kept_and_a_resumed_one_is_the_same(tmp_path):
    pytest.importorskip("wandb", reason="pip install -e '.[wandb]'")
    directory = tmp_path / "runs" / "rte"
    directory.mkdir(parents=True)
    assert ran(directory, "killed")[0] == -signal.SIGKILL
    assert ran(directory, "failed") == (0, "")
    assert ran(directory, "finished", WANDB_PROJECT="mine", WANDB_NAME="second") == (0, "")
    _, failed, finished = kept(directory)  # of the killed one W&B may not have written anything
    known = (directory / "wandb" / "run_id").read_text().strip()
    assert len(list((directory / "wandb").glob(f"offline-run-*-{known}"))) == 3
    for found in (failed, finished):
        (run,) = found["run"]
        assert run.run_id == known
        assert values(run.config.update) == {"Optimizer.learning_rate": "0.3", "Data.task": '"rte"'}
        assert [values(row.item) for row in found["history"]] == [
            {"step": "5", "train/loss": "2.5"},
            {"step": "10", "train/loss": "1.25", "eval/rte/accuracy": "NaN"},
        ]
    assert [(found["run"][0].project, found["run"][0].display_name) for found in (failed, finished)] == [
        ("jax_prompts", "runs/rte"),
        ("mine", "second"),
    ]
    assert [found["exit"][0].exit_code for found in (failed, finished)] == [1, 0]
    summary = {}
    for record in finished["summary"]:
        summary |= values(record.update)
    assert summary["best_metric"] == "75.0" and summary["test/accuracy"] == "60.0"
    assert summary["last_step"] == "10" and summary["members"] == '[{"best_metric":75.0}]'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"WANDB_API_KEY": ""}, "no key (wandb login makes one known)"),
        ({"WANDB_API_KEY": "short"}, "API key"),
        ({"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "Failed to"),
    ],
)
def test_what_cannot_be_sent_is_kept(tmp_path, environment, reason):
    pytest.importorskip("wandb", reason="pip install -e '.[wandb]'")
    status, err = ran(tmp_path, "finished", WANDB_MODE="online", **environment)
    assert status == 0 and "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("Weights & Biases: ")]
    assert reason in line
    assert line.endswith(f"kept for later: wandb sync {tmp_path}/wandb/offline-run-*")
    (found,) = kept(tmp_path)
    assert len(found["history"]) == 2 and found["exit"][0].exit_code == 0


def fake(monkeypatch, *, log=None, init=None, finish=None):
    """A wandb of which parts fail; returns what it was asked."""
    asked = []

    def asking(name, error):
        def act(*values, **named):
            asked.append((name, *values, *named.values()))
            if error is not None:
                raise error
            return run

        return act

    run = types.SimpleNamespace(
        log=asking("log", log),
        finish=asking("finish", finish),
        define_metric=asking("define", None),
        summary=types.SimpleNamespace(update=asking("summary", None)),
        url=None,
    )
    settings = types.SimpleNamespace(settings=types.SimpleNamespace(mode="offline"))
    wandb = types.SimpleNamespace(
        setup=lambda settings: settings_of, Settings=dict, init=asking("init", init), login=lambda **_: True
    )
    settings_of = settings
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return asked


@pytest.mark.parametrize(
    ("failing", "asked_for"),
    [
        ({"init": RuntimeError("run ID is in use\nat line 3")}, ["init"]),
        ({"log": ConnectionResetError("the service\x1b[2J is gone")}, ["init", "define", "log"]),
        ({"finish": TimeoutError("late")}, ["init", "define", "log", "log", "summary", "finish"]),
    ],
)
def test_a_failure_is_said_once_and_the_run_goes_on(tmp_path, monkeypatch, capsys, failing, asked_for):
    asked = fake(monkeypatch, **failing)
    watching = WeightsAndBiases(tmp_path, {})
    for step in (1, 2):
        watching.scalars(step, {"train/loss": 2.5})
    watching.finish([Session("hparams", {}, {})], {})
    watching.close(failed=False)
    assert [name for name, *_ in asked] == asked_for
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Weights & Biases failed (") and line.endswith("): the run goes on without it")
    assert "\x1b" not in line and "line 3" not in line


def test_each_member_has_its_scores(tmp_path, monkeypatch):
    asked = fake(monkeypatch)
    watching = WeightsAndBiases(tmp_path, {})
    sessions = [Session(f"member-{member}", {}, {"best_metric": 70.0 + member}) for member in (0, 1)]
    watching.finish(sessions, {"best_metric": 70.5})
    assert asked[-1] == (
        "summary",
        {"best_metric": 70.5, "member-0/best_metric": 70.0, "member-1/best_metric": 71.0},
    )


@pytest.mark.parametrize("damaged", ["", "../../x", "a" * 65, "\udcff"])
def test_a_damaged_name_is_replaced(tmp_path, monkeypatch, damaged):
    asked = fake(monkeypatch)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "run_id").write_bytes(damaged.encode(errors="surrogateescape"))
    for _ in range(2):
        WeightsAndBiases(tmp_path, {}).close(failed=False)
    first, second = ([*known] for known in (entry for entry in asked if entry[0] == "init"))
    assert first == second
    assert (tmp_path / "wandb" / "run_id").read_text().strip() in first


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_and_biases.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"WANDB is True and wandb is not installed: .*\.\[wandb\]"):
        check_usable()
    folder = types.SimpleNamespace(origin=None)
    monkeypatch.setattr(weights_and_biases.importlib.util, "find_spec", lambda name: folder)
    with pytest.raises(ConfigError, match="not installed"):
        check_usable()


@pytest.mark.parametrize("mode", ["", "nonsense"])
def test_a_mode_that_there_is_not_is_refused_by_its_name(mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(ConfigError, match=r"WANDB_MODE is .*: set it to online or offline"):
        check_usable()
