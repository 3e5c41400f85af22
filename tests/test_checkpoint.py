"""Checkpoints: exact bits, damage, killed saves, a full disk."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_prompts.checkpoint import Checkpoints
from jax_prompts.errors import ConfigError, RunError


@pytest.fixture
def state():
    tuned = {
        "prompt": {
            "prompt": jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 16)), jnp.float32),
            "half": jnp.asarray([[1.5, -0.0], [np.inf, np.nan]], jnp.bfloat16),
            "odd": jnp.asarray([np.nan, -np.inf, 1e-45, -0.0], jnp.float32),
            "key": jnp.asarray([4294967295, 7], jnp.uint32),
        }
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1), optax.scale_by_factored_rms())
    best = {"prompt": jnp.asarray([[-0.0, np.nan]], jnp.float32), "head": {}}
    return tuned, jax.vmap(optimizer.init)({"table": tuned["prompt"]["prompt"]}), best


@pytest.fixture
def checkpoints(tmp_path):
    opened = []

    def open_checkpoints(keep=2, directory=tmp_path / "checkpoints"):
        opened.append(Checkpoints(directory, keep))
        return opened[-1]

    yield open_checkpoints
    for each in opened:
        each.close()


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_exact_bits_and_structure(checkpoints, state):
    assert checkpoints().restore_latest(*state) is None
    progress = {"best": 0.1 + 0.2, "rows": [1, 2], "metric": None, "nan": float("nan"), "text": "ü\n"}
    checkpoints().save(7, *state, progress)
    for like in (state, jax.eval_shape(lambda: state)):
        reader = checkpoints()
        while not reader.steps():
            time.sleep(0.01)
        step, *trees, restored = reader.restore_latest(*like)
        assert step == 7 and json.dumps(restored) == json.dumps(progress)
        assert_same_bits(tuple(trees), state)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(trees))


def test_what_was_tuned_is_read_without_knowing_the_run(checkpoints, state):
    saver = checkpoints()
    saver.save(7, *state, {})
    saver.wait()
    tuned = saver.read_tuned(7)
    assert_same_bits(tuned, {f"prompt/{name}": array for name, array in state[0]["prompt"].items()})
    with pytest.raises(RunError, match=r"checkpoints/8 cannot be read"):
        saver.read_tuned(8)
    for file in (saver.directory / "7" / "progress").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"checkpoints/7 cannot be read"):
        saver.read_tuned(7)


def test_arrays_may_be_donated_while_being_saved(checkpoints):
    saver = checkpoints()
    tuned = {"table": jnp.zeros((1, 200, 512))}
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    for step in range(1, 4):
        tuned = advance(tuned)
        saver.save(step, tuned, (), (), {})
        for _ in range(10):
            tuned = advance(tuned)
    step, restored, *_ = saver.restore_latest(tuned, (), ())
    assert step == 3 and (restored["table"] == 23).all()


def test_the_newest_are_kept(checkpoints, state):
    saver = checkpoints(keep=3)
    for step in (10, 20, 30, 40, 100):
        saver.save(step, *state, {})
    saver.save(100, *state, {"again": True})
    saver.wait()
    assert saver.steps() == [30, 40, 100]
    step, *_, progress = saver.restore_latest(*state)
    assert step == 100 and progress == {}
    with pytest.raises(ConfigError, match="keep is 0"):
        checkpoints(keep=0)


def test_restores_onto_the_sharding_asked_for(checkpoints, tmp_path):
    devices = jax.device_count()
    mesh = jax.make_mesh((devices,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    table = jax.device_put(np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32), rows)

    saver = checkpoints(directory=tmp_path / "a #%?b")
    saver.save(1, {"table": table}, (), (), {})
    like = {"table": jax.ShapeDtypeStruct(table.shape, table.dtype, sharding=columns)}
    _, tuned, *_ = saver.restore_latest(like, (), ())
    assert tuned["table"].sharding.is_equivalent_to(columns, 2)
    assert_same_bits(tuned["table"], table)


def test_a_different_tree_is_listed(checkpoints, state):
    tuned, opt_state, best = state
    saver = checkpoints()
    saver.save(1, tuned, opt_state, best, {})
    other = {"prompt": {**tuned["prompt"], "prompt": jnp.zeros((2, 9, 16)), "new": jnp.zeros(3)}}
    del other["prompt"]["half"]
    with pytest.raises(RunError) as caught:
        saver.restore_latest(other, opt_state, best)
    message = str(caught.value)
    assert "\n" not in message and f"{saver.directory}/1 does not fit" in message
    for line in (
        "- tuned/prompt/prompt float32[2, 6, 16], + tuned/prompt/prompt float32[2, 9, 16]",
        "- tuned/prompt/half bfloat16[2, 2]",
        "+ tuned/prompt/new float32[3]",
    ):
        assert line in message
    assert "tuned/prompt/odd" not in message and "opt_state" not in message

    with pytest.raises(RunError, match=r"- opt_state/.*mu/table float32\[2, 6, 16\]"):
        saver.restore_latest(tuned, optax.sgd(0.1).init(tuned), best)
    with pytest.raises(RunError, match=r"\+ tuned/prompt/key int32\[2\]"):
        saver.restore_latest({"prompt": {**tuned["prompt"], "key": jnp.zeros(2, jnp.int32)}}, opt_state, best)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {"flip": flip_a_bit, "truncate": truncate, "remove": Path.unlink}


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """Steps 1 and 2, saved once and copied by every test of damage."""
    directory = tmp_path_factory.mktemp("saved")
    saver = Checkpoints(directory, 2)
    for step in (1, 2):
        saver.save(
            step,
            {"table": jnp.full((1, 6, 16), step, jnp.float32)},
            optax.adam(0.1).init(0.0),
            (),
            {"at": step},
        )
    saver.close()
    return directory


LIKE = {"table": jnp.zeros((1, 6, 16))}, optax.adam(0.1).init(0.0), ()


def files(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_any_damaged_file_gives_exact_bits_or_the_checkpoint_before(
    two_steps, tmp_path, caplog, capfd, damage
):
    fell_back = set()
    for n, name in enumerate(files(two_steps / "2")):
        directory = Path(shutil.copytree(two_steps, tmp_path / str(n)))
        damage(directory / "2" / name)
        caplog.clear()
        checkpoints = Checkpoints(directory, 2)
        step, tuned, *_, progress = checkpoints.restore_latest(*LIKE)
        assert progress == {"at": step} and (tuned["table"] == step).all()
        messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert bool(messages) == (step == 1)
        if step == 1:
            fell_back.add(name)
            assert len(messages) == 1 and "\n" not in messages[0]
            assert f"{directory}/2 is damaged" in messages[0] and "before it" in messages[0]
        checkpoints.close()
    assert {"progress/metadata", "state/manifest.ocdbt"} < fell_back and any(
        "/d/" in name for name in fell_back
    )
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("gone", ["state", "progress", "."])
def test_missing_parts(two_steps, tmp_path, gone):
    directory = Path(shutil.copytree(two_steps, tmp_path / "c"))
    shutil.rmtree(directory / "2" / gone)
    (directory / "2").mkdir(exist_ok=True)
    checkpoints = Checkpoints(directory, 2)
    assert checkpoints.restore_latest(*LIKE)[0] == 1
    checkpoints.close()


def test_another_steps_files_are_damage(two_steps, tmp_path):
    directory = Path(shutil.copytree(two_steps, tmp_path / "c"))
    shutil.copytree(directory / "1", directory / "3")
    shutil.rmtree(directory / "2" / "state")
    shutil.copytree(directory / "1" / "state", directory / "2" / "state")
    checkpoints = Checkpoints(directory, 2)
    assert checkpoints.restore_latest(*LIKE)[0] == 1
    checkpoints.close()


def test_a_damaged_checkpoint_is_replaced_by_the_run_and_left_alone_by_readers(two_steps, tmp_path):
    directory = Path(shutil.copytree(two_steps, tmp_path / "c"))
    flip_a_bit(directory / "2" / "progress" / "metadata")
    reader = Checkpoints(directory, 2)
    assert reader.restore_latest(*LIKE)[0] == 1
    reader.close()
    assert reader.steps() == [1, 2]

    run = Checkpoints(directory, 2)
    _, tuned, opt_state, *_ = run.restore_latest(*LIKE)
    run.save(2, {"table": tuned["table"] + 1}, opt_state, (), {"at": 2})
    step, tuned, *_ = run.restore_latest(*LIKE)
    assert step == 2 and (tuned["table"] == 2).all() and run.steps() == [1, 2]
    run.close()


def test_nothing_whole_is_an_error_that_removes_nothing(two_steps, tmp_path):
    directory = Path(shutil.copytree(two_steps, tmp_path / "c"))
    for step in "12":
        truncate(directory / step / "progress" / "metadata")
    checkpoints = Checkpoints(directory, 2)
    with pytest.raises(RunError) as caught:
        checkpoints.restore_latest(*LIKE)
    message = str(caught.value)
    assert (
        "\n" not in message
        and f"{directory}/1 is damaged" in message
        and f"{directory}/2 is damaged" in message
    )
    checkpoints.save(3, *LIKE, {})
    checkpoints.close()
    assert (directory / "2").exists()


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file cannot hold checkpoints"):
        Checkpoints(tmp_path / "file", 2)


SAVE_FOREVER = """
import os, pathlib, signal, sys
import jax.numpy as jnp
from jax_prompts.checkpoint import Checkpoints

