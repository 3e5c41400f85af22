"""Hugging Face T5 folders (`config.json`, `model.safetensors`): the one table of names.

Hugging Face stores a Linear's weight [out, in], T5X a kernel [in, out]; its relative position bias is
[buckets, heads], T5X's [heads, buckets]. Both are transposes.
"""

from __future__ import annotations

import pathlib

import numpy as np
from safetensors import safe_open

from jax_prompts.convert.source import ArraySource, lazy
from jax_prompts.models.t5 import T5Config

# Aliases of `shared.weight` that some files repeat.
_ALIASES = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}


def _attention(theirs: str, ours: str) -> dict[str, str]:
    letters = {"query": "q", "key": "k", "value": "v", "out": "o"}
    return {f"{ours}/{name}/kernel": f"{theirs}.{letter}.weight" for name, letter in letters.items()}


def names(config: T5Config) -> dict[str, str]:
    """T5X parameter path -> Hugging Face name, for every parameter of an unscanned T5."""
    wi = ["wi"] if len(config.mlp_activations) == 1 else ["wi_0", "wi_1"]
    table = {"token_embedder/embedding": "shared.weight"}
    if not config.logits_via_embedding:
        table["decoder/logits_dense/kernel"] = "lm_head.weight"
    stacks = [("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers)]
    for stack, length in stacks:
        table[f"{stack}/{stack}_norm/scale"] = f"{stack}.final_layer_norm.weight"
        table[f"{stack}/relpos_bias/rel_embedding"] = (
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        )
        for i in range(length):
            ours, theirs = f"{stack}/layers_{i}", f"{stack}.block.{i}.layer"
            if stack == "encoder":
                table[f"{ours}/pre_attention_layer_norm/scale"] = f"{theirs}.0.layer_norm.weight"
                table |= _attention(f"{theirs}.0.SelfAttention", f"{ours}/attention")
                mlp = f"{theirs}.1"
            else:
                table[f"{ours}/pre_self_attention_layer_norm/scale"] = f"{theirs}.0.layer_norm.weight"
                table |= _attention(f"{theirs}.0.SelfAttention", f"{ours}/self_attention")
                table[f"{ours}/pre_cross_attention_layer_norm/scale"] = f"{theirs}.1.layer_norm.weight"
                table |= _attention(f"{theirs}.1.EncDecAttention", f"{ours}/encoder_decoder_attention")
                mlp = f"{theirs}.2"
            table[f"{ours}/pre_mlp_layer_norm/scale"] = f"{mlp}.layer_norm.weight"
            for name in [*wi, "wo"]:
                table[f"{ours}/mlp/{name}/kernel"] = f"{mlp}.DenseReluDense.{name}.weight"
    return table


def open_folder(folder: pathlib.Path, config: T5Config) -> ArraySource:
    """The arrays of a Hugging Face T5 folder under their T5X paths; names it does not know keep theirs."""
    file = safe_open(folder / "model.safetensors", framework="np")
    ours = {theirs: path for path, theirs in names(config).items()}

    def read(theirs: str) -> np.ndarray:
        array = file.get_tensor(theirs)
        transposed = theirs != "shared.weight" and array.ndim == 2
        return array.T if transposed else array

    kept = [name for name in file.keys() if name not in _ALIASES]  # noqa: SIM118 (not a dict)
    if config.logits_via_embedding and "lm_head.weight" in kept:
        head, shared = file.get_tensor("lm_head.weight"), file.get_tensor("shared.weight")
        if np.array_equal(head, shared):  # a tied head, written out
            kept.remove("lm_head.weight")
    return {ours.get(theirs, theirs): lazy(read, theirs) for theirs in kept}
