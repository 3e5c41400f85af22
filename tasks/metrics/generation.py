"""Metrics of generated text, from 0 to 100: ROUGE by rouge-score, BLEU and chrF by sacrebleu, and exact match.

A target is one text or a list of right answers. Both libraries are imported when first used: rouge-score takes seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Target = str | Sequence[str]
Rouge = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
Corpus = Literal["BLEU", "CHRF"]

# What is kept of each pair of texts: the bootstrap asks for the same pairs again in every draw.
_PAIRS = 2**16


def exact_match(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions that equal a right answer letter for letter."""
    pairs = zip(targets, predictions, strict=True)
    return {"exact_match": 100 * float(np.mean([said in _answers(target) for target, said in pairs]))}


def rouge(targets: Sequence[Target], predictions: Sequence[str], *, kind: Rouge) -> dict[str, float]:
    """Mean F-measure of ROUGE (Lin 2004) without stemming, each the best over the right answers.

    Words are runs of ASCII letters and digits; for `rougeLsum` sentences end at line feeds.
    """
    pairs = zip(targets, predictions, strict=True)
    return {kind: 100 * float(np.mean([_f_measure(kind, _answers(target), said) for target, said in pairs]))}


def bleu(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU (Papineni et al. 2002; Post 2018) with sacrebleu's defaults: 13a tokens, up to four of them."""
    return {"bleu": _corpus_score("BLEU", targets, predictions)}


def chrf(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Corpus chrF2 (Popović 2015) with sacrebleu's defaults: up to six characters, no words."""
    return {"chrf": _corpus_score("CHRF", targets, predictions)}


def _signature(name: Corpus, targets: Sequence[Target]) -> str:
    """sacrebleu's text of what a score depends on, such as tokeniser, version and number of right answers."""
    answers = [_answers(target) for target in targets]
    most = max(map(len, answers))
    padded = [[*texts, *[None] * (most - len(texts))] for texts in answers]
    return str(type(_sacrebleu(name))(references=[*zip(*padded, strict=True)]).get_signature())


# Scores say so beside their values: `signature(targets)` of a metric that has one.
bleu.signature = functools.partial(_signature, "BLEU")  # type: ignore[attr-defined]
chrf.signature = functools.partial(_signature, "CHRF")  # type: ignore[attr-defined]


def _answers(target: Target) -> tuple[str, ...]:
    return (target,) if isinstance(target, str) else tuple(target)


@functools.lru_cache(maxsize=_PAIRS)
def _f_measure(kind: Rouge, answers: tuple[str, ...], said: str) -> float:
    return _rouge_scorer(kind).score_multi(answers, said)[kind].fmeasure


@functools.cache
def _rouge_scorer(kind: Rouge) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind])


def _corpus_score(name: Corpus, targets: Sequence[Target], predictions: Sequence[str]) -> float:
    """Score of the sums over all pairs: not a mean, yet each pair is counted once, however often it is drawn."""
    pairs = zip(targets, predictions, strict=True)
    statistics = [_statistics(name, _answers(target), said) for target, said in pairs]
    # The two steps of `corpus_score`, apart, as in sacrebleu's own significance tests.
    return float(_sacrebleu(name)._aggregate_and_compute(statistics).score)


@functools.lru_cache(maxsize=_PAIRS)
def _statistics(name: Corpus, answers: tuple[str, ...], said: str) -> list[int]:
    (statistics,) = _sacrebleu(name)._extract_corpus_statistics([said], [[answer] for answer in answers])
    return statistics


@functools.cache
def _sacrebleu(name: Corpus) -> Any:
    from sacrebleu.metrics import METRICS

    return METRICS[name]()
