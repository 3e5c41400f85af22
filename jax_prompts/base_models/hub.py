"""Downloads base models of the Hugging Face hub, by name."""

from __future__ import annotations

import fnmatch
import logging
from typing import Any

from jax_prompts.data.vocabularies.tokenizer_config import FILES
from jax_prompts.data.vocabularies.vocabulary_file import VOCABULARIES
from jax_prompts.errors import RunError, first_line
from jax_prompts.storage.remote import within_limit

# In order of preference; whichever there is first is fetched, alone.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "flax_model*.msgpack")
_OTHERS = ["config.json", "generation_config.json", "*.index.json", *VOCABULARIES, *FILES]


def download(path: str) -> str:
    """The folder of `hf://ORGANISATION/NAME` or `hf://ORGANISATION/NAME@REVISION`, fetched once and then kept.

    Raises:
      RunError: no such model, or no answer from the hub and nothing kept.
    """
    import huggingface_hub

    huggingface_hub.logging.set_verbosity(logging.CRITICAL)  # it remarks on every retry

    name, _, revision = path.removeprefix("hf://").partition("@")
    chosen: Any = {"repo_id": name, "revision": revision or None}
    try:
        files = within_limit(lambda: huggingface_hub.HfApi().list_repo_files(**chosen))
        weights = [pattern for pattern in _WEIGHTS if fnmatch.filter(files, pattern)]
        return huggingface_hub.snapshot_download(**chosen, allow_patterns=[*weights[:1], *_OTHERS])
    except Exception as error:  # whatever the library and the network raise
        try:
            return huggingface_hub.snapshot_download(**chosen, local_files_only=True)
        except Exception:
            reason = first_line(error)
            raise RunError(
                f"{path} could not be fetched ({reason}): set INITIAL_CHECKPOINT_PATH to a local copy of it"
            ) from error
