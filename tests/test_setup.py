"""Runs made ready, before weights and data."""

import jax

from jax_prompts import partition
from jax_prompts.config import BaseModel, Data, Optimizer, Training
from jax_prompts.prompts import PromptTuning
from jax_prompts.runs import TrainRun
from jax_prompts.setup import set_up

RUN = TrainRun(
    "runs/x",
    BaseModel("micro", None, None),
    Data("a_mixture", "tasks.registry", {"inputs": 16, "targets": 4}, batch_size=4),
    Optimizer("adamw", 0.1),
    Training(steps=10, eval_period=10),
    PromptTuning(20),
)


def test_the_labels_of_a_mixture_are_those_of_all_its_tasks():
    """In their order, each once: a prompt that all share starts from them."""
    labels = [("no", "yes"), None, ("maybe", "no")]
    mesh = partition.make_mesh({}, jax.devices()[:1])
    found = set_up(RUN, mesh, tasks=["a", "b", "c"], labels=labels)
    assert found.labels == ("no", "yes", "maybe")
    assert found.labels_of == {"a": ("no", "yes"), "b": (), "c": ("maybe", "no")}
