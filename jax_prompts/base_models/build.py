"""Builds the base model that a run's settings describe: its module and its vocabulary."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp

from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.token_ids import check_tokenizer_class, check_unknown
from jax_prompts.config import BaseModel
from jax_prompts.data.vocabularies.byte_level import is_bytes
from jax_prompts.data.vocabularies.sentencepiece import SENTINELS, Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.sizes import UMT5_ROWS, ModelConfig, size
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.models.t5gemma import T5Gemma
from jax_prompts.models.t5gemma_config import T5GemmaConfig

Model = T5 | T5Gemma | Bert
MODELS: dict[type, type] = {T5Config: T5, T5GemmaConfig: T5Gemma, BertConfig: Bert}
_USUAL_SENTINELS = {UMT5_ROWS: 300}  # where no file beside a SentencePiece model says another number


def make_config(base: BaseModel) -> ModelConfig:
    """Sizes that MODEL_SIZE names or, where it is None, those of the checkpoint.

    Raises:
      ConfigError: unknown size, or neither is set.
      RunError: the checkpoint cannot be read.
    """
    if base.size is not None:
        return size(base.size)
    if base.checkpoint is None:
        raise ConfigError("MODEL_SIZE and INITIAL_CHECKPOINT_PATH are both None; set one")
    return open_model(base.checkpoint).config


def make_vocabulary(base: BaseModel) -> Vocabulary | WordPiece:
    """Reads the vocabulary that VOCABULARY names or, where it is None, the one beside the checkpoint.

    Raises:
      ConfigError: unknown size, or there is no such file.
      RunError: the file cannot be read, or is of another kind.
    """
    found = None if base.checkpoint is None else open_model(base.checkpoint)
    path = base.vocabulary
    if path is not None:
        vocabulary = read_vocabulary(path, make_config(base))
    elif found is not None and found.vocabulary is not None:
        path, vocabulary = vocabulary_beside(found.vocabulary, make_config(base))
    else:
        raise ConfigError(f"no vocabulary lies beside {base.checkpoint}: set VOCABULARY to a file")
    if found is not None:
        check_unknown(found.described, path, vocabulary.unk_id)
        check_tokenizer_class(found.described, path)
        recorded = _recorded_vocabulary(found.described)
        if recorded is not None and recorded != vocabulary.fingerprint:
            raise ConfigError(
                f"{path} is vocabulary {vocabulary.fingerprint} and {base.checkpoint} was converted with {recorded}: "
                "set VOCABULARY to that one, or to None"
            )
    return vocabulary


def _recorded_vocabulary(described: dict[str, Any]) -> str | None:
    """The fingerprint of the vocabulary that a converted model was made with; None where none is recorded."""
    recorded = described.get("vocabulary") if "architecture" in described else None
    return recorded.get("fingerprint") if isinstance(recorded, dict) else None


def read_vocabulary(path: str, config: ModelConfig) -> Vocabulary | WordPiece:
    """Reads a vocabulary file, WordPiece for a BERT, SentencePiece or bytes for a T5.

    A T5 that has a row for each piece was trained without sentinels, and gets none.

    Raises:
      ConfigError: it has ids that the model has no rows for, or is of bytes and the model has many rows more.
      RunError: the file cannot be read, or is of another kind.
    """
    if isinstance(config, BertConfig):
        if is_bytes(path):
            raise ConfigError(f"VOCABULARY is {path}, a ByT5's bytes: set it to the BERT's vocab.txt")
        vocabulary: Vocabulary | WordPiece = WordPiece(path)
    else:
        bos_id = config.start_id if isinstance(config, T5GemmaConfig) else None
        usual = _USUAL_SENTINELS.get(config.vocab_size, SENTINELS) if bos_id is None else 0
        vocabulary = Vocabulary(path, usual_extra_ids=usual, bos_id=bos_id)
    if isinstance(vocabulary, Vocabulary) and 0 < vocabulary.extra_ids == vocabulary.size - config.vocab_size:
        vocabulary = Vocabulary(path, extra_ids=0, bos_id=bos_id)
    if vocabulary.size > config.vocab_size:
        raise ConfigError(
            f"{path} has {vocabulary.size} ids and the model {config.vocab_size} embedding rows: "
            "set VOCABULARY to the one the model was trained with"
        )
    if is_bytes(path) and config.vocab_size > 2 * vocabulary.size:
        raise ConfigError(
            f"VOCABULARY is {path}, {vocabulary.size} ids of a ByT5's bytes, and the model has {config.vocab_size} "
            "embedding rows: set VOCABULARY to the file the model was trained with"
        )
    return vocabulary


def vocabulary_beside(path: str, config: ModelConfig) -> tuple[str, Vocabulary | WordPiece]:
    """The vocabulary file beside a model and what it holds; where a tokenizer.json reads texts otherwise, that one.

    A T5Gemma's tokenizer.json, of byte pairs, is the same as its tokenizer.model, and not read.

    Raises:
      As `read_vocabulary`.
    """
    described = pathlib.Path(path).with_name("tokenizer.json")
    alone = isinstance(config, T5GemmaConfig) or pathlib.Path(path) == described
    if alone or not described.is_file():
        return path, read_vocabulary(path, config)
    try:
        newer = read_vocabulary(str(described), config)
    except (ConfigError, RunError) as error:
        log(f"{path} is used, and not the tokenizer.json beside it ({error})")
        return path, read_vocabulary(path, config)
    try:
        plain = read_vocabulary(path, config)
    except (ConfigError, RunError) as error:
        log(f"{described} is used, and not {pathlib.Path(path).name} beside it ({error})")
        return str(described), newer
    if plain.reads_as(newer):
        return path, plain
    log(f"{described} is used, as transformers does: it reads texts otherwise than {pathlib.Path(path).name}")
    return str(described), newer


def make_model(
    base: BaseModel,
    *,
    prompt_kind: str = "input",
    vocabulary: Vocabulary | WordPiece | None = None,
    classes: int = 0,
    at_mask: bool = False,
) -> Model:
    """The module of the size named by `base`, with its numerics.

    Args:
      base: which model.
      prompt_kind: what prompts are (`models/layer_prompts.py`).
      vocabulary: its [SEP] tells a BERT's segments apart, and it has [MASK]; None: BERT's own.
      classes: of a BERT's classifier; 0: masked-LM head. A T5 answers with text.
      at_mask: whether a BERT's classes are read at [MASK].

    Raises:
      ConfigError: unknown size, or a setting that the architecture has not.
    """
    config = make_config(base)
    numerics: dict[str, Any] = {
        "dropout_rate": base.dropout_rate,
        "dtype": jnp.dtype(base.activation_dtype),
        "remat": base.remat,
    }
    if isinstance(config, BertConfig):
        if base.scan_layers:
            raise ConfigError(f"SCAN_LAYERS is True, but {base.name} is a BERT: set it to False")
        if isinstance(vocabulary, WordPiece):
            numerics |= {"separator_id": vocabulary.eos_id, "mask_id": vocabulary.mask_id}
        return Bert(dataclasses.replace(config, **numerics), prompt_kind, classes, at_mask)
    numerics["scan_layers"] = base.scan_layers
    return MODELS[type(config)](dataclasses.replace(config, **numerics), prompt_kind)


def with_adapters(model: Model, activation: str) -> Model:
    """The model with this activation of adapters that are tuned inside it; "": it has none."""
    if not activation or isinstance(model, Bert):
        return model
    return model.clone(config=dataclasses.replace(model.config, adapter_activation=activation))