directory, moment = sys.argv[1:]
checkpoints = Checkpoints(directory, 2)
if moment == "commit":  # the last moment before the second checkpoint would count
    rename = os.rename
    def die_at_the_second(source, target, *args, **kwargs):
        if os.path.basename(target) == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(source, target, *args, **kwargs)
    os.rename = os.replace = die_at_the_second
    pathlib.Path.rename = lambda self, target: die_at_the_second(self, target)
print("ready", flush=True)
for step in range(1, 1000):
    checkpoints.save(step, {"table": jnp.full((1, 50, 512), step, jnp.float32)}, (), (), {"at": step})
"""


def run_python(code, *arguments, **kwargs):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, **kwargs)


@pytest.mark.parametrize("moment", ["commit", 0.05, 0.25, 0.6])
def test_a_killed_save_leaves_no_half_checkpoint(tmp_path, caplog, moment):
    with run_python(SAVE_FOREVER, tmp_path, moment, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        if moment != "commit":
            time.sleep(moment)
            process.kill()
    assert process.returncode == -signal.SIGKILL

    like = {"table": jnp.zeros((1, 50, 512))}
    checkpoints = Checkpoints(tmp_path, 2)
    restored = checkpoints.restore_latest(like, (), ())
    assert not [record for record in caplog.records if "damaged" in record.getMessage()]
    step = 0
    if restored is not None:
        step, tuned, *_, progress = restored
        assert progress == {"at": step} and (tuned["table"] == step).all()
    if moment == "commit":
        assert step == 1 and len(list(tmp_path.iterdir())) == 2  # the second lies beside, unfinished

    checkpoints.save(step + 5, like, (), (), {})
    checkpoints.close()
    assert all(path.name.isdigit() for path in tmp_path.iterdir())


FILL_THE_DISK = """
import resource, sys
import jax, jax.numpy as jnp
from jax_prompts.checkpoint import Checkpoints
from jax_prompts.errors import RunError

