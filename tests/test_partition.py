"""Meshes, who fits on which, and where every parameter lies."""

import dataclasses
import json
import math
import pathlib
import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, PartitionSpec

from jax_prompts import optim, partition
from jax_prompts.base_models.build import make_model
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.config import Optimizer
from jax_prompts.errors import ConfigError
from jax_prompts.models.sizes import SIZES
from jax_prompts.prompts import for_model
from jax_prompts.setup import tree_shapes

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "shardings.json"


def abstract(*shape):
    return AbstractMesh(shape, partition.AXES)


@given(st.tuples(*[st.integers(1, 8)] * 3), st.sets(st.sampled_from(partition.AXES)), st.data())
def test_mesh_shape_is_what_is_set_and_what_is_left(shape, unset, data):
    sizes = dict(zip(partition.AXES, shape, strict=True))
    sizes |= {name: 1 for name in unset if name != "data"}
    partitions = {name: size for name, size in sizes.items() if name not in unset}
    if partitions and data.draw(st.booleans()):
        partitions[data.draw(st.sampled_from(sorted(partitions)))] = -1
        sizes["data"] = sizes["data"] if "data" in partitions else 1
    assert partition.mesh_shape(partitions, math.prod(sizes.values())) == tuple(sizes.values())


@pytest.mark.parametrize(
    ("partitions", "message"),
    [
        ({"modle": 2}, "no axis 'modle': use model"),
        ({"model": 0}, "'model' is 0: set it to at least 1, or to -1"),
        ({"data": -1, "fsdp": -1}, "data and fsdp to -1: only one"),
        (
            {"model": 3},
            "fsdp 1 x model 3 = 3 does not divide 8 devices: the product must be 1, 2, 4 or 8",
        ),
        (
            {"data": 2, "model": 2},
            "data 2 x fsdp 1 x model 2 = 4 is not the number of devices, 8: set one axis to -1",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(partitions, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        partition.mesh_shape(partitions, 8)


@pytest.mark.parametrize(
    ("size", "shape", "message"),
    [
        ("t5_1_1_base", (1, 1, 8), "'model' is 8, which does not divide the heads (12) of t5_1_1_base: "
            "on 8 devices it can be 1, 2 or 4"),
        ("t5_1_1_small", (1, 1, 3), "the MLP width (1024) of t5_1_1_small: on 3 devices it can be 1"),
        ("bert_base", (1, 1, 4), "the vocabulary (30522) of bert_base: on 4 devices it can be 1 or 2"),
        ("t5_1_1_xxl", (1, 3, 2), "'fsdp' is 3, which does not divide the model width (4096) of t5_1_1_xxl: "
            "on 6 devices it can be 1 or 2"),
    ],
)  # fmt: skip
def test_a_mesh_that_does_not_divide_the_model_is_refused(size, shape, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        partition.check_divides(size, SIZES[size], abstract(*shape))


@pytest.mark.parametrize(
    ("rows", "shape", "microbatches", "message"),
    [
        (12, (2, 4, 4), 1, "ROWS = 12 does not divide over 8 devices; use a multiple of 8, or give PARTITIONS 'model'"),
        (12, (2, 4, 4), 2, "ROWS = 12 does not divide over 8 devices; use a multiple of 16"),
        (32, (2, 4, 4), 3, "MICROBATCHES = 3 does not divide the rows of ROWS = 32 that each device has, 4: "
            "it can be 1, 2 or 4; or use a multiple of 24 rows"),
        (32, (1, 1, 1), 3, "MICROBATCHES = 3 does not divide the rows of ROWS = 32 that each device has, 32: "
            "it can be 1, 2, 4, 8, 16 or 32; or use a multiple of 3 rows"),
        (30, (4, 1, 1), 2, "ROWS = 30 does not divide over 4 devices; use a multiple of 8"),
        (0, (2, 4, 4), 1, "ROWS is 0; it must be at least 1"),
        (-8, (2, 4, 4), 1, "ROWS is -8; it must be at least 1"),
    ],
)  # fmt: skip
def test_a_batch_that_mesh_or_microbatches_do_not_divide_is_refused(rows, shape, microbatches, message):
    partition.check_batch("ROWS", 32, abstract(2, 4, 4), microbatches=4)
    with pytest.raises(ConfigError, match=re.escape(message)):
        partition.check_batch("ROWS", rows, abstract(*shape), microbatches)


def test_slices_are_divided_over_the_first_axes():
    """Two TPU slices of four chips: rows of `data` are slices, and `model` never leaves one."""

    @dataclasses.dataclass(frozen=True)
    class Device:
        id: int
        slice_index: int
        process_index: int = 0
        platform: str = "cpu"
        device_kind: str = "chip"

    devices = [Device(id, slice_index=id // 4) for id in (0, 4, 1, 5, 2, 6, 3, 7)]
    mesh = partition.make_mesh({"fsdp": 2, "model": 2}, devices)
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    np.testing.assert_array_equal(slices[0], 0)
    np.testing.assert_array_equal(slices[1], 1)
    assert partition.slices_along((2, 3, 8), 12) == [2, 3, 2]
    assert partition.slices_along((1, 6, 4), 8) == [1, 2, 4]


def test_a_tuned_side_that_the_mesh_does_not_divide_stays_whole():
    mesh = abstract(1, 2, 4)
    assert partition.spec(("embed", "mlp"), (8, 400), mesh) == PartitionSpec("fsdp", "model")
    assert partition.spec(("embed", "mlp"), (8, 1), mesh) == PartitionSpec("fsdp", None)
    assert partition.spec(("rank", "embed"), (10, 9), mesh) == PartitionSpec(None, None)


def test_state_of_the_optimizer_lies_as_its_parameters_do():
    mesh = abstract(1, 2, 4)
    run = run_of("base", "residual")
    tuned = tree_shapes(run, run.method, make_model(run.model), mesh)[0]
    adamw = optim.make_optimizer(Optimizer(name="adamw", learning_rate=0.3, network_learning_rate=0.1), 10)
    state = partition.state_shapes(adamw, tuned)
    down = tuned["prompt"]["network"]["down"]["kernel"]
    assert down.sharding.spec == PartitionSpec(None, "fsdp", "model")
    whole = [x for x in jax.tree.leaves(state) if x.shape == down.shape]
    assert len(whole) == 2 and all(x.sharding == down.sharding for x in whole)
    assert jax.tree.structure(state) == jax.tree.structure(jax.eval_shape(jax.vmap(adamw.init), tuned))
    adafactor = optim.make_optimizer(Optimizer(name="adafactor", learning_rate=0.3), 10)
    for leaf in jax.tree.leaves(partition.state_shapes(adafactor, tuned)):
        assert leaf.sharding.is_fully_replicated or leaf.shape in {x.shape for x in jax.tree.leaves(tuned)}


def run_of(size, prompt):
    files = [f"models/t5_1_1_lm100k_{size}", f"prompts/{prompt}", "recipes/lester2021", "runs/train"]
    flags = [f"--gin_file=gin_configs/{file}.gin" for file in files]
    flags += ["--gin.MODEL_DIR=never", "--gin.MIXTURE_OR_TASK_NAME=super_glue_rte_v102"]
    return resolve(parse(["train", *flags]), "TrainRun")[0]


def where_parameters_lie():
    """By model, mesh (`fsdp` x `model`; `data` divides no parameter) and parameter: axes, and what one device holds."""
    found = {}
    for size in ("base", "xxl"):
        runs = {prompt: run_of(size, prompt) for prompt in ("prompt_tuning", "residual")}
        model = make_model(runs["residual"].model)
        for fsdp, tensor in ((1, 1), (1, 8), (2, 4), (4, 4), (8, 1)):
            mesh, lines = abstract(1, fsdp, tensor), {}
            try:
                partition.check_divides(runs["residual"].model.name, model.config, mesh)
            except ConfigError as error:
                lines["refused"] = str(error)
                runs_here = {}
            else:
                runs_here = runs
            for prompt, run in runs_here.items():
                run = dataclasses.replace(run, method=for_model(run.method, model.config.prompt_width))
                tuned, frozen = tree_shapes(run, run.method, model, mesh)
                trees = {f"tuned {prompt}": tuned, "frozen": frozen}
                for path, leaf in jax.tree.leaves_with_path(trees):
                    name = jax.tree_util.keystr(path, simple=True, separator="/")
                    axes = ", ".join(map(str, leaf.sharding.spec))
                    shape = "x".join(map(str, leaf.sharding.shard_shape(leaf.shape)))
                    line = f"({axes}) {shape} {leaf.dtype}"
                    layers = re.sub(r"layers_\d+", "layers_*", name)
                    assert lines.setdefault(layers, line) == line, name
            found[f"{size} {fsdp}x{tensor}"] = lines
    return found


def test_every_parameter_lies_where_it_did():
    """Regenerate by `python tests/test_partition.py`, and read the difference."""
    assert where_parameters_lie() == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(where_parameters_lie(), indent=1, sort_keys=True) + "\n")
