"""Several processes: one run whatever their number, what they have to agree on, and how they end."""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest
from several import SHORT, alone, assert_same_run, environment, finish, free_port, line, start
from tiny_run import tiny_run

from jax_prompts import partition
from jax_prompts.distributed import global_arrays, processes
from jax_prompts.distributed.supervisor import how_it_ended
from jax_prompts.errors import Preempted, RunError
from jax_prompts.main import main
from jax_prompts.prompts import load_prompt, save_prompt

FEW = SHORT | {
    "TRAIN_STEPS": 4,
    "EVAL_PERIOD": 4,
    "EVAL_SPLIT": "validation[:24]",
    "Optimizer.warmup_steps": 2,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, compile_cache):
    jax.devices()  # this process's own, before variables that are for others say one
    with pytest.MonkeyPatch.context() as patch:
        for name, value in compile_cache.items():
            patch.setenv(name, value)
        yield tmp_path_factory.mktemp("cache")


def test_another_setting_is_named_on_both(tmp_path, cache):
    run = FEW | {"CACHE_DIR": cache, "MODEL_DIR": tmp_path / "never"}
    statuses, last, _ = finish(start(2, **run, each=[(), ["--gin.RANDOM_SEED=7"]]))
    assert statuses == [2, 2]
    for text in last:
        assert "process 1 has other settings than process 0: RANDOM_SEED is 7 here" in text
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--process_count=0"], ["--process_count 0", "at least one"]),
        (["--process_count=2", "--process_index=2"], ["--process_index 2", "0 to 1"]),
        (["--process_index=-1"], ["--process_index -1", "from 0"]),
        (["--coordinator_address=host"], ["--coordinator_address host", "HOST:PORT"]),
        (["--coordinator_address=:123"], ["--coordinator_address :123", "HOST:PORT"]),
        (["--coordinator_address=host:65536"], ["--coordinator_address host:65536", "1 to 65535"]),
        (["--initialization_timeout=0"], ["--initialization_timeout 0", "at least 1"]),
    ],
)
def test_flags_that_make_no_sense_are_one_line(flags, words, capsys):
    with pytest.raises(SystemExit) as status:
        main(["train", *flags])
    assert status.value.code == 2
    (text,) = capsys.readouterr().err.splitlines()
    assert all(word in text for word in words)


@pytest.mark.parametrize(
    ("fatal", "words"),
    [
        (
            "absl::Status: DEADLINE_EXCEEDED\n\nRPC: /xla.coordination.CoordinationService/RegisterTask",
            ["7 s"],
        ),
        (
            "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\nThe",
            ["process 1"],
        ),
        (
            'UNAVAILABLE: Socket closed\n:UNKNOWN:Error {grpc_message:"Socket closed"}',
            ["process 0", "run the same command again"],
        ),
        (
            "ABORTED: 1 unexpectedly tried to connect with a different incarnation. It has likely restarted.",
            ["process 1 was started twice", "--process_index"],
        ),
    ],
)
def test_last_words_of_the_runtime_become_one_line(fatal, words):
    said = how_it_ended(fatal, timeout=7)
    assert "\n" not in said
    assert all(word in said for word in words)


def test_a_port_that_another_run_has_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        args = argparse.Namespace(
            command="train", process_index=0, coordinator_address=f"127.0.0.1:{port}", process_count=2
        )
        with pytest.raises(RunError, match=f"port {port} .* choose another port"):
            processes.connect(args)


def test_srun_does_not_start_many_of_a_command_that_is_one_process(monkeypatch, capsys):
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    with pytest.raises(SystemExit) as status:
        main(["cache", "--gin_file=gin_configs/quickstart.gin"])
    assert status.value.code == 2
    assert "t5x cache is one process, and srun started 8" in capsys.readouterr().err


@pytest.mark.parametrize("axes", [{"data": -1}, {"fsdp": 4, "data": 2}, {"model": 2}])
def test_rows_made_here_are_those_of_the_devices_here(axes):
    sharding = partition.batch_sharding(partition.make_mesh(axes), members=True)
    assert global_arrays.rows_here(sharding, 16, axis=1).tolist() == list(range(16))
    batch = {"x": np.arange(2 * 16 * 3).reshape(2, 16, 3)}
    placed = global_arrays.put_batch(batch, sharding, 16, axis=1)["x"]
    assert placed.sharding == sharding
    np.testing.assert_array_equal(placed, batch["x"])


