"""Sizes of the public T5 and BERT models, and of the models shipped with the package.

Sources: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (v1.0), the T5.1.1 release notes (v1.1), Xue et al. 2021, "mT5: A Massively Multilingual Pre-trained
Text-to-Text Transformer", Xue et al. 2022, "ByT5: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models",
Chung et al. 2023, "UniMax: Fairer and More Effective Language Sampling" (umT5), Tay et al. 2023, "UL2: Unifying
Language Learning Paradigms", Zhang et al. 2025, "Encoder-Decoder Gemma: Improving the Quality-Efficiency Trade-Off via
Adaptation" (T5Gemma, whose stacks are Gemma 2's or of T5's sizes), and the configurations published with the T5X
checkpoints. T5 and UL2 have 32,000 pieces and 100 sentinels, in 32,128 embedding rows. BERT: Devlin et al. 2019, and
for `bert_tiny` Turc et al. 2019, "Well-Read Students Learn Better".
"""

from __future__ import annotations

from jax_prompts.errors import ConfigError, nearest
from jax_prompts.models.bert import BertConfig
from jax_prompts.models.t5 import T5Config
from jax_prompts.models.t5gemma_config import GemmaStack, T5GemmaConfig

ModelConfig = T5Config | T5GemmaConfig | BertConfig

_RELU = ("relu",)
_GATED_GELU = ("gelu", "linear")
_MC4 = 250112  # embedding rows of mT5, whose vocabulary is of mC4
_BYTES = 384  # of ByT5: three special ids, 256 bytes, and idle rows up to a multiple of 128
UMT5_ROWS = 256384  # of umT5: 256,000 pieces and 300 sentinels


def _v1_0(emb_dim: int, num_layers: int, num_heads: int, head_dim: int, mlp_dim: int) -> T5Config:
    return T5Config(
        vocab_size=32128,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_layers,
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        mlp_activations=_RELU,
        logits_via_embedding=True,
    )


def _v1_1(
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    vocab_size: int = 32128,
    *,
    decoder_layers: int | None = None,
    head_dim: int = 64,
) -> T5Config:
    return T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_encoder_layers=num_layers,
        num_decoder_layers=decoder_layers or num_layers,
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        mlp_activations=_GATED_GELU,
        logits_via_embedding=False,
        relpos_in_layers=vocab_size == UMT5_ROWS,
    )


def _gemma(
    emb_dim: int, num_layers: int, num_heads: int, num_kv_heads: int, head_dim: int, mlp_dim: int
) -> GemmaStack:
    return GemmaStack(emb_dim, num_layers, num_heads, num_kv_heads, head_dim, mlp_dim, query_scalar=head_dim)


_GEMMA_2B, _GEMMA_9B = _gemma(2304, 26, 8, 4, 256, 9216), _gemma(3584, 42, 16, 8, 256, 14336)


def _t5gemma(encoder: GemmaStack, decoder: GemmaStack | None = None) -> T5GemmaConfig:
    return T5GemmaConfig(vocab_size=256000, encoder=encoder, decoder=decoder or encoder)


SIZES: dict[str, ModelConfig] = {
    "t5_1_0_small": _v1_0(512, 6, 8, 64, 2048),
    "t5_1_0_base": _v1_0(768, 12, 12, 64, 3072),
    "t5_1_0_large": _v1_0(1024, 24, 16, 64, 4096),
    "t5_1_0_3b": _v1_0(1024, 24, 32, 128, 16384),
    "t5_1_0_11b": _v1_0(1024, 24, 128, 128, 65536),
    "t5_1_1_small": _v1_1(512, 8, 6, 1024),
    "t5_1_1_base": _v1_1(768, 12, 12, 2048),
    "t5_1_1_large": _v1_1(1024, 24, 16, 2816),
    "t5_1_1_xl": _v1_1(2048, 24, 32, 5120),
    "t5_1_1_xxl": _v1_1(4096, 24, 64, 10240),
    "mt5_small": _v1_1(512, 8, 6, 1024, _MC4),
    "mt5_base": _v1_1(768, 12, 12, 2048, _MC4),
    "mt5_large": _v1_1(1024, 24, 16, 2816, _MC4),
    "mt5_xl": _v1_1(2048, 24, 32, 5120, _MC4),
    "mt5_xxl": _v1_1(4096, 24, 64, 10240, _MC4),
    "umt5_small": _v1_1(512, 8, 6, 1024, UMT5_ROWS),
    "umt5_base": _v1_1(768, 12, 12, 2048, UMT5_ROWS),
    "umt5_xl": _v1_1(2048, 24, 32, 5120, UMT5_ROWS),
    "umt5_xxl": _v1_1(4096, 24, 64, 10240, UMT5_ROWS),
    "byt5_small": _v1_1(1472, 12, 6, 3584, _BYTES, decoder_layers=4),
    "byt5_base": _v1_1(1536, 18, 12, 3968, _BYTES, decoder_layers=6),
    "byt5_large": _v1_1(1536, 36, 16, 3840, _BYTES, decoder_layers=12),
    "byt5_xl": _v1_1(2560, 36, 32, 6720, _BYTES, decoder_layers=12),
    "byt5_xxl": _v1_1(4672, 36, 64, 12352, _BYTES, decoder_layers=12),
    "ul2": T5Config(
        vocab_size=32128,
        emb_dim=4096,
        num_heads=16,
        num_encoder_layers=32,
        num_decoder_layers=32,
        head_dim=256,
        mlp_dim=16384,
        mlp_activations=("silu", "linear"),
        logits_via_embedding=False,
    ),
    "t5gemma_small": _t5gemma(_gemma(512, 8, 8, 8, 64, 1024)),
    "t5gemma_base": _t5gemma(_gemma(768, 12, 12, 12, 64, 2048)),
    "t5gemma_large": _t5gemma(_gemma(1024, 24, 16, 16, 64, 2816)),
    "t5gemma_ml": _t5gemma(_gemma(1152, 26, 4, 4, 256, 6912)),
    "t5gemma_xl": _t5gemma(_gemma(2048, 24, 32, 32, 64, 5120)),
    "t5gemma_2b_2b": _t5gemma(_GEMMA_2B),
    "t5gemma_9b_2b": _t5gemma(_GEMMA_9B, _GEMMA_2B),
    "t5gemma_9b_9b": _t5gemma(_GEMMA_9B),
    "bert_tiny": BertConfig(30522, 128, 2, 2, 512),
    "bert_base": BertConfig(30522, 768, 12, 12, 3072),
    # Shaped for pre-training on a few CPU cores: see assets/micro/MODEL_CARD.md and assets/mini/MODEL_CARD.md.
    "micro": _v1_1(192, 3, 6, 512, 4096, decoder_layers=2, head_dim=32),
    "mini": _v1_1(256, 6, 4, 704, 5120, decoder_layers=4),
    # With mini's vocabulary, to see what a size is worth.
    "nano": _v1_1(128, 4, 2, 352, 5120, decoder_layers=2),
    "midi": _v1_1(512, 8, 8, 1408, 5120, decoder_layers=6),
}


def size(name: str) -> ModelConfig:
    """The configuration called `name`.

    Raises:
      ConfigError: no model has that name; the nearest names are offered.
    """
    if name not in SIZES:
        raise ConfigError(f"model size {name!r} is unknown; did you mean {nearest(name, SIZES)}?")
    return SIZES[name]
