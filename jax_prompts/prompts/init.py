"""Initialisers of the prompt table: random, or embeddings that the frozen model already understands.

An initialiser is a plain setting; `table_init(base)` joins it with the frozen model and returns a JAX
initialiser `(key, (P, D), dtype) -> table_PD`, which works under `jit`, `vmap` over keys and `eval_shape`.
It fills the table; a method with a network then computes the prompt from it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts.errors import ConfigError, SettingWarning
from jax_prompts.models.answers import inside_model
from jax_prompts.prompts.layers import TableInit
from jax_prompts.prompts.prompt_file import PromptMetadata, check_fits, load_file

# For tasks that answer with free text (Lester et al. 2021, section 3.2), by a word of the task's name.
TASK_WORDS = {
    "record": ("commonsense", "reasoning", "reading", "comprehension"),
    "wsc": ("commonsense", "pronoun", "resolution"),
}
BYTES = 256  # ids of a ByT5 that it has learnt, behind the special ones; its embedding has more rows
SPECIAL_IDS = 3  # padding, end of sentence, unknown: the first ids of a T5 vocabulary, which no text holds


@runtime_checkable
class Vocabulary(Protocol):
    """Vocabulary as an initialiser needs it: pieces without end of sentence, and their count."""

    size: int

    def encode(self, text: str) -> list[int]: ...


@dataclasses.dataclass(frozen=True)
class Base:
    """The frozen model as an initialiser sees it.

    Attributes:
      embedding_VD: the token embedding, any dtype or sharding; a tracer inside `jit` and `eval_shape`.
      vocabulary: None where a run has none.
      labels: the task's class labels as its targets spell them, or words in their place (`task_words`); empty where
        it has none.
    """

    embedding_VD: Float[Array, "V D"]
    vocabulary: Vocabulary | None = None
    labels: tuple[str, ...] = ()


def task_words(task: str) -> tuple[str, ...]:
    """Words that describe a task which answers with free text, in place of class labels; none for most."""
    return next((words for name, words in TASK_WORDS.items() if name in task.split("_")), ())


@dataclasses.dataclass(frozen=True)
class Uniform:
    """U[low, high): the paper's random start is [-0.5, 0.5], the original prompt tuning code's [0, 0.5)."""

    low: float = -0.5
    high: float = 0.5

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"Uniform.low is {self.low} and Uniform.high {self.high}: set low below high")

    def table_init(self, base: Base) -> TableInit:
        def init(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Float[Array, "P D"]:
            return jax.random.uniform(key, shape, dtype, self.low, self.high)

        return init


FIRST = 5000  # most frequent pieces, in Lester et al.


def check_first(draws: Any) -> None:
    """Raises ConfigError unless the `first` of what draws from the vocabulary is None or at least 1."""
    if draws.first is not None and draws.first < 1:
        raise ConfigError(f"{type(draws).__name__}.first is {draws.first}: set it to at least 1, or to None")


@dataclasses.dataclass(frozen=True)
class SampledVocabulary:
    """Embeddings of pieces drawn from the vocabulary, without repetition where there are enough.

    Attributes:
      first: draw from this many most frequent pieces (T5 numbers its pieces by frequency, so these are ids
        3 to 2 + first; all pieces if the vocabulary has fewer; the 256 of a ByT5, without its sentinels); 5,000 in
        Lester et al. None: the whole vocabulary with its sentinels, as in Residual Prompt Tuning.
      repeat: draw pieces again where there are not enough; False: refuse, for rows that are summed up.
    """

    first: int | None = FIRST
    repeat: bool = True

    def __post_init__(self) -> None:
        check_first(self)

    def table_init(self, base: Base) -> TableInit:
        end = _vocabulary_size(base)
        if self.first is not None:
            learnt = BYTES if getattr(base.vocabulary, "reads_bytes", False) else self.first
            end = min(end, SPECIAL_IDS + min(self.first, learnt))
        if end <= SPECIAL_IDS:
            raise ConfigError(f"BaseModel.vocabulary has only {end} ids: use one that has pieces of text")

        def init(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Float[Array, "P D"]:
            count = end - SPECIAL_IDS
            if shape[0] > count and not self.repeat:
                raise ConfigError(
                    f"SampledVocabulary has {count} pieces to draw {shape[0]} different ones from: take fewer rows (of "
                    "SuperPos, SuperPos.rows), more pieces (SampledVocabulary.first), or set SampledVocabulary.repeat "
                    "= True"
                )
            ids_P = SPECIAL_IDS + jax.random.choice(key, count, (shape[0],), replace=shape[0] > count)
            return _rows(base, ids_P, shape).astype(dtype)

        return init


@dataclasses.dataclass(frozen=True)
class ClassLabels:
    """One row a class label, the mean of its pieces' embeddings; other rows are sampled vocabulary.

    With fewer rows than labels the first P labels are used. (Lester et al. 2021, section 3.2.)

    Attributes:
      words: what to use as labels; None: the task's class labels, or its `task_words`.
      first: rows left over are of so many, as `SampledVocabulary.first`.
    """

    words: tuple[str, ...] | None = None
    first: int | None = FIRST

    def __post_init__(self) -> None:
        if isinstance(self.words, str) or (self.words is not None and not self.words):
            raise ConfigError(f"ClassLabels.words is {self.words!r}: set it to a tuple of words, or None")
        check_first(self)

    def table_init(self, base: Base) -> TableInit:
        words = base.labels if self.words is None else self.words
        if not words:
            raise ConfigError("ClassLabels has no labels: the task names none, so set ClassLabels.words")
        pieces = [_encode(base, word, "ClassLabels") for word in words]
        sampled = SampledVocabulary(self.first).table_init(base)

        def init(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Float[Array, "P D"]:
            means = [jnp.mean(_rows(base, jnp.asarray(ids), shape), axis=0) for ids in pieces[: shape[0]]]
            return _put_first(jnp.stack(means), sampled(key, shape, dtype))

        return init


@dataclasses.dataclass(frozen=True)
class Text:
    """The pieces of a text, one a row in order, cut at P; rows left over are sampled vocabulary.

    Attributes:
      text: for instance an instruction that describes the task; encoded without end of sentence.
      repeat: rows left over are the pieces again, in order.
      first: rows left over are of so many, as `SampledVocabulary.first`.
    """

    text: str
    repeat: bool = False
    first: int | None = FIRST

    def __post_init__(self) -> None:
        check_first(self)

    def table_init(self, base: Base) -> TableInit:
        ids = _encode(base, self.text, "Text")
        sampled = SampledVocabulary(self.first).table_init(base)

        def init(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Float[Array, "P D"]:
            if self.repeat:
                return _rows(base, jnp.resize(jnp.asarray(ids), shape[:1]), shape).astype(dtype)
            return _put_first(_rows(base, jnp.asarray(ids[: shape[0]]), shape), sampled(key, shape, dtype))

        return init


@dataclasses.dataclass(frozen=True)
class FromFile:
    """Another prompt, read from its file: the transfer of SPoT (Vu et al. 2022). Every member starts there.

    The other prompt may come from another base model of the same width, and from another method: it is the folded
    one, so that a method with a network starts its table there and its network anew. To go on with a run, give its
    MODEL_DIR instead.

    Attributes:
      path: a prompt file of the same length and width.
    """

    path: str

    def table_init(self, base: Base) -> TableInit:
        prompt_PD, leaves, metadata = load_file(self.path)
        check_fits(self.path, prompt_PD, metadata, prompt_width=lambda _: base.embedding_VD.shape[1])
        check_holds_prompt("FromFile.path", self.path, prompt_PD, metadata)
        if inside := inside_model(leaves):
            warnings.warn(
                f"{self.path} holds {len(inside)} leaves inside the model, too, which are left out: this starts at its "
                "prompt alone",
                SettingWarning,
                stacklevel=2,
            )
        elif metadata.method not in ("", "PromptTuning"):
            warnings.warn(
                f"{self.path} was folded from {metadata.method}, whose parameters are not in it: this starts a new run "
                "at its vectors (to go on with the old run, give its MODEL_DIR)",
                SettingWarning,
                stacklevel=2,
            )

        def init(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Float[Array, "P D"]:
            if prompt_PD.shape[0] != shape[0]:
                length = prompt_PD.shape[0]
                raise ConfigError(
                    f"FromFile.path {self.path} has {length} rows and the method's table {shape[0]}: use another "
                    f"file, or set PROMPT_LENGTH (SuperPos.rows, Explosive.vectors) to {length}"
                )
            return jnp.asarray(prompt_PD, dtype)

        return init


def check_holds_prompt(
    setting: str, path: str, prompt_PD: Float[np.ndarray, "P D"], metadata: PromptMetadata
) -> None:
    """Raises ConfigError for a file of leaves alone."""
    if not len(prompt_PD):
        raise ConfigError(
            f"{setting} {path} holds leaves inside the model ({metadata.method}) and no prompt to start from: use the "
            "file of a prompt"
        )


def _vocabulary_size(base: Base) -> int:
    rows = base.embedding_VD.shape[0]
    if base.vocabulary is None:
        return rows
    if base.vocabulary.size > rows:
        raise ConfigError(
            f"BaseModel.vocabulary has {base.vocabulary.size} ids and the model {rows} embedding rows: "
            "set BaseModel.vocabulary to the one the model was trained with"
        )
    return base.vocabulary.size


def _encode(base: Base, text: str, setting: str) -> list[int]:
    if base.vocabulary is None:
        raise ConfigError(f"{setting} needs a vocabulary: set BaseModel.vocabulary, or use SampledVocabulary")
    _vocabulary_size(base)
    ids = base.vocabulary.encode(text)
    if not ids:
        raise ConfigError(f"{setting} cannot start from {text!r}: the vocabulary has no piece for it")
    return list(ids)


def _rows(base: Base, ids_N: Int[Array, " N"], shape: Sequence[int]) -> Float[Array, "N D"]:
    if base.embedding_VD.shape[1] != shape[1]:
        raise ValueError(f"a prompt of width {shape[1]} from an embedding of {base.embedding_VD.shape}")
    return base.embedding_VD[ids_N].astype(jnp.float32)


def _put_first(first_ND: Float[Array, "N D"], table_PD: Float[Array, "P D"]) -> Float[Array, "P D"]:
    return table_PD.at[: first_ND.shape[0]].set(first_ND.astype(table_PD.dtype))
