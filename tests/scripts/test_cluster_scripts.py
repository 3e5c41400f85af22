"""The scripts for Slurm and TPU slices, on stand-ins for the programs of a cluster; a worker is a directory here."""

import json
import math
import pathlib
import subprocess
import sys

import pytest
import yaml

from jax_prompts.cli.arguments import parse

SCRIPTS = pathlib.Path(__file__).parent.parent.parent / "scripts"
RECORD = f"""#!{sys.executable}
import json, os, pathlib, shutil, subprocess, sys
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([name, *arguments]) + "\\n")
"""
STAND_INS = {
    "srun": "sys.exit(int(os.environ['SRUN_STATUS']))",
    "scontrol": "",
    "uv": "",
    "t5x": "sys.exit(7)",
    "gcloud": """
home = os.environ["HOME"]
if "scp" in arguments:
    shutil.copy(arguments[arguments.index("scp") + 1], home)
else:
    command = arguments[-1].removeprefix("--command=")
    sys.exit(subprocess.run(["bash", "-c", command], cwd=home).returncode)
""",
    # prints an installer that puts `uv`, which lies beside it, where it is told to
    "curl": """
if os.environ.get("OFFLINE"):
    sys.exit(6)
uv = pathlib.Path(sys.argv[0]).parent / "not_yet" / "uv"
print(f'mkdir -p "$UV_UNMANAGED_INSTALL" && cp {uv} "$UV_UNMANAGED_INSTALL"')
""",
}


def write_program(path, name):
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(RECORD + STAND_INS[name])
    (path / name).chmod(0o755)


@pytest.fixture
def run(tmp_path):
    """`run(script, *arguments, **variables)`: what it did, and the programs that it called."""
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    for name in ("srun", "scontrol", "gcloud", "curl"):
        write_program(programs, name)
    write_program(programs / "not_yet", "uv")
    (tmp_path / "home").mkdir()

    def start(script, *arguments, **variables):
        calls.write_text("")
        env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path / "home"), "CALLS": str(calls)}
        done = subprocess.run(
            ["bash", script, *arguments],
            env=env | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done, [json.loads(line) for line in calls.read_text().splitlines()]

    return start


@pytest.mark.parametrize(("status", "turns"), [(0, 0), (1, 0), (75, 1)])
def test_slurm_job_that_was_stopped_waits_for_its_next_turn(run, status, turns):
    job = {"SLURM_JOB_ID": "42", "SLURM_CPUS_PER_TASK": "8", "SRUN_STATUS": str(status)}
    done, (srun, *after) = run(SCRIPTS / "slurm.sh", "train", "--gin.A='b c'", **job)
    assert done.returncode == status
    flags = ["--kill-on-bad-exit=0", "--cpus-per-task=8"]
    assert srun == ["srun", *flags, ".venv/bin/t5x", "train", "--gin.A='b c'"]
    assert after == [["scontrol", "requeue", "42"]] * turns


SLICE = {"TPU": "slice", "ZONE": "zone"}
WORKERS = ["--zone=zone", "--worker=all"]


@pytest.fixture
def checkout(tmp_path):
    """A repository with what `tpu_pod.sh` needs, its files changed since the commit."""
    root = tmp_path / "checkout"
    (root / "scripts").mkdir(parents=True)
    (root / "scripts" / "tpu_pod.sh").write_text((SCRIPTS / "tpu_pod.sh").read_text())
    for name, text in {".gitignore": "runs/\n", "kept": "", "changed": "old", "removed": ""}.items():
        (root / name).write_text(text)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "changed").write_text("new")
    (root / "removed").unlink()
    (root / "my own.gin").touch()
    (root / "runs").mkdir()
    (root / "runs" / "large").touch()
    return root


def test_tpu_setup_carries_the_checkout_as_it_is(run, checkout, tmp_path):
    status = ["git", "status", "--porcelain"]
    before = subprocess.check_output(status, cwd=checkout)
    done, calls = run(checkout / "scripts" / "tpu_pod.sh", "setup", **SLICE)
    assert done.returncode == 0, done.stderr
    there = tmp_path / "home" / "jax_prompts"
    files = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert files == {".gitignore", "kept", "changed", "my own.gin", "scripts/tpu_pod.sh"}
    assert (there / "changed").read_text() == "new"
    assert subprocess.check_output(status, cwd=checkout) == before

    scp, ssh, _, *uv = calls
    assert scp[:5] == ["gcloud", "compute", "tpus", "tpu-vm", "scp"]
    assert scp[6:] == ["slice:", *WORKERS]
    assert ssh[:-1] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice", *WORKERS]
    assert uv == [
        ["uv", "venv", "--quiet", "--clear", "--python", "3.11"],
        ["uv", "pip", "install", "--quiet", "-r", "requirements.txt", "-e", ".[tpu]"],
    ]


def test_tpu_setup_uses_the_uv_that_is_there(run, checkout, tmp_path):
    write_program(tmp_path / "programs", "uv")
    done, calls = run(checkout / "scripts" / "tpu_pod.sh", "setup", **SLICE)
    assert done.returncode == 0, done.stderr
    assert [call[0] for call in calls] == ["gcloud", "gcloud", "uv", "uv"]


def test_tpu_setup_without_uv_says_what_to_install(run, checkout):
    done, _ = run(checkout / "scripts" / "tpu_pod.sh", "setup", **SLICE, OFFLINE="1")
    assert done.returncode == 1
    assert "install uv" in done.stderr.splitlines()[-1]


def test_tpu_command_reaches_t5x_as_it_was_given(run, tmp_path):
    write_program(tmp_path / "home" / "jax_prompts" / ".venv" / "bin", "t5x")
    flags = ["train", "--gin.A='b c'", "--gin.B=$HOME", '--gin.C="(1, 2)"', ""]
    done, (ssh, t5x) = run(SCRIPTS / "tpu_pod.sh", *flags, **SLICE)
    assert done.returncode == 7
    assert ssh[:-1] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice", *WORKERS]
    assert t5x == ["t5x", *flags]


@pytest.mark.parametrize(
    ("variables", "arguments", "word"),
    [
        ({"ZONE": "z"}, ["setup"], "TPU: the name"),
        ({"TPU": "t"}, ["setup"], "ZONE: its zone"),
        (SLICE, [], "a command of t5x"),
    ],
)
def test_tpu_script_says_what_is_missing(run, variables, arguments, word):
    done, calls = run(SCRIPTS / "tpu_pod.sh", *arguments, **variables)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert word in line
    assert not calls


def test_the_jobset_runs_a_command_on_every_machine_of_a_slice():
    """Arguments parse, and pods are as many as machines of the topology."""
    (jobset,) = yaml.safe_load_all((SCRIPTS / "jobset.yaml").read_text())
    (slice_,) = jobset["spec"]["replicatedJobs"]
    job, pod = slice_["template"]["spec"], slice_["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    args = parse([*container["command"][1:], *container["args"]])
    assert args.command == "train" and (SCRIPTS.parent / args.gin_file[0]).is_file()
    chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    machines = chips // container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == machines == 4
    assert [x for x in args.bindings if x.startswith("MODEL_DIR=gs://")]  # which all pods reach
