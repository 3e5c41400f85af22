"""The entry of one prompt in a store: what its file is, how it is written as JSON and read again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import TYPE_CHECKING

from jax_prompts.errors import RunError
from jax_prompts.prompts.prompt_file import (
    PromptMetadata,
    metadata_text,
    parse_file,
    parse_metadata,
)

if TYPE_CHECKING:
    from jax_prompts.storage.files import PathOrUrl


class DamagedEntryError(RunError):
    """An entry that was read, and is none."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """Entry of one prompt.

    Attributes:
      name: what its users call it.
      file: its file's name in the store.
      size, sha256: of the file, in bytes.
      length, width: P and D (or W, `prompts/per_layer.py`).
      added: when, UTC.
      metadata: where the prompt came from.
      leaves: how many numbers are tuned inside the model.
    """

    name: str
    file: str
    size: int
    sha256: str
    length: int
    width: int
    added: str
    metadata: PromptMetadata
    leaves: int = 0

    @classmethod
    def of(cls, name: str, file: str, added: str, path: PathOrUrl, content: bytes) -> Entry:
        """The entry of a prompt file with this content, read from `path`.

        Raises:
          RunError: it is no prompt file.
        """
        prompt_PD, leaves, metadata = parse_file(path, content)
        inside = sum(leaf.size for leaf in leaves.values())
        length, width = prompt_PD.shape
        checksum = hashlib.sha256(content).hexdigest()
        return cls(name, file, len(content), checksum, length, width, added, metadata, inside)

    def to_json(self) -> bytes:
        """Content of the entry's file."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["metadata"] = metadata_text(self.metadata)
        return json.dumps(fields, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, place: str, name: str, content: bytes) -> Entry:
        """Reads what `to_json` wrote of a prompt called `name`. Raises DamagedEntryError for anything else."""
        wrong = f"{place} is no entry of a prompt store: remove {name}, or replace it"
        try:
            fields = json.loads(content)
            text = fields.pop("metadata")
            fits = all(isinstance(value, str) for value in text.values())
            entry = cls(**fields, metadata=PromptMetadata())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedEntryError(wrong) from error
        numbers, texts = (entry.size, entry.length, entry.width, entry.leaves), (entry.sha256, entry.added)
        fits = fits and all(isinstance(value, int) for value in numbers)
        fits = fits and all(isinstance(value, str) for value in texts)
        # Only a file of this prompt, so that removing it or reading it can reach no other.
        own = re.compile(re.escape(name) + r"\.[0-9a-f]{12}\.safetensors")
        if not fits or entry.name != name or not own.fullmatch(str(entry.file)):
            raise DamagedEntryError(wrong)
        try:
            return dataclasses.replace(entry, metadata=parse_metadata(place, text))
        except RunError as error:
            raise DamagedEntryError(str(error)) from error
