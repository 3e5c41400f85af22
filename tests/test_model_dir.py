"""MODEL_DIR before a run: usable, of the same run, whole; whatever is wrong is one line, and nothing is left there."""

import dataclasses
import json
import os

import pytest

from jax_prompts import config, model_dir, runs
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.model_dir import claimed
from jax_prompts.records import Records
from jax_prompts.run_folder import RunFolder

TEXT = """# Parameters for FromFile:
FromFile.path = '{path}'
MODEL_DIR = '{directory}'
PARTITIONS = {{'fsdp': 2}}
SEED = 1
TRAIN_STEPS = 24
BaseModel.partitions = %PARTITIONS
Training.steps = %TRAIN_STEPS
TrainRun.model_dir = %MODEL_DIR
"""


def run_in(directory, steps=24, **optimizer):
    return runs.TrainRun(
        model_dir=str(directory),
        model=config.BaseModel(None, "asset:micro", None),
        data=config.Data("task", "tasks.registry", {"inputs": 8, "targets": 2}, 8),
        optimizer=config.Optimizer("adamw", 0.1, **optimizer),
        training=config.Training(steps=steps, eval_period=12),
    )


def begun(directory, text=None, step=None):
    """A run that has left its configuration and perhaps a checkpoint."""
    text = text or TEXT.format(directory=directory, path="start.safetensors")
    Records(RunFolder(directory), text)
    if step is not None:
        (directory / "checkpoints" / str(step)).mkdir(parents=True)
    return text


def refused(error, match, run, text):
    """What is said of a run that MODEL_DIR cannot have, in one line."""
    with pytest.raises(error, match=match) as caught, claimed(run, text):
        pytest.fail("it goes on")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# A directory that can be written


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "it is a file"),
        ("link", "it is a link that leads nowhere"),
        ("file/below", r"\(.*file is a file\)"),
        ("n" * 300, "File name too long"),
        ("new/" + "n" * 300, "File name too long"),
        ("s3://bucket/run", "no directory"),
    ],
)
def test_what_is_no_directory(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert f"MODEL_DIR {name}" in refused(ConfigError, reason, run_in(name), "A = 1\n")
    with pytest.raises(ConfigError, match=reason):
        model_dir.check_usable(name)
    with pytest.raises(ConfigError, match=reason), model_dir.for_evaluation(name, "answers"):
        pass
    assert [(path.name, path.read_text()) for path in tmp_path.rglob("*") if path.exists()] == [
        ("file", "mine")
    ]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")]
)
def test_what_cannot_be_written(tmp_path, monkeypatch, error):
    def refuses(*_):
        raise error

    monkeypatch.setattr(os, "open", refuses)
    refused(ConfigError, rf"\({error.strerror}\): set it to", run_in(tmp_path), "A = 1\n")


@pytest.mark.parametrize("part", ["checkpoints", "metrics", "predictions", "tensorboard"])
def test_parts_that_are_files_or_cannot_be_written(tmp_path, monkeypatch, part):
    (tmp_path / part).write_text("mine")
    refused(ConfigError, f"{part} is a file.*move it away", run_in(tmp_path), "A = 1\n")
    with pytest.raises(ConfigError, match=f"{part} is a file.*move it away"):
        model_dir.check_usable(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [part]
    (tmp_path / part).unlink()
    (tmp_path / part).symlink_to(tmp_path / "gone")
    refused(ConfigError, f"{part} is a link that leads nowhere.*move it away", run_in(tmp_path), "A = 1\n")
    (tmp_path / part).unlink()
    (tmp_path / part).mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path / part)
    refused(ConfigError, f"{part} in it cannot be written", run_in(tmp_path), "A = 1\n")


def test_a_run_that_fails_before_it_writes_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed(run_in(tmp_path / "runs" / "x"), "A = 1\n"):
        assert (tmp_path / "runs" / "x").is_dir()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with model_dir.for_evaluation(str(tmp_path / "runs" / "x"), "answers") as folder:
        assert folder.path == tmp_path / "runs" / "x"
    model_dir.check_usable(str(tmp_path / "runs" / "x"))
    assert list(tmp_path.iterdir()) == []


def test_one_run_at_a_time(tmp_path):
    with claimed(run_in(tmp_path), "A = 1\n"):
        refused(RunError, f"process {os.getpid()} on ", run_in(tmp_path), "A = 1\n")


# What lies there is whole


