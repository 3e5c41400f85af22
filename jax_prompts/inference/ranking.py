"""Ranks answers, such as the labels of a task: each is scored, and the likeliest one taken (no generation).

By the sum of its tokens' log-probabilities, or by their mean, which does not favour short labels (T-Few, Liu et
al. 2022, arXiv:2205.05638, offers both). C labels of up to U tokens, end of sentence included.
"""

from __future__ import annotations

import dataclasses
import functools
import reprlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts import losses, partition
from jax_prompts.base_models.build import Model
from jax_prompts.cpu import compiler_options
from jax_prompts.data.layout import Batch, RaggedTokens, decoder_arrays
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.distributed.global_arrays import gathered
from jax_prompts.errors import ConfigError
from jax_prompts.inference.predict import DeviceBatches
from jax_prompts.models.bert import Bert

MAX_LABEL_TOKENS = 1024  # attention takes their square; T5 was trained on targets of at most 114
Tree = Any
Rank = Callable[..., Float[Array, "B C"]]


@dataclasses.dataclass(frozen=True)
class Ranked:
    """Log-probabilities of the C labels for N examples.

    Attributes:
      labels: their texts.
      log_p_NC: sum of each label's token log-probabilities given the input, in nats.
      tokens_C: tokens of each label, end of sentence included.
    """

    labels: Sequence[str]
    log_p_NC: Float[np.ndarray, "N C"]
    tokens_C: Int[np.ndarray, " C"]

    def log_p(self, index: int) -> dict[str, float]:
        """Log-probability of each label for one example."""
        return dict(zip(self.labels, map(float, self.log_p_NC[index]), strict=True))

    @functools.cached_property
    def best(self) -> list[str]:
        """The likeliest label of each example; the first among equals."""
        return [self.labels[index] for index in self.log_p_NC.argmax(axis=1)]

    @functools.cached_property
    def best_normalized(self) -> list[str]:
        """The label with the highest mean of its token log-probabilities."""
        return [self.labels[index] for index in (self.log_p_NC / self.tokens_C[None]).argmax(axis=1)]


def make_rank(model: Model, mesh: jax.sharding.Mesh | None = None) -> Rank:
    """The compiled `rank(params, prompts_QD, encoder_input_tokens, labels) -> log_p_BC`.

    `labels` are those of `label_arrays`, [C, U], or C for each row, [C, B, U]. The encoder runs once a batch, the
    decoder once a label, so that memory does not grow with the labels. A BERT ranks the C labels of its classifier,
    whatever `labels` are.
    """

    def rank(
        params: Tree,
        prompts_QD: Float[Array, "Q D"] | None,
        encoder_input_tokens: Int[Array, "B L"],
        labels: dict[str, Array],
    ) -> Float[Array, "B C"]:
        apply: Callable[..., Any] = functools.partial(model.apply, {"params": params})
        if isinstance(model, Bert):
            logits_B1C = apply(encoder_input_tokens, None, prompts_QD)
            return jax.nn.log_softmax(logits_B1C[:, 0])
        encoded = apply(encoder_input_tokens, prompts_QD, method="encode")

        def log_p(label: dict[str, Array]) -> Float[Array, " B"]:
            rows = {
                name: jnp.broadcast_to(x, (len(encoder_input_tokens), x.shape[-1]))
                for name, x in label.items()
            }
            hidden_BUD = apply(encoded, encoder_input_tokens, rows["decoder_input_tokens"], method="decode")
            logits_fn = functools.partial(apply, method="logits")
            wanted = rows["decoder_target_tokens"], rows["decoder_loss_weights"]
            return -losses.token_sums(logits_fn, hidden_BUD, *wanted, z_loss=0.0)[0]

        return jax.lax.map(log_p, labels).T

    return jax.jit(partition.on(mesh, rank), compiler_options=compiler_options(mesh))


def label_arrays(
    labels: Sequence[str],
    vocabulary: Vocabulary | WordPiece,
    targets_length: int | None = None,
    begin: Sequence[int] = (),
) -> Batch:
    """The labels as targets, [C, U] each: whole, or cut to `targets_length` as the task's own targets are.

    They begin with the ids `begin`.

    Raises:
      ConfigError: no labels, a whole one of over `MAX_LABEL_TOKENS`, or two that are one, after the cut or without.
    """
    if isinstance(labels, str) or not labels:
        raise ConfigError(f"labels is {labels!r}: give a list of strings")
    tokens = [[*begin, *vocabulary.encode(label), vocabulary.eos_id] for label in labels]
    longest = max(map(len, tokens))
    if targets_length is None and longest > MAX_LABEL_TOKENS:
        label = reprlib.repr(max(zip(tokens, labels, strict=True), key=lambda pair: len(pair[0]))[1])
        raise ConfigError(
            f"label {label} has {longest:,} tokens, over {MAX_LABEL_TOKENS:,}: give a shorter one"
        )
    arrays = decoder_arrays(
        RaggedTokens.of(tokens), longest if targets_length is None else min(targets_length, longest)
    )
    seen: dict[bytes, str] = {}
    for label, row_U in zip(labels, arrays["decoder_target_tokens"], strict=True):
        other = seen.setdefault(row_U.tobytes(), label)
        if other != label and targets_length is None:
            raise ConfigError(f"labels {other!r} and {label!r} are the same tokens: leave one out")
        if other != label:
            raise ConfigError(
                f"TASK_FEATURE_LENGTHS targets {targets_length} leaves nothing that tells label {label!r} from "
                f"{other!r}: raise it for RANK_CLASSIFICATION"
            )
    return arrays


def log_probabilities(
    rank: Rank,
    params: Tree,
    prompts_QD: Float[Array, "Q D"] | None,
    batches: DeviceBatches,
    labels: Batch | Callable[[Int[np.ndarray, " _"]], Batch],
) -> Iterator[Float[np.ndarray, "_ C"]]:
    """log P of each label, in nats, for the rows of one batch after another.

    Args:
      rank, params, prompts_QD, batches: of the model.
      labels: for `rank`; or a function that gives those of rows, by their numbers.
    """
    for index, batch in batches:
        of_rows = labels(index) if callable(labels) else labels
        yield gathered(rank(params, prompts_QD, batch["encoder_input_tokens"], of_rows))[: len(index)]
