"""Answers that are kept: an evaluation goes on behind them, and behind nothing else."""

import pytest

from jax_prompts.errors import RunError
from jax_prompts.run_folder import RunFolder
from jax_prompts.scoring.journal import Journal

ROWS = [["a"], ["b", [1.5]], ["c"], ["d"]]


def batches(asked):
    """Function that gives two rows at a time, and writes down where it was asked to begin."""

    def give(start):
        asked.append(start)
        for first in range(start, len(ROWS), 2):
            yield ROWS[first : first + 2]

    return give


def stopped(start):
    yield ROWS[:2]
    raise KeyboardInterrupt


def test_it_goes_on_behind_what_is_there(tmp_path):
    journal, asked = Journal(RunFolder(tmp_path), {"model": "m"}), []
    with pytest.raises(KeyboardInterrupt):
        journal.collect("texts", stopped)
    (file,) = (tmp_path / "answers").iterdir()
    file.write_bytes(file.read_bytes() + b'["half a')
    assert journal.collect("texts", batches(asked)) == ROWS
    assert journal.collect("texts", batches(asked)) == ROWS
    assert asked == [2, 4]
    journal.remove()
    assert not (tmp_path / "answers").exists()


def test_what_was_made_with_something_else_is_not_taken(tmp_path):
    journal, asked = Journal(RunFolder(tmp_path), {"model": "m"}), []
    journal.collect("texts", batches(asked))
    for other, part in (
        (journal, "labels"),
        (journal.of(prompt="p"), "texts"),
        (Journal(RunFolder(tmp_path), {}), "texts"),
    ):
        assert other.collect(part, batches(asked)) == ROWS
    assert asked == [0] * 4


def test_nothing_is_kept_without_a_directory():
    asked = []
    assert Journal(None, {}).collect("texts", batches(asked)) == ROWS
    assert Journal(None, {}).of(a=1).collect("texts", batches(asked)) == ROWS and asked == [0, 0]


def test_a_damaged_file_is_refused(tmp_path):
    journal = Journal(RunFolder(tmp_path), {})
    journal.collect("texts", batches([]))
    (file,) = (tmp_path / "answers").iterdir()
    file.write_text("no JSON\n")
    with pytest.raises(RunError, match=r"damaged: remove it"):
        journal.collect("texts", batches([]))


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "answers").write_text("a file")
    with pytest.raises(RunError, match="cannot be written"):
        Journal(RunFolder(tmp_path), {}).collect("texts", batches([]))
