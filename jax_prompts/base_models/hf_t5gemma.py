"""Translates Hugging Face's T5Gemma: the one table of names, and its config.json.

A Linear's weight [out, in] is a kernel's transpose; a norm's weight is added to 1 there as here.
"""

from __future__ import annotations

import math
import re
import reprlib
from typing import Any

from jax_prompts.base_models import hf
from jax_prompts.base_models.stacks import layer_count
from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import ArraySource, same
from jax_prompts.models.t5gemma_config import GemmaStack, T5GemmaConfig

_HEAD, _ENCODER, _DECODER = (
    "lm_head.out_proj.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
)
_OUTSIDE = {
    _ENCODER: "token_embedder/embedding",
    _DECODER: "decoder/token_embedder/embedding",
    "encoder.norm.weight": "encoder/encoder_norm/scale",
    "decoder.norm.weight": "decoder/decoder_norm/scale",
}
_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.weight")
_MLP = {"mlp.gate_proj": "mlp/wi_0", "mlp.up_proj": "mlp/wi_1", "mlp.down_proj": "mlp/wo"}
_MLP_NORMS = {f"{side}_feedforward_layernorm": f"{side}_mlp_layer_norm" for side in ("pre", "post")}
_PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "out"}
_ATTENTION = {  # stack -> their attention -> ours
    "encoder": {"self_attn": "attention"},
    "decoder": {"self_attn": "self_attention", "cross_attn": "encoder_decoder_attention"},
}
_NORMS = {
    "encoder": {"self_attn": "attention"},
    "decoder": {"self_attn": "self_attention", "cross_attn": "cross_attention"},
}
_FIXED: dict[str, Any] = {  # what a stack has in no other way
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_scaling": None,
    "pad_token_id": 0,
    "bos_token_id": T5GemmaConfig.start_id,
}
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "emb_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "intermediate_size": "mlp_dim",
}
_LAYER_TYPES = ("sliding_attention", "full_attention")


def our_name(theirs: str) -> str | None:
    """Our path of a parameter; None for a name that is none of T5Gemma's."""
    theirs = theirs.removeprefix("model.")
    if theirs in _OUTSIDE:
        return _OUTSIDE[theirs]
    if (found := _LAYER.fullmatch(theirs)) is None:
        return None
    stack, layer, module = found.groups()
    names = {ours: f"{path}/kernel" for ours, path in _MLP.items()}
    names |= {ours: f"{path}/scale" for ours, path in _MLP_NORMS.items()}
    for attention, ours in _ATTENTION[stack].items():
        names |= {f"{attention}.{x}": f"{ours}/{projection}/kernel" for x, projection in _PROJECTIONS.items()}
    for attention, ours in _NORMS[stack].items():
        names |= {
            f"{side}_{attention}_layernorm": f"{side}_{ours}_layer_norm/scale" for side in ("pre", "post")
        }
    return f"{stack}/layers_{layer}/{names[module]}" if module in names else None


def to_ours(arrays: ArraySource) -> ArraySource:
    """A folder's arrays under our paths; names it does not know keep theirs.

    Raises:
      RunError: it is no T5Gemma that answers, or its head is not its decoder's embedding.
    """
    arrays = {theirs.removeprefix("model."): array for theirs, array in arrays.items()}
    if _ENCODER not in arrays:
        raise RunError(f"{hf.wrapped(arrays, _ENCODER) or f'no model.{_ENCODER}'}: it is no T5Gemma")
    head = arrays.pop(_HEAD, None)
    if _DECODER not in arrays and head is None:
        raise RunError(
            "it has no decoder: an encoder alone (as of T5GemmaEncoderModel) is no T5Gemma that answers"
        )
    if head is not None and not same(arrays.setdefault(_DECODER, head), head):
        raise RunError(f"{_HEAD} is not the decoder's embedding again, as in every T5Gemma that was released")
    renamed = {}
    for theirs, array in arrays.items():
        ours = our_name(theirs) or theirs
        renamed[ours] = array.T if ours.endswith("/kernel") else array
    return renamed


def sizes(arrays: ArraySource, described: dict[str, Any]) -> T5GemmaConfig:
    """The sizes of a T5Gemma, whose config.json is `described`, and whose arrays have our paths.

    Raises:
      RunError: config.json does not go with the arrays, or is of a T5Gemma that this project has not.
    """
    stacks = {name: _settings(described, name) for name in ("encoder", "decoder")}
    encoder, decoder = (_stack(name, arrays, settings) for name, settings in stacks.items())
    vocab_size, of_decoder = (arrays[_OUTSIDE[name]].shape[0] for name in (_ENCODER, _DECODER))
    if vocab_size != of_decoder:
        raise RunError(
            f"its encoder's embedding has {vocab_size} rows and its decoder's {of_decoder}; every T5Gemma that was "
            "released has one vocabulary"
        )
    cap = _number("decoder", "final_logit_softcapping", stacks["decoder"], 30.0)
    return T5GemmaConfig(vocab_size, encoder, decoder, logits_cap=cap)


