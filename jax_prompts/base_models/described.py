"""Types of the fields of a Hugging Face config.json and generation_config.json."""

from __future__ import annotations

import reprlib
from typing import Any

from jax_prompts.errors import RunError

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


def _is(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
