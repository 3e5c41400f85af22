"""Texts of tasks beside Google's T5, live: string for string, of made-up examples and of official files."""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("t5", reason="no t5: see CONTRIBUTING, live parity")

import tensorflow as tf
from raw_examples import TEXTS, raw_examples
from t5_tasks import (
    OURS,
    PAIRS,
    THEIRS,
    WNLI,
    dataset_of,
    differs,
    kind,
    plain,
    texts_of_ours,
    texts_of_theirs,
)

from tasks.errors import TaskError

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def compare(name: str, dataset: tf.data.Dataset) -> int:
    """All that T5 makes of the examples ours makes too, in both forms; the number of examples that come out."""
    theirs = plain(texts_of_theirs(name, dataset))
    forms = {name: theirs}
    if f"taskless_{name}" in OURS:
        forms[f"taskless_{name}"] = [row | {"inputs": row["inputs"].partition(" ")[2]} for row in theirs]
    for form, expected in forms.items():
        found = texts_of_ours(form, dataset)
        assert len(found) == len(expected)
        for row, other in zip(found, expected, strict=True):
            assert {key: row.get(key) for key in other} == other
    return len(theirs)


def test_no_task_is_forgotten():
    families = ("glue_", "super_glue_", "dpr_", "squad_v010_allanswers")
    theirs = {name for name in THEIRS if name.startswith(families) and "sentinel" not in name}
    assert theirs - {*PAIRS.values()} == {"squad_v010_allanswers_span"}
    assert len([name for name in PAIRS if name.startswith("mrqa_")]) == 12
    assert len([name for name in PAIRS if "_v200" in name]) == len(
        [name for name in PAIRS if "_v002" in name]
    )


@pytest.mark.parametrize("name", PAIRS)
def test_texts_of_made_up_examples(name: str):
    assert compare(name, dataset_of(raw_examples(kind(name)))) > len(TEXTS)


ROWS = 2000  # of a split
# Published samples, and where the official file would be.
SAMPLES = (
    ("glue_10k_subsets/kshot_official_columns/MNLI-16-13-train.tsv", "MNLI/train.tsv"),
    ("glue_10k_subsets/kshot_official_columns/MNLI-16-13-dev_matched.tsv", "MNLI/dev_matched.tsv"),
    ("glue_10k_subsets/kshot_official_columns/QQP-16-13-train.tsv", "QQP/train.tsv"),
    ("glue_10k_subsets/kshot_official_columns/QQP-16-13-dev.tsv", "QQP/dev.tsv"),
    ("record_explorer/record_123.jsonl", "ReCoRD/val.jsonl"),
    ("mrqa/NewsQA_sample.jsonl", "mrqa/dev/NewsQA.jsonl"),
)


@pytest.fixture(scope="module")
def data_dirs(shared: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    samples = tmp_path_factory.mktemp("samples")
    for source, target in SAMPLES:
        (samples / target).parent.mkdir(parents=True, exist_ok=True)
        (samples / target).write_bytes((shared / "data" / source).read_bytes())
    return [shared / "data", shared / "data/fewglue", samples]


@pytest.mark.parametrize("name", PAIRS)
def test_texts_of_official_files(name: str, data_dirs: list[pathlib.Path]):
    compared = 0
    for data_dir in data_dirs:
        source = OURS[name].source.at(data_dir)
        for split in source.splits:
            try:
                dataset = source.get_dataset(split, shuffle=False)
            except TaskError:  # this directory lacks the split
                continue
            compared += compare(name, dataset.take(ROWS))
    if not compared:
        pytest.skip(f"no official file of {name}")


def wnli(premise: str, hypothesis: str) -> dict[str, Any]:
    return {"sentence1": premise, "sentence2": hypothesis, "label": 1, "idx": 0}


SQUAD = {"question": "q", "context": "c"}
CB = {"premise": "p", "hypothesis": "h", "label": 0, "idx": 0}
DPR = {"sentence": "Ann saw Bea when she left.", "pronoun": "she", "candidates": ["Ann", "Bea"], "label": 1}
WSC = {
    "text": "Ann saw Bea when she left",
    "span1_text": "Bea",
    "span1_index": 2,
    "span2_text": "she",
    "span2_index": 4,
    "label": 1,
    "idx": 0,
}


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("super_glue_wsc_v102_simple_eval", WSC | {"span2_index": 3}),
        ("super_glue_wsc_v102_simple_eval", WSC | {"span2_index": 6}),
        ("super_glue_wsc_v102_simple_eval", WSC | {"span2_text": "Ann", "span2_index": 0}),
        ("super_glue_cb_v102", CB | {"label": 3}),
        ("dpr_v001_simple", DPR | {"label": 2}),
        ("squad_v010_allanswers", SQUAD | {"id": "0", "answers": {"text": []}}),
        ("mrqa_drop_v100_examples", SQUAD | {"qid": "0", "answers": []}),
    ],
)
def test_both_refuse(name: str, raw: dict[str, Any]):
    for texts in (texts_of_ours, texts_of_theirs):
        with pytest.raises(tf.errors.OpError):
            texts(name, dataset_of([raw]))


