"""Random T5s of transformers beside ours, read from the folder that transformers wrote."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import BaseModel, Decoding
from jax_prompts.inference.predict import make_predict
from jax_prompts.models import sizes


def random_t5(seed, **settings):
    """A T5 of transformers whose norms are random, too."""
    config = transformers.T5Config(dropout_rate=0.0, decoder_start_token_id=0, **settings)
    return _random(seed, transformers.T5ForConditionalGeneration, config)


def random_mt5(seed, **settings):
    """An mT5 of transformers whose norms are random, too."""
    config = transformers.MT5Config(dropout_rate=0.0, decoder_start_token_id=0, **settings)
    return _random(seed, transformers.MT5ForConditionalGeneration, config)


def random_umt5(seed, **settings):
    """A umT5 of transformers whose norms are random, too."""
    config = transformers.UMT5Config(dropout_rate=0.0, decoder_start_token_id=0, **settings)
    return _random(seed, transformers.UMT5ForConditionalGeneration, config)


def _random(seed, kind, config):
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


@dataclasses.dataclass
class Pair:
    """A model of transformers, the folder that it was saved to, and ours read from there."""

    theirs: Any
    folder: str
    model: Any
    params: Any

    @classmethod
    def of(cls, theirs, folder):
        theirs.save_pretrained(folder)
        sizes.SIZES["of_parity"] = open_model(folder).config
        try:
            base = BaseModel(size="of_parity", checkpoint=folder, vocabulary="")
            model = make_model(base)
            return cls(theirs, folder, model, load_weights(base, model)[0])
        finally:
            del sizes.SIZES["of_parity"]

    def logits(self, ids_BS, decoder_BU, prompt_PD=None):
        tokens_BL, rows = self._prompted(ids_BS, prompt_PD)
        batch = jnp.asarray(tokens_BL), jnp.asarray(decoder_BU)
        return np.asarray(self.model.apply({"params": self.params}, *batch, rows))

    def greedy(self, ids_BS, length, prompt_PD=None):
        tokens_BL, rows = self._prompted(ids_BS, prompt_PD)
        predict = make_predict(self.model, Decoding(), length)
        return np.asarray(predict(self.params, rows, tokens_BL, jax.random.key(0)))

    def _prompted(self, ids_BS, prompt_PD):
        if prompt_PD is None:
            return ids_BS, None
        first = self.model.config.vocab_size
        virtual_BP = np.tile(np.arange(first, first + len(prompt_PD), dtype=np.int32), (len(ids_BS), 1))
        return np.concatenate([virtual_BP, ids_BS], axis=1), jnp.asarray(prompt_PD)


def texts_and_targets(vocabulary, seed=0, longest=23):
    """(ids_BS, decoder_BU, labels_BU) of unequal lengths, each row ended by 1 and filled up with 0."""
    draw = np.random.default_rng(seed)

    def rows(lengths):
        ids = draw.integers(3, vocabulary, (len(lengths), max(lengths))).astype(np.int32)
        for row, length in zip(ids, lengths, strict=True):
            row[length - 1] = 1
            row[length:] = 0
        return ids

    ids_BS, labels_BU = rows([longest, 9, 2]), rows([6, 3, 8])
    return ids_BS, np.pad(labels_BU, ((0, 0), (1, 0)))[:, :-1], labels_BU


def for_transformers(ids_BS, decoder_BU=None, labels_BU=None):
    """The same batch as keyword arguments of a model of transformers; padding is masked."""
    batch = {"input_ids": ids_BS, "attention_mask": ids_BS > 0}
    if decoder_BU is not None:
        batch["decoder_input_ids"] = decoder_BU
    if labels_BU is not None:
        batch["labels"] = np.where(labels_BU > 0, labels_BU, -100)
    return {name: torch.tensor(array).long() for name, array in batch.items()}


def mean_loss(logits_BUV, labels_BU):
    """Mean cross-entropy over the labels that are not padding, in float64."""
    logits_BUV = logits_BUV.astype(np.float64)
    chosen_BU = np.take_along_axis(logits_BUV, labels_BU[..., None], axis=-1)[..., 0]
    return (np.logaddexp.reduce(logits_BUV, axis=-1) - chosen_BU)[labels_BU > 0].mean()


def base_of(pair):
    """The model of transformers again, as it was made."""
    return type(pair.theirs).from_pretrained(pair.folder).eval()
