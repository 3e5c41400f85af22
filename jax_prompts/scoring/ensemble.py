"""Answers of several prompts as one answer (Lester et al. 2021, section 6), and how far the prompts agree.

N examples, E prompts, C candidates: the answers that some prompt gave, or the classes of a classifier.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from jax_prompts.inference.ranking import Ranked
from jax_prompts.scoring.answers import Answers

MEAN, RANK = "mean_log_probability/", "mean_rank/"


def candidates_of(texts_E: Sequence[str]) -> list[str]:
    """The different answers to one example, the earliest prompt's first."""
    return list(dict.fromkeys(texts_E))


def by_votes(
    votes_E: Sequence[str], candidates: Sequence[str], log_p_EC: Float[np.ndarray, "E C"]
) -> dict[str, str]:
    """One answer to one example in three ways; among equals the earlier candidate.

    `""`: the answer that most prompts gave, among equals that of the higher sum of log-probabilities.
    `mean_log_probability/`: that of the highest mean of log-probabilities.
    `mean_rank/`: that of the best mean rank, where every prompt ranks the candidates by probability; among equals as
    before.

    Args:
      votes_E: the answer of each prompt.
      candidates: C answers.
      log_p_EC: how likely each prompt finds each, in nats.
    """
    sum_C, rank_C = log_p_EC.sum(axis=0), scipy.stats.rankdata(-log_p_EC, axis=1).sum(axis=0)
    keys: dict[str, list[tuple]] = {
        "": [(votes_E.count(text), sum_C[c]) for c, text in enumerate(candidates)],
        MEAN: [(sum_C[c],) for c in range(len(candidates))],
        RANK: [(-rank_C[c], sum_C[c]) for c in range(len(candidates))],
    }
    return {way: candidates[max(range(len(candidates)), key=by.__getitem__)] for way, by in keys.items()}


def ensemble_of(
    answers_E: Sequence[Answers],
    candidates_N: Sequence[Sequence[str]],
    log_p_NEC: Sequence[Float[np.ndarray, "E _"]],
) -> Answers:
    """The answers of several prompts as one's.

    Args:
      answers_E: of each prompt.
      candidates_N: of each example.
      log_p_NEC: their log-probabilities, in nats, by each prompt.
    """
    votes_NE = _votes_NE(answers_E)
    found = [by_votes(*example) for example in zip(votes_NE, candidates_N, log_p_NEC, strict=True)]
    classes = _mean([answers.classes for answers in answers_E])
    others = {
        MEAN: Answers([ways[MEAN] for ways in found], classes=classes),
        RANK: Answers([ways[RANK] for ways in found]),
    }
    ranked = _mean([answers.ranked for answers in answers_E])
    return Answers([ways[""] for ways in found], ranked=ranked, others=others)


def agreement(answers_E: Sequence[Answers], ensemble: Answers) -> list[dict[str, Any]]:
    """How far prompts agree on each example, beside the ensemble's answers of other ways.

    `votes` are the prompts' answers, `agreement` the share of them that is the ensemble's (0 to 1), `vote_entropy` that
    of their distribution in nats (0 where all are one).
    """
    rows = []
    for index, votes_E in enumerate(_votes_NE(answers_E)):
        shares = [count / len(votes_E) for count in collections.Counter(votes_E).values()]
        rows.append(
            {
                "votes": votes_E,
                "agreement": votes_E.count(ensemble.texts[index]) / len(votes_E),
                "vote_entropy": sum(-share * math.log(share) for share in shares),
                **{way.removesuffix("/"): other.texts[index] for way, other in ensemble.others.items()},
            }
        )
    return rows


def _votes_NE(answers_E: Sequence[Answers]) -> list[list[str]]:
    return [list(votes) for votes in zip(*(answers.texts for answers in answers_E), strict=True)]


def _mean(ranked_E: Sequence[Ranked | None]) -> Ranked | None:
    """Mean log-probabilities of the labels over prompts."""
    known = [ranked for ranked in ranked_E if ranked is not None]
    if not known:
        return None
    mean_NC = np.mean([ranked.log_p_NC for ranked in known], axis=0)
    return Ranked(known[0].labels, mean_NC, known[0].tokens_C)
