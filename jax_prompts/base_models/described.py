"""Types of the fields of a Hugging Face config.json and generation_config.json, and the sizes that they name."""

from __future__ import annotations

import reprlib
from typing import Any

from jax_prompts.errors import RunError
from jax_prompts.models.bert import BertConfig
from jax_prompts.models.sizes import ModelConfig
from jax_prompts.models.t5 import T5Config
from jax_prompts.models.t5gemma_config import T5GemmaConfig

_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_TYPES = {
    bool: "tie_word_embeddings scale_decoder_outputs is_encoder_decoder is_gated_act",
    int: """
        pad_token_id eos_token_id decoder_start_token_id unk_token_id vocab_size
        d_model d_kv d_ff num_layers num_decoder_layers num_heads relative_attention_num_buckets
        hidden_size intermediate_size num_hidden_layers num_attention_heads max_position_embeddings type_vocab_size
    """,
    float: "layer_norm_epsilon layer_norm_eps dropout_rate hidden_dropout_prob attention_probs_dropout_prob",
    str: """
        model_type feed_forward_proj dense_act_fn hidden_act position_embedding_type transformers_version
        tokenizer_class
    """,
}
_SEVERAL = ("eos_token_id",)  # any of them ends a text
_T5_SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "emb_dim",
    "d_kv": "head_dim",
    "d_ff": "mlp_dim",
    "num_layers": "num_encoder_layers",
    "num_decoder_layers": "num_decoder_layers",
    "num_heads": "num_heads",
    "relative_attention_num_buckets": "relpos_buckets",
}
_RELPOS = ("num_heads", "relative_attention_num_buckets")  # the shape of relative position biases
_BERT_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "emb_dim",
    "intermediate_size": "mlp_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "max_position_embeddings": "max_length",
    "type_vocab_size": "segments",
}
_SIZES: dict[type, dict[str, str]] = {
    T5Config: _T5_SIZES,
    T5GemmaConfig: {"vocab_size": "vocab_size"},  # those of its stacks: `hf_t5gemma.py`
    BertConfig: _BERT_SIZES,
}


def check_types(file: str, described: dict[str, Any]) -> None:
    """Compares what a file holds with the type of each known field; null stands for a field that is not there.

    Raises:
      RunError: a field has another type.
    """
    for kind, names in _TYPES.items():
        for name in names.split():
            value = described.get(name)
            several = isinstance(value, list) and name in _SEVERAL
            if value is not None and not all(_is(kind, part) for part in (value if several else [value])):
                raise RunError(f"{file} has {name} {reprlib.repr(value)}, where {_WORDS[kind]} belongs")


def check_sizes(described: dict[str, Any], config: ModelConfig) -> None:
    """Compares the sizes that config.json, which is `described`, names with those of the arrays, `config`.

    Raises:
      RunError: they differ, as where a file with some of the layers is not there.
    """
    for theirs, ours in _SIZES[type(config)].items():
        said, found = described.get(theirs), getattr(config, ours)
        if said not in (None, found):
            raise RunError(
                f"config.json has {theirs} {said}, and the weights have {found}"
                f"{_relpos(described, config, theirs)}: it is no whole model, or another's config.json; copy it again"
            )


def _relpos(described: dict[str, Any], config: ModelConfig, field: str) -> str:
    """What a field that is of relative position biases makes of them, and their shape."""
    if not isinstance(config, T5Config) or field not in _RELPOS:
        return ""
    found = (config.num_heads, config.relpos_buckets)
    said = tuple(described.get(theirs) or ours for theirs, ours in zip(_RELPOS, found, strict=True))
    return f" (relpos_bias/rel_embedding is {found}, and would be {said})"


def _is(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
