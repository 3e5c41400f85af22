"""Which answers are right, and whose."""

import json

import pytest

from jax_prompts.errors import RunError
from jax_prompts.results.answers import mark

ROWS = [
    {"index": 0, "inputs": "a", "targets": "yes", "prediction": "yes", "rank": "no"},
    {"index": 1, "inputs": "b", "targets": "no", "prediction": "No", "rank": "no"},
]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_answer_is_right_where_it_is_its_target_letter_by_letter(tmp_path):
    file = written(tmp_path / "t-1.jsonl", ROWS)
    assert mark(file, None).right_N.tolist() == [True, False]
    assert mark(file, None, "rank").right_N.tolist() == [False, True]


def test_members_are_told_apart(tmp_path):
    rows = [{"member": m, **row, "prediction": "yes"} for m in (0, 2) for row in ROWS[: m + 1]]
    file = written(tmp_path / "t-1.jsonl", rows)
    assert [len(mark(file, member).right_N) for member in (0, 2)] == [1, 2]
    with pytest.raises(RunError, match=r"holds no answers of member 1"):
        mark(file, 1)


@pytest.mark.parametrize("field", ["index", "inputs", "targets"])
def test_examples_are_the_same_where_index_inputs_and_targets_are(tmp_path, field):
    other = [{**ROWS[0], field: 7 if field == "index" else "other"}, ROWS[1]]
    same = [{**row, "prediction": "?"} for row in ROWS]
    files = [written(tmp_path / f"{n}.jsonl", rows) for n, rows in enumerate((ROWS, same, other, ROWS[::-1]))]
    digests = [mark(file, None).examples for file in files]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no answers"),
        ('{"index": 0, "predict', "holds no answers"),  # half a line
        ("nonsense\n", "holds a line that no run has written"),
        ('{"index": 0, "prediction": "a", "inputs": "b"}\n', "has a row without targets"),
        ('{"index": 0, "prediction": "a", "inputs": "b", "targets": NaN}\n', "no run has written"),
    ],
)
def test_damage_is_one_line(tmp_path, text, words):
    (tmp_path / "t-1.jsonl").write_text(text)
    with pytest.raises(RunError, match=words):
        mark(tmp_path / "t-1.jsonl", None)
    with pytest.raises(RunError, match="does not exist"):
        mark(tmp_path / "gone.jsonl", None)