checkpoints = Checkpoints(sys.argv[1], 2)
for step in (1, 2):
    checkpoints.save(step, {"table": jnp.full((10, 10), step, jnp.float32)}, (), (), {"at": step})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    checkpoints.save(3, {"table": jax.random.normal(jax.random.key(0), (500, 500))}, (), (), {})
    checkpoints.wait() if sys.argv[2] == "wait" else checkpoints.save(4, {}, (), (), {})
except RunError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
if sys.argv[2] == "wait":
    checkpoints.save(3, {"table": jnp.full((10, 10), 3, jnp.float32)}, (), (), {"at": 3})
    checkpoints.wait()
    print(checkpoints.steps())
"""


@pytest.mark.parametrize("noticed_by", ["wait", "save"])
def test_a_disk_that_takes_no_more_is_one_line(tmp_path, noticed_by):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with run_python(FILL_THE_DISK, tmp_path, noticed_by, **pipes) as process:
        output, errors = process.communicate()
    assert process.returncode == 0 and "Traceback" not in errors, errors
    message, *rest = output.splitlines()
    assert message.startswith(f"checkpoint {tmp_path}/3 could not be saved (") and message.endswith(
        "are intact"
    )
    checkpoints = Checkpoints(tmp_path, 2)
    step, tuned, *_, progress = checkpoints.restore_latest({"table": jnp.zeros((10, 10))}, (), ())
    checkpoints.close()
    assert progress == {"at": step} and (tuned["table"] == step).all()
    assert step == (3 if noticed_by == "wait" else 2)  # a later save works once there is space again
    assert rest == (["[2, 3]"] if noticed_by == "wait" else [])