def _settings(described: dict[str, Any], name: str) -> dict[str, Any]:
    """A stack's settings, checked but for its sizes."""
    stack = described.get(name)
    if not isinstance(stack, dict):
        raise RunError(
            f"config.json has {name} {reprlib.repr(stack)}, where a T5Gemma has the {name}'s settings"
        )
    rope = stack.get("rope_parameters") or {}
    plain = isinstance(rope, dict) and rope.get("rope_type", "default") == "default"
    if not plain or set(rope) - {"rope_type", "rope_theta"}:
        raise RunError(
            f"config.json has {name}.rope_parameters {reprlib.repr(rope)}; read are rope_type 'default' and rope_theta"
        )
    for field, wanted in _FIXED.items():
        if stack.get(field, wanted) != wanted:
            raise RunError(
                f"config.json has {name}.{field} {reprlib.repr(stack[field])}; this project's T5Gemma has {wanted!r}"
            )
    if described.get("tie_word_embeddings") is False:
        raise RunError(
            "config.json has tie_word_embeddings False; a T5Gemma's logits are of its decoder's embedding"
        )
    return {"rope_theta": 10000.0, **rope, **stack}


def _stack(name: str, arrays: ArraySource, settings: dict[str, Any]) -> GemmaStack:
    head_dim = _whole(name, "head_dim", settings, 256)
    prefix, attention = f"{name}/layers_0", next(iter(_ATTENTION[name].values()))
    paths = {
        "query": f"{prefix}/{attention}/query/kernel",
        "key": f"{prefix}/{attention}/key/kernel",
        "wi": f"{prefix}/mlp/wi_0/kernel",
        "embedding": _OUTSIDE[_ENCODER if name == "encoder" else _DECODER],
    }
    if missing := [path for path in paths.values() if path not in arrays]:
        raise RunError(f"it has no {missing[0]}: it is no whole T5Gemma; copy it again")
    shapes = {part: arrays[path].shape for part, path in paths.items()}
    if head_dim % 2 or any(len(shape) != 2 or 0 in shape for shape in shapes.values()):
        raise RunError(f"its {name}'s arrays are not a T5Gemma's ({shapes}, heads of {head_dim})")
    found = {
        "vocab_size": shapes["embedding"][0],
        "emb_dim": shapes["embedding"][1],
        "num_layers": layer_count(arrays, f"{name}/"),
        "num_heads": shapes["query"][1] / head_dim,
        "num_kv_heads": shapes["key"][1] / head_dim,
        "mlp_dim": shapes["wi"][1],
    }
    for theirs, ours in _SIZES.items():
        said = settings.get(theirs)
        if said not in (None, found[ours]) or found[ours] != int(found[ours]):
            raise RunError(
                f"config.json has {name}.{theirs} {reprlib.repr(said)}, and the weights have {found[ours]:g}: it is no "
                "whole model, or another's config.json; copy it again"
            )
    of_stack = {ours: int(number) for ours, number in found.items() if ours != "vocab_size"}
    if of_stack["num_heads"] % of_stack["num_kv_heads"]:
        raise RunError(f"its {name} has {of_stack['num_heads']} heads for {of_stack['num_kv_heads']} of keys")
    types = settings.get("layer_types")
    if types not in (None, [_LAYER_TYPES[i % 2] for i in range(of_stack["num_layers"])]):
        raise RunError(
            f"config.json has {name}.layer_types {reprlib.repr(types)}; read are sliding_attention and full_attention "
            "in turns"
        )
    return GemmaStack(
        **of_stack,
        head_dim=head_dim,
        query_scalar=_number(name, "query_pre_attn_scalar", settings, 256.0, least=1e-6),
        sliding_window=_whole(name, "sliding_window", settings, 4096),
        attention_cap=_number(name, "attn_logit_softcapping", settings, 50.0),
        rope_base=_number(name, "rope_theta", settings, 10000.0, least=1.0),
    )


def _whole(stack: str, field: str, settings: dict[str, Any], default: int) -> int:
    value = settings.get(field, default)
    if type(value) is not int or not 0 < value < 1 << 31:
        raise RunError(f"config.json has {stack}.{field} {reprlib.repr(value)}, where a whole number belongs")
    return value


def _number(stack: str, field: str, settings: dict[str, Any], default: float, least: float = 0.0) -> float:
    """A finite number from `least` on; null is 0, which switches a cap off."""
    value = settings.get(field, default)
    value = 0.0 if value is None and not least else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise RunError(f"config.json has {stack}.{field} {reprlib.repr(value)}, where a number belongs")
    return float(value)
