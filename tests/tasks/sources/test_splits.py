"""Slices mean what they mean in TFDS."""

from __future__ import annotations

import pytest
import tensorflow_datasets as tfds
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.errors import TaskError
from tasks.sources.splits import parse

NAMES = ("train", "validation")


COUNTS = ("{}:{}", "{}:", ":{1}")
PERCENT = ("{}%:{}%", "{}%:{}", "{}:{}%", "{}%:", ":{1}%")


@st.composite
def slices(draw: st.DrawFn) -> tuple[str, int]:
    """A slice of `train` that lies within its examples, and their number."""
    size, form = draw(st.integers(1, 4000)), draw(st.sampled_from(COUNTS + PERCENT))
    most = 1000 if form in PERCENT else size
    bounds = [draw(st.integers(-most, most)) for _ in "ab"]
    texts = [f"{bound / 10:g}" if form in PERCENT else str(bound) for bound in bounds]
    return f"train[{form.format(*texts)}]", size


@given(slices())
@example(("train", 7))
def test_slices_are_those_of_tfds(drawn: tuple[str, int]):
    split, size = drawn
    (part,) = parse(split, NAMES)
    (expected,) = tfds.core.ReadInstruction.from_spec(split).to_absolute({"train": _info(size)})
    start, stop = expected.from_ or 0, size if expected.to is None else expected.to
    assert part.range(size) == range(start, stop)


def test_sums_keep_their_order():
    assert [part.name for part in parse("validation[:5] + train", NAMES)] == ["validation", "train"]


@pytest.mark.parametrize(
    "split", ["train[5]", "train[a:]", "train[:5", "", "train[:5]]", "train[::2]", "train[1e3:]"]
)
def test_what_cannot_be_read_is_refused(split: str):
    with pytest.raises(TaskError, match="cannot be read"):
        parse(split, NAMES)


def test_unknown_split_names_those_there_are():
    with pytest.raises(TaskError, match="no split 'valid': use train or validation"):
        parse("valid[:3]", NAMES)


@pytest.mark.parametrize("split", ["train[:11]", "train[-11:]", "train[:111%]"])
def test_bounds_past_the_end_are_refused(split: str):
    with pytest.raises(TaskError, match="past its 10 examples"):
        parse(split, NAMES)[0].range(10)


def _info(size: int) -> tfds.core.SplitInfo:
    return tfds.core.SplitInfo(name="train", shard_lengths=[size], num_bytes=0)
