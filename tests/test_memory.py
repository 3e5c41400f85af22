"""What memory cannot hold is refused before it is tried, and nothing that fits."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import pytest

from jax_prompts import memory, partition
from jax_prompts.config import BaseModel, Data, Decoding, Optimizer, Training
from jax_prompts.errors import ConfigError
from jax_prompts.precompile.programs import programs_of
from jax_prompts.prompts import PerLayer, PromptTuning
from jax_prompts.runs import TrainRun
from jax_prompts.setup import set_up

LENGTHS = {"inputs": 128, "targets": 16}
RUN = TrainRun(
    "runs/x",
    BaseModel("micro", None, None),
    Data("a_task", "tasks.registry", LENGTHS, batch_size=4, eval_batch_size=4),
    Optimizer("adamw", 0.1),
    Training(steps=10, eval_period=10, members=2),
    PromptTuning(20),
)
LONG = {
    role: [types.SimpleNamespace(longest_inputs=128, longest_targets=16)] for role in ("train", "validation")
}


def with_settings(part, **settings):
    return dataclasses.replace(RUN, **{part: dataclasses.replace(getattr(RUN, part), **settings)})


def checked(run, available, monkeypatch, caches=None):
    monkeypatch.setattr(memory, "available_bytes", lambda: available)
    memory.check_training(set_up(run, partition.make_mesh({}, jax.devices()[:1])), caches)


@pytest.mark.parametrize(
    ("part", "setting", "macro"),
    [
        ("training", "members", "MEMBERS"),
        ("data", "batch_size", "BATCH_SIZE"),
        ("data", "eval_batch_size", "EVAL_BATCH_SIZE"),
    ],
)
def test_the_largest_value_that_fits_is_named(part, setting, macro, monkeypatch):
    with pytest.raises(ConfigError, match="needs at least") as error:
        checked(with_settings(part, **{setting: 10**8}), 10**9, monkeypatch)
    (largest,) = (
        int(words.rpartition(" ")[2].replace(",", ""))
        for words in str(error.value).split(", or ")
        if f"{macro} to" in words
    )
    checked(with_settings(part, **{setting: largest}), 10**9, monkeypatch)
    with pytest.raises(ConfigError):
        checked(with_settings(part, **{setting: largest + 1}), 10**9, monkeypatch)


def test_a_prompt_and_beams_that_are_too_many(monkeypatch):
    long = dataclasses.replace(RUN, method=PromptTuning(20_000))
    with pytest.raises(ConfigError, match="PROMPT_LENGTH to "):
        checked(long, 10**9, monkeypatch)
    beams = dataclasses.replace(RUN, decoding=Decoding("beam", num_decodes=10**6))
    with pytest.raises(ConfigError, match=r"Decoding\.num_decodes to "):
        checked(beams, 10**9, monkeypatch)


def test_the_lengths_of_the_data_count_once_they_are_known(monkeypatch):
    run = with_settings("data", batch_size=8000)  # in 8 groups
    checked(run, 2 * 10**9, monkeypatch)
    with pytest.raises(ConfigError, match="BATCH_SIZE to "):
        checked(run, 2 * 10**9, monkeypatch, LONG)


def test_a_model_that_does_not_fit_and_memory_that_is_not_known(monkeypatch):
    with pytest.raises(ConfigError, match="WEIGHT_DTYPE"):
        checked(RUN, 10**6, monkeypatch)
    whole = dataclasses.replace(with_settings("training", members=1), method=None)
    with pytest.raises(ConfigError, match="PARTITIONS"):
        checked(whole, 10**6, monkeypatch)
    checked(RUN, None, monkeypatch)


def test_rows_of_an_evaluation(monkeypatch):
    setup = set_up(RUN, partition.make_mesh({}, jax.devices()[:1]))
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**9)
    memory.check_answering(setup.model, RUN.model, setup.mesh, 100, 1)
    with pytest.raises(ConfigError, match="EVAL_BATCH_SIZE to "):
        memory.check_answering(setup.model, RUN.model, setup.mesh, 10**8, 1)


@pytest.mark.parametrize(
    "settings",
    [{}, pytest.param({"remat": "full", "activation_dtype": "bfloat16"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_no_more_is_counted_than_the_program_takes(settings, monkeypatch):
    run = with_settings("model", **settings)
    setup = set_up(run, partition.make_mesh({}, jax.devices()[:1]))
    found = []
    monkeypatch.setattr(memory, "_check", lambda demand, available: found.append(demand))
    memory.check_training(setup, LONG)
    (demand,) = found
    assert demand.targets_length == LENGTHS["targets"]
    assert demand.config.dtype == jnp.dtype(run.model.activation_dtype)
    step, decode = (programs_of(setup)[name] for name in ("train", "decode"))
    sizes = [each.function.lower(*each.arguments).compile().memory_analysis() for each in (step, decode)]
    assert demand.at_rest() <= sizes[0].argument_size_in_bytes + sizes[0].output_size_in_bytes
    assert demand.total() <= max(size.temp_size_in_bytes + size.argument_size_in_bytes for size in sizes)


@pytest.mark.parametrize("kind", ["decoder_prefix", "decoder_deep"])
def test_what_the_encoder_makes_is_not_kept_for_prompts_of_the_decoder_alone(kind, monkeypatch):
    """Nor counted: long texts fit."""
    lengths = {"inputs": 4096, "targets": 4}
    long = {role: [types.SimpleNamespace(longest_inputs=4096, longest_targets=4)] for role in LONG}
    run = with_settings("data", task_feature_lengths=lengths, batch_size=16, eval_batch_size=1)
    with pytest.raises(ConfigError, match="BATCH_SIZE to "):
        checked(run, 3 * 10**9, monkeypatch, long)
    checked(dataclasses.replace(run, method=PerLayer(20, kind)), 3 * 10**9, monkeypatch, long)


def test_control_groups(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/slurm/job\n")
    for folder, most, used in (("slurm", "2000", 500), ("slurm/job", "max", 400)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "memory.max").write_text(f"{most}\n")
        (tmp_path / folder / "memory.current").write_text(f"{used}\n")
        (tmp_path / folder / "memory.stat").write_text("anon 1\ninactive_file 100\n")
    assert memory._cgroup_bytes(str(own), str(tmp_path)) == 2000 - 500 + 100
    assert memory._cgroup_bytes(str(tmp_path / "absent")) > 10**18
