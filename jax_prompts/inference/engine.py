"""A base model that answers texts: behind `t5x infer`, and what `jax_prompts.load_model` gives.

Rows of one batch may each use another prompt, or none. B rows, L = P + T tokens, Q virtual tokens of all prompts,
N texts, C labels.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_prompts import decoding as ways_of_decoding
from jax_prompts import partition
from jax_prompts.base_models.build import Model, make_model, make_vocabulary
from jax_prompts.base_models.classifier import check_masked_lm, with_masked_lm
from jax_prompts.base_models.tuned_file import check_leaves, load_tuned, model_of
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import BaseModel, Decoding
from jax_prompts.data.layout import ROUNDING, SpecialTokens
from jax_prompts.data.length_groups import MOST_LENGTHS
from jax_prompts.data.text_batches import power_of_two, text_batches
from jax_prompts.errors import ConfigError, SettingWarning
from jax_prompts.inference import inputs
from jax_prompts.inference.predict import label_of, make_predict
from jax_prompts.inference.ranking import label_arrays, make_rank
from jax_prompts.length_plan import plan_texts
from jax_prompts.models.bert import Bert
from jax_prompts.models.mask_place import with_mask
from jax_prompts.prompts.prompt_file import PromptMetadata, check_fits
from jax_prompts.storage.files import PathOrUrl
from jax_prompts.tuned.leaves import lay_in

Tree = Any
GREEDY = Decoding()


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt in memory. `Prompt(array)` is one of no known origin; `dataclasses.replace` changes a part.

    Attributes:
      array: `[P, D]` float32; `[P, W]` of a method at every layer (`prompts/per_layer.py`); `[0, 0]` of leaves alone.
      metadata: where it came from.
      leaves: arrays that were tuned inside the model, by path (`tuned/`); a BERT's classifier or verbaliser too.
      name: what error messages call it.
    """

    array: Float[np.ndarray, "P D"]
    metadata: PromptMetadata = dataclasses.field(default_factory=PromptMetadata)
    leaves: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = "the prompt"


Prompts = Prompt | None | Sequence[Prompt | None]  # for all texts, or one for each; None: the bare model


class Answer(NamedTuple):
    """The answer to one text.

    Attributes:
      number: of the text among those that were asked, from 0.
      text: what the model says.
      cut: whether the model read only the first tokens of the question.
    """

    number: int
    text: str
    cut: bool


class _Batch(NamedTuple):
    """Texts that one program answers: their numbers, and what it is given; rows beyond them fill the batch."""

    texts: list[int]
    cut: list[bool]
    model: Model
    params: Tree
    prompts_QD: Float[Array, "Q D"] | None
    tokens_BL: Int[Array, "B L"]
    labels: tuple[str, ...]


