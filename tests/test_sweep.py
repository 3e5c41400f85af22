"""Members with settings of their own: what a sweep stands for, and how they end."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts import partition, sweep
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.metric_accumulator import MetricAccumulator
from jax_prompts.scoring.best_tracker import BestTracker
from jax_prompts.setup import set_up

QUICKSTART = ("gin_configs/quickstart.gin",)


def resolved(*files, **bindings):
    bindings = {"MODEL_DIR": "runs/sweep", **bindings}
    args = argparse.Namespace(
        command="train",
        gin_file=files or QUICKSTART,
        bindings=[f"{name}={value}" for name, value in bindings.items()],
        gin_search_paths="",
        tfds_data_dir=None,
    )
    return resolve(args, "TrainRun")


def test_a_table_stands_for_every_combination():
    run, text = resolved(SWEEP="{'LEARNING_RATE': (0.001, 0.01, 0.3), 'RANDOM_SEED': (0, 7)}")
    assert [variant.settings for variant in run.variants] == [
        {"LEARNING_RATE": rate, "RANDOM_SEED": seed} for rate in (0.001, 0.01, 0.3) for seed in (0, 7)
    ]
    setup = set_up(run, partition.mesh_of(run.model))
    assert setup.seeds_E.tolist() == [0, 7] * 3
    rates = np.float32([0.001, 0.001, 0.01, 0.01, 0.3, 0.3])
    assert {name: values.tolist() for name, values in setup.numbers_E.items()} == {
        "Optimizer.learning_rate": rates.tolist()
    }
    assert {leaf.shape[0] for leaf in jax.tree.leaves(setup.tuned)} == {6}
    assert "SWEEP = {'LEARNING_RATE': (0.001, 0.01, 0.3), 'RANDOM_SEED': (0, 7)}" in text
    for variant in run.variants:  # each is what its settings alone would make
        alone, _ = resolved(**variant.settings)
        assert not sweep.differences(variant.run, alone)


def test_a_table_of_too_many_combinations_is_refused_before_it_is_made():
    with pytest.raises(ConfigError, match="SWEEP makes 1,000,000,000,000 combinations, over 10,000"):
        sweep.combinations({name: tuple(range(1000)) for name in "abcd"})


def test_rows_name_the_settings_of_each_member():
    rows = "({'INITIALIZER': @Uniform(), 'DROPOUT_RATE': 0.0}, {'INITIALIZER': None, 'DROPOUT_RATE': 0.1})"
    run, _ = resolved(SWEEP=rows)
    first, second = run.variants
    assert type(first.run.initializer).__name__ == "Uniform" and second.run.initializer is None
    assert first.settings == {"INITIALIZER": "@Uniform()", "DROPOUT_RATE": 0.0}
    assert sweep.numbers_E(run)["BaseModel.dropout_rate"].tolist() == np.float32([0.0, 0.1]).tolist()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"SWEEP": "{'LEARNING_RATE': 0.3}"}, "set it to its values"),
        ({"SWEEP": "{'LEARNING_RATE': ()}"}, "set it to its values"),
        ({"SWEEP": "{}"}, "SWEEP is empty"),
        ({"SWEEP": "()"}, "SWEEP is empty"),
        ({"SWEEP": "(1, 2)"}, "SWEEP"),
        ({"SWEEP": "3"}, "SWEEP is 3"),
        (
            {"SWEEP": "({'LEARNING_RATE': 0.3}, {'LEARNING_RATE': 0.1, 'RANDOM_SEED': 1})"},
            "RANDOM_SEED to one of",
        ),
        ({"SWEEP": "{'LEARNING_RAET': (0.1, 0.3)}"}, "did you mean LEARNING_RATE"),
        ({"SWEEP": "{'Optimizer.learning_raet': (0.1, 0.3)}"}, "did you mean learning_rate"),
        ({"SWEEP": "{'PROMPT_LENGTH': (10, 20)}"}, "Residual.length"),
        ({"SWEEP": "{'PROMPT_LENGTH': (10, 20)}"}, "a program of its own"),
        ({"SWEEP": "{'BATCH_SIZE': (8, 16)}"}, "Data.batch_size"),
        (
            {"SWEEP": "{'PROMPT': (@Residual(), @PromptTuning())}", "PromptTuning.length": 10},
            "TrainRun.method",
        ),
        ({"SWEEP": "{'Decomposed.rank': (2, 3)}"}, "does not use"),
        ({"SWEEP": "{'RANDOM_SEED': (0, 1, 0)}"}, "RANDOM_SEED = 0 twice"),
        ({"SWEEP": "{'RANDOM_SEED': (0, -1)}"}, "RANDOM_SEED is -1"),
        ({"SWEEP": "{'DROPOUT_RATE': (0.0, 1.0)}"}, "DROPOUT_RATE is 1.0"),
        ({"SWEEP": "{'LEARNING_RATE': (0.1, 'high')}"}, "a number"),
        ({"SWEEP": "{'Optimizer.decay_rate': (0.8, 0.9)}"}, "means nothing to adamw"),
        ({"SWEEP": "{'Optimizer.gradient_clip_norm': (1.0, None)}"}, "Optimizer.gradient_clip_norm"),
        ({"SWEEP": "{'RANDOM_SEED': (0, 1)}", "MEMBERS": 3}, "MEMBERS is 3 and SWEEP"),
        ({"SWEEP": "{'SUBSET_SEED': (0, 1)}", "PROTOCOL": "ept_b1"}, "start a run for each seed"),
        ({"SWEEP": "{'MODEL_DIR': ('a', 'b')}"}, "MODEL_DIR"),
        ({"SWEEP": "{'SWEEP': (1, 2)}"}, "SWEEP"),
    ],
)
def test_sweeps_that_cannot_share_steps(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        run, _ = resolved(**settings)
        set_up(run, partition.mesh_of(run.model))


def test_the_whole_model_has_no_members():
    files = ("gin_configs/models/micro.gin", "gin_configs/recipes/micro.gin", "gin_configs/runs/train.gin")
    bindings = {
        "PROMPT": None,
        "INITIALIZER": None,
        "TRAIN_STEPS": 2,
        "MIXTURE_OR_TASK_NAME": "quickstart_reviews",
    }
    run, _ = resolved(*files, **bindings, SWEEP="{'RANDOM_SEED': (0, 1)}")
    with pytest.raises(ConfigError, match="without PROMPT"):
        set_up(run, partition.mesh_of(run.model))


def test_patience_ends_each_member_by_itself():
    tracker = BestTracker.fresh("accuracy", 3)

    def scores(*values):
        return {
            member: {"metrics": {"t": {"accuracy": v}}} for member, v in enumerate(values) if v is not None
        }

    assert tracker.update(1, scores(1.0, 1.0, 1.0)) == [0, 1, 2]
    assert tracker.update(2, scores(2.0, 0.5, 1.0)) == [0]
    assert tracker.active(2) == [0, 1, 2]
    assert tracker.update(3, scores(2.0, 3.0, 1.0)) == [1]
    assert tracker.active(2) == [0, 1]
    assert tracker.update(4, scores(9.0, 3.0, None)) == [0]
    assert tracker.active(2) == [0, 1]
    assert [best["value"] for best in tracker.chosen().values()] == [9.0, 3.0, 1.0]


def test_a_member_whose_loss_is_not_finite_ends_alone():
    accumulator, tracker = MetricAccumulator(3), BestTracker.fresh("accuracy", 3)
    accumulator.add(
        [0, 2],
        {
            "loss_sum": jnp.array([jnp.nan, 1.0]),
            **{name: jnp.ones(2) for name in ("tokens", "correct", "rows", "answered")},
        },
    )
    assert accumulator.fetch() == [0]
    tracker.fail([0], "not finite")
    assert tracker.active(None) == [1, 2]
    assert accumulator.lines([2]) == {
        2: {"member": 2, "loss": 1.0, "token_accuracy": 100.0, "answer_accuracy": 100.0}
    }
    with pytest.raises(RunError, match="not finite"):
        tracker.fail([1, 2], "not finite")
