"""Translates Hugging Face's T5 (v1.0, v1.1, Flan-T5, Flan-UL2, mT5, umT5, ByT5): the one table of names.

Hugging Face stores a Linear's weight [out, in], T5X a kernel [in, out]; its relative position bias is
[buckets, heads], T5X's [heads, buckets]. Both are transposes.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

from jax_prompts.base_models import hf
from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import ArraySource, same

_SHARED, _HEAD = "shared.weight", "lm_head.weight"
_EMBEDDINGS = (
    _SHARED,
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
)  # one table, often repeated
# Old files of v1.0 hold it, and no T5 has ever used it.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

_LAYER = re.compile(r"(encoder|decoder)\.block\.(\d+)\.layer\.(\d)\.(\w+)\.(.+)")
_RELPOS = ("0", "SelfAttention", "relative_attention_bias.weight")
_PARTS = {  # (stack, part of a layer, module) -> T5X's module
    ("encoder", "0", "SelfAttention"): "attention",
    ("encoder", "0", "layer_norm"): "pre_attention_layer_norm",
    ("encoder", "1", "DenseReluDense"): "mlp",
    ("encoder", "1", "layer_norm"): "pre_mlp_layer_norm",
    ("decoder", "0", "SelfAttention"): "self_attention",
    ("decoder", "0", "layer_norm"): "pre_self_attention_layer_norm",
    ("decoder", "1", "EncDecAttention"): "encoder_decoder_attention",
    ("decoder", "1", "layer_norm"): "pre_cross_attention_layer_norm",
    ("decoder", "2", "DenseReluDense"): "mlp",
    ("decoder", "2", "layer_norm"): "pre_mlp_layer_norm",
}
_WEIGHTS = {
    "weight": "scale",
    "q.weight": "query/kernel",
    "k.weight": "key/kernel",
    "v.weight": "value/kernel",
    "o.weight": "out/kernel",
    **{f"{name}.weight": f"{name}/kernel" for name in ("wi", "wi_0", "wi_1", "wo")},
}
ACTIVATIONS = {"relu": ("relu",), **{f"gated-{name}": (name, "linear") for name in ("gelu", "relu", "silu")}}

_DENSE = {"gated-gelu": "gelu_new"}  # where it is called otherwise than behind `gated-`


def t5x_name(theirs: str) -> str | None:
    """T5X's path of a parameter, a relative position bias being its layer's; None for a name that is none of T5's."""
    if theirs in (_SHARED, _HEAD):
        return {_SHARED: "token_embedder/embedding", _HEAD: "decoder/logits_dense/kernel"}[theirs]
    if found := re.fullmatch(r"(encoder|decoder)\.final_layer_norm\.weight", theirs):
        return f"{found[1]}/{found[1]}_norm/scale"
    if found := _LAYER.fullmatch(theirs):
        stack, layer, part, module, weight = found.groups()
        if (part, module, weight) == _RELPOS:
            return f"{stack}/layers_{layer}/relpos_bias/rel_embedding"
        if (stack, part, module) in _PARTS and weight in _WEIGHTS:
            return f"{stack}/layers_{layer}/{_PARTS[stack, part, module]}/{_WEIGHTS[weight]}"
    return None


def projection(theirs: str) -> str | None:
    """Our path of a projection, `encoder/layers_0/attention/query`, by its module's name; None: it is none of T5's."""
    ours = t5x_name(f"{theirs}.weight")
    return ours.removesuffix("/kernel") if ours and ours.endswith("/kernel") else None


def projection_there(ours: str) -> str | None:
    """The module's name of a projection, by our path; None: it is none of T5's."""
    if f"{ours}/kernel" == t5x_name(_HEAD):
        return _HEAD.removesuffix(".weight")
    if found := _OUR_PROJECTION.fullmatch(ours):
        stack, layer, sublayer, name = found.groups()
        if (stack, sublayer) in _SUBLAYERS and f"{name}/kernel" in _THEIR_WEIGHTS:
            part, module = _SUBLAYERS[stack, sublayer]
            weight = _THEIR_WEIGHTS[f"{name}/kernel"].removesuffix(".weight")
            theirs = f"{stack}.block.{layer}.layer.{part}.{module}.{weight}"
            return theirs if projection(theirs) == ours else None
    return None


