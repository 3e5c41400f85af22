"""What Hugging Face keeps beside a vocabulary: its tokenizer's settings, tokens added to it, names of special ones.

All that is said there is obeyed, or refused with the name of its file.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Collection, Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer

from jax_prompts.errors import RunError, first_line

SETTINGS, ADDED, SPECIAL = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
FILES = (SETTINGS, ADDED, SPECIAL)
# What saves the tokenizer.json of any tokenizer; the file says all of it.
ANY_TOKENIZER_JSON = ("PreTrainedTokenizer", "TokenizersBackend")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_NAMES = ("pad_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token")
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")


@dataclasses.dataclass(frozen=True)
class Companions:
    """What lies beside a vocabulary; nothing beside one in a bucket.

    Attributes:
      folder: where.
      settings: of tokenizer_config.json.
      special: `pad_token`, `eos_token` ... -> token.
      added: id -> token, in order.
      listed: special tokens without a name.
    """

    folder: pathlib.Path = pathlib.Path()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    special: dict[str, str] = dataclasses.field(default_factory=dict)
    added: dict[int, AddedToken] = dataclasses.field(default_factory=dict)
    listed: tuple[str, ...] = ()

    def tokenizer_class(self) -> str | None:
        """Without `Fast`, which names the same tokens."""
        name = self.settings.get("tokenizer_class")
        return name.removesuffix("Fast") if isinstance(name, str) else None

    def check(self, classes: Collection[str], refused: Iterable[str]) -> None:
        """Raises RunError for a tokenizer class that is none of `classes`, and a setting of `refused` that is set."""
        if self.tokenizer_class() not in (None, *classes):
            raise self.error(
                f"tokenizer_class {self.settings['tokenizer_class']} is none of {', '.join(classes)}"
            )
        for name in refused:
            if self.settings.get(name):
                raise self.error(f"{name} {self.settings[name]!r} is not supported")

    def without(self, tokens: re.Pattern[str]) -> Companions:
        """The same, without the added and listed tokens of a form."""
        added = {number: token for number, token in self.added.items() if not tokens.fullmatch(token.content)}
        listed = tuple(token for token in self.listed if not tokens.fullmatch(token))
        return dataclasses.replace(self, added=added, listed=listed)

    def switch(self, name: str, default: bool | None) -> bool | None:
        """A setting that is true, false or null, or `default` where it is not there."""
        value = self.settings.get(name, default)
        if not (value is None or isinstance(value, bool)):
            raise self.error(f"{name} is {value!r}, and not true, false or null")
        return value

    def error(self, reason: str, file: str = SETTINGS) -> RunError:
        return RunError(
            f"{self.folder / file}: {reason}; it would read texts otherwise than the model has learnt"
        )

    def add_to(self, tokenizer: Tokenizer) -> list[str]:
        """Adds the tokens that a tokenizer has not, at their ids, and returns them.

        Raises:
          RunError: a token would have another id, or a special token none.
        """
        new = []
        for number, token in self.added.items():
            if tokenizer.token_to_id(token.content) is None:
                tokenizer.add_tokens([token])
                new.append(f"{number} {token.content} {[getattr(token, flag) for flag in _FLAGS]}")
            if tokenizer.token_to_id(token.content) != number:
                found = tokenizer.token_to_id(token.content)
                raise self.error(f"{token.content!r} is said to have id {number}, and it has {found}", ADDED)
        for name in (*self.special.values(), *self.listed):
            if tokenizer.token_to_id(name) is None:
                raise self.error(f"the special token {name!r} is not in the vocabulary", SPECIAL)
        return new


def read_companions(path: str) -> Companions:
    """What lies beside the vocabulary file `path`.

    Raises:
      RunError: a file cannot be read, or two of them differ.
    """
    if "://" in path:
        return Companions()
    folder = pathlib.Path(path).parent
    found = Companions(folder, _read(folder / SETTINGS))
    if "tokenizer_class" not in found.settings:
        named = _read(folder / "config.json").get("tokenizer_class")
        found.settings.update({} if named is None else {"tokenizer_class": named})
    listed: list[str] = []
    for file, content in ((SETTINGS, found.settings), (SPECIAL, _read(folder / SPECIAL))):
        for name in _NAMES:
            if content.get(name) is None:
                continue
            token = _token(found, file, content[name])
            if found.special.setdefault(name, token) != token:
                raise found.error(f"{name} is {token!r}, and {found.special[name]!r} in {SETTINGS}", file)
        for name in _LISTS:
            tokens = content.get(name) or ()
            if not isinstance(tokens, list | dict | tuple):
                raise found.error(f"{name} is no list of tokens", file)
            listed += [
                _token(found, file, each)
                for each in (tokens.values() if isinstance(tokens, dict) else tokens)
            ]
    special = {*found.special.values(), *listed}
    added = {}
    for token, number in _read(folder / ADDED).items():
        added[_id(found, ADDED, number)] = AddedToken(
            token, normalized=token not in special, special=token in special
        )
    decoder = found.settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict) or not all(isinstance(token, dict) for token in decoder.values()):
        raise found.error("added_tokens_decoder is no table of tokens")
    for number, token in decoder.items():
        flags = {name: value for name, value in token.items() if name in _FLAGS}
        added[_id(found, SETTINGS, number)] = AddedToken(_token(found, SETTINGS, token), **flags)
    return dataclasses.replace(found, added=dict(sorted(added.items())), listed=tuple(listed))


def companion_contents(path: str) -> dict[str, bytes]:
    """The files beside the vocabulary file `path`, by name."""
    folder = pathlib.Path(path).parent
    return (
        {}
        if "://" in path
        else {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    )


def _read(file: pathlib.Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is none."""
    try:
        found = json.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise RunError(f"{file} cannot be read: it is no JSON object")
    return found


def _token(found: Companions, file: str, value: Any) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise found.error(f"{value!r} is no token", file)
    return content


def _id(found: Companions, file: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise found.error(f"{value!r} is no id", file) from error
