"""Draws of demonstrations: balanced, repeatable, nested, never a text for itself; pools that are too small."""

import collections

import pytest

from jax_prompts.config import PromptDesign
from jax_prompts.data.demonstrations import Demonstration, check, drawn, pool_of
from jax_prompts.errors import ConfigError

LABELS = ("no", "yes", "maybe")
EXAMPLES = [Demonstration(f"text {i}", LABELS[i % 3]) for i in range(30)]


def pool(examples=EXAMPLES, labels=LABELS, balanced=True):
    return pool_of("toy", examples, labels, balanced=balanced, hidden="<unk>")


def answers(found):
    return collections.Counter(example.targets for example in found)


def test_classes_take_turns():
    for text in ("a", "b", "c", "d"):
        for count in range(1, 31):
            found = drawn(pool(), PromptDesign(), count, text)
            assert len({example.inputs for example in found}) == count
            assert set(found) <= set(EXAMPLES)
            shares = answers(found)
            assert max(shares.values()) - min(shares[label] for label in LABELS) <= 1


def test_fewer_are_the_first_of_more():
    for balanced in (True, False):
        all_of_them = drawn(pool(balanced=balanced), PromptDesign(), 20, "a text")
        for count in range(21):
            assert drawn(pool(balanced=balanced), PromptDesign(), count, "a text") == all_of_them[:count]


def test_a_draw_depends_on_seed_and_text():
    first = drawn(pool(), PromptDesign(), 4, "a")
    assert drawn(pool(), PromptDesign(), 4, "a") == first
    assert drawn(pool(), PromptDesign(seed=1), 4, "a") != first
    assert drawn(pool(), PromptDesign(), 4, "b") != first
    fixed = PromptDesign(fixed=True)
    assert drawn(pool(), fixed, 4, "a") == drawn(pool(), fixed, 4, "b")
    # The draw of this seed, in whichever version of NumPy.
    assert [example.inputs for example in drawn(pool(), fixed, 4, "a")] == [
        "text 27",
        "text 7",
        "text 11",
        "text 26",
    ]


def test_draws_are_uniform():
    counts = collections.Counter(
        example.inputs for i in range(2000) for example in drawn(pool(), PromptDesign(), 3, f"text of {i}")
    )
    assert len(counts) == 30 and all(140 < count < 260 for count in counts.values())  # 200 each, deviation 13


@pytest.mark.parametrize("fixed", [True, False])
def test_no_text_is_its_own_demonstration(fixed):
    design = PromptDesign(fixed=fixed)
    for example in EXAMPLES:
        assert example.inputs not in [found.inputs for found in drawn(pool(), design, 27, example.inputs)]


def test_what_is_fixed_stays_but_for_the_text_itself():
    shown = drawn(pool(), PromptDesign(fixed=True), 6, "another")
    found = drawn(pool(), PromptDesign(fixed=True), 6, shown[2].inputs)
    assert found[:2] + found[3:] == shown[:2] + shown[3:]
    assert found[2] not in shown and found[2].targets == shown[2].targets


def test_a_text_is_shown_once_and_hidden_answers_never():
    repeated = [*EXAMPLES, Demonstration("text 0", "yes"), Demonstration("secret", "<unk>")]
    assert pool(repeated).by_class == pool().by_class
    assert pool(repeated, balanced=False).by_class == {"": EXAMPLES}
    free = [Demonstration("one", "anything"), Demonstration("two", "<unk>")]
    assert pool(free, labels=None).by_class == {"": free[:1]}


@pytest.mark.parametrize(
    ("labels", "balanced", "count", "texts", "reason"),
    [
        (LABELS, True, 30, set(), None),
        (LABELS, True, 31, set(), "DEMONSTRATIONS is 31, 11 of a class, and toy has 10 .* of class 'no'"),
        (LABELS, True, 27, {"text 1"}, None),
        (LABELS, True, 28, {"text 1"}, "has 9 different .* of class 'yes' besides the one that is answered"),
        (LABELS, False, 30, set(), None),
        (
            LABELS,
            False,
            31,
            set(),
            "DEMONSTRATIONS is 31, and toy has 30 different training examples: lower it",
        ),
        (None, True, 30, {"text 1"}, "has 29 different training examples besides the one"),
        (
            ("no", "yes", "other"),
            True,
            1,
            set(),
            "has 0 .* of class 'other': .*PromptDesign.balanced = False",
        ),
    ],
)
def test_pools_that_are_too_small(labels, balanced, count, texts, reason):
    made = pool(labels=labels, balanced=balanced)
    if reason is None:
        check(made, count, texts)
        assert len(drawn(made, PromptDesign(), count, "text 1" if texts else "another")) == count
        return
    with pytest.raises(ConfigError, match=reason) as raised:
        check(made, count, texts)
    assert "\n" not in str(raised.value)