def sublayer(theirs: str) -> str | None:
    """Our path of attention or MLP, `encoder/layers_0/mlp`, by where it stands, `encoder.block.0.layer.1`."""
    found = _PART.fullmatch(theirs)
    places = {(stack, part): ours for (stack, ours), (part, _) in _SUBLAYERS.items()}
    if found is None or (found[1], found[3]) not in places:
        return None
    return f"{found[1]}/layers_{found[2]}/{places[found[1], found[3]]}"


_PART = re.compile(r"(encoder|decoder)\.block\.(\d+)\.layer\.(\d)")
_OUR_PROJECTION = re.compile(r"(encoder|decoder)/layers_(\d+)/(\w+)/(\w+)")
_SUBLAYERS = {  # (stack, T5X's module) -> part of a layer, module
    (stack, ours): (part, module) for (stack, part, module), ours in _PARTS.items() if module != "layer_norm"
}
_THEIR_WEIGHTS = {ours: theirs for theirs, ours in _WEIGHTS.items()}


def to_t5x(arrays: ArraySource, described: dict[str, Any]) -> ArraySource:
    """A folder's arrays under their T5X paths; names it does not know keep theirs.

    In all but umT5, the relative position bias of a stack's first layer is that of all its layers.

    A head that is the embedding again, or is not there, is tied, unless `described`, its config.json, says that
    logits are not scaled as a tied head's are; then it is separate, and the embedding's numbers are its own.
    """
    arrays = dict(arrays)
    copies = {name: arrays.pop(name) for name in _EMBEDDINGS if name in arrays}
    if not copies:
        raise RunError(f"{hf.wrapped(arrays, _SHARED) or f'no {_SHARED}'}: it is no T5")
    shared = next(iter(copies.values()))
    for name, copy in copies.items():
        if copy is not shared and not same(copy, shared):
            raise RunError(f"{name} is not the other embedding again, and this project's T5 has one")
    arrays.pop(_UNUSED, None)
    if not _scales(described):
        arrays.setdefault(_HEAD, shared)
    elif _HEAD in arrays and same(arrays[_HEAD], shared):
        del arrays[_HEAD]
    renamed = {
        t5x_name(theirs) or theirs: array.T if len(array.shape) == 2 else array
        for theirs, array in arrays.items()
    }
    if described.get("model_type") != "umt5":
        renamed = {name.replace("/layers_0/relpos_bias/", "/relpos_bias/"): x for name, x in renamed.items()}
    return {"token_embedder/embedding": shared, **renamed}


def _scales(described: dict[str, Any]) -> bool:
    """Whether a tied head's logits are scaled by 1/sqrt(D): T5's as config.json says; mT5's up to transformers 4.

    Since transformers 5 an mT5 is always tied and never scaled, whatever config.json says of either.
    """
    version = re.match(r"\d+", str(described.get("transformers_version", "")))
    if described.get("model_type") == "mt5" and version and int(version[0]) >= 5:
        return False
    return bool(described.get("scale_decoder_outputs", described.get("tie_word_embeddings", True)))


def max_distance(described: dict[str, Any]) -> int:
    """Tokens from which on relative positions are one.

    Raises:
      RunError: it is no number of tokens.
    """
    name = "relative_attention_max_distance"
    distance = described.get(name, 128)
    if not isinstance(distance, int) or isinstance(distance, bool) or not 0 < distance < 1 << 31:
        raise RunError(f"config.json has {name} {reprlib.repr(distance)}, which is no number of tokens")
    return distance


def activations(described: dict[str, Any]) -> tuple[str, ...]:
    """Of the feed-forward blocks.

    Raises:
      RunError: this project's T5 has not that one.
    """
    kind = described.get("feed_forward_proj", "relu")
    if kind not in ACTIVATIONS:
        raise RunError(f"config.json has feed_forward_proj {kind!r}; read are {', '.join(ACTIVATIONS)}")
    # transformers takes these two, where they are there, in place of what feed_forward_proj says.
    own = {"dense_act_fn": _DENSE.get(kind, kind.removeprefix("gated-")), "is_gated_act": "-" in kind}
    for name, wanted in own.items():
        if described.get(name) not in (None, wanted):
            raise RunError(
                f"config.json has {name} {described[name]!r}, and {wanted!r} goes with feed_forward_proj {kind!r}"
            )
    if described.get("layer_norm_epsilon", 1e-6) != 1e-6:
        raise RunError(f"config.json has layer_norm_epsilon {described['layer_norm_epsilon']}; T5's is 1e-06")
    return ACTIVATIONS[kind]
