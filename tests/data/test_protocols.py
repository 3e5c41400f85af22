"""Protocols divide official splits as the papers say; few-shot subsets depend on task and seed alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from jax_prompts.config import Data
from jax_prompts.data.protocols import RULES, check, few_shot, few_shot_per_class, rows, torch_order
from jax_prompts.errors import ConfigError

# Official sizes, train and validation.
SIZES = {
    "super_glue_boolq_v102": (9427, 3270),
    "super_glue_cb_v102": (250, 56),
    "super_glue_copa_v102": (400, 100),
    "super_glue_multirc_v102": (27243, 4848),
    "super_glue_record_v102": (100730, 10000),
    "super_glue_rte_v102": (2490, 277),
    "super_glue_wic_v102": (5428, 638),
    "super_glue_wsc_v102": (554, 104),
    "glue_cola_v200": (8551, 1043),
    "glue_sst2_v200": (67349, 872),
    "glue_mrpc_v200": (3668, 408),
    "glue_stsb_v200": (5749, 1500),
    "glue_qqp_v200": (363846, 40430),
    "glue_qnli_v200": (104743, 5463),
    "squad_v010_allanswers": (87599, 10570),
    "mrqa_natural_questions_v100": (104071, 12836),
}
# train, validation, test of EPT's rule: halves below 10K, 1K of training below 100K, 10K above.
EPT = {
    "super_glue_boolq_v102": (9427, 1635, 1635),
    "super_glue_cb_v102": (250, 28, 28),
    "super_glue_wic_v102": (5428, 319, 319),
    "super_glue_wsc_v102": (554, 52, 52),
    "super_glue_rte_v102": (2490, 138, 139),
    "super_glue_multirc_v102": (26243, 1000, 4848),
    "glue_sst2_v200": (66349, 1000, 872),
    "glue_qqp_v200": (353846, 10000, 40430),
    "glue_qnli_v200": (94743, 10000, 5463),
}
ATTEMPT = {
    "super_glue_multirc_v102": (27243, 2424, 2424),
    "super_glue_record_v102": (99730, 1000, 10000),
    "super_glue_wsc_v102": (554, 52, 52),
    "super_glue_rte_v102": (2490, 138, 139),
    "glue_stsb_v200": (5749, 750, 750),
    "glue_sst2_v200": (66349, 1000, 872),
    "glue_qnli_v200": (103743, 1000, 5463),
    "squad_v010_allanswers": (86599, 1000, 10570),
    "mrqa_natural_questions_v100": (103071, 1000, 12836),
}
# PyTorch 2.13, CPU: `randperm(size, generator=Generator().manual_seed(42))`, its first three numbers, and SHA-256 of
# its first 1,000 as little-endian int64.
TORCH = {
    56: ([22, 8, 36], "f3719d53600d3698f9505fda4d2c9340037a18fc33123891c6a581f4b7cefdaf"),
    104: ([70, 20, 30], "ba1a427d183e6bc6e16a2ea8c1f5c594998d17883173eee98d1221c231982eae"),
    277: ([207, 84, 253], "602c74aa563109cec0f7b8cfb3bf102b82379fab5bb608912f6036221a4feccf"),
    638: ([292, 360, 246], "8d295903e8f5ca9025caa6ff2f1a57c199be7d9a11769f146e6b44a094844aad"),
    1043: ([911, 408, 813], "d8e285ccc6988a488f84dacfcc3da53821ee9dd9a4f60088c1699cef95715c52"),
    4848: ([3270, 1987, 3664], "194f7d4d6baae971da291cf1c414d3fd9d9c5e462b6b6c55b3ddb5d562d5ab94"),
    67349: ([6677, 49712, 38268], "c0713e9efb973c687ab18e36cad19d47aefb201f39e336534920371b84e8a2c6"),
    100730: ([80172, 67041, 75942], "f8b67e3d555eb883d5ef2ab1c3c3f943c2a584cbbfc5b73565c69a322f04fe62"),
    363846: ([74376, 255378, 229510], "116239496ddcbae98d5f6a6fa3da071afd0298cc3d72c0305e5c98ca235bd3d9"),
}


def divided(protocol, task, seed=42):
    train, validation = SIZES[task]
    return rows(protocol, task, {"train": train, "validation": validation}, seed)


def lengths(shares, task):
    official = dict(zip(("train", "validation"), SIZES[task], strict=True))
    return tuple(
        official[share.split] if share.index_N is None else len(share.index_N)
        for share in (shares[role] for role in ("train", "validation", "test"))
    )


@pytest.mark.parametrize("task", EPT)
def test_ept_divides_by_the_size_of_the_training_split(task):
    assert lengths(divided("ept_b1", task), task) == EPT[task]


@pytest.mark.parametrize("task", ATTEMPT)
def test_attempt_divides_by_its_lists_of_tasks(task):
    assert lengths(divided("attempt_half", task), task) == ATTEMPT[task]


@pytest.mark.parametrize("task", SIZES)
@pytest.mark.parametrize("protocol", ["ept_b1", "attempt_half"])
def test_roles_are_disjoint_and_leave_nothing_out(protocol, task):
    shares = divided(protocol, task)
    for split, size in zip(("train", "validation"), SIZES[task], strict=True):
        taken = [
            np.arange(size) if share.index_N is None else share.index_N
            for share in shares.values()
            if share.split == split
        ]
        np.testing.assert_array_equal(np.sort(np.concatenate(taken)), np.arange(size))
        assert all(np.all(np.diff(part) > 0) for part in taken)


def test_dev_as_test_takes_the_official_splits_whole():
    assert divided("dev_as_test", "glue_qqp_v200") == {
        "train": ("train", None),
        "validation": ("validation", None),
    }


def test_tasks_outside_attempts_lists_are_divided_as_officially():
    sizes = {"train": 392702, "validation": 9815}
    found = rows("attempt_half", "glue_mnli_v200", sizes, 42)
    assert [share.split for share in found.values()] == [
        "train",
        "validation_mismatched",
        "validation_matched",
    ]
    for half, role in (("mismatched", "validation"), ("matched", "test")):  # tasks of their own in mixtures
        found = rows("attempt_half", f"glue_mnli_{half}_v200", {"validation": 9832}, 42)
        assert found == {role: ("validation", None)}
    found = rows("attempt_half", "paws_labeled_final", {"train": 49401, "validation": 8000}, 42)
    assert [share.split for share in found.values()] == ["train", "validation", "test"]
    # `nq` and `cb` are words of names, never parts of words.
    assert rows("attempt_half", "cbt_qqpish", sizes, 42)["test"].split == "test"


def test_random_halves_follow_seed_and_task_and_forms_of_a_task_share_them():
    sizes = {"train": 250, "validation": 56}
    first = rows("ept_b1", "super_glue_cb_v102", sizes, 42)["test"].index_N
    assert first[:8].tolist() == [0, 1, 2, 4, 8, 9, 13, 14]
    for form in ("taskless_super_glue_cb_v102", "bert_super_glue_cb_v102"):
        np.testing.assert_array_equal(rows("ept_b1", form, sizes, 42)["test"].index_N, first)
    for task, seed in (("super_glue_cb_v102", 43), ("super_glue_wsc_v102", 42)):
        assert rows("ept_b1", task, sizes, seed)["test"].index_N.tolist() != first.tolist()
    np.testing.assert_array_equal(
        rows("attempt_half", "super_glue_cb_v102", sizes, 1)["test"].index_N,
        rows("attempt_half", "super_glue_cb_v102", sizes, 2)["test"].index_N,
    )


def test_a_task_with_one_split_alone():
    # WSC as generation: one task trains, another is scored.
    found = rows("ept_b1", "super_glue_wsc_v102_simple_eval", {"validation": 104}, 42)
    assert {role: (share.split, len(share.index_N)) for role, share in found.items()} == {
        "validation": ("validation", 52),
        "test": ("validation", 52),
    }
    assert rows("ept_b1", "super_glue_wsc_v102_simple_train", {"train": 259}, 42) == {
        "train": ("train", None)
    }
    assert set(rows("attempt_half", "glue_qnli_v200", {"validation": 90}, 42)) == {"validation", "test"}


@pytest.mark.parametrize("protocol", ["ept_b1", "attempt_half"])
def test_splits_too_small_to_divide_are_refused(protocol):
    with pytest.raises(ConfigError, match=r"no validation examples \(split validation has 1\)"):
        rows(protocol, "super_glue_cb_v102", {"train": 250, "validation": 1}, 42)


def test_too_few_training_examples_to_hold_out_are_refused():
    with pytest.raises(ConfigError, match=r"no train examples \(split train has 900\)"):
        rows("attempt_half", "glue_qnli_v200", {"train": 900, "validation": 90}, 42)


@pytest.mark.parametrize("size", TORCH)
def test_torch_order_is_pytorchs(size):
    first, digest = TORCH[size]
    order = torch_order(size, 1000)
    assert order[:3].tolist() == first
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest() == digest
    np.testing.assert_array_equal(torch_order(size)[:1000], order)


@pytest.mark.parity
@pytest.mark.parametrize("size", sorted({1, 2, 625, *(size for sizes in SIZES.values() for size in sizes)}))
def test_torch_order_is_that_of_the_torch_installed(size):
    torch = pytest.importorskip("torch")
    expected = torch.randperm(size, generator=torch.Generator().manual_seed(42)).numpy()
    np.testing.assert_array_equal(torch_order(size), expected)


def test_few_shot_subsets_are_nested_and_seeded():
    small, large = few_shot("glue_rte_v200", 2490, 16, 42), few_shot("glue_rte_v200", 2490, 32, 42)
    assert len(set(large)) == 32
    assert set(small) < set(large)
    assert set(few_shot("glue_rte_v200", 2490, 16, 43)) != set(small)
    np.testing.assert_array_equal(few_shot("bert_glue_rte_v200", 2490, 16, 42), small)
    with pytest.raises(ConfigError, match="FEW_SHOT is 6, and glue_rte_v200 has 5"):
        few_shot("glue_rte_v200", 5, 6, 42)


def test_few_shot_takes_as_many_of_each_class():
    labels = ["rare", "often", "often", "<unk>"] * 25
    found = few_shot_per_class("glue_rte_v200", labels, ("often", "rare"), 10, 42)
    assert sorted(labels[i] for i in found) == ["often"] * 10 + ["rare"] * 10
    assert set(few_shot_per_class("glue_rte_v200", labels, ("often", "rare"), 4, 42)) < set(found)


def test_a_class_with_fewer_examples_gives_them_all_and_says_so(capsys):
    labels = ["rare", "often", "often", "<unk>"] * 25
    found = few_shot_per_class("glue_rte_v200", labels, ("often", "rare", "never"), 26, 42)
    assert sorted(labels[i] for i in found) == ["often"] * 26 + ["rare"] * 25
    assert "glue_rte_v200 has 25 rare, 0 never training examples: all" in " ".join(
        capsys.readouterr().err.split()
    )
    with pytest.raises(ConfigError, match="no training example of glue_rte_v200 has a label"):
        few_shot_per_class("glue_rte_v200", ["<unk>"] * 5, ("often", "rare"), 2, 42)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"protocol": "ept"}, "PROTOCOL ept is unknown: use ept_b1"),
        ({"protocol": "ept_b1", "eval_split": "validation[:40]"}, "leave TRAIN_SPLIT and EVAL_SPLIT out"),
        ({"protocol": "attempt_half", "train_split": "train[:40]"}, "leave TRAIN_SPLIT and EVAL_SPLIT out"),
        ({"few_shot": 4, "few_shot_per_class": 4}, "both set"),
        ({"few_shot": 0}, "FEW_SHOT is 0"),
        ({"few_shot_per_class": -1}, "FEW_SHOT_PER_CLASS is -1"),
        ({"subset_seed": -1}, "SUBSET_SEED is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    data = Data("task", "tasks.registry", {"inputs": 8, "targets": 2}, 4, **settings)
    with pytest.raises(ConfigError, match=words):
        check(data)


def test_every_protocol_is_accepted_and_an_unknown_one_is_not():
    for protocol in RULES:
        check(Data("task", "tasks.registry", {"inputs": 8, "targets": 2}, 4, protocol=protocol))
    with pytest.raises(ConfigError, match="attempt_half"):
        rows("atempt_half", "task", {"train": 1, "validation": 1}, 0)
