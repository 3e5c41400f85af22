"""One prompt's answers to the examples of a task's split, or the log-probability of their targets, written as shards.

Shard i of N has the examples i, i + N, i + 2 N, ... N examples, P prompt length, B rows, U target tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jax_prompts import partition
from jax_prompts.base_models.build import Model
from jax_prompts.config import Decoding
from jax_prompts.data.cache import TokenCache, digests
from jax_prompts.data.layout import SpecialTokens, text_length
from jax_prompts.data.vocabularies.sentencepiece import behind_sentinel
from jax_prompts.display import LineDisplay, log
from jax_prompts.distributed import global_arrays
from jax_prompts.evaluate import Evaluation
from jax_prompts.inference.predict import Predict, device_batches, make_predict
from jax_prompts.inference.ranking import Rank, make_rank
from jax_prompts.inference.shards import Row, Shards
from jax_prompts.length_plan import plan_evaluation
from jax_prompts.runs import InferTaskRun

Tree = Any


@dataclasses.dataclass(frozen=True)
class AskedPrompt:
    """A prompt as the model takes it.

    Attributes:
      model, params: with what was tuned inside it.
      prompts_QD: its vectors; None without any.
      mark: a digest of what it answers with.
    """

    model: Model
    params: Tree
    prompts_QD: Float[np.ndarray, "Q D"] | None
    mark: str

    @property
    def length(self) -> int:
        """P."""
        return 0 if self.prompts_QD is None else len(self.prompts_QD)


@dataclasses.dataclass(frozen=True)
class SplitAnswers:
    """What one prompt says to one task.

    Attributes:
      run: its settings.
      opened: models and examples of all tasks.
      cache: of the task.
      prompt: the prompt.
      folder: path or URL for the shards.
    """

    run: InferTaskRun
    opened: Evaluation
    cache: TokenCache
    prompt: AskedPrompt
    folder: str

    @property
    def shards(self) -> Shards:
        """Their files."""
        return Shards(self.folder, self.cache.task, self.run.mode, self.run.num_shards)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the rows depend on, under the names that users know."""
        run, data, base = self.run, self.run.data, self.run.model
        return {
            "model": self.opened.base["model_fingerprint"],
            "vocabulary": self.opened.base["tokenizer_fingerprint"],
            "prompt": self.prompt.mark,
            "examples": digests([self.cache]),
            "PROTOCOL": data.protocol,
            "SUBSET_SEED": data.subset_seed,
            "PromptDesign": dataclasses.asdict(data.prompt_design),
            "TASK_FEATURE_LENGTHS": data.task_feature_lengths,
            "PROMPT_INSIDE_LENGTH": data.prompt_inside_length,
            "SENTINEL": data.sentinel,
            "EVAL_BATCH_SIZE": data.eval_batch_size,
            "LENGTH_GROUPS": data.length_groups,
            "InferTaskRun.checkpoint_period": run.checkpoint_period,
            "BaseModel.activation_dtype": base.activation_dtype,
            "BaseModel.weight_dtype": base.weight_dtype,
            "Decoding": dataclasses.asdict(run.decoding) if run.mode == "predict" else None,
        }

    @property
    def cut(self) -> int:
        """How many texts are longer than what the model reads of them."""
        return self.cache.cut(self._inputs_length)["inputs"]

    def examples_N(self, shard: int) -> Int[np.ndarray, " N"]:
        """Numbers of the examples of a shard."""
        return np.arange(shard, len(self.cache), self.run.num_shards)

    def make(
        self, shard: int, *, writes: bool, told: Callable[[set[int]], set[int]], display: LineDisplay
    ) -> None:
        """Writes a shard, behind those of its chunks that are there.

        Args:
          shard: its number.
          writes: whether this process writes; others compute with one that does.
          told: function from the chunks that this process finds to those that are there for all who compute.
          display: counts examples.
        """
        examples_N, size = self.examples_N(shard), self.run.checkpoint_period * self.run.data.eval_batch_size
        chunks = [examples_N[first : first + size] for first in range(0, len(examples_N), size)]
        rows_each = [len(wanted_N) for wanted_N in chunks]
        there = told(self.shards.chunks(shard, rows_each) if writes else set())
        for chunk, wanted_N in enumerate(chunks):
            if chunk in there:
                display.advance(len(wanted_N))
                continue
            rows: dict[int, Row] = {}
            for example, value in self._values(wanted_N):
                rows[example] = self._row(example, value)
                display.advance(1)
            if writes:
                self.shards.write_chunk(shard, chunk, [rows[example] for example in sorted(rows)])
        if writes:
            self.shards.finish(shard, rows_each)
            log(f"{self.shards.address(shard)}: {len(examples_N)} examples")

    def _row(self, example: int, value: str | float) -> Row:
        """A line as T5X writes it: all texts of the example, and what the model says."""
        found = self.cache.example(example)
        texts = ("inputs_pretokenized", "targets_pretokenized")
        more = sorted(name for name in found if name.endswith("_pretokenized") and name not in texts)
        what = "prediction" if self.run.mode == "predict" else "score"
        return {"inputs": {name: found[name] for name in (*texts, *more)}, what: value}

    def _values(self, wanted_N: Int[np.ndarray, " N"]) -> Iterator[tuple[int, str | float]]:
        """(number, answer or log-probability in nats) of examples, a batch at a time, longer ones first."""
        order_N = wanted_N
        if self.run.data.length_groups != 1:
            order_N = wanted_N[np.argsort(-self.cache.input_lengths_N[wanted_N], kind="stable")]
        first = self.prompt.model.config.vocab_size
        mesh, score = self.opened.mesh, self.run.mode == "score"
        targets_length = self.run.data.task_feature_lengths["targets"]
        batches = device_batches(
            self.cache,
            batch_size=self.run.data.eval_batch_size,
            sharding=partition.batch_sharding(mesh, members=False),
            inputs_length=self._inputs_length,
            prompt_ids_EP=np.arange(first, first + self.prompt.length, dtype=np.int32)[None],
            special_tokens=SpecialTokens.of(self.opened.vocabulary),
            targets_length=targets_length if score else None,
            examples_N=order_N,
            lengths=self._lengths,
        )
        given = self.prompt.params, self.prompt.prompts_QD
        first_key = jax.random.fold_in(jax.random.key(0), int(wanted_N[0]))
        for index, batch in batches:
            inputs_BL = batch.pop("encoder_input_tokens")
            if score:
                targets = {name: array[None] for name, array in batch.items()}
                found = _score(self.prompt.model, mesh)(*given, inputs_BL, targets)
                values: Sequence[Any] = global_arrays.gathered(found)[:, 0].tolist()
            else:
                predict = _predict(self.prompt.model, self.run.decoding, targets_length, mesh)
                key = jax.random.fold_in(first_key, int(index[0]))
                values = [*map(self._read, global_arrays.gathered(predict(*given, inputs_BL, key)))]
            yield from zip(order_N[index].tolist(), values[: len(index)], strict=True)

    def _read(self, ids_U: Int[np.ndarray, " U"]) -> str:
        text = self.opened.vocabulary.decode(ids_U)
        return behind_sentinel(text) if self.run.data.sentinel else text

    @property
    def _inputs_length(self) -> int:
        return text_length(self.run.data, self.prompt.length)

    @functools.cached_property
    def _lengths(self) -> tuple[int, ...]:
        """Text tokens that batches are padded to."""
        plan = plan_evaluation(
            self.prompt.model,
            self.opened.mesh,
            self.run.data,
            self.cache,
            prompts=1,
            prompt_length=self.prompt.length,
            passes=1,
        )
        return plan.lengths


@functools.lru_cache(maxsize=4)  # prompts and tasks share programs
def _predict(model: Model, decoding: Decoding, targets_length: int, mesh: jax.sharding.Mesh) -> Predict:
    return make_predict(model, decoding, targets_length, mesh)


@functools.lru_cache(maxsize=4)
def _score(model: Model, mesh: jax.sharding.Mesh) -> Rank:
    return make_rank(model, mesh)
