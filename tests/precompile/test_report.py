"""What a run needs and does on devices that are not there; a topology that no compiler knows."""

import importlib.util
import json
import math
import os

import jax
import numpy as np
import pytest

from jax_prompts import optim, partition
from jax_prompts.base_models.build import make_model
from jax_prompts.checkpoint import Checkpoints
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.main import main
from jax_prompts.precompile.accounting import matrix_flops
from jax_prompts.precompile.chips import CHIPS, USUAL, Chip, topology_devices
from jax_prompts.precompile.hlo_statistics import Collective, Statistics
from jax_prompts.precompile.programs import programs_of
from jax_prompts.precompile.report import _prediction, precompile
from jax_prompts.prompts import for_model
from jax_prompts.setup import set_up, tree_shapes

XXL = ("--gin_file=gin_configs/residual_xxl.gin", "--gin.MODEL_DIR=never")
QUICK = ("--gin_file=gin_configs/quickstart.gin", "--gin.MODEL_DIR=never", "--gin.SCAN_LAYERS=True")
MESH = ("--gin.PARTITIONS={'data': 4, 'model': 2}", "--gin.BATCH_SIZE=8")


def run_of(*flags):
    return resolve(parse(["train", *flags]), "TrainRun")[0]


@pytest.fixture(scope="module")
def report():
    """Two rows of the batch on each of four groups of two devices."""
    return precompile(run_of(*QUICK, *MESH), None, ["train", "decode"])


def test_what_is_reported(report):
    assert json.loads(json.dumps(report)) == report
    assert report["fits"] is True
    assert (report["chips"], report["mesh"]) == (8, {"data": 4, "fsdp": 1, "model": 2})
    assert 0 < report["bytes_per_chip"] < report["hbm_per_chip"]
    assert list(report["programs"]) == ["train", "decode"]
    for program in report["programs"].values():
        assert program["bytes_per_chip"] == program["argument_bytes"] + program["temporary_bytes"]
        assert program["collective_bytes_per_chip"] == sum(
            c["bytes"] for c in program["collectives"].values()
        )
        assert program["loops_of_unknown_length"] == 0
        # The CPU's compiler makes no estimate, and its rates are not known.
        assert program["compiler_seconds"] is program["examples_per_second"] is None


def test_flops_are_those_of_the_traced_program(report):
    """Of which every chip has its part, but for the network of the prompt, which all repeat."""
    run = run_of(*QUICK, *MESH)
    step, arguments, _ = programs_of(set_up(run, partition.mesh_of(run.model)))["train"]
    expected = matrix_flops(step.trace(*arguments).jaxpr.jaxpr) / 8
    assert expected <= report["flops_per_chip"] < 1.02 * expected


def test_a_prediction_adds_work_and_collectives_slower_in_lines():
    stats = Statistics(flops=4.0, bytes=12.0, cycles=6.0)
    stats.collectives["all-gather"] = Collective(1, 40, sent=30.0, sent_in_lines=20.0)
    rates = {"hbm": 1, "flops": 1.0, "bandwidth": 2.0, "ring": 10.0}
    assert _prediction(stats, Chip(**rates)) == 12 / 2 + (30 + 20) / 10
    assert _prediction(stats, Chip(**rates, clock=3.0)) == 6 / 3 + (30 + 20) / 10
    assert _prediction(stats, None) is None


def test_a_mesh_that_does_not_fit(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["precompile", *QUICK, "--gin.PARTITIONS={'model': 3}"])
    assert stopped.value.code == 2
    assert "does not divide 8 devices" in capsys.readouterr().err


def test_the_checkpoint_of_an_xxl_run_is_small(tmp_path):
    """Random numbers in the shapes of Residual prompts and their optimiser: what 11 billion parameters leave behind."""
    run = run_of(*XXL)
    model = make_model(run.model)
    mesh = partition.mesh_of(run.model)
    method = for_model(run.method, model.config.prompt_width)
    tuned, _ = tree_shapes(run, method, model, mesh)
    state = partition.state_shapes(optim.make_optimizer(run.optimizer, 1), tuned)
    random = np.random.default_rng(0)
    arrays = jax.tree.map(lambda x: jax.numpy.asarray(random.random(x.shape), x.dtype), (tuned, state))
    checkpoints = Checkpoints(tmp_path, keep=1)
    best = {
        "prompt": jax.numpy.asarray(
            random.random((1, method.length, model.config.emb_dim)), jax.numpy.float32
        )
    }
    checkpoints.save(1, *arrays, best, {})
    checkpoints.close()
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert 3 * sum(x.size for x in jax.tree.leaves(tuned)) < size < 25e6  # stored compressed


needs_libtpu = pytest.mark.skipif(
    not (importlib.util.find_spec("libtpu") or os.environ.get("TPU_LIBRARY_PATH")),
    reason="libtpu is not installed: pip install -e '.[tpu]'",
)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(("topology", "partitions"), [
    ("v5e:4x4", {"fsdp": 4, "model": 4}),
    ("v4:2x2x4", {"data": 4, "model": 4}),
])  # fmt: skip
def test_an_xxl_training_step_fits(topology, partitions):
    """32 rows of 512 tokens and a prompt of 100."""
    report = precompile(run_of(*XXL, f"--gin.PARTITIONS={partitions}"), topology, ["train"])
    assert report["fits"] is True
    assert report["argument_bytes"] < report["bytes_per_chip"] < report["hbm_per_chip"]
    assert report["compiler_seconds"] > 0
    assert report["examples_per_second"] > 0


@pytest.mark.slow
@needs_libtpu
def test_weak_scaling():
    """With rows in proportion to chips, matrix work a chip stays what it is."""
    settings = "--gin.SCAN_LAYERS=True", "--gin.PARTITIONS={'data': -1, 'model': 2}"
    reports = [
        precompile(
            run_of(*QUICK, *settings, f"--gin.BATCH_SIZE={8 * chips}", f"--gin.EVAL_BATCH_SIZE={chips}"),
            topology,
            ["train"],
        )
        for topology, chips in (("v5e:2x2", 4), ("v5e:8x8", 64))
    ]
    few, many = (report["flops_per_chip"] for report in reports)
    assert many == pytest.approx(few, rel=0.03)
    assert all(report["collective_bytes_per_chip"] > 0 for report in reports)


@pytest.mark.slow
@needs_libtpu
def test_what_does_not_fit_is_reported():
    settings = "--gin.REMAT=none", "--gin.PARTITIONS={'fsdp': 4}"
    report = precompile(run_of(*XXL, *settings), "v5e:2x2", ["train"])
    assert report["fits"] is False
    assert report["bytes_per_chip"] > report["hbm_per_chip"]
    assert report["flops_per_chip"] is None


@pytest.mark.slow
@needs_libtpu
def test_the_compiler_knows_every_topology_that_is_offered():
    for name in USUAL:
        chips = topology_devices(name)
        devices = 2 if name.startswith("tpu7x") else 1
        assert len(chips) == devices * math.prod(int(side) for side in name.partition(":")[2].split("x"))
        assert chips[0].device_kind in CHIPS