ALIKE = [
    (WNLI[0], wnli("Ann left. She slept.", "Bea ate.")),
    (WNLI[0], wnli("Ann watched. It glowed.", "The lamp on a pole glowed.")),
    (WNLI[0], wnli("It sat.", "Each of an old man's cats sat.")),
    (WNLI[0], wnli("Ann will ask if he came.", "Ann will ask if Will came.")),
    (WNLI[0], wnli("Bob wanted his car.", "Clever Bob wanted Tom's car.")),
    (WNLI[0], wnli("Bob saw him.", "Then Bob saw Tom.")),
    (WNLI[0], wnli("It sat and it sat.", "The cat sat.")),
    (WNLI[0], wnli("It sat and it sat down.", "The cat sat down.")),
    (WNLI[0], wnli("Ann left.", "Bea left.")),
    (WNLI[0], wnli("Ann (she left) knew.", "Ann left.")),
    (
        "super_glue_wsc_v102_simple_eval",
        WSC | {"text": 'Ann smiled. "Good for him," he said. ', "span2_text": "he", "span2_index": 5},
    ),
    (
        "super_glue_wsc_v102_simple_eval",
        WSC
        | {
            "text": "The boy continued to whip the pony , and eventually the pony threw him over. John laughed out "
            'quite loud. "Good for him," he said. ',
            "span2_text": "him",
            "span2_index": 20,
        },
    ),
]
DIFFERENT = {
    "WNLI: T5 marks another word behind two blanks": (
        WNLI[0],
        wnli("The fish  ate. It was tasty.", "The worm was tasty."),
    ),
    "WSC: T5 takes a backslash in the pronoun as its pattern's": (
        "super_glue_wsc_v102_simple_eval",
        WSC | {"text": r"Ann saw \0 left", "span2_text": r"\0", "span2_index": 2},
    ),
    "DPR: T5 takes the pronoun as a pattern": ("dpr_v001_simple", DPR | {"pronoun": "s.e"}),
    "T5 refuses a label below -1, here one without a label": ("super_glue_cb_v102", CB | {"label": -2}),
}


def outcome(texts: Callable[..., Any], name: str, raw: dict[str, Any]) -> Any:
    try:
        return [(row["inputs"], row["targets"]) for row in plain(texts(name, dataset_of([raw])))]
    except tf.errors.OpError:
        return "refused"


@pytest.mark.parametrize(("name", "raw"), ALIKE)
def test_alike_on_odd_examples(name: str, raw: dict[str, Any]):
    assert outcome(texts_of_ours, name, raw) == outcome(texts_of_theirs, name, raw)


@pytest.mark.parametrize(
    ("name", "raw"),
    [pytest.param(*case, id=reason, marks=differs(reason)) for reason, case in DIFFERENT.items()],
)
def test_known_differences(name: str, raw: dict[str, Any]):
    assert outcome(texts_of_ours, name, raw) == outcome(texts_of_theirs, name, raw)
