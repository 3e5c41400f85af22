"""What runs are compared by."""

import argparse

import pytest

from jax_prompts.cli.gin_settings import resolve
from jax_prompts.watching import hparams


def resolved(**macros):
    args = argparse.Namespace(
        command="train",
        gin_file=["gin_configs/quickstart.gin"],
        bindings=[f"{name}={value}" for name, value in macros.items()],
        gin_search_paths="",
        tfds_data_dir=None,
    )
    return resolve(args, "TrainRun")[0]


def test_a_run_has_the_settings_that_people_compare():
    (settings,) = hparams.of_members(resolved(LEARNING_RATE=0.5, FEW_SHOT=8, RANDOM_SEED=3), 200)
    assert settings == {
        "task": "quickstart_reviews",
        "model": "micro",
        "method": "Residual",
        "method.hidden": 100,
        "method.activation": "relu",
        "method.norm": True,
        "method.skip": True,
        "method.bias": True,
        "method.shared": True,
        "method.passes": 1,
        "prompt_length": 10,
        "initializer": "SampledVocabulary",
        "optimizer": "adamw",
        "learning_rate": 0.5,
        "schedule": "linear",
        "weight_decay": 0.01,
        "batch_size": 32,
        "steps": 200,
        "seed": 3,
        "dropout_rate": 0.0,
        "protocol": "dev_as_test",
        "few_shot": 8,
    }


def test_members_have_what_they_differ_in():
    sweep = "{'LEARNING_RATE': (0.1, 0.3), 'Optimizer.beta2': (0.9, 0.99), 'RANDOM_SEED': (4, 5)}"
    members = hparams.of_members(resolved(SWEEP=sweep), 100)
    assert [(m["learning_rate"], m["beta2"], m["seed"]) for m in members] == [
        (rate, beta, seed) for rate in (0.1, 0.3) for beta in (0.9, 0.99) for seed in (4, 5)
    ]
    assert all(member.keys() == members[0].keys() and "random_seed" not in member for member in members)
    assert [member["seed"] for member in hparams.of_members(resolved(MEMBERS=3, RANDOM_SEED=2), 9)] == [
        2,
        3,
        4,
    ]


def test_the_whole_is_every_setting_and_no_secret():
    run = resolved(
        INITIAL_CHECKPOINT_PATH="https://ann:secret@example.org/model?token=secret",
        WANDB=True,
        MODEL_SIZE="None",
    )
    found = hparams.whole(run)
    assert found["BaseModel.checkpoint"] == "https://***@example.org/model?***"
    assert (
        found["Optimizer.beta1"] == 0.9
        and found["Residual.hidden"] == 100
        and found["Training.wandb"] is True
    )
    assert "secret" not in str(found) + str(hparams.of_members(run, 10))


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ({}, {}),
        ({"test_metrics": {"rte": {"accuracy": 60.0}}}, {"test/accuracy": 60.0}),
        (
            {"test_metrics": {"rte": {"accuracy": 60.0}, "cb": {"f1": 50}}},
            {"test/rte/accuracy": 60.0, "test/cb/f1": 50.0},
        ),
    ],
)
def test_a_run_has_its_scores(test, expected):
    summary = {"members": [{"best_metric": 75.0, "best_step": 10}], **test}
    (session,) = hparams.sessions([{"seed": 0}], summary)
    assert session == hparams.Session(
        "hparams", {"seed": 0}, {"best_metric": 75.0, "best_step": 10.0, **expected}
    )


def test_a_member_that_failed_has_none():
    summary = {
        "members": [
            {"best_metric": None, "best_step": None, "failed": "the loss is not finite"},
            {"best_metric": 75.0, "best_step": 10},
        ],
        "test_metrics": [None, {"rte": {"accuracy": 60.0}}],
    }
    failed, other = hparams.sessions([{"seed": 0}, {"seed": 1}], summary)
    assert failed == hparams.Session("member-0", {"seed": 0}, {})
    assert other.metrics == {"best_metric": 75.0, "best_step": 10.0, "test/accuracy": 60.0}