MEMBER = {"seed": 0, "best_metric": 75.0, "best_step": 12, "file": "runs/x/prompt.safetensors"}
SUMMARY = {"task": "rte", "metric": "accuracy", "last_step": 24, "members": [MEMBER]}


@pytest.mark.parametrize(
    "summary",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps({**SUMMARY, "last_step": "24"}),
        json.dumps({**SUMMARY, "metric": None}),
        json.dumps({"last_step": 24}),
        json.dumps({**SUMMARY, "members": ["file"]}),
        json.dumps({**SUMMARY, "members": [{**MEMBER, "file": 5}]}),
        json.dumps({**SUMMARY, "members": [{**MEMBER, "seed": []}]}),
        json.dumps({**SUMMARY, "members": [{**MEMBER, "best_step": "x"}]}),
        "[" * 10**5,
    ],
)
def test_a_damaged_summary_is_named(tmp_path, summary):
    (tmp_path / "summary.json").write_text(summary)
    refused(RunError, r"summary\.json is damaged: remove it", run_in(tmp_path), "A = 1\n")
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    with claimed(run_in(tmp_path), "A = 1\n"):
        pass


def test_a_summary_of_other_members_is_named(tmp_path):
    records = Records(RunFolder(tmp_path), None)
    with pytest.raises(RunError, match=r"summary\.json is damaged: remove it"):
        records.renamed({**SUMMARY, "members": []}, [tmp_path / "prompt.safetensors"])


@pytest.mark.parametrize("name", ["summary.json", "metrics/eval.jsonl", "config.gin"])
def test_what_is_no_file_is_named(tmp_path, name):
    (tmp_path / "metrics").mkdir()
    os.mkfifo(tmp_path / name)  # to open it would wait for a writer
    refused(RunError, rf"{name} cannot be read \(not a file\)", run_in(tmp_path), "A = 1\n")


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"", b"{}", b'{"step": "4"}', b"\xff", b'{"step": NaN}', b"[" * 10**5]
)
def test_a_damaged_line_of_metrics_is_named(tmp_path, line):
    (tmp_path / "metrics").mkdir()
    whole = b'{"step": 4}\n'
    (tmp_path / "metrics" / "eval.jsonl").write_bytes(whole + line + b"\n" + whole)
    refused(RunError, r"metrics/eval\.jsonl line 2 is no record", run_in(tmp_path), "A = 1\n")


@pytest.mark.parametrize("torn", [b"{", b'{"step": 8}', b"\xff", b"\0" * 100])
def test_half_of_a_last_line_is_what_a_kill_leaves(tmp_path, torn):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "eval.jsonl").write_bytes(b'{"step": 4}\n' + torn)
    with claimed(run_in(tmp_path), "A = 1\n"):
        records = Records(RunFolder(tmp_path), "A = 1\n")
        records.truncate(6)
    assert (tmp_path / "metrics" / "eval.jsonl").read_bytes() == b'{"step": 4}\n'


def test_a_configuration_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "config.gin").write_bytes(b"A = '\xff'\n")
    refused(RunError, r"config\.gin cannot be read.*bring it back", run_in(tmp_path), "A = 1\n")


def test_of_a_damaged_configuration_a_message_shows_a_part(tmp_path):
    (tmp_path / "config.gin").write_text("x" * 10**6)
    with (
        pytest.raises(ConfigError, match="another configuration") as error,
        claimed(run_in(tmp_path), "A = 1\n"),
    ):
        pass
    assert len(str(error.value)) < 1000


# The same run, wherever it lies


def test_other_settings_are_refused_and_other_devices_are_not(tmp_path):
    text = begun(tmp_path)
    with claimed(run_in(tmp_path), text.replace("'fsdp': 2", "'model': 4")):
        pass
    refused(
        ConfigError,
        "there 'SEED = 1', here 'SEED = 2'",
        run_in(tmp_path),
        text.replace("SEED = 1", "SEED = 2"),
    )
    refused(ConfigError, "one is longer", run_in(tmp_path), f"{text}ZERO = 0\n")
    assert (tmp_path / "config.gin").read_text() == text