# What follows takes minutes: pytest -m slow tests/distributed/test_processes.py

slow = pytest.mark.slow


@slow
def test_two_processes_are_one_run(tmp_path):
    program, port = pathlib.Path(__file__).parents[1] / "tiny_run.py", str(free_port())
    several = [
        subprocess.Popen([sys.executable, program, str(index), "2", port, tmp_path], env=environment())
        for index in range(2)
    ]
    assert [process.wait(timeout=300) for process in several] == [0, 0]
    one = tiny_run(tmp_path / "one", jax.devices()[:1])
    assert len(one["answers"]) == 37
    with np.load(tmp_path / "found.npz") as two:
        np.testing.assert_array_equal(two["tokens"], one["tokens"])
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(two["table"], one["table"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(two["restored"], two["table"])
        np.testing.assert_array_equal(two["answers"], one["answers"])


class Keys:
    """What `jax.distributed` keeps for the processes, of which there is one."""

    def __init__(self):
        self.kept = {}

    def key_value_set(self, key, value):
        assert key not in self.kept, f"{key} already exists"
        self.kept[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.kept.items() if key.startswith(f"{folder}/")]

    def wait_at_barrier(self, name, milliseconds):
        pass


def test_turns_are_taken_for_each_task(monkeypatch):
    state = types.SimpleNamespace(client=Keys(), process_id=0)
    monkeypatch.setattr(processes, "global_state", state)
    assert [processes.in_turns(lambda task=task: task) for task in ("rte", "cb")] == ["rte", "cb"]


@pytest.mark.parametrize(("command", "waits"), [("train", True), ("eval", False), ("infer", False)])
def test_who_stops_an_evaluation_tells_the_others_and_waits_for_none(command, waits, monkeypatch, capsys):
    """They may be in the middle of answering, and never come to where it would wait."""
    state = types.SimpleNamespace(client=Keys(), process_id=0)
    monkeypatch.setattr(processes, "global_state", state)
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: None)
    ended = []
    monkeypatch.setattr(processes, "leave", lambda: ended.append("left"))
    monkeypatch.setattr(processes, "_end", ended.append)
    monkeypatch.setattr(processes, "_left", threading.Event())
    processes.abandon(command, Preempted("stopped", together=waits), 75, "stopped")
    assert ended[:2] == (["left", 75] if waits else [75])
    assert ("failed/0" in state.client.kept) or waits
    assert f"t5x {command}: stopped" in capsys.readouterr().err


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A run of two processes that nothing disturbed."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    statuses, last, _ = finish(start(2, **SHORT, CACHE_DIR=cache, MODEL_DIR=directory))
    assert statuses == [0, 0], last
    return directory


def wait_for(path, several, seconds=300):
    late = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < late, path
        assert all(process.poll() is None for process in several)
        time.sleep(0.01)


@slow
@pytest.mark.parametrize(
    ("count", "devices", "axes"),
    [(4, 1, {}), (2, 2, {"fsdp": 2, "model": 2}), (4, 1, {"fsdp": 2, "model": 2})],
)
def test_any_number_of_processes_and_any_mesh_is_the_same_run(tmp_path, cache, whole, count, devices, axes):
    run = SHORT | {"CACHE_DIR": cache, "PARTITIONS": axes, "MODEL_DIR": tmp_path / "run"}
    statuses, last, _ = finish(start(count, **run, devices=devices))
    assert statuses == [0] * count, last
    assert_same_run(tmp_path / "run", whole)
    alone(**SHORT, CACHE_DIR=cache, MODEL_DIR=tmp_path / "one")
    assert_same_run(tmp_path / "run", tmp_path / "one")


@slow
@pytest.mark.parametrize("moment", range(3))
def test_sigkill_at_any_moment_costs_nothing_but_time(tmp_path, cache, whole, moment):
    """Every third time while a checkpoint is being written; process 0 and 1 in turn."""
    directory, draw = tmp_path / "killed", random.Random(moment)
    run = SHORT | {"CACHE_DIR": cache, "MODEL_DIR": directory}
    several = start(2, **run)
    if moment % 3 == 0:
        saved = draw.choice([6, 12, 18])
        late = time.monotonic() + 300
        while not list(directory.glob(f"checkpoints/{saved}.orbax-checkpoint-tmp*")):
            assert time.monotonic() < late
            time.sleep(0.001)
    else:
        wait_for(directory / draw.choice(["config.gin", "checkpoints/6", "checkpoints/12"]), several)
        time.sleep(draw.uniform(0, 3))
    kept = {int(path.name) for path in directory.glob("checkpoints/*") if path.name.isdigit()}
    several[moment % 2].kill()
    begun = time.monotonic()
    statuses, last, _ = finish(several, timeout=120)
    seconds = time.monotonic() - begun
    print(
        f"moment {moment}: process {moment % 2} killed, checkpoints {sorted(kept)}, {seconds:.0f} s: {last}"
    )
    assert statuses[moment % 2] == -signal.SIGKILL
    if statuses[1 - moment % 2]:  # else it had written all that was left to write
        assert statuses[1 - moment % 2] == 1
        assert "stopped" in last[1 - moment % 2]
        assert "run the same command again" in last[1 - moment % 2]
    assert (directory / "checkpoints" / str(max(kept))).is_dir() if kept else True
    again = start(2, **run)
    outputs = [process.communicate(timeout=600) for process in again]
    assert [process.returncode for process in again] == [0, 0], outputs
    if kept:
        assert int(re.search(r"resuming at step (\d+)", outputs[0][1])[1]) >= max(kept)
    assert_same_run(directory, whole, rtol=0)


@slow
@pytest.mark.parametrize(("index", "seconds"), [(0, 0.5), (1, 6.0)])
def test_a_process_killed_before_the_run_begins_leaves_no_other_waiting(tmp_path, cache, index, seconds):
    """While it starts, meets the others, fills caches or loads."""
    several = start(2, **SHORT, CACHE_DIR=cache, MODEL_DIR=tmp_path / "killed")
    time.sleep(seconds)
    several[index].kill()
    statuses, last, _ = finish(several, timeout=120)
    assert statuses[index] == -signal.SIGKILL
    assert statuses[1 - index] == 1
    assert "did not find each other" in last[1 - index] or "run the same command again" in last[1 - index]


@slow
@pytest.mark.parametrize(("then", "devices", "axes"), [(1, 1, {}), (4, 1, {}), (1, 8, {"model": 2})])
def test_sigterm_to_one_stops_all_at_one_step_and_others_go_on(tmp_path, cache, whole, then, devices, axes):
    run = SHORT | {"CACHE_DIR": cache, "MODEL_DIR": tmp_path / "stopped"}
    several = start(2, **run)
    wait_for(tmp_path / "stopped" / "checkpoints/6", several)
    several[then % 2].terminate()
    statuses, last, _ = finish(several, timeout=120)
    assert statuses == [75, 75], last
    assert last[0] == last[1]
    assert "stopped by SIGTERM at step" in last[0]
    if then == 1:
        alone(devices, **run, PARTITIONS=axes)
    else:
        assert finish(start(then, **run))[0] == [0] * then
    assert_same_run(tmp_path / "stopped", whole)


@slow
def test_a_process_that_hangs_counts_as_dead(tmp_path, cache):
    several = start(2, **SHORT, CACHE_DIR=cache, MODEL_DIR=tmp_path / "hangs")
    wait_for(tmp_path / "hangs" / "checkpoints/6", several)
    child = int(subprocess.check_output(["pgrep", "-P", str(several[1].pid)]))
    os.kill(child, signal.SIGSTOP)
    begun = time.monotonic()
    (_, stderr), seconds = several[0].communicate(timeout=120), time.monotonic() - begun
    several[1].kill()  # and its child with it
    several[1].communicate()
    print(f"{seconds:.0f} s: {stderr.splitlines()[-1]}")
    assert several[0].returncode == 1
    assert "process 1 stopped" in stderr.splitlines()[-1]


@slow
def test_evaluation_is_the_same_in_two_processes(tmp_path, cache, whole):
    prompt_PD, metadata = load_prompt(whole / "prompt.safetensors")
    save_prompt(tmp_path / "other.safetensors", prompt_PD / 8, metadata)  # that sometimes says something else
    files = (str(whole / "prompt.safetensors"), str(tmp_path / "other.safetensors"))
    run = SHORT | {"CACHE_DIR": cache, "PROMPT_FILES": files, "EVAL_SPLIT": "validation[:37]"}
    score = ["--gin_file=gin_configs/runs/eval.gin"]
    statuses, last, stdout = finish(start(2, *score, command="eval", **run, MODEL_DIR=tmp_path / "two"))
    assert statuses == [0, 0], last
    one = line("eval", *score, **run, MODEL_DIR=tmp_path / "one")
    done = subprocess.run(one, env=environment(), capture_output=True, text=True)
    two, alone = json.loads(stdout[0]), json.loads(done.stdout)
    losses, expected = (score.pop("losses") for score in (two, alone))
    assert two == alone and losses.keys() == expected.keys()
    for file in files:  # a mean over rows, added up in another order
        assert losses[file].keys() == expected[file].keys()
        for task, found in losses[file].items():
            assert found == pytest.approx(expected[file][task], rel=1e-5)
    names = [file.name for file in (tmp_path / "one" / "predictions").iterdir()]
    assert len(names) == 3  # of each prompt, and of the ensemble
    for name in names:
        ours, theirs = ((tmp_path / where / "predictions" / name).read_text() for where in ("two", "one"))
        assert ours == theirs
        assert len(ours.splitlines()) == 37
    (ensemble,) = (tmp_path / "one" / "predictions").glob("*-ensemble-*")
    assert {json.loads(text)["agreement"] for text in ensemble.read_text().splitlines()} == {0.5, 1.0}


@slow
def test_caches_are_made_once_where_files_are_shared(tmp_path):
    run = FEW | {"CACHE_DIR": tmp_path / "cache", "MODEL_DIR": tmp_path / "run"}
    several = start(2, **run)
    outputs = [process.communicate() for process in several]
    assert [process.returncode for process in several] == [0, 0]
    assert sum(stderr.count("tokenising quickstart_reviews train (once)") for _, stderr in outputs) == 1
    made = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(made) == len(set(made)) == 2


@slow
def test_slurms_variables_are_enough(tmp_path, cache):
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    several = [
        subprocess.Popen(
            line("train", **FEW, CACHE_DIR=cache, MODEL_DIR=tmp_path / "run"),
            env=environment(**job, SLURM_PROCID=str(index), SLURM_LOCALID=str(index)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    statuses, last, _ = finish(several)
    assert statuses == [0, 0], last


@slow
@pytest.mark.parametrize(
    ("each", "env", "words"),
    [
        (
            [(), ["--dry_run"]],
            [{}, {}],
            "other flags than process 0: --dry_run is True here, and False there",
        ),
        ([(), ()], [{}, {"JAX_DEFAULT_PRNG_IMPL": "rbg"}], "jax_default_prng_impl is rbg here"),
        ([(), ()], [{}, {"JAX_ENABLE_X64": "1"}], "jax_enable_x64 is True here"),
        ([(), ()], [{}, environment(2)], "other devices than process 0: number is 2 here, and 1 there"),
    ],
)
def test_other_starts_are_named_on_both(tmp_path, cache, each, env, words):
    run = FEW | {"CACHE_DIR": cache, "MODEL_DIR": tmp_path / "never"}
    statuses, last, _ = finish(start(2, **run, each=each, env=env))
    assert statuses == [2, 2]
    assert all(words in text for text in last), last
    assert not (tmp_path / "never").exists()


@slow
def test_bad_meetings_are_one_line(tmp_path, cache):
    run = FEW | {"CACHE_DIR": cache, "MODEL_DIR": tmp_path / "never"}
    one = line("train", "--coordinator_address=127.0.0.1:1", "--process_count=2", "--process_index=1",
               "--initialization_timeout=3", **run)  # fmt: skip
    done = subprocess.run(one, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "did not find each other within 3 s" in done.stderr.splitlines()[-1]
    done = subprocess.run(
        line("train", "--multiprocess_gpu", **run), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--coordinator_address" in done.stderr.splitlines()[-1]

    statuses, last, _ = finish(start(2, **run, each=[(), ["--process_count=3"]]))
    assert statuses == [2, 2]
    assert all("--process_count is 3 here, and 2 there" in text for text in last)

    other = tmp_path / "flax-99.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: flax\nVersion: 99\n")
    env = [{}, {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}]
    statuses, last, _ = finish(start(2, **run, env=env))
    assert statuses == [2, 2]
    assert all("process 1 has other libraries than process 0: flax is 99 here" in text for text in last)

    del run["MODEL_DIR"]
    places = [[f"--gin.MODEL_DIR={tmp_path / name}"] for name in ("a", "b")]
    statuses, last, _ = finish(start(2, **run, each=places))
    assert statuses == [2, 2]
    assert all("process 1 has other settings than process 0: MODEL_DIR is" in text for text in last)
    assert not list(tmp_path.glob("[ab]")) + list(tmp_path.glob("never"))
