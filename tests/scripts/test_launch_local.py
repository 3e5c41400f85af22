"""The launcher of several processes, with a stub in place of t5x whose command is Python source."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parent.parent.parent / "scripts"
STUB = """
import json, os, signal, sys, time
index = int(next(flag for flag in sys.argv if flag.startswith("--process_index=")).partition("=")[2])
def tell(text):
    os.write(1, f"{text}\\n".encode())  # in one piece
exec(sys.argv[1])
"""
FOREVER = "tell('ready'); time.sleep(600)"
LIKE_T5X = f"""
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
{FOREVER}
"""


@pytest.fixture
def launch(tmp_path):
    """Starts the launcher, after `first` in the same process; none outlives its test."""
    (tmp_path / "jax_prompts").mkdir()
    (tmp_path / "jax_prompts" / "__init__.py").touch()
    (tmp_path / "jax_prompts" / "main.py").write_text(STUB)

    with contextlib.ExitStack() as started:

        def start(*arguments, first=""):
            program = f"import launch_local, os, signal, subprocess\n{first}\nlaunch_local.main()"
            process = subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                cwd=tmp_path,  # where `python -m` looks first
                env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,
            )
            started.enter_context(process)  # closes its pipes and waits
            started.callback(process.kill)  # its own processes die with it
            return process

        yield start


def finished(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_flags_and_devices_of_each(launch):
    tell = "tell(json.dumps([sys.argv[2:], os.environ['JAX_LOCAL_DEVICE_IDS']]))"
    status, out, _ = finished(launch("--gpus_each=2", "2", tell, "--gin.A='b c'", "--help"))
    assert status == 0
    (zero, devices_0), (one, devices_1) = sorted(map(json.loads, out.splitlines()))
    address = zero[1]
    assert address.startswith("--coordinator_address=127.0.0.1:")
    for index, flags in enumerate((zero, one)):
        own = ["--multiprocess_gpu", address, "--process_count=2", f"--process_index={index}"]
        assert flags == [*own, "--gin.A='b c'", "--help"]
    assert (devices_0, devices_1) == ("0,1", "2,3")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("sys.exit([0, 3][index])", 3),
        ("time.sleep([0.5, 0][index]); sys.exit(5 + index)", 6),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
    ids=["any", "the first in time", "by a signal"],
)
def test_status_is_that_of_the_first_failure(launch, command, expected):
    assert finished(launch("2", command))[0] == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_asks_all(launch, number):
    process = launch("2", LIKE_T5X)
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    os.killpg(process.pid, number)  # a terminal's Ctrl-C goes to the whole group
    assert finished(process)[0] == 75


def test_a_second_ctrl_c_ends_all_at_once(launch):
    stubborn = f"signal.signal(signal.SIGTERM, lambda *_: tell('asked')); {FOREVER}"
    process = launch("2", stubborn)
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    process.send_signal(signal.SIGINT)
    assert [process.stdout.readline() for _ in range(2)] == ["asked\n"] * 2
    process.send_signal(signal.SIGINT)
    assert finished(process)[0] == 128 + signal.SIGKILL


def test_asked_to_stop_at_its_start_it_asks_all(launch):
    at_once = """
class Popen(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen = Popen
"""
    assert finished(launch("2", FOREVER, first=at_once))[0] == 128 + signal.SIGTERM


def test_processes_left_by_a_failed_one_are_killed(launch):
    stubborn = f"index or sys.exit(3); signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"
    status, _, err = finished(launch("3", stubborn, first="launch_local.PATIENCE_SECONDS = 0.3"))
    assert status == 3
    (line,) = err.splitlines()
    assert "ended with status 3" in line
    assert "killed" in line


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_killed_it_leaves_no_process(launch):
    process = launch("2", f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}")
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    process.kill()
    assert finished(process)[0] == -signal.SIGKILL  # their ends of its pipes are closed, too


@pytest.mark.parametrize(
    "arguments",
    [[], ["2"], ["0", "train"], ["-1", "train"], ["two", "train"], ["--gpus_each=0", "2", "train"]],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(arguments, monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPTS)
    import launch_local

    monkeypatch.setattr(sys, "argv", ["launch_local.py", *arguments])
    with pytest.raises(SystemExit) as status:
        launch_local.main()
    assert status.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]
