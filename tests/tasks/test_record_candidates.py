"""ReCoRD for a classifier: an entity a row, the likeliest of a query's rows taken, values by hand."""

from __future__ import annotations

import collections
import functools
import json
import pathlib

import numpy as np
import pytest
import seqio
from labelled import LabelledCache

import tasks.registry  # noqa: F401
from jax_prompts.config import Data
from jax_prompts.data.open import open_caches
from jax_prompts.data.vocabularies.wordpiece import SPECIAL, WordPiece
from jax_prompts.inference.ranking import Ranked
from jax_prompts.scoring.answers import Answers
from jax_prompts.scoring.ensemble import ensemble_of
from jax_prompts.scoring.task_evaluator import TaskEvaluator
from tasks.metrics.answers import squad_of_best
from tasks.text.postprocessors import record_candidate

TASK = "bert_super_glue_record_v102"
LABELS = ("False", "True")
TEXT = "Bob met Ann Lee\n@highlight\nit rained on Carl"


def line(idx: int, *queries: tuple[str, list[str] | None]) -> dict:
    entities = [(TEXT.index(name), TEXT.index(name) + len(name) - 1) for name in ("Carl", "Bob", "Ann Lee")]
    asked = []
    for number, (query, answers) in enumerate(queries):
        asked.append({"query": query, "idx": 10 * idx + number})
        if answers is not None:
            asked[-1]["answers"] = [{"text": answer} for answer in answers]
    return {
        "idx": idx,
        "passage": {"text": TEXT, "entities": [{"start": s, "end": e} for s, e in entities]},
        "qas": asked,
    }


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Three queries in two passages; of a fourth, in test, the answers are hidden."""
    files = {
        "train": [
            line(0, ("@placeholder got wet", ["Carl", "Carl"]), ("so @placeholder, met", ["Ann Lee", "Bob"])),
            line(1, ("who is @placeholder", ["Bob"])),
        ],
        "test": [line(2, ("@placeholder and @placeholder", None))],
    }
    (tmp_path / "ReCoRD").mkdir()
    for split, rows in files.items():
        (tmp_path / "ReCoRD" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = sorted({*"bob met ann lee it rained on carl got wet so who is and . ,".split()})
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL.values(), *words]) + "\n")
    return tmp_path


def pairs(folder: pathlib.Path, split: str) -> list[dict]:
    task = seqio.TaskRegistry.get(TASK)
    dataset = task.preprocessors[0](task.source.at(folder).get_dataset(split))
    return list(dataset.as_numpy_iterator())


def test_every_entity_stands_in_the_blank(folder: pathlib.Path):
    found = pairs(folder, "train")
    passage = " [SEP] Bob met Ann Lee. it rained on Carl"
    assert [row["inputs"].decode() for row in found] == [
        f"{query}{passage}"
        for query in (
            *("Ann Lee got wet", "Bob got wet", "Carl got wet"),
            *("so Ann Lee, met", "so Bob, met", "so Carl, met"),
            *("who is Ann Lee", "who is Bob", "who is Carl"),
        )
    ]
    wrong, right = b"False", b"True"
    assert [row["targets"] for row in found] == [
        *(wrong, wrong, right),
        *(right, right, wrong),
        *(wrong, right, wrong),
    ]
    assert [row["entity"] for row in found[:3]] == [b"Ann Lee", b"Bob", b"Carl"]
    assert [(row["idx/passage"], row["idx/query"]) for row in found[::3]] == [(0, 0), (0, 1), (1, 10)]
    assert found[3]["answers"].tolist() == [b"Ann Lee", b"Bob"]


def test_hidden_answers_are_hidden_labels(folder: pathlib.Path):
    found = pairs(folder, "test")
    assert [row["targets"] for row in found] == [b"<unk>"] * 3
    assert found[0]["inputs"].startswith(b"Ann Lee and Ann Lee [SEP] ")


def test_the_likeliest_entity_of_a_query_answers_it():
    targets = [{"value": ["Ann Lee"], "group": (0, 0)}] * 2 + [{"value": ["Bob", "Ann"], "group": (0, 1)}] * 3
    said = [
        *({"value": "Ann", "score": -0.1}, {"value": "Carl", "score": -0.2}),  # half of its words: F1 2/3
        *({"value": "Carl", "score": -3.0}, {"value": "bob", "score": -2.0}, {"value": "x", "score": -2.0}),
    ]
    assert squad_of_best(targets, said) == {"em": 50.0, "f1": pytest.approx(100 * (2 / 3 + 1) / 2)}
    # The same in another order of rows, but for equals, of which the first counts.
    order = [4, 1, 3, 0, 2]
    shuffled = squad_of_best([targets[i] for i in order], [said[i] for i in order])
    assert shuffled == {"em": 0.0, "f1": pytest.approx(100 / 3)}


def test_scores_of_a_classifier(folder: pathlib.Path):
    """From the files to the metrics: groups are kept in the cache, and probabilities reach them."""
    lengths = {"inputs": 24, "targets": 1}
    data = Data(TASK, "tasks.registry", lengths, 2, str(folder), cache_dir=str(folder / "caches"))
    ((_, cache),) = open_caches(data, "train", WordPiece(str(folder / "vocab.txt")))
    assert (cache.labels, cache.label_counts) == (LABELS, {"False": 5, "True": 4})
    assert cache.first_rows.tolist() == [0, 3, 6]  # few-shot subsets and divisions keep queries whole
    p_N = np.array([0.2, 0.3, 0.4, 0.9, 0.8, 0.99, 0.1, 0.2, 0.1])  # Carl, Carl, Bob: the second is wrong
    classes = Ranked(LABELS, np.log(np.stack([1 - p_N, p_N], axis=1)), np.ones(2, np.int32))
    scores = TaskEvaluator(cache, resamples=20)(Answers(classes.best, classes=classes))
    assert scores.metrics == {"em": pytest.approx(200 / 3), "f1": pytest.approx(200 / 3)}
    low, high = scores.intervals["em"]
    assert low < 200 / 3 < high
    row = scores.predictions[3]
    assert (row["prediction"], row["label_log_probabilities"]["True"]) == ("True", pytest.approx(np.log(0.9)))
    # Constant answers take the first entity, Ann Lee.
    assert scores.context["majority_baseline"] == {"em": pytest.approx(100 / 3), "f1": pytest.approx(100 / 3)}
    # Votes without probabilities take the first entity that is called right: Carl, Bob, Bob.
    votes = ["False", "False", "True", "False", "True", "True", "False", "True", "False"]
    assert TaskEvaluator(cache)(Answers(votes)).metrics == {"em": 100.0, "f1": 100.0}
    # An ensemble by mean log-probabilities has some: the first prompt is sure where it is right, the second is not.
    unsure = Ranked(LABELS, np.log(np.full((9, 2), 0.5)), np.ones(2, np.int32))
    answers_E = [Answers(ranked.best, classes=ranked) for ranked in (classes, unsure)]
    log_p_NEC = np.stack([classes.log_p_NC, unsure.log_p_NC], axis=1)
    both = TaskEvaluator(cache)(ensemble_of(answers_E, [list(LABELS)] * 9, list(log_p_NEC)))
    assert both.metrics["mean_log_probability/em"] == scores.metrics["em"]


def test_all_queries_of_real_files(shared: pathlib.Path, tmp_path: pathlib.Path):
    (tmp_path / "ReCoRD").mkdir()
    (tmp_path / "ReCoRD/val.jsonl").symlink_to(shared / "data/record_explorer/record_123.jsonl")
    found = pairs(tmp_path, "validation")
    queries = collections.defaultdict(list)
    for row in found:
        queries[row["idx/passage"], row["idx/query"]].append(row)
        assert b"@placeholder" not in row["inputs"] and row["entity"] in row["inputs"].split(b" [SEP] ")[0]
    assert len(queries) == 123
    right = [sum(row["targets"] == b"True" for row in rows) for rows in queries.values()]
    assert min(right) >= 1 and sum(right) < len(found)
    # What takes a right entity of each query has all points, what takes a wrong one less.
    postprocess = functools.partial(record_candidate, label_classes=LABELS)
    examples = [
        {
            "entity": row["entity"].decode(),
            "answers": [answer.decode() for answer in row["answers"]],
            "idx/passage": int(row["idx/passage"]),
            "idx/query": int(row["idx/query"]),
        }
        for row in found
    ]
    gold = [row["targets"].decode() for row in found]
    cache = LabelledCache(gold, LABELS, metrics=[squad_of_best], fields=examples)
    cache.postprocess = postprocess
    assert TaskEvaluator(cache)(Answers(gold)).metrics == {"em": 100.0, "f1": 100.0}
    wrong = [{"True": "False", "False": "True"}[label] for label in gold]
    assert TaskEvaluator(cache)(Answers(wrong)).metrics["em"] < 10
