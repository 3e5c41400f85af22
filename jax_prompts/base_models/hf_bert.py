"""Translates Hugging Face's BERT: the one table of names.

Files hold a bare encoder (`embeddings...`) or one inside a model with a head (`bert.embeddings...`); heads of
classifiers are not the frozen model's and are left out. A Linear's weight [out, in] is a kernel's transpose.
"""

from __future__ import annotations

import re
from typing import Any

from jax_prompts.base_models import hf
from jax_prompts.base_models.stacks import layer_count
from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import ArraySource
from jax_prompts.models.bert import BertConfig

_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embedder/embedding",
    "embeddings.position_embeddings.weight": "position_embedding",
    "embeddings.token_type_embeddings.weight": "segment_embedding",
}
_MODULES = {
    "embeddings.LayerNorm": "embedding_norm",
    "pooler.dense": "pooler",
    "cls.predictions.transform.dense": "mlm_dense",
    "cls.predictions.transform.LayerNorm": "mlm_norm",
}
_LAYER_MODULES = {
    **{f"attention.self.{name}": name for name in ("query", "key", "value")},
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "wi",
    "output.dense": "wo",
    "output.LayerNorm": "mlp_norm",
}
# The masked-LM projection is the embedding, and some files write position numbers.
_LEFT_OUT = ("classifier.", "cls.seq_relationship.", "cls.predictions.decoder.")


def our_name(theirs: str) -> str | None:
    """Our path of a parameter; None for a name that is none of BERT's."""
    theirs = theirs.removeprefix("bert.")
    if theirs in _EMBEDDINGS:
        return _EMBEDDINGS[theirs]
    if theirs == "cls.predictions.bias":
        return "mlm_bias"
    module, _, weight = theirs.rpartition(".")
    if layer := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", module):
        ours = _LAYER_MODULES.get(layer[2])
        ours = ours and f"layers_{layer[1]}/{ours}"
    else:
        ours = _MODULES.get(module)
    # The oldest files, which TensorFlow's were made into, call a norm's scale and bias gamma and beta.
    weight = {"gamma": "weight", "beta": "bias"}.get(weight, weight)
    if ours is None or weight not in ("weight", "bias"):
        return None
    return f"{ours}/{'bias' if weight == 'bias' else 'scale' if ours.endswith('norm') else 'kernel'}"


def to_ours(arrays: ArraySource) -> ArraySource:
    """A folder's arrays under our paths; names it does not know keep theirs."""
    renamed = {}
    for theirs, array in arrays.items():
        if theirs.startswith(_LEFT_OUT) or theirs.endswith("position_ids"):
            continue
        ours = our_name(theirs) or theirs
        renamed[ours] = array.T if ours.endswith("/kernel") else array
    return renamed


def sizes(arrays: ArraySource, described: dict[str, Any]) -> BertConfig:
    """The sizes of a BERT from its own arrays; the heads from `described`, its config.json.

    Raises:
      RunError: they are no BERT, or one that this project has not.
    """
    for name, wanted in (
        ("hidden_act", "gelu"),
        ("position_embedding_type", "absolute"),
        ("layer_norm_eps", 1e-12),
    ):
        if described.get(name, wanted) != wanted:
            raise RunError(f"config.json has {name} {described[name]!r}; this project's BERT has {wanted!r}")
    embedding = "embeddings.word_embeddings.weight"
    if "token_embedder/embedding" not in arrays and (how := hf.wrapped(arrays, embedding)):
        raise RunError(f"{how}: it is no BERT")
    try:
        vocab_size, emb_dim = arrays["token_embedder/embedding"].shape
        heads = int(described["num_attention_heads"])
        if heads < 1 or emb_dim % heads:
            raise ValueError(f"{heads} heads of width {emb_dim}")
        return BertConfig(
            vocab_size=vocab_size,
            emb_dim=emb_dim,
            num_heads=heads,
            num_layers=layer_count(arrays, ""),
            mlp_dim=arrays["layers_0/wi/kernel"].shape[1],
            max_length=arrays["position_embedding"].shape[0],
            segments=arrays["segment_embedding"].shape[0],
        )
    except (LookupError, ValueError, TypeError) as error:
        raise RunError(f"its arrays and config.json are not a BERT's ({error})") from error
