"""Metrics of generated text: by hand, against the libraries asked directly, and under the bootstrap."""

from __future__ import annotations

import functools
import random
import statistics

import pytest
import sacrebleu
from labelled import LabelledCache
from rouge_score.rouge_scorer import RougeScorer

from jax_prompts.scoring import bootstrap
from jax_prompts.scoring.answers import Answers
from jax_prompts.scoring.task_evaluator import TaskEvaluator
from tasks.errors import TaskError
from tasks.metrics.generation import bleu, chrf, exact_match, rouge
from tasks.own.scoring import GENERATION, scoring

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices("The fox, dogs jump over it. 3.5 naïve".split(), k=draw.randint(0, 9)))


@pytest.fixture
def pairs() -> tuple[list[list[str]], list[str]]:
    """One to three right answers each, and predictions of which some are right and some empty."""
    draw = random.Random(0)
    targets = [[sentence(draw) or "fox" for _ in range(draw.randint(1, 3))] for _ in range(40)]
    return targets, [draw.choice([sentence(draw), *answers]) for answers in targets]


def references(targets: list[list[str]]) -> list[list[str | None]]:
    return [[answers[n] if n < len(answers) else None for answers in targets] for n in range(3)]


@pytest.mark.parametrize(
    ("kind", "target", "said", "score"),
    [
        ("rouge1", "The cat sat.", "the cat", 80),  # P = 2/2, R = 2/3
        ("rouge2", "The cat sat.", "the cat", 200 / 3),  # P = 1/1, R = 1/2
        ("rougeL", "a b c d", "c d a b", 50),  # two of four in order
        ("rougeLsum", "a b\nc d", "c d\na b", 100),  # each sentence is found whole
        ("rougeL", "a b\nc d", "c d\na b", 50),
        ("rouge1", "cats", "cat", 0),  # no stemming
        ("rouge1", "a", "", 0),
    ],
)
def test_rouge_by_hand(kind: str, target: str, said: str, score: float):
    assert rouge([target], [said], kind=kind) == {kind: pytest.approx(score)}
    assert rouge([target, "x y"], [said, "x y"], kind=kind) == {kind: pytest.approx((score + 100) / 2)}
    assert rouge([["zzz", target]], [said], kind=kind) == {kind: pytest.approx(score)}


def test_bleu_and_chrf_by_hand():
    # 4/5, 3/4, 2/3 and 1/2 of the n-grams are right, and no length is missing.
    assert bleu(["a b c d f"], ["a b c d e"]) == {"bleu": pytest.approx(100 * 0.2**0.25)}
    # Of characters 2/2 and 2/3, of pairs 1/1 and 1/2; the prediction has no more: P = 1, R = 7/12, beta = 2.
    assert chrf(["abc"], ["ab"]) == {"chrf": pytest.approx(700 / 11)}
    assert bleu(["a b"], ["a b"]) == {"bleu": 0}  # no four words
    assert bleu(["a b c d"], [""]) == {"bleu": 0} and chrf(["a"], [""]) == {"chrf": 0}


def test_exact_match_by_hand():
    assert exact_match(["a", "b", "c", "d"], ["a", "B", " c", "d"]) == {"exact_match": 50}
    assert exact_match([["a", "b"], ["c"]], ["b", "d"]) == {"exact_match": 50}


def test_several_answers_as_the_libraries_have_them(pairs):
    targets, said = pairs
    asked = references(targets)
    assert bleu(targets, said) == {"bleu": pytest.approx(sacrebleu.corpus_bleu(said, asked).score)}
    assert chrf(targets, said) == {"chrf": pytest.approx(sacrebleu.corpus_chrf(said, asked).score)}
    scorer = RougeScorer(list(ROUGE))
    found = [scorer.score_multi(answers, text) for answers, text in zip(targets, said, strict=True)]
    for kind in ROUGE:
        mean = statistics.fmean(scores[kind].fmeasure for scores in found)
        assert rouge(targets, said, kind=kind) == {kind: pytest.approx(100 * mean)}


def test_one_answer_is_a_list_of_one(pairs):
    targets, said = pairs
    for metric in GENERATION.values():
        assert metric([answers[0] for answers in targets], said) == metric(
            [answers[:1] for answers in targets], said
        )


@pytest.mark.parametrize("name", GENERATION)
def test_the_bootstrap_draws_pairs(pairs, name: str):
    targets, said = pairs
    found = bootstrap.intervals(GENERATION[name], targets, said, 50)
    ((low, high),) = found.values()
    assert 0 <= low < GENERATION[name](targets, said)[name] < high <= 100
    if name in ("bleu", "chrf"):  # whatever is kept between draws, the numbers are the library's own
        direct = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}[name]
        plain = bootstrap.intervals(
            lambda targets, said: {name: direct(said, references(targets)).score}, targets, said, 50
        )
        assert found == {name: pytest.approx(plain[name])}
    perfect = bootstrap.intervals(GENERATION[name], ["a b c d e"] * 5, ["a b c d e"] * 5, 5)
    assert perfect == {name: pytest.approx([100, 100])}


def test_scores_say_how_they_were_made():
    cache = LabelledCache(["a b c d", "x"], None, metrics=[functools.partial(bleu), chrf, exact_match])
    scores = TaskEvaluator(cache)(Answers(["a b c d", "y"]))
    version = f"version:{sacrebleu.__version__}"
    assert scores.context["signatures"] == {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}",
    }
    assert bleu.signature([["a", "b"], ["c"]]).startswith("nrefs:var|")
    assert bleu.signature([["a", "b"], ["c", "d"]]).startswith("nrefs:2|")
    assert scores.metrics["exact_match"] == 50
    assert "signatures" not in TaskEvaluator(LabelledCache(["a"], None))(Answers(["a"])).context


def test_metrics_that_tasks_may_name():
    for several in (False, True):
        postprocess, metrics = scoring([*GENERATION], (), several)
        assert [*metrics[0](["a"], ["a"])] == ["exact_match"] and len(metrics) == 7
        assert (postprocess is None) != several
    with pytest.raises(TaskError, match="bleu does not compare classes"):
        scoring(["bleu"], ("no", "yes"), False)
    with pytest.raises(TaskError, match="rouge1 does not compare numbers"):
        scoring(["pearson", "rouge1"], (), False)
    with pytest.raises(TaskError, match="both report `exact_match`; leave one out"):
        scoring(["exact_match", "normalized_match"], (), False)