def test_who_watches_is_free(tmp_path):
    def resolved(*flags):
        given = ["train", "--gin_file=gin_configs/quickstart.gin", f"--gin.MODEL_DIR={tmp_path}", *flags]
        return resolve(parse(given), "TrainRun")

    profiled, wandb = "--gin.PROFILE_STEPS=(10, 15)", "--gin.WANDB=True"
    direct = ("--gin.Training.profile_steps=(1, 2)", "--gin.Training.wandb=False")
    run, text = resolved(profiled)
    before_there_was_such = "".join(
        line for line in text.splitlines(keepends=True) if "PROFILE_STEPS" not in line and "WANDB" not in line
    )
    assert before_there_was_such.count("\n") == text.count("\n") - 4
    for there in (before_there_was_such, text, resolved(wandb, profiled)[1], resolved(*direct)[1]):
        begun(tmp_path, there)
        for flags in ((), (profiled,), (wandb,), direct):
            with claimed(run, resolved(*flags)[1]):
                pass


@pytest.mark.parametrize("before", ["runs/x", "./runs/x/", "{tmp}/runs/x", "~/runs/x", "elsewhere/../runs/x"])
@pytest.mark.parametrize("now", ["runs/y", "{tmp}/runs/y/", "runs/../runs/y", "~/runs/y"])
def test_a_run_may_have_another_name(tmp_path, monkeypatch, before, now):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    before, now = before.format(tmp=tmp_path), now.format(tmp=tmp_path)
    begun(tmp_path / "runs" / "x", TEXT.format(directory=before, path=f"{before}/start.safetensors"))
    (tmp_path / "runs" / "x").rename(tmp_path / "runs" / "y")
    run = run_in(now)
    with claimed(run, TEXT.format(directory=now, path=f"{now}/start.safetensors")):
        pass
    for other in ("other/start.safetensors", f"{now}/other.safetensors"):
        refused(ConfigError, "another configuration", run, TEXT.format(directory=now, path=other))


def test_the_address_of_a_real_configuration_is_free(tmp_path):
    def resolved(directory):
        place = f"--gin.MODEL_DIR={directory}"
        return resolve(parse(["train", "--gin_file=gin_configs/quickstart.gin", place]), "TrainRun")

    run, text = resolved(tmp_path)
    begun(tmp_path, text)
    with claimed(dataclasses.replace(run, model_dir=f"{tmp_path}/."), resolved(f"{tmp_path}/.")[1]):
        pass


# More steps


def more(text, steps):
    return text.replace("TRAIN_STEPS = 24", f"TRAIN_STEPS = {steps}")


@pytest.mark.parametrize("optimizer", [{}, {"warmup_steps": 3}, {"schedule": "rsqrt", "warmup_steps": 3}])
def test_a_run_may_be_made_longer(tmp_path, optimizer):
    text = begun(tmp_path, step=24)
    with claimed(run_in(tmp_path, 36, **optimizer), more(text, 36)):
        pass


@pytest.mark.parametrize(
    ("optimizer", "setting"),
    [({"schedule": "linear"}, "schedule = 'linear'"), ({"warmup_fraction": 0.1}, "warmup_fraction = 0.1")],
)
def test_rates_that_depend_on_the_number_of_steps_forbid_it(tmp_path, optimizer, setting):
    text = begun(tmp_path)
    with claimed(run_in(tmp_path, 36, **optimizer), more(text, 36)):
        pass  # it has not trained yet
    begun(tmp_path, text, step=12)
    with claimed(run_in(tmp_path, 24, **optimizer), text):
        pass
    words = rf"Optimizer\.{setting}.*leave it at TRAIN_STEPS = 24, or"
    refused(ConfigError, words, run_in(tmp_path, 36, **optimizer), more(text, 36))


@pytest.mark.parametrize("steps", [6, 12])
def test_a_run_cannot_have_fewer_steps_than_it_has_trained(tmp_path, steps):
    text = begun(tmp_path, step=12)
    with claimed(run_in(tmp_path, 18), more(text, 18)):
        pass
    words = f"trained for 12 steps.* has {steps}: set TRAIN_STEPS above 12"
    refused(ConfigError, words, run_in(tmp_path, steps), more(text, steps))


def test_checkpoints_without_their_configuration_are_nobodys(tmp_path):
    text = begun(tmp_path, step=12)
    with claimed(run_in(tmp_path), text):
        pass
    (tmp_path / "config.gin").unlink()
    refused(
        ConfigError, "holds checkpoints, and no config.gin that says of which run", run_in(tmp_path), text
    )


def test_settings_are_divided_where_lines_end_alone(tmp_path):
    text = TEXT.format(directory=tmp_path, path="start.safetensors")
    begun(tmp_path, f"{text}NAME = 'a\u2028MODEL_DIR = 1'\n")
    refused(ConfigError, "another", run_in(tmp_path), f"{text}NAME = 'a\u2028MODEL_DIR = 2'\n")
