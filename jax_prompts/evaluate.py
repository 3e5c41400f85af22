"""Scores: predict, postprocess, compare. Prompts are rows of one table, so one program serves any number."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts import decoding, global_arrays, partition, processes
from jax_prompts.base import Model, make_model, make_vocabulary
from jax_prompts.config import ConfigError, Data, Decoding, EvalRun
from jax_prompts.cpu import compiler_options
from jax_prompts.data.cache import TokenCache, digests
from jax_prompts.data.layout import Frame, text_length
from jax_prompts.data.roles import open_role, split_of
from jax_prompts.data.sampler import eval_batches
from jax_prompts.data.vocabulary import Vocabulary
from jax_prompts.data.wordpiece import WordPiece
from jax_prompts.fingerprint import fingerprint
from jax_prompts.models.bert import Bert
from jax_prompts.prompts import load_head, load_prompts
from jax_prompts.ranking import DeviceBatches, Rank, make_rank, rank_labels
from jax_prompts.records import Records
from jax_prompts.scoring.baselines import warn_of_constants
from jax_prompts.scoring.scores import Judge, Scores, majority_vote, report
from jax_prompts.step import Metrics, loss_sums
from jax_prompts.trees import head_tree
from jax_prompts.weights import HEAD, load_weights

Tree = Any
Predict = Callable[..., Int[Array, "B U"]]
LossStep = Callable[..., Metrics]


def make_predict(
    model: Model, settings: Decoding, max_length: int, mesh: jax.sharding.Mesh | None = None
) -> Predict:
    """A compiled `predict(params, prompts_QD, encoder_input_tokens, key) -> ids_BU`: tokens, or a class [B, 1]."""

    def predict(
        params: Tree,
        prompts_QD: Float[Array, "Q D"] | None,
        encoder_input_tokens: Int[Array, "B L"],
        key: Array,
    ) -> Int[Array, "B U"]:
        apply = functools.partial(model.apply, {"params": params})
        if isinstance(model, Bert):
            logits_B1C = jnp.asarray(apply(encoder_input_tokens, None, prompts_QD))
            return jnp.argmax(logits_B1C, axis=-1)
        cache = apply(encoder_input_tokens, prompts_QD, max_length, method="start_decoding")
        logits_fn = functools.partial(apply, method="decode_step")
        batch_size = encoder_input_tokens.shape[0]
        return decoding.decode(logits_fn, cache, settings, batch_size, max_length, key)

    return jax.jit(partition.on(mesh, predict), compiler_options=compiler_options(mesh))


def make_loss_step(model: Model, mesh: jax.sharding.Mesh | None = None) -> LossStep:
    """A compiled `loss_sums(params, prompts_QD, batch)` of this model."""
    sums = partition.on(mesh, functools.partial(loss_sums, model))
    return jax.jit(sums, compiler_options=compiler_options(mesh))


def label_of(labels: Sequence[str]) -> Callable[[Int[np.ndarray, " 1"]], str]:
    """How a BERT's class reads."""
    return lambda class_1: labels[int(class_1[0])]


def device_batches(
    cache: TokenCache,
    prompt_ids: Int[np.ndarray, " P"],
    *,
    inputs_length: int,
    batch_size: int,
    frame: Frame,
    targets_length: int | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> DeviceBatches:
    """All examples of a cache, in order, with one prompt in front (or none); see `eval_batches`.

    Of several processes each makes the rows of its devices.
    """
    rows_here_K = global_arrays.rows_here(sharding, batch_size)
    for batch in eval_batches(
        cache,
        batch_size=batch_size,
        inputs_length=inputs_length,
        prompt_ids=prompt_ids,
        frame=frame,
        targets_length=targets_length,
        rows_here_K=rows_here_K,
    ):
        real_B = batch.pop("index") >= 0
        yield real_B, global_arrays.put_batch(batch, sharding, batch_size)


def predict_texts(
    predict: Predict,
    params: Tree,
    prompts_QD: Float[Array, "Q D"] | None,
    batches: DeviceBatches,
    read: Callable[[Int[np.ndarray, " U"]], str],
) -> list[str]:
    """The model's answer to every example, in order."""
    texts: list[str] = []
    for real_B, batch in batches:
        key = jax.random.fold_in(jax.random.key(0), len(texts))
        ids_BU = global_arrays.gathered(predict(params, prompts_QD, batch["encoder_input_tokens"], key))
        texts += [read(ids) for ids in ids_BU[real_B]]
    return texts


def mean_loss(
    loss_step: LossStep, params: Tree, prompts_QD: Float[Array, "Q D"] | None, batches: DeviceBatches
) -> dict[str, float]:
    """Cross-entropy a target token (nats) and token accuracy in percent: how tasks without metrics are scored."""
    sums: dict[str, float] = collections.defaultdict(float)
    for _, batch in batches:  # rows that fill the last batch have loss weight 0
        for name, value in loss_step(params, prompts_QD, batch).items():
            sums[name] += float(value)
    return {
        "loss": sums["loss_sum"] / sums["tokens"],
        "token_accuracy": 100 * sums["correct"] / sums["tokens"],
    }


@dataclasses.dataclass(frozen=True)
class Scorer:
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
        if self.data.bootstrap < 0:
            raise ConfigError(f"BOOTSTRAP is {self.data.bootstrap}: set it to a number of resamples, or to 0")
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
            frame=Frame.of(self.vocabulary),
            sharding=None if self.mesh is None else partition.batch_sharding(self.mesh, members=False),
        )
        asked = params, prompts_QD
        targets_length = self.data.task_feature_lengths["targets"]
        if not cache.metrics:
            return Scores(mean_loss(self._loss_step, *asked, batches(targets_length=targets_length)), [])
        if isinstance(self.model, Bert):
            texts = predict_texts(self._predict(1), *asked, batches(), label_of(cache.labels or ()))
            return self.judges[cache.task](texts)
        predict = self._predict(cache.longest_targets)
        texts = predict_texts(predict, *asked, batches(), self.vocabulary.decode)
        ranked = None
        if self.data.rank_classification and cache.labels is not None:
            ranked = rank_labels(
                self._rank, *asked, batches(), cache.labels, self.vocabulary, targets_length=targets_length
            )
        return self.judges[cache.task](texts, ranked)

    @functools.cached_property
    def judges(self) -> dict[str, Judge]:
        """By task."""
        return {cache.task: Judge(cache, self.data.bootstrap) for cache in self.caches}

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


