"""Hugging Face BERT folders (`config.json`, `model.safetensors`): the one table of names.

Files hold a bare encoder (`embeddings...`) or one inside a model with a head (`bert.embeddings...`); heads of
classifiers are not the frozen model's and are left out. A Linear's weight [out, in] is a kernel's transpose.
"""

from __future__ import annotations

import pathlib

import numpy as np
from safetensors import safe_open

from jax_prompts.convert.source import ArraySource, lazy
from jax_prompts.models.bert import BertConfig

_EMBEDDINGS = {
    "token_embedder/embedding": "embeddings.word_embeddings.weight",
    "position_embedding": "embeddings.position_embeddings.weight",
    "segment_embedding": "embeddings.token_type_embeddings.weight",
}
_MASKED_LM = {"mlm_bias": "cls.predictions.bias"}


def _dense(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/kernel": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}


def _norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/scale": f"{theirs}.LayerNorm.weight", f"{ours}/bias": f"{theirs}.LayerNorm.bias"}


def names(config: BertConfig) -> dict[str, str]:
    """Our parameter path -> Hugging Face name without `bert.`, for every parameter."""
    table = {**_EMBEDDINGS, **_norm("embedding_norm", "embeddings"), **_dense("pooler", "pooler.dense")}
    for i in range(config.num_layers):
        ours, theirs = f"layers_{i}", f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            table |= _dense(f"{ours}/{name}", f"{theirs}.attention.self.{name}")
        table |= _dense(f"{ours}/out", f"{theirs}.attention.output.dense")
        table |= _norm(f"{ours}/attention_norm", f"{theirs}.attention.output")
        table |= _dense(f"{ours}/wi", f"{theirs}.intermediate.dense")
        table |= _dense(f"{ours}/wo", f"{theirs}.output.dense")
        table |= _norm(f"{ours}/mlp_norm", f"{theirs}.output")
    table |= _dense("mlm_dense", "cls.predictions.transform.dense")
    table |= _norm("mlm_norm", "cls.predictions.transform")
    return table | _MASKED_LM


def open_folder(folder: pathlib.Path, config: BertConfig) -> ArraySource:
    """The arrays of a Hugging Face BERT folder under our paths; names it does not know keep theirs."""
    file = safe_open(folder / "model.safetensors", framework="np")
    ours = {theirs: path for path, theirs in names(config).items()}

    def read(theirs: str) -> np.ndarray:
        array = file.get_tensor(theirs)
        table = theirs.removeprefix("bert.") in _EMBEDDINGS.values()
        return array.T if array.ndim == 2 and not table else array

    # The masked-LM projection is the embedding, and some files write position numbers.
    left_out = ("classifier.", "cls.seq_relationship.", "cls.predictions.decoder.")
    kept = [
        name
        for name in file.keys()  # noqa: SIM118 (not a dict)
        if not name.startswith(left_out) and not name.endswith("position_ids")
    ]
    return {ours.get(name.removeprefix("bert."), name): lazy(read, name) for name in kept}
