"""Scores members on every task of a split: predicts, postprocesses, compares."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts import partition
from jax_prompts.base_models.build import Model
from jax_prompts.config import Data, Decoding
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import SpecialTokens, text_length
from jax_prompts.data.vocabularies.sentencepiece import SENTINEL, Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError
from jax_prompts.inference.predict import (
    LossStep,
    Predict,
    device_batches,
    make_loss_step,
    make_predict,
    mean_loss,
    predict_texts,
)
from jax_prompts.inference.ranking import Rank, make_rank, rank_classes, rank_labels
from jax_prompts.models.bert import Bert
from jax_prompts.scoring.task_evaluator import Scores, TaskEvaluator

Tree = Any


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores members on every task of an evaluation split.

    By generation, and with `Data.rank_classification` by ranking the labels of tasks that have some, too (a
    BERT's answer is its likeliest label already); by loss where a task has no metric.
    """

    model: Model
    vocabulary: Vocabulary | WordPiece
    caches: list[TokenCache]
    data: Data
    decoding: Decoding
    mesh: jax.sharding.Mesh | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a setting that cannot work."""
        if self.data.rank_classification and all(cache.labels is None for cache in self.caches):
            raise ConfigError(
                f"RANK_CLASSIFICATION is True, but {self.data.task} answers with free text: set it to False"
            )

    def __call__(
        self, params_E: Sequence[Tree], prompts_EPD: Float[Array, "E P D"] | None
    ) -> list[dict[str, Scores]]:
        """Scores by task, of each member; without prompts, of the bare model."""
        members, length = (len(params_E), 0) if prompts_EPD is None else prompts_EPD.shape[:2]
        prompts_QD = None if prompts_EPD is None else prompts_EPD.reshape(members * length, -1)
        results = []
        for member, params in enumerate(params_E):
            first = self.model.config.vocab_size + member * length
            prompt_ids = np.arange(first, first + length, dtype=np.int32)
            results.append(
                {cache.task: self._score(params, prompts_QD, prompt_ids, cache) for cache in self.caches}
            )
        return results

    def _score(
        self,
        params: Tree,
        prompts_QD: Float[Array, "Q D"] | None,
        prompt_ids: Int[np.ndarray, " P"],
        cache: TokenCache,
    ) -> Scores:
        batches = functools.partial(
            device_batches,
            cache,
            prompt_ids,
            inputs_length=text_length(self.data, len(prompt_ids)),
            batch_size=self.data.eval_batch_size,
            special_tokens=SpecialTokens.of(self.vocabulary),
            sharding=None if self.mesh is None else partition.batch_sharding(self.mesh, members=False),
        )
        prompted = params, prompts_QD
        targets_length = self.data.task_feature_lengths["targets"]
        if not cache.metrics:
            return Scores(mean_loss(self._loss_step, *prompted, batches(targets_length=targets_length)), [])
        if isinstance(self.model, Bert):
            classes = rank_classes(self._rank, *prompted, batches(), cache.labels or ())
            return self.task_evaluators[cache.task](classes.best, classes=classes)
        predict = self._predict(cache.longest_targets)
        texts = predict_texts(predict, *prompted, batches(), self._read)
        ranked = None
        if self.data.rank_classification and cache.labels is not None:
            ranked = rank_labels(
                self._rank,
                *prompted,
                batches(),
                cache.labels,
                self.vocabulary,
                targets_length=targets_length,
                begin=self.vocabulary.encode(SENTINEL) if self.data.sentinel else (),
            )
        return self.task_evaluators[cache.task](texts, ranked)

    def _read(self, ids_U: Int[np.ndarray, " U"]) -> str:
        """An answer as it is scored."""
        text = self.vocabulary.decode(ids_U)
        return text.removeprefix(SENTINEL).lstrip() if self.data.sentinel else text

    @functools.cached_property
    def task_evaluators(self) -> dict[str, TaskEvaluator]:
        """Of each task."""
        return {cache.task: TaskEvaluator(cache, self.data.bootstrap) for cache in self.caches}

    @functools.cached_property
    def _rank(self) -> Rank:
        return make_rank(self.model, self.mesh)

    @functools.cached_property
    def _loss_step(self) -> LossStep:
        return make_loss_step(self.model, self.mesh)

    @functools.cached_property
    def _predictors(self) -> dict[int, Predict]:
        return {}

    def _predict(self, max_length: int) -> Predict:
        """The compiled predictor for answers of up to `max_length` tokens, T5X's limit: the longest target."""
        if max_length not in self._predictors:
            self._predictors[max_length] = make_predict(self.model, self.decoding, max_length, self.mesh)
        return self._predictors[max_length]
