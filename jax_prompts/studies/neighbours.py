"""What words lie nearest to a prompt's vectors (Lester et al. 2021, section 7; EPT, appendix A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError
from jax_prompts.prompts.geometry import cosines
from jax_prompts.prompts.prompt_file import check_fits
from jax_prompts.studies.base_vocabulary import BaseVocabulary, open_vocabulary
from jax_prompts.studies.domain import LEAST, TIMES, counts, read_texts, typical, unigram
from jax_prompts.studies.nearest import Nearest, clusters, near_duplicates, nearest, random_vectors
from jax_prompts.studies.prompt_inputs import NamedPrompt, only_at_the_input, read_prompts

DUPLICATES_ABOVE = 0.95  # cosine


def neighbours(
    paths: Sequence[str],
    base: BaseModel,
    *,
    k: int = 5,
    seed: int = 0,
    texts: str | None = None,
    fields: Sequence[str] = (),
    background: str | None = None,
) -> dict[str, Any]:
    """The nearest pieces of every vector of prompts, and what they say; `docs/studies.md` says what the keys mean.

    Args:
      paths: prompt files and directories.
      base: the model that the prompts were tuned with.
      k: neighbours of each vector.
      seed: of the random vectors beside.
      texts: a file of the task's texts, whose typical words are looked for; None: none are.
      fields: of its objects, where it is `.jsonl`; none: all.
      background: a file of general text; None: the vocabulary's own frequencies.

    Raises:
      ConfigError: a prompt of another base model or at every layer, and as `open_vocabulary` and `read_texts`.
      RunError: something cannot be read.
    """
    if k < 1:
        raise ConfigError(f"--k is {k}: set it to at least 1")
    if background is not None and texts is None:
        raise ConfigError("--background is compared with the task's texts: add --texts=FILE")
    given = None if texts is None else read_texts(texts, fields)
    general = None if background is None else read_texts(background)
    prompts = read_prompts(paths)
    only_at_the_input(prompts, "neighbours")
    found = open_vocabulary(base)
    fits = found.fits()
    for prompt in prompts:
        check_fits(prompt.file, prompt.prompt_PD, prompt.metadata, **fits)
    typical_V = None
    if given is not None:
        elsewhere_V = unigram(found.vocabulary) if general is None else counts(general, found.vocabulary)
        typical_V = typical(counts(given, found.vocabulary), elsewhere_V) & found.ordinary_V
    return {
        "study": "neighbours",
        "model": base.name,
        "k": k,
        "seed": seed,
        "texts": texts,
        "fields": list(fields),
        "background": background,
        "typical": None if typical_V is None else _about_typical(found, typical_V),
        "prompts": [_of_prompt(prompt, found, k, seed, typical_V) for prompt in prompts],
    }


def _about_typical(found: BaseVocabulary, typical_V: Bool[np.ndarray, " V"]) -> dict[str, Any]:
    """How many pieces are typical: the share by which neighbours would be so by chance."""
    return {
        "pieces": int(typical_V.sum()),
        "share": float(typical_V.sum() / found.ordinary_V.sum()),
        "times": TIMES,
        "least": LEAST,
    }


def _of_prompt(
    prompt: NamedPrompt, found: BaseVocabulary, k: int, seed: int, typical_V: Bool[np.ndarray, " V"] | None
) -> dict[str, Any]:
    allowed_V, rows_VD = found.ordinary_V, found.embedding_VD
    own = nearest(prompt.prompt_PD, rows_VD, allowed_V, k)
    drawn_PD = random_vectors(prompt.prompt_PD, rows_VD[allowed_V], seed)
    random = nearest(drawn_PD, rows_VD, allowed_V, k)
    norm_P = np.linalg.norm(prompt.prompt_PD.astype(np.float64), axis=-1)
    return {
        **prompt.described(),
        **_summed_up(own, found, typical_V),
        "random": _summed_up(random, found, typical_V),
        "labels": [persistence(label, prompt.prompt_PD, own, found) for label in prompt.metadata.labels],
        "near_duplicates": near_duplicates(prompt.prompt_PD, DUPLICATES_ABOVE),
        "positions": [
            _position(number, float(norm), own, found, typical_V) for number, norm in enumerate(norm_P)
        ],
    }


def _summed_up(
    near: Nearest, found: BaseVocabulary, typical_V: Bool[np.ndarray, " V"] | None
) -> dict[str, Any]:
    """Numbers over all positions, which prompt and random vectors share."""
    clustered = [bool(clusters([found.pieces[number] for number in ids_K])) for ids_K in near.ids_NK]
    return {
        "mean_best_cosine": float(near.cosines_NK[:, 0].mean()),
        "distinct_nearest": len(set(near.ids_NK[:, 0].tolist())),
        "clustered_positions": int(sum(clustered)),
        "typical_share": None if typical_V is None else float(typical_V[near.ids_NK].mean()),
    }


def _position(
    number: int, norm: float, near: Nearest, found: BaseVocabulary, typical_V: Bool[np.ndarray, " V"] | None
) -> dict[str, Any]:
    pieces = [found.pieces[each] for each in near.ids_NK[number]]
    every = zip(near.ids_NK[number].tolist(), pieces, near.cosines_NK[number].tolist(), strict=True)
    return {
        "position": number,
        "norm": norm,
        "neighbours": [
            {"id": each, "piece": piece, "cosine": round(cosine, 6)}
            | ({} if typical_V is None else {"typical": bool(typical_V[each])})
            for each, piece, cosine in every
        ],
        "clusters": clusters(pieces),
    }


def persistence(
    label: str, prompt_PD: Float[np.ndarray, "P D"], near: Nearest, found: BaseVocabulary
) -> dict[str, Any]:
    """Where a class label is among the nearest: its first piece, or the mean of its pieces were that a row, too.

    The mean is what a `ClassLabels` start puts at the label's position.
    """
    ids = list(found.vocabulary.encode(label))
    if not ids:  # a label of nothing but spaces
        nowhere: dict[str, Any] = {
            "first_piece_at": [],
            "mean_at": [],
            "best_position": None,
            "best_cosine": None,
        }
        return {"label": label, "pieces": [], **nowhere}
    mean_P = cosines(prompt_PD, found.embedding_VD[ids].mean(axis=0, keepdims=True))[:, 0]
    # Equal to the farthest is near enough: a label of one piece may itself be that one.
    within_P = mean_P >= near.cosines_NK[:, -1] - 1e-9
    return {
        "label": label,
        "pieces": [found.pieces[each] for each in ids],
        "first_piece_at": np.flatnonzero((near.ids_NK == ids[0]).any(axis=1)).tolist(),
        "mean_at": np.flatnonzero(within_P).tolist(),
        "best_position": int(mean_P.argmax()),
        "best_cosine": float(mean_P.max()),
    }
