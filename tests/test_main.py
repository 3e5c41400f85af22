"""The command line: what is typed, exit statuses and streams, what each command is given."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest

from jax_prompts import main, prompts, runs
from jax_prompts.cli import arguments
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.commands import COMMANDS
from jax_prompts.cli.run_commands import TRAIN
from jax_prompts.data.cache import TokenCache
from jax_prompts.errors import ConfigError, Preempted, RunError, SettingWarning

ROOT = pathlib.Path(__file__).parent.parent
QUICKSTART = "--gin_file=gin_configs/quickstart.gin"
TASK = ["--gin.MIXTURE_OR_TASK_NAME=super_glue_rte_v102", "--gin.MODEL_DIR=runs/rte"]
MEMORY = "memory is too small (%s): lower BATCH_SIZE, EVAL_BATCH_SIZE, MEMBERS or TASK_FEATURE_LENGTHS"


# What is typed


def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from jax_prompts.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'flax', 'numpy', 'tensorflow', 'gin', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command.name in done.stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "COMMAND"),
        (["trian", QUICKSTART], "no command trian; did you mean train"),
        (["train", "--gin_fil=x.gin"], "did you mean --gin_file"),
        (["train", QUICKSTART, "--dry"], "unknown argument --dry; did you mean --dry_run"),
        (["eval", QUICKSTART, "--dry_run"], "unknown argument --dry_run"),
        (["train", "gin_configs/quickstart.gin"], "did you mean --gin_file=gin_configs/quickstart.gin?"),
        (["train", QUICKSTART, "--gin.TRAIN_STEPS", "3"], "--gin.TRAIN_STEPS is not --gin.NAME=VALUE"),
        (["train", QUICKSTART, "--gin.=3"], "--gin.=3 is not --gin.NAME=VALUE"),
        (
            ["tasks", "--vocabulary=asset:micro", "--inputs_length=0"],
            "--inputs_length 0: a text is cut to at least 1",
        ),
        (["tasks", "--targets_length=4"], "--targets_length is in tokens: add --vocabulary"),
        (["tasks", "--names", "--vocabulary=asset:micro"], "--names counts nothing: leave --vocabulary"),
        (["inspect", "~no_such_user/a"], "~no_such_user/a is in the home of a user who is not known"),
        (["--gin.TRAIN_STEPS"], "--gin.TRAIN_STEPS is not --gin.NAME=VALUE"),
        (["--debug", "--gin.TRAIN_STEPS"], "--gin.TRAIN_STEPS is not --gin.NAME=VALUE"),
        (["infer", QUICKSTART, "--output=-"], "--input"),
        (["infer", "--prompt=a", "--input=-", "--output=-"], "prompt a is not NAME=FILE"),
        (["infer", "--prompt=a=x", "--prompt=a=y", "--input=-", "--output=-"], "prompt a is given twice"),
        (["inspect"], "PATH"),
        (["inspect", "x", "--gin.MODEL_DIR=y"], "--gin.MODEL_DIR=y means nothing here"),
        (["tasks", "--gin_file=x.gin"], "unknown argument --gin_file=x.gin"),
        (["infer", "--input=i", "--output=-", "--resume"], "--resume needs a file"),
        (["inspect", "x", "--skip_bad_lines"], "unknown argument --skip_bad_lines"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(argv, words, capsys):
    with pytest.raises(SystemExit) as status:
        main.main(argv)
    assert status.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("t5x")
    assert words in err


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.reads_gin])
def test_every_command_of_a_run_shows_the_macros(command, capsys):
    with pytest.raises(SystemExit) as status:
        main.main([command.name, "--help_macros"])
    out, err = capsys.readouterr()
    assert (status.value.code, err) == (0, "")
    assert "MIXTURE_OR_TASK_NAME" in out and "TRAIN_STEPS" in out


def test_named_prompts_are_read_in_order():
    argv = ["infer", "--prompt=b=x/b.safetensors", "--prompt", "a=odd=name", "--input=-", "--output=-"]
    assert list(parse(argv).prompt.items()) == [("b", "x/b.safetensors"), ("a", "odd=name")]


# The contract of exit statuses and streams


class PanicException(BaseException):
    """As pyo3 raises where Rust panics."""


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("MODEL_DIR is wrong"), 2, "t5x train: MODEL_DIR is wrong"),
        (RunError("the disk is full\nmore"), 1, "t5x train: the disk is full"),
        (Preempted("stopped"), 75, "t5x train: stopped"),
        (ZeroDivisionError("by\nzero"), 1, "t5x train: ZeroDivisionError: by (--debug shows where)"),
        (RuntimeError(), 1, "t5x train: RuntimeError: RuntimeError (--debug shows where)"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: 9 bytes"),
            1,
            f"t5x train: {MEMORY % 'RESOURCE_EXHAUSTED: 9 bytes'}",
        ),
        (MemoryError(), 1, f"t5x train: {MEMORY % 'MemoryError'}"),
        (PanicException("index out\nof"), 1, "t5x train: PanicException: index out (--debug shows where)"),
        (KeyboardInterrupt(), 130, "t5x train: stopped by Ctrl-C"),
        (
            SystemExit(0),  # as a user's metric may end
            1,
            "t5x train: code of a task's module ended the program (exit status 0): let it raise an error",
        ),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_every_end_has_its_status_and_one_line(monkeypatch, capsys, error, status, line, debug):
    def fails(args):
        raise error

    monkeypatch.setattr(arguments, "COMMANDS", [dataclasses.replace(TRAIN, run=fails)])
    with pytest.raises(SystemExit) as end:
        main.main(["train", *["--debug"][: int(debug)]])
    assert end.value.code == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == line
    assert ("Traceback" in err) == debug
    assert debug or err.count("\n") == 1


def test_the_last_line_on_stdout_is_json(monkeypatch, capsys):
    def works(args):
        print("something that a library says")
        return {"best_metric": 90.0}

    monkeypatch.setattr(arguments, "COMMANDS", [dataclasses.replace(TRAIN, run=works)])
    main.main(["train"])
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == {"best_metric": 90.0}
    assert err == ""


def test_a_warning_on_settings_is_one_line(monkeypatch, capsys):
    def warns(args):
        warnings.warn("the rank is high", SettingWarning, stacklevel=1)
        return {}

    monkeypatch.setattr(arguments, "COMMANDS", [dataclasses.replace(TRAIN, run=warns)])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back afterwards
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main.main(["train"])
    assert capsys.readouterr().err == "t5x: the rank is high\n"


def test_each_command_hands_its_run_on(monkeypatch, capsys):
    from jax_prompts import dry_run, evaluate, train
    from jax_prompts.inference import infer
    from jax_prompts.results import end_of_evaluation, end_of_run

    calls = {}
    silent = types.SimpleNamespace(show=lambda: None)
    monkeypatch.setattr(end_of_run, "end_of_run", lambda *_: silent)
    monkeypatch.setattr(end_of_evaluation, "end_of_evaluation", lambda *_: silent)

    def note(name):
        def noted(*arguments, **options):
            calls[name] = (*arguments, options) if options else arguments
            return {"called": name}

        return noted

    monkeypatch.setattr(train, "train", note("train"))
    monkeypatch.setattr(dry_run, "dry_run", note("dry_run"))
    monkeypatch.setattr(evaluate, "evaluate_run", note("eval"))
    monkeypatch.setattr(infer, "infer_file", note("infer"))
    for argv in (
        ["train", QUICKSTART],
        ["train", QUICKSTART, "--dry_run", "--gin.MODEL_DIR=never"],
        ["eval", QUICKSTART, "--gin_file=gin_configs/runs/eval.gin", "--gin.PROMPT_FILES=('a', 'b')"],
        ["infer", "--gin_file=gin_configs/quickstart_infer.gin", "--prompt=a=b", "--input=i", "--output=-"],
    ):
        main.main(argv)
        assert json.loads(capsys.readouterr().out)["called"] in calls
    files = (QUICKSTART, "--gin_file=gin_configs/runs/eval.gin")
    main.main(["eval", *files, "--gin.CHECKPOINT_PATH=None", "--gin.PROMPT_FILES=('a', 'b')"])
    assert "CHECKPOINT_PATH) is None: the weights that answer are random" in capsys.readouterr().err
    assert isinstance(calls["train"][0], runs.TrainRun)
    assert "MODEL_DIR = 'runs/quickstart'" in calls["train"][1]
    assert calls["dry_run"][0].model_dir == "never"
    assert calls["eval"][0].prompt_files == ("a", "b")
    assert isinstance(calls["infer"][0], runs.InferRun)
    assert calls["infer"][1:] == ({"a": "b"}, "i", "-", {"resume": False, "skip_bad_lines": False})
    main.main(["pretrain", "--gin_file=gin_configs/micro_pretrain.gin"])
    assert calls["train"][0].method is None
    with pytest.raises(SystemExit) as end:
        main.main(["pretrain", QUICKSTART])
    assert end.value.code == 2
    assert "gin_configs/runs/pretrain.gin" in capsys.readouterr().err


@pytest.mark.parametrize(("run", "splits"), [("train", ["train", "validation"]), ("eval", ["validation"])])
def test_cache_fills_what_the_run_reads(monkeypatch, capsys, run, splits):
    from jax_prompts.data import roles

    class Filled(TokenCache):
        task, directory = "quickstart_reviews", pathlib.Path("somewhere")
        bad_lines, index_N, labels = {"count": 0}, None, None

        def __init__(self):
            pass

        def cut(self):
            return {"inputs": 2, "targets": 0}

        def __len__(self):
            return 3

    monkeypatch.setattr(roles, "open_caches", lambda data, split, vocabulary: [(1.0, Filled())])
    model = "--gin_file=gin_configs/models/micro.gin"
    lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 2}"
    files = (
        [QUICKSTART] if run == "train" else [model, "--gin_file=gin_configs/runs/eval.gin", *TASK, lengths]
    )
    main.main(["cache", *files])
    found = json.loads(capsys.readouterr().out)["caches"]
    assert [row["split"] for row in found] == splits
    assert found[0]["examples"] == 3
    assert found[0]["cut"] == {"inputs": 2, "targets": 0}


def test_inspect_describes_a_prompt_file(tmp_path, capsys):
    file = tmp_path / "prompt.safetensors"
    prompts.save_prompt(file, np.ones((3, 4), np.float32), prompts.PromptMetadata(task="rte"))
    main.main(["inspect", str(file)])
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["length"], said["width"], said["task"]) == ("prompt", 3, 4, "rte")
    assert said["row_norm"]["mean"] == 2.0
    with pytest.raises(SystemExit) as end:
        main.main(["inspect", str(tmp_path / "absent.safetensors")])
    assert end.value.code == 2
    assert "absent.safetensors" in capsys.readouterr().err


def test_the_program_itself_from_another_directory(tmp_path):
    """One whole process: status, streams and an untouched working directory."""
    program = [sys.executable, "-m", "jax_prompts.main", "train", QUICKSTART, "--gin.TRAIN_STEP=3"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("t5x train: macro TRAIN_STEP is unknown")
    assert done.stderr.count("\n") == 1  # gin would log the folders in which it finds no file
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_a_line_end_is_quoted_whole(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["compare", "a\nb"])
    assert ended.value.code == 2
    assert "a\\nb does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stdout", "said"), [("> /dev/full", "stdout cannot be written: No space left"), ("| true", "")]
)
def test_a_stdout_that_takes_nothing_is_said_once(stdout, said):
    """A full disk is an error, a reader that has had enough is none."""
    program = "import time, jax_prompts.main as m; time.sleep(0.5); m._print('x')"
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {stdout}; exit "${{PIPESTATUS[0]}}"', sys.executable, program],
        capture_output=True,
        text=True,
    )
    assert done.returncode == (1 if said else 0)
    assert said in done.stderr.splitlines()[-1] if said else done.stderr == ""
