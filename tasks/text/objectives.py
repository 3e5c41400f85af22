"""Pre-training objectives on plain text: span corruption (Raffel et al. 2020, section 3.1.4), LM adaptation (Lester et
al. 2021, sections 2.2 and 3.2), and BERT's masked words.

Paragraphs are joined and cut into segments of one length, so that no row holds padding.
Every segment of one length masks as many tokens in as many spans, so that rows of a batch are equally long.
Letters: S tokens in a segment, N segments at once, K spans, T and U tokens in a row of inputs and targets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import seqio
import tensorflow as tf
from jaxtyping import Bool, Int

from tasks.errors import TaskError

NOISE_DENSITY, MEAN_SPAN_LENGTH = 0.15, 3.0
MEAN_SPAN_BYTES = 20.0  # of ByT5 (Xue et al. 2022, section 3.1), which masks bytes
_PARAGRAPHS = 2048  # joined at once; what they leave over, less than one segment, is dropped
_SEED = 2021
PAD, NO_TARGET = 0, -1

Tokens = Int[np.ndarray, "N S"]
Objective = Callable[[Tokens, np.random.Generator], tuple[Tokens, Tokens]]


def noise_shape(tokens: int, span: float = MEAN_SPAN_LENGTH) -> tuple[int, int]:
    """(noise tokens, spans) in a segment of `tokens` tokens, of which a span has `span` on average."""
    noise = max(1, round(tokens * NOISE_DENSITY))
    return noise, max(1, round(noise / span))


def corrupted_lengths(tokens: int, span: float = MEAN_SPAN_LENGTH) -> tuple[int, int]:
    """(inputs, targets) that a segment becomes, each with its sentinels and end of sentence."""
    noise, spans = noise_shape(tokens, span)
    return tokens - noise + spans + 1, noise + spans + 1


def span_corruption(
    dataset: tf.data.Dataset, sequence_length: Mapping[str, int], output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Masks 15 % of the tokens in spans of 3 on average, every placing equally likely; of bytes in spans of 20.

    Each span becomes one sentinel in `inputs`; `targets` are the sentinels, each followed by its span. Sentinels of
    bytes are those that ByT5 was trained with: the last bytes, which no text holds.
    Segments are the longest whose inputs fit: 568 tokens for inputs of 512 and targets of 114.

    Raises:
      TaskError: the lengths are too short, or the vocabulary has too few sentinels behind its pieces.
    """
    length, vocabulary = sequence_length["inputs"], output_features["inputs"].vocabulary
    span = MEAN_SPAN_BYTES if _is_bytes(vocabulary) else MEAN_SPAN_LENGTH
    # From 2 tokens on, inputs grow by one or not at all with each token more.
    longest = next(tokens for tokens in itertools.count(2) if corrupted_lengths(tokens + 1, span)[0] > length)
    inputs, targets = corrupted_lengths(longest, span)
    if inputs > length:
        raise TaskError(f"TASK_FEATURE_LENGTHS inputs {length}: span corruption needs at least {inputs}")
    if targets > sequence_length["targets"]:
        raise TaskError(
            f"TASK_FEATURE_LENGTHS targets {sequence_length['targets']}: "
            f"span corruption of inputs {length} needs {targets}"
        )
    first, count = _sentinels(vocabulary)
    if (spans := noise_shape(longest, span)[1]) > count:
        raise TaskError(
            f"TASK_FEATURE_LENGTHS inputs {length} needs {spans} sentinels, <extra_id_0> as the last id; the "
            f"vocabulary has {count}"
        )

    def corrupt(tokens_NS: Tokens, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        noise_NS = noise_mask(*tokens_NS.shape, rng, span)
        inputs_NT, targets_NU = corrupt_spans(tokens_NS, noise_NS, first)
        return _ended(inputs_NT, vocabulary.eos_id), _ended(targets_NU, vocabulary.eos_id)

    return _rows(dataset, output_features, longest, corrupt)


def _is_bytes(vocabulary: seqio.Vocabulary) -> bool:
    return len(getattr(vocabulary, "span_marks", ())) > 0


def _sentinels(vocabulary: seqio.Vocabulary) -> tuple[int, int]:
    """The first sentinel's id, from which others count down, and their number."""
    if _is_bytes(vocabulary):
        return vocabulary.span_marks[0], len(vocabulary.span_marks)
    last, piece = vocabulary.vocab_size - 1, vocabulary.tokenizer.id_to_piece
    found = itertools.takewhile(lambda i: piece(last - i).endswith(f"<extra_id_{i}>"), range(last))
    return last, len(list(found))


def prefix_lm(
    dataset: tf.data.Dataset, sequence_length: Mapping[str, int], output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Cuts each segment in two: the prefix is read, the rest is written.

    The cut is uniform over those that leave a token on either side and fit both lengths.

    Raises:
      TaskError: the lengths leave no room for a token beside the end of sentence.
    """
    length, written = sequence_length["inputs"], sequence_length["targets"]
    eos = output_features["inputs"].vocabulary.eos_id
    if min(length, written) < 2:
        raise TaskError(
            f"TASK_FEATURE_LENGTHS inputs {length}, targets {written}: prefix_lm needs at least 2 of each"
        )

    def cut(tokens_NS: Tokens, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        cut_N1 = rng.integers(max(1, length - written + 1), length, (len(tokens_NS), 1))
        after_NS = np.arange(length) - cut_N1
        read_NS = np.where(after_NS < 0, tokens_NS, np.where(after_NS == 0, eos, PAD))
        return read_NS, _ended(np.where(after_NS < 0, PAD, tokens_NS), eos)

    def without_padding(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: tf.boolean_mask(ids, ids != PAD) for name, ids in row.items()}

    return _rows(dataset, output_features, length, cut).map(without_padding)


def masked_lm(
    dataset: tf.data.Dataset, sequence_length: Mapping[str, int], output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """BERT's objective (Devlin et al. 2019, section 3.1), for a WordPiece vocabulary: [CLS] segment [SEP].

    15 % of a segment's tokens are targets, all other positions -1; of the targets' inputs 80 % become [MASK],
    10 % a random piece, 10 % stay. There is no next-sentence prediction.

    Raises:
      TaskError: another vocabulary, or lengths that leave no room or differ.
    """
    length, vocabulary = sequence_length["inputs"], output_features["inputs"].vocabulary
    if not hasattr(vocabulary, "mask_id"):
        raise TaskError("masked_lm needs a BERT: set MODEL_SIZE to one, or choose span_corruption")
    if length < 3 or sequence_length["targets"] != length:
        raise TaskError(
            f"TASK_FEATURE_LENGTHS inputs {length}, targets {sequence_length['targets']}: masked_lm needs equal "
            "lengths of at least 3"
        )

    def mask(tokens_NS: Tokens, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        count = max(1, round(tokens_NS.shape[1] * NOISE_DENSITY))
        chosen_NS = rng.permuted(
            np.broadcast_to(np.arange(tokens_NS.shape[1]) < count, tokens_NS.shape), axis=1
        )
        kind_NS = rng.random(tokens_NS.shape)
        random_NS = rng.integers(vocabulary.mask_id + 1, vocabulary.vocab_size, tokens_NS.shape)
        changed_NS = np.where(
            kind_NS < 0.8, vocabulary.mask_id, np.where(kind_NS < 0.9, random_NS, tokens_NS)
        )
        inputs_NS = np.where(chosen_NS, changed_NS, tokens_NS)
        inputs_NL = np.pad(
            _ended(inputs_NS, vocabulary.eos_id), ((0, 0), (1, 0)), constant_values=vocabulary.bos_id
        )
        targets_NS = np.where(chosen_NS, tokens_NS, NO_TARGET)
        return inputs_NL, np.pad(targets_NS, ((0, 0), (1, 1)), constant_values=NO_TARGET)

    return _rows(dataset, output_features, length - 2, mask)


def noise_mask(
    rows: int, length: int, rng: np.random.Generator, span: float = MEAN_SPAN_LENGTH
) -> Bool[np.ndarray, "N S"]:
    """True where a token is masked; each row begins with text, ends with noise and alternates."""
    noise, spans = noise_shape(length, span)
    text_NK, noise_NK = _partition(rows, length - noise, spans, rng), _partition(rows, noise, spans, rng)
    lengths = np.stack([text_NK, noise_NK], axis=-1).reshape(-1)
    return np.repeat(np.tile([False, True], rows * spans), lengths).reshape(rows, length)


def corrupt_spans(
    tokens_NS: Int[np.ndarray, "N S"], noise_NS: Bool[np.ndarray, "N S"], first_sentinel: int
) -> tuple[Int[np.ndarray, "N T"], Int[np.ndarray, "N U"]]:
    """Inputs and targets without end of sentence; every row masks as many tokens in as many spans."""
    return _masked(tokens_NS, noise_NS, first_sentinel), _masked(tokens_NS, ~noise_NS, first_sentinel)


def _masked(tokens_NS: Tokens, mask_NS: Bool[np.ndarray, "N S"], first_sentinel: int) -> Tokens:
    """Each masked span as one sentinel, counting down from `first_sentinel`."""
    start_NS = mask_NS.copy()
    start_NS[:, 1:] &= ~mask_NS[:, :-1]
    replaced_NS = np.where(start_NS, first_sentinel + 1 - np.cumsum(start_NS, axis=1), tokens_NS)
    return replaced_NS[start_NS | ~mask_NS].reshape(len(tokens_NS), -1).astype(np.int32)


def _partition(rows: int, total: int, parts: int, rng: np.random.Generator) -> Tokens:
    """Each row: `total` as `parts` whole numbers of at least 1, every such sum equally likely."""
    ends = rng.permuted(np.tile(np.arange(total - 1) < parts - 1, (rows, 1)), axis=1)
    ends_NK = np.nonzero(np.pad(ends, ((0, 0), (0, 1)), constant_values=True))[1].reshape(rows, parts)
    return np.diff(ends_NK, axis=1, prepend=-1)


def _ended(tokens_NS: Tokens, eos: int) -> Tokens:
    return np.pad(tokens_NS, ((0, 0), (0, 1)), constant_values=eos)


def _rows(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature], length: int, objective: Objective
) -> tf.data.Dataset:
    """Applies `objective` to the joined tokens of the paragraphs, `length` tokens a segment.

    What is random depends on the position in the data alone, so that filling again gives the same rows.
    """
    vocabulary = output_features["inputs"].vocabulary
    encode = vocabulary.encode_all if hasattr(vocabulary, "encode_all") else vocabulary.tokenizer.encode

    def make(number: np.ndarray, texts: np.ndarray) -> tuple[Tokens, Tokens]:
        ids = encode([text.decode() for text in texts])
        tokens = np.fromiter(itertools.chain.from_iterable(ids), np.int32)
        count = len(tokens) // length
        if not count:
            return (np.zeros((0, 0), np.int32),) * 2
        inputs, targets = objective(
            tokens[: count * length].reshape(count, length), np.random.default_rng([_SEED, number])
        )
        return inputs.astype(np.int32), targets.astype(np.int32)

    def to_rows(number: tf.Tensor, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs, targets = tf.numpy_function(make, [number, texts], [tf.int32, tf.int32], stateful=False)
        return {
            "inputs": tf.ensure_shape(inputs, [None, None]),
            "targets": tf.ensure_shape(targets, [None, None]),
        }

    texts = dataset.map(lambda example: example["text"]).batch(_PARAGRAPHS)
    return texts.enumerate().map(to_rows).unbatch()
