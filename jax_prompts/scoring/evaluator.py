"""Scores members on every task of a split: predicts, postprocesses, compares."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts import partition
from jax_prompts.base_models.build import Model
from jax_prompts.config import Data, Decoding
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import Batch, RaggedTokens, SpecialTokens, decoder_arrays, text_length
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary, behind_sentinel
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError
from jax_prompts.inference.predict import (
    SUMS,
    Answer,
    DeviceBatches,
    Losses,
    LossStep,
    answered_texts,
    device_batches,
    losses_of,
    make_answer,
    make_loss_step,
    mean_loss,
)
from jax_prompts.inference.ranking import Rank, Ranked, label_arrays, log_probabilities, make_rank
from jax_prompts.length_plan import EvaluationPlan, plan_evaluation
from jax_prompts.models.bert import Bert
from jax_prompts.models.mask_place import with_mask
from jax_prompts.scoring.answers import Answers
from jax_prompts.scoring.journal import NOTHING_KEPT, Journal
from jax_prompts.scoring.task_evaluator import Scores, TaskEvaluator

Tree = Any


@dataclasses.dataclass(frozen=True)
class _Asked:
    """Members that one pass asks.

    Attributes:
      members: their numbers.
      params: the model's parameters.
      prompts_QD: the prompts of all members of the run.
      prompt_ids_EP: which rows of that are theirs.
    """

    members: list[int]
    params: Tree
    prompts_QD: Float[Array, "Q D"] | None
    prompt_ids_EP: Int[np.ndarray, "E P"]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores members on every task of an evaluation split.

    Examples are answered longer ones first, in batches of like length, and their answers put back in order.

    By generation, and with `Data.rank_classification` by ranking the labels of tasks that have some, too (a
    BERT's answer is its likeliest label already); by loss where a task has no metric.
    """

    model: Model
    vocabulary: Vocabulary | WordPiece
    caches: list[TokenCache]
    data: Data
    decoding: Decoding
    mesh: jax.sharding.Mesh | None = None
    journal: Journal = NOTHING_KEPT
    passes: int = 1  # how often it is called, more or less
    prompt_tasks: tuple[str, ...] = ()  # those with prompts of their own, [E, T*P, D]; empty: one is for all

    def __post_init__(self) -> None:
        """Raises ConfigError for a setting that cannot work."""
        own, scored = self.prompt_tasks, [cache.task for cache in self.caches]
        if own and (without := sorted(set(scored) - set(own))):
            raise ConfigError(
                f"{', '.join(without)} has no training examples to tune a prompt of its own on: take it out of the "
                "mixture, or set PROMPT_OF_EACH_TASK = False"
            )
        if self.data.rank_classification and all(cache.labels is None for cache in self.caches):
            raise ConfigError(
                f"RANK_CLASSIFICATION is True, but {self.data.task} answers with free text: set it to False"
            )

    def __call__(
        self, params_E: Sequence[Tree], prompts_EPD: Float[Array, "E P D"] | None
    ) -> list[dict[str, Scores]]:
        """Scores by task, of each member; without prompts, of the bare model.

        Args:
          params_E: the parameters of each; where they are the same tree for all, one pass asks all of them.
          prompts_EPD: the prompt of each, or those of all `prompt_tasks` one behind the other.
        """
        results: list[dict[str, Scores]] = [{} for _ in params_E]
        for cache in self.caches:
            own_EPD = self._of_task(prompts_EPD, cache.task)
            for asked in self._asked(params_E, own_EPD, together=bool(cache.metrics)):
                scores_E = self._scores(asked, cache) if cache.metrics else [self._loss(asked, cache)]
                for member, scores in zip(asked.members, scores_E, strict=True):
                    results[member][cache.task] = scores
        return results

    def log_p(
        self,
        params_E: Sequence[Tree],
        prompts_EPD: Float[Array, "E P D"] | None,
        cache: TokenCache,
        examples_N: Int[np.ndarray, " N"],
        texts_NC: Sequence[Sequence[str]],
    ) -> Float[np.ndarray, "N E C"]:
        """How likely each prompt of a T5 finds answers, in nats, end of sentence included.

        Args:
          params_E, prompts_EPD: as for scores.
          cache: of the task.
          examples_N: numbers of examples.
          texts_NC: C answers to each of them.
        """
        arrays, batch_size = self._targets(texts_NC), self.data.eval_batch_size
        found = []
        for asked in self._asked(params_E, prompts_EPD, together=True):
            members = len(asked.members)

            def labels(index: Int[np.ndarray, " _"], members: int = members) -> Batch:
                rows_B = np.minimum(index[0] + np.arange(batch_size), len(examples_N) * members - 1)
                return {name: x_NCU[rows_B // members].swapaxes(0, 1) for name, x_NCU in arrays.items()}

            rows = self._log_p(asked, cache, "answers", labels, examples_N=examples_N)
            found.append(np.reshape(rows, (len(examples_N), members, -1)))
        return np.concatenate(found, axis=1)

    def _of_task(self, prompts_EQD: Float[Array, "E Q D"] | None, task: str) -> Float[Array, "E P D"] | None:
        if prompts_EQD is None or not self.prompt_tasks:
            return prompts_EQD
        return jnp.split(prompts_EQD, len(self.prompt_tasks), axis=1)[self.prompt_tasks.index(task)]

    def _asked(
        self, params_E: Sequence[Tree], prompts_EPD: Float[Array, "E P D"] | None, *, together: bool
    ) -> Iterator[_Asked]:
        """The members, all of them in one pass or one after another: so those who have leaves of their own."""
        members, length = (len(params_E), 0) if prompts_EPD is None else prompts_EPD.shape[:2]
        prompts_QD = None if prompts_EPD is None else prompts_EPD.reshape(members * length, -1)
        ids_Q = self.model.config.vocab_size + np.arange(members * length, dtype=np.int32)
        ids_EP = ids_Q.reshape(members, length)
        ids_EP = with_mask(ids_EP) if isinstance(self.model, Bert) and self.model.at_mask else ids_EP
        if together and all(params is params_E[0] for params in params_E):
            yield _Asked(list(range(members)), params_E[0], prompts_QD, ids_EP)
        else:
            for member, params in enumerate(params_E):
                yield _Asked([member], params, prompts_QD, ids_EP[member : member + 1])

    def _planned(self, asked: _Asked, cache: TokenCache) -> EvaluationPlan:
        prompts, length = asked.prompt_ids_EP.shape
        return plan_evaluation(
            self.model, self.mesh, self.data, cache, prompts=prompts, prompt_length=length, passes=self.passes
        )

    def _batches(
        self, asked: _Asked, cache: TokenCache, plan: EvaluationPlan | None = None, **options: Any
    ) -> DeviceBatches:
        if plan is not None:
            options |= {"examples_N": plan.order_N, "lengths": plan.lengths}
        return device_batches(
            cache,
            batch_size=self.data.eval_batch_size,
            sharding=None if self.mesh is None else partition.batch_sharding(self.mesh, members=False),
            inputs_length=text_length(self.data, asked.prompt_ids_EP.shape[1]),
            prompt_ids_EP=asked.prompt_ids_EP,
            special_tokens=SpecialTokens.of(self.vocabulary),
            **options,
        )

    def _loss(self, asked: _Asked, cache: TokenCache) -> Scores:
        targets_length = self.data.task_feature_lengths["targets"]
        plan = self._planned(asked, cache)
        batches = self._batches(asked, cache, plan, targets_length=targets_length)
        losses = mean_loss(self._loss_step, asked.params, asked.prompts_QD, batches)
        return Scores(losses, [], chooses=cache.chooses)

    def _scores(self, asked: _Asked, cache: TokenCache) -> list[Scores]:
        answers_E = self._classes(asked, cache) if isinstance(self.model, Bert) else self._texts(asked, cache)
        return [self.task_evaluators[cache.task](answers) for answers in answers_E]

    def _classes(self, asked: _Asked, cache: TokenCache) -> list[Answers]:
        labels = cache.labels or ()
        rows = self._log_p_in_order(asked, cache, "classes", {})
        ranked_E = _of_members(asked, rows, labels, np.ones(len(labels), np.int32))
        return [
            Answers(classes.best, classes=classes, losses=_losses_of_classes(classes, cache))
            for classes in ranked_E
        ]

    def _texts(self, asked: _Asked, cache: TokenCache) -> list[Answers]:
        members = len(asked.members)
        answered = functools.partial(
            answered_texts, self._answer(cache.longest_targets), asked.params, asked.prompts_QD
        )
        plan, targets_length = self._planned(asked, cache), self.data.task_feature_lengths["targets"]
        batches = functools.partial(self._batches, asked, cache, plan, targets_length=targets_length)
        sorted_rows = self.journal.collect(
            self._part(cache, "answered", asked),
            lambda start: answered(batches(start=start), self._read),
        )
        rows = [sorted_rows[row] for row in plan.rows_in_order(members)]
        ranked_E: list[Ranked | None] = [None] * members
        if self.data.rank_classification and cache.labels is not None:
            arrays = label_arrays(
                cache.labels, self.vocabulary, self.data.task_feature_lengths["targets"], self._begin
            )
            log_p_RC = self._log_p_in_order(asked, cache, "labels", arrays)
            tokens_C = arrays["decoder_loss_weights"].sum(axis=1).astype(np.int32)
            ranked_E = [*_of_members(asked, log_p_RC, cache.labels, tokens_C)]
        answers_E = []
        for member, ranked in enumerate(ranked_E):
            texts, *sums = zip(*rows[member::members], strict=True)
            losses = losses_of(dict(zip(SUMS, map(math.fsum, sums), strict=True)))
            answers_E.append(Answers(texts, ranked, losses=losses))
        return answers_E

    def _log_p_in_order(
        self, asked: _Asked, cache: TokenCache, part: str, labels: Batch
    ) -> Float[np.ndarray, "R C"]:
        """Of each row of a task, in order, how likely it makes the labels."""
        plan = self._planned(asked, cache)
        return self._log_p(asked, cache, part, labels, plan=plan)[plan.rows_in_order(len(asked.members))]

    def _part(self, cache: TokenCache, part: str, asked: _Asked) -> str:
        """The name of some answers in the journal; those in another order have another one."""
        order = "" if self.data.length_groups == 1 else "by-length-"
        return f"{cache.task}-{part}-{order}{asked.members[0]}"

    def _log_p(
        self,
        asked: _Asked,
        cache: TokenCache,
        part: str,
        labels: Batch | Callable[[Int[np.ndarray, " _"]], Batch],
        **options: Any,
    ) -> Float[np.ndarray, "R C"]:
        """Of each row, an example behind a member's prompt, how likely it makes the labels."""

        def rows(start: int) -> Iterator[list[list[float]]]:
            batches = self._batches(asked, cache, start=start, **options)
            found = log_probabilities(self._rank, asked.params, asked.prompts_QD, batches, labels)
            return (log_p_BC.tolist() for log_p_BC in found)

        return np.array(self.journal.collect(self._part(cache, part, asked), rows), dtype=np.float32)

    def _targets(self, texts_NC: Sequence[Sequence[str]]) -> Batch:
        """Answers as targets, [N, C, U] each."""
        tokens = [
            [*self._begin, *self.vocabulary.encode(text), self.vocabulary.eos_id]
            for texts in texts_NC
            for text in texts
        ]
        arrays = decoder_arrays(RaggedTokens.of(tokens), max(map(len, tokens)))
        return {name: x.reshape(len(texts_NC), -1, x.shape[-1]) for name, x in arrays.items()}

    @property
    def _begin(self) -> list[int]:
        """Token ids in front of every answer."""
        first = self.vocabulary.first_sentinel if isinstance(self.vocabulary, Vocabulary) else None
        return [first] if self.data.sentinel and first is not None else []

    def _read(self, ids_U: Int[np.ndarray, " U"]) -> str:
        """An answer as it is scored."""
        text = self.vocabulary.decode(ids_U)
        return behind_sentinel(text) if self.data.sentinel else text

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
    def _programs(self) -> dict[int, Answer]:
        return {}

    def _answer(self, max_length: int) -> Answer:
        """The compiled program for answers of up to `max_length` tokens, T5X's limit: the longest target."""
        if max_length not in self._programs:
            self._programs[max_length] = make_answer(self.model, self.decoding, max_length, self.mesh)
        return self._programs[max_length]


def _losses_of_classes(classes: Ranked, cache: TokenCache) -> Losses:
    """As `losses_of`, of examples whose class is known; none where no example's is."""
    texts = [cache.example(index)["targets_pretokenized"] for index in range(len(cache))]
    known = [
        (index, classes.labels.index(text)) for index, text in enumerate(texts) if text in classes.labels
    ]
    if not known:
        return {}
    log_p = [float(classes.log_p_NC[index, number]) for index, number in known]
    correct = sum(classes.best[index] == classes.labels[number] for index, number in known)
    return losses_of({"loss_sum": -math.fsum(log_p), "tokens": len(known), "correct": correct})


def _of_members(
    asked: _Asked, log_p_RC: Float[np.ndarray, "R C"], labels: Sequence[str], tokens_C: Int[np.ndarray, " C"]
) -> list[Ranked]:
    """Each member's rows."""
    members = len(asked.members)
    return [Ranked(labels, log_p_RC[member::members], tokens_C) for member in range(members)]
