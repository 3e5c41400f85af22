"""Token ids that a Hugging Face folder says its model was trained with; T5's and BERT's are fixed."""

from __future__ import annotations

import pathlib
from typing import Any

from jax_prompts.base_models.described import check_types
from jax_prompts.data.vocabularies.byte_level import CLASS, is_bytes
from jax_prompts.data.vocabularies.sentencepiece import EOS_ID, PAD_ID
from jax_prompts.errors import RunError
from jax_prompts.models.t5gemma_config import T5GemmaConfig
from jax_prompts.storage.json_file import read_object

_BERT = {"pad_token_id": PAD_ID}
_T5GEMMA = {
    "pad_token_id": PAD_ID,
    "eos_token_id": EOS_ID,
    "bos_token_id": T5GemmaConfig.start_id,
    "decoder_start_token_id": T5GemmaConfig.start_id,
}
_WANTED = {"bert": _BERT, "t5gemma": _T5GEMMA}
_T5 = {"pad_token_id": PAD_ID, "eos_token_id": EOS_ID, "decoder_start_token_id": PAD_ID}


def check_token_ids(folder: pathlib.Path, described: dict[str, Any]) -> None:
    """Compares config.json, which is `described`, and generation_config.json with what this project's models use.

    Raises:
      RunError: an id differs, a field has the wrong type, or the file cannot be read.
    """
    wanted = _WANTED.get(str(described.get("model_type")), _T5)
    generation = folder / "generation_config.json"
    for file, content in (
        ("config.json", described),
        (generation.name, read_object(generation) if generation.is_file() else {}),
    ):
        check_types(file, content)
        for name, number in wanted.items():
            found = content.get(name)
            # Gemma's <end_of_turn> ends a turn of a chat, too; texts of tasks end with <eos>.
            several = wanted is _T5GEMMA and isinstance(found, list) and number in found
            if found not in (None, number, [number]) and not several:
                raise RunError(
                    f"{file} has {name} {content[name]!r}; this project's models have {number}, and answers would be "
                    "wrong"
                )


def check_unknown(described: dict[str, Any], path: str, unk_id: int) -> None:
    """Raises RunError where config.json has another unknown id than the vocabulary file `path`."""
    if described.get("unk_token_id") not in (None, unk_id):
        raise RunError(
            f"config.json has unk_token_id {described['unk_token_id']!r} and {path} {unk_id}: set VOCABULARY to the "
            "one the model was trained with"
        )


def check_tokenizer_class(described: dict[str, Any], path: str) -> None:
    """Raises RunError where config.json names ByT5's tokenizer and the vocabulary is not of bytes, or another."""
    named = described.get("tokenizer_class")
    if named is not None and (named == CLASS) != is_bytes(path):
        right = "'bytes'" if named == CLASS else "the file the model was trained with"
        raise RunError(
            f"config.json has tokenizer_class {named}, and VOCABULARY is {path}: set VOCABULARY to {right}"
        )
