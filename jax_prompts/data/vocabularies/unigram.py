"""Makes SentencePiece models of Hugging Face's `tokenizer.json`, which may be all that lies beside a T5."""

from __future__ import annotations

import base64
import json

from sentencepiece import sentencepiece_model_pb2

_CONTROL = ("<pad>", "</s>", "<s>")


def sentencepiece_model(text: str) -> bytes:
    """The SentencePiece model that a Unigram tokenizer was made from, without sentinels.

    Args:
      text: of a `tokenizer.json`.

    Raises:
      ValueError, LookupError, TypeError: it is none.
    """
    described = json.loads(text)
    model = described["model"]
    if model.get("type", "Unigram") != "Unigram" or model.get("byte_fallback"):
        raise ValueError(f"a tokenizer of type {model.get('type')}, and T5's is Unigram without bytes")
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    kinds = proto.SentencePiece
    for number, (piece, score) in enumerate(model["vocab"]):
        if not piece.startswith("<extra_id_"):
            special = kinds.CONTROL if piece in _CONTROL else kinds.NORMAL
            proto.pieces.add(
                piece=piece, score=score, type=kinds.UNKNOWN if number == model["unk_id"] else special
            )
    proto.trainer_spec.unk_id = model["unk_id"]
    proto.trainer_spec.pad_id, proto.trainer_spec.eos_id, proto.trainer_spec.bos_id = 0, 1, -1
    normalizer = described.get("normalizer") or {}
    steps = [normalizer, *normalizer.get("normalizers", [])]
    for step in steps:
        if "precompiled_charsmap" in step:
            proto.normalizer_spec.precompiled_charsmap = base64.b64decode(step["precompiled_charsmap"])
    return proto.SerializeToString(deterministic=True)