class Engine:
    """A loaded base model. It compiles a program for every shape, of which there are few (`data/text_batches.py`)."""

    def __init__(self, base: BaseModel, *, inputs_length: int, targets_length: int, batch_size: int) -> None:
        """Loads vocabulary and weights.

        Args:
          base: which model.
          inputs_length: tokens that a text is cut to, end of sentence included; a BERT's positions may leave fewer.
          targets_length: tokens that an answer may have.
          batch_size: texts at once.

        Raises:
          ConfigError: a setting that cannot work.
          RunError: a file that cannot be read.
        """
        sizes = {"inputs_length": inputs_length, "targets_length": targets_length, "batch_size": batch_size}
        for name, value in sizes.items():
            inputs.whole_number(value, name, 1)
        inputs.typed(base, BaseModel, "base")
        self._mesh = partition.mesh_of(base)
        self._vocabulary = make_vocabulary(base)
        # One class stands for those of a classifier or verbaliser, which a BERT's prompts bring along.
        self._model = make_model(base, vocabulary=self._vocabulary, classes=1)
        self._bert = isinstance(self._model, Bert)
        self._params, fingerprint = load_weights(base, with_masked_lm(self._model, base), mesh=self._mesh)
        self.fingerprints = {
            "model_fingerprint": fingerprint,
            "tokenizer_fingerprint": self._vocabulary.fingerprint,
        }
        self._base: dict[str, Any] = {"prompt_width": self._model.config.prompt_width, **self.fingerprints}
        self._inputs_length, self._targets_length = inputs_length, targets_length
        self._batch_size = batch_size
        self._programs: dict[Any, Callable[..., Array]] = {}
        # Lengths of earlier texts that are no powers of two, by what else a program depends on.
        self._planned = collections.defaultdict[Any, set[int]](set)

    def load_prompt(self, path: PathOrUrl) -> Prompt:
        """A prompt from its file or URL.

        Raises:
          ConfigError: no such file, or one that belongs to another model.
          RunError: a file that cannot be read, or is no prompt file.
        """
        prompt_PD, leaves, metadata = load_tuned(self._model, path, **self._base)
        return Prompt(prompt_PD, metadata, leaves, os.fspath(path))

    def predict(
        self, texts: Sequence[str], prompt: Prompts = None, *, decoding: Decoding = GREEDY, seed: int = 0
    ) -> list[str]:
        """The answer to each text: what a T5 generates, the label that a BERT's classifier chooses.

        Args:
          texts: N of them, as the prompt's task writes its inputs.
          prompt: one for all texts, a list with one for each, or None: the bare model.
          decoding: how answers are generated.
          seed: of `Decoding(name="sample")`.

        Raises:
          ConfigError: settings that cannot work, a prompt that does not fit.

        Warns:
          SettingWarning: texts that were cut.
        """
        texts = inputs.strings(texts, "texts")
        answers, cut = [""] * len(texts), 0
        for answer in self.answers(texts, prompt, decoding=decoding, seed=seed):
            answers[answer.number] = answer.text
            cut += answer.cut
        self._warn_of_cuts(cut, len(texts))
        return answers

    def answers(
        self, texts: Sequence[str], prompt: Prompts = None, *, decoding: Decoding = GREEDY, seed: int = 0
    ) -> Iterator[Answer]:
        """The answers of `predict` as they come: a batch at a time, short texts first, without a word on cuts.

        Args, Raises: as `predict`.
        """
        inputs.typed(decoding, Decoding, "decoding")
        ways_of_decoding.check(decoding)
        texts, first_key = inputs.strings(texts, "texts"), inputs.random_key(seed)
        for number, batch in enumerate(self._batches(texts, self._each(texts, prompt))):
            key = jax.random.fold_in(first_key, number)
            program = self._program(make_predict, batch, decoding, self._targets_length)
            ids_BU = np.asarray(program(batch.params, batch.prompts_QD, batch.tokens_BL, key))
            read = label_of(batch.labels) if self._bert else self._vocabulary.decode
            for text, ids_U, cut in zip(
                batch.texts, ids_BU, batch.cut, strict=False
            ):  # filling rows are left
                yield Answer(text, read(ids_U), cut)

    def score_labels(
        self, texts: Sequence[str], labels: Sequence[str] | None = None, prompt: Prompts = None
    ) -> Float[np.ndarray, "N C"]:
        """log P(label | text) in nats: of a T5 the sum over the label's tokens, end of sentence included.

        Args:
          texts: N of them, as for `predict`.
          labels: C of them; None: those that the prompt was tuned for.
          prompt: one for all texts, a list with one for each, or None: the bare model.

        Raises:
          ConfigError: a label that is there twice, labels that are one to the model, or that a BERT's classifier has
            not; as `predict`.

        Warns:
          SettingWarning: texts that were cut.
        """
        texts = inputs.strings(texts, "texts")
        prompts = self._each(texts, prompt)
        labels = _labels_of(prompts) if labels is None else inputs.strings(labels, "labels")
        inputs.different(labels, "labels")
        arrays = {} if self._bert else label_arrays(labels, self._vocabulary)
        log_p_NC, cut = np.zeros((len(texts), len(labels)), np.float32), 0
        for batch in self._batches(texts, prompts):
            program = self._program(make_rank, batch)
            log_p_BC = np.asarray(program(batch.params, batch.prompts_QD, batch.tokens_BL, arrays))
            if self._bert:
                log_p_BC = log_p_BC[:, _columns(labels, batch.labels)]
            log_p_NC[batch.texts] = log_p_BC[: len(batch.texts)]
            cut += sum(batch.cut)
        self._warn_of_cuts(cut, len(texts))
        return log_p_NC

    def _warn_of_cuts(self, cut: int, texts: int) -> None:
        if cut:
            told = f"{cut} of {texts} texts were cut to what the model reads: inputs_length is {self._inputs_length}"
            warnings.warn(SettingWarning(told), stacklevel=3)

    def _each(self, texts: Sequence[str], prompt: Prompts) -> list[Prompt | None]:
        """One prompt for each text, all of which fit."""
        prompts: Any = list(prompt) if isinstance(prompt, list | tuple) else [prompt] * len(texts)
        if len(prompts) != len(texts):
            raise ConfigError(
                f"{len(prompts)} prompts for {len(texts)} texts: give one, or one for each text"
            )
        for each in {id(each): each for each in prompts}.values():
            if each is None:
                if self._bert:
                    raise ConfigError("a BERT answers with a prompt's classifier: give a prompt")
                continue
            if not isinstance(each, Prompt):
                kind = type(each).__name__
                raise ConfigError(f"a prompt is a {kind}: give what load_prompt returns, or Prompt(array)")
            if not isinstance(each.metadata, PromptMetadata):
                raise ConfigError(f"{each.name} has metadata that is none: give a PromptMetadata")
            labels = each.metadata.labels
            if not isinstance(labels, tuple) or not all(isinstance(label, str) for label in labels):
                raise ConfigError(f"{each.name} has labels {reprlib.repr(labels)}: give a tuple of strings")
            inputs.leaves(each.leaves, each.name)
            if not isinstance(activation := each.metadata.adapter_activation, str | None):
                raise ConfigError(
                    f"{each.name} has adapter_activation {reprlib.repr(activation)}: give a name"
                )
            prompt_PD = inputs.matrix(each.array, each.name)
            check_fits(each.name, prompt_PD, each.metadata, **self._base)
            check_leaves(each.name, self._model, each.leaves, each.metadata, prompt_PD)
            check_masked_lm(each.name, each.leaves, self._params)
        return prompts

    def _batches(self, texts: Sequence[str], prompts: list[Prompt | None]) -> Iterator[_Batch]:
        """Texts that one program answers with the same parameters: of prompts of one kind, or of one with leaves."""
        sharing = collections.defaultdict[Any, list[int]](list)
        for number, prompt in enumerate(prompts):
            prompt_kind = "input" if prompt is None else prompt.metadata.prompt_kind
            sharing[prompt if prompt is not None and prompt.leaves else prompt_kind].append(number)
        for numbers in sharing.values():
            first = prompts[numbers[0]] or Prompt(np.zeros((0, 0), np.float32))
            labels = first.metadata.labels if self._bert else ()
            model = model_of(self._model, first.leaves, first.metadata)
            each = [prompts[number] for number in numbers]
            prompts_QD, ids = self._table(dict.fromkeys(prompt for prompt in each if prompt is not None))
            if isinstance(model, Bert):
                model = model.clone(classes=len(labels))
                ids = {key: with_mask(ids_P) for key, ids_P in ids.items()} if model.at_mask else ids
            limit = self._text_limit(max(map(len, ids.values())))
            tokens, cut = self._tokens([texts[number] for number in numbers], limit)
            found = text_batches(
                tokens,
                [ids[prompt] for prompt in each],
                batch_size=self._batch_size,
                plan=functools.partial(self._lengths, model, limit, max(map(len, ids.values()))),
                special_tokens=SpecialTokens.of(self._vocabulary),
                parts=partition.row_parts(self._mesh),
            )
            params = lay_in(self._params, dict(first.leaves))
            sharding = partition.batch_sharding(self._mesh, members=False)
            for rows, tokens_BL in found:
                tokens_BL = jax.device_put(tokens_BL, sharding)
                texts_B, cut_B = [numbers[row] for row in rows], [cut[row] for row in rows]
                yield _Batch(texts_B, cut_B, model, params, prompts_QD, tokens_BL, labels)

    def _lengths(
        self, model: Model, limit: int, prompt_length: int, needed_K: list[int], rows_K: list[int]
    ) -> tuple[int, ...]:
        """What batches of texts are padded to: powers of two, and what it paid to plan for these or earlier texts."""
        limit = max(limit, *needed_K)  # what stands around a text is not cut
        planned = self._planned[model.prompt_kind, prompt_length]
        powers = {power_of_two(length, limit) for length in (ROUNDING, *needed_K)} | {limit}
        known = sorted(powers | {length for length in planned if length < limit})
        lengths = plan_texts(model, self._mesh, needed_K, rows_K, prompt_length=prompt_length, known=known)
        new = set(lengths) - set(known)
        if len(planned | new) > MOST_LENGTHS:
            return tuple(known)
        planned.update(new)
        return lengths

    def _table(
        self, prompts: Iterable[Prompt]
    ) -> tuple[Float[Array, "Q D"] | None, dict[Prompt | None, Int[np.ndarray, " _"]]]:
        """The rows of all prompts (their number rounded up: it is part of a shape), and which are each one's."""
        first = self._model.config.vocab_size
        ids: dict[Prompt | None, Int[np.ndarray, " _"]] = {None: np.zeros(0, np.int32)}
        for prompt in prompts:
            ids[prompt] = np.arange(first, first + len(prompt.array), dtype=np.int32)
            first += len(prompt.array)
        if first == self._model.config.vocab_size:
            return None, ids
        table_QD = np.concatenate(
            [
                np.asarray(prompt.array, np.float32)
                for prompt in ids
                if prompt is not None and len(prompt.array)
            ]
        )
        unused = power_of_two(len(table_QD)) - len(table_QD)
        return jnp.asarray(np.pad(table_QD, ((0, unused), (0, 0)))), ids

    def _text_limit(self, prompt_length: int) -> int:
        """Tokens a text may have."""
        if not isinstance(self._model, Bert):
            return self._inputs_length
        left = self._model.config.max_length - prompt_length
        if left < 3:
            raise ConfigError(
                f"a prompt of {prompt_length} tokens leaves no room for text: use a shorter one"
            )
        return min(self._inputs_length, left)

    def _tokens(self, texts: list[str], limit: int) -> tuple[list[list[int]], list[bool]]:
        """The tokens of each text, `limit` at most, and whether it had more."""
        begin, eos = self._vocabulary.begin_ids, self._vocabulary.eos_id
        room = max(0, limit - len(begin) - 1)
        whole = self._vocabulary.encode_all(texts)
        return [[*begin, *ids[:room], eos] for ids in whole], [len(ids) > room for ids in whole]

    def _program(self, make: Callable[..., Callable[..., Array]], batch: _Batch, *settings: Any) -> Any:
        """The program that `make` compiles for a batch's model, kept for the next one."""
        key = make, batch.model, len(batch.labels), *settings
        if key not in self._programs:
            self._programs[key] = make(batch.model, *settings, self._mesh)
        return self._programs[key]


def _labels_of(prompts: list[Prompt | None]) -> tuple[str, ...]:
    """The labels that prompts were tuned for."""
    found = {prompt.metadata.labels if prompt is not None else () for prompt in prompts}
    if len(found) > 1 or () in found:
        raise ConfigError("the prompts do not all name the same labels: give labels")
    return found.pop() if found else ()


def _columns(labels: Sequence[str], known: tuple[str, ...]) -> list[int]:
    """Columns of a classifier's answers that belong to these labels."""
    for label in labels:
        if label not in known:
            raise ConfigError(
                f"the prompt's classifier has no label {reprlib.repr(label)}; use {', '.join(known)}"
            )
    return [known.index(label) for label in labels]