def checked_head(model: Model, path: str | os.PathLike[str], labels: Sequence[str]) -> Tree:
    """A prompt file's classifier for a BERT with these labels; of a T5, which needs none, an empty tree.

    Raises:
      ConfigError: the file has no classifier, or one for other labels.
      RunError: it cannot be read.
    """
    if not isinstance(model, Bert):
        return {}
    arrays, about = load_head(path)
    head = head_tree(arrays)
    if HEAD not in head:
        raise ConfigError(
            f"{path} holds no classifier, and a BERT answers with one: use a prompt tuned on BERT"
        )
    if about.labels != tuple(labels):
        ours, theirs = ", ".join(labels) or "none", ", ".join(about.labels) or "none"
        raise ConfigError(
            f"{path} was tuned for the labels {theirs}, and the task has {ours}: use its own task"
        )
    return head


def evaluate_run(run: EvalRun, config_text: str) -> dict[str, Any]:
    """`t5x eval`: every prompt file alone and, when there are several, all as an ensemble; without any, the bare model.

    Several processes share the rows of every batch, and each ends with all answers.

    Raises:
      ConfigError: settings that cannot work, a prompt that does not fit the model.
      RunError: a file that cannot be read or written.
    """
    processes.agree_on_settings(config_text)
    decoding.check(run.decoding)
    mesh = partition.mesh_of(run.model)
    partition.check_batch("EVAL_BATCH_SIZE", run.data.eval_batch_size, mesh)
    vocabulary = make_vocabulary(run.model)
    caches = processes.in_turns(lambda: open_role(run.data, vocabulary, run.role))
    split = split_of(run.data, run.role)
    processes.agree("examples", digests(caches))
    labels = tuple(caches[0].labels or ())
    model = make_model(run.model, vocabulary=vocabulary, classes=len(labels))
    params = load_weights(run.model, model, mesh=mesh)
    prompts, place = load_prompts(
        run.prompt_files,
        prompt_width=model.config.prompt_width,
        model_fingerprint=fingerprint(params),
        tokenizer_fingerprint=vocabulary.fingerprint,
    )
    processes.agree(
        "prompt files",
        {
            file: hashlib.sha256(p.tobytes()).hexdigest()
            for file, p in zip(run.prompt_files, prompts, strict=True)
        },
    )
    scorer = Scorer(model.clone(place=place), vocabulary, caches, run.data, run.decoding, mesh)
    heads = [checked_head(model, path, labels) for path in run.prompt_files]
    # One prompt at a time: files may differ in length.
    results = [
        scorer([{**params, **head}], jnp.asarray(prompt_PD)[None])[0]
        for prompt_PD, head in zip(prompts, heads, strict=True)
    ] or scorer([params], None)
    names = list(run.prompt_files) or ["no prompt"]
    if len(prompts) > 1:
        names.append("ensemble")
        results.append(_ensemble(scorer, results))
    summary: dict[str, Any] = {
        "task": run.data.task,
        "split": split,
        "examples": {cache.task: len(cache) for cache in caches},
    }
    for name, scores in zip(names, results, strict=True):
        about = report(scores)
        warn_of_constants(about.get("about_scores", {}), name)
        for part, values in about.items():
            summary.setdefault(part, {})[name] = values
    if len(prompts) > 1:
        summary["ensemble"] = summary["metrics"].pop("ensemble")
    if run.output_dir is not None:
        records = Records(run.output_dir, None)
        for number, (name, tasks) in enumerate(zip(names, results, strict=True)):
            which = name if name == "ensemble" else str(number)
            for task, found in tasks.items():
                records.predictions(f"{task}-{which}", split, found.predictions)
        records.write("eval.json", summary)
    return summary


def _ensemble(scorer: Scorer, results: Sequence[dict[str, Scores]]) -> dict[str, Scores]:
    """Scores of the prompts' majority vote, on every task that is scored by its answers."""
    scores = {}
    for task, judge in scorer.judges.items():
        if judge.cache.metrics:
            texts_E = [[row["prediction"] for row in found[task].predictions] for found in results]
            scores[task] = judge(majority_vote(texts_E))
    return scores
