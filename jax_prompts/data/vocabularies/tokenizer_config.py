"""The files that Hugging Face keeps beside a vocabulary: settings of the tokenizer, tokens added to it, special ones.

All that is said there is obeyed, or refused with the name of its file.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer

from jax_prompts.data.vocabularies.vocabulary_file import BYTES
from jax_prompts.errors import RunError
from jax_prompts.storage.json_file import read_object

SETTINGS, ADDED, SPECIAL = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
FILES = (SETTINGS, ADDED, SPECIAL)
# What saves the tokenizer.json of any tokenizer; the file says all of it.
ANY_TOKENIZER_JSON = ("PreTrainedTokenizer", "TokenizersBackend")
_NAMES = ("pad_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """What lies beside a vocabulary.

    Attributes:
      folder: where.
      settings: of tokenizer_config.json; its `tokenizer_class` may come from config.json.
      special: `pad_token`, `eos_token` ... -> token.
      unnamed: special tokens without such a name.
      added: id -> token, in order.
    """

    folder: pathlib.Path = pathlib.Path()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    special: dict[str, str] = dataclasses.field(default_factory=dict)
    unnamed: tuple[str, ...] = ()
    added: dict[int, AddedToken] = dataclasses.field(default_factory=dict)

    def tokenizer_class(self) -> str | None:
        """Without `Fast`, which names the same tokens. Raises RunError for what is no name."""
        name = self.settings.get("tokenizer_class")
        if not (name is None or isinstance(name, str)):
            raise self.error(f"tokenizer_class {name!r} is no text", SETTINGS, "config.json")
        return name and name.removesuffix("Fast")

    def bos_token(self) -> str | None:
        """What tokenizer_config.json calls so; None: it does not say."""
        named = self.settings.get("bos_token")
        return None if named is None else _token(self, SETTINGS, named)

    def check(self, classes: Collection[str], fixed: Mapping[str, Any]) -> None:
        """Raises RunError for a class that is none of `classes`, and a setting that is not as `fixed` has it."""
        if self.tokenizer_class() not in (None, *classes):
            raise self.error(
                f"tokenizer_class {self.settings['tokenizer_class']} is none of {', '.join(classes)}",
                SETTINGS,
                "config.json",
            )
        for name, value in fixed.items():
            if self.settings.get(name) not in (None, value):
                raise self.error(f"{name} {self.settings[name]!r} is not supported")

    def without(self, tokens: re.Pattern[str]) -> TokenizerConfig:
        """The same, without the added and unnamed tokens of a form."""
        added = {number: token for number, token in self.added.items() if not tokens.fullmatch(token.content)}
        unnamed = tuple(token for token in self.unnamed if not tokens.fullmatch(token))
        return dataclasses.replace(self, added=added, unnamed=unnamed)

    def switch(self, name: str, default: bool | None) -> bool | None:
        """A setting that is true, false or null, or `default` where it is not there."""
        value = self.settings.get(name, default)
        if not (value is None or isinstance(value, bool)):
            raise self.error(f"{name} is {value!r}, and not true, false or null")
        return value

    def extra_ids(self, default: int) -> int:
        """Number of sentinels, or `default` where it is not there."""
        extra_ids = self.settings.get("extra_ids")
        if extra_ids is None:
            return default
        if type(extra_ids) is not int or not 0 <= extra_ids <= 100_000:
            raise self.error(f"extra_ids {extra_ids!r} is no number of sentinels")
        return extra_ids

    def error(self, reason: str, *files: str) -> RunError:
        """Of tokenizer_config.json, or of those of `files` that are there: any of them may say it."""
        there = [file for file in files or (SETTINGS,) if (self.folder / file).is_file()]
        places = " or ".join(str(self.folder / file) for file in there)
        return RunError(f"{places}: {reason}; it would read texts otherwise than the model has learnt")

    def add_to(self, tokenizer: Tokenizer) -> list[str]:
        """Adds the tokens that a tokenizer has not, at their ids, and returns them, each with its id and flags.

        Raises:
          RunError: a token would have another id, or a special token none.
        """
        new = []
        for number, token in self.added.items():
            if tokenizer.token_to_id(token.content) is None:
                tokenizer.add_tokens([token])
                new.append(f"{number} {token.content} {[getattr(token, flag) for flag in _FLAGS]}")
            if (found := tokenizer.token_to_id(token.content)) != number:
                raise self.error(
                    f"{token.content!r} is said to have id {number}, and it has {found}", ADDED, SETTINGS
                )
        for name in (*self.special.values(), *self.unnamed):
            if tokenizer.token_to_id(name) is None:
                raise self.error(f"the special token {name!r} is not in the vocabulary", SETTINGS, SPECIAL)
        return new


def read_tokenizer_config(path: str) -> TokenizerConfig:
    """What lies beside the vocabulary file `path`; nothing of `bytes`, or of one in a bucket, where none is looked for.

    Raises:
      RunError: a file cannot be read, or two of them differ.
    """
    if "://" in path or path == BYTES:
        return TokenizerConfig()
    folder = pathlib.Path(path).parent
    settings, added, special_map = _settings(folder), _read(folder / ADDED), _read(folder / SPECIAL)
    found = TokenizerConfig(folder, settings)
    for file, content in ((SETTINGS, settings), (SPECIAL, special_map)):
        found = _with_special(found, file, content)
    return dataclasses.replace(found, added=_added(found, added))


def tokenizer_class(folder: pathlib.Path) -> str | None:
    """The tokenizer's class that a folder names, without `Fast`.

    Raises:
      RunError: the file that would name it cannot be read, or holds what is no name.
    """
    return TokenizerConfig(folder, _settings(folder)).tokenizer_class()


def _settings(folder: pathlib.Path) -> dict[str, Any]:
    settings = _read(folder / SETTINGS)
    if "tokenizer_class" not in settings:
        settings["tokenizer_class"] = _read(folder / "config.json").get("tokenizer_class")
    return settings


def tokenizer_files(path: str) -> list[pathlib.Path]:
    """The files beside the vocabulary file `path`."""
    if "://" in path or path == BYTES:
        return []
    return [file for name in FILES if (file := pathlib.Path(path).with_name(name)).is_file()]


def _read(file: pathlib.Path) -> dict[str, Any]:
    return read_object(file) if file.is_file() else {}


def _with_special(found: TokenizerConfig, file: str, content: dict[str, Any]) -> TokenizerConfig:
    """With the special tokens of a file, which have to be those found before."""
    special, unnamed = dict(found.special), [*found.unnamed]
    for name in _NAMES:
        if content.get(name) is None:
            continue
        token = _token(found, file, content[name])
        if special.setdefault(name, token) != token:
            raise found.error(f"{name} is {token!r}, and {special[name]!r} in {SETTINGS}", file)
    for name in _LISTS:
        tokens = content.get(name) or ()
        if not isinstance(tokens, list | dict | tuple):
            raise found.error(f"{name} is no list of tokens", file)
        for token in tokens.values() if isinstance(tokens, dict) else tokens:
            unnamed.append(_token(found, file, token))
    return dataclasses.replace(found, special=special, unnamed=tuple(unnamed))


def _added(found: TokenizerConfig, older: dict[str, Any]) -> dict[int, AddedToken]:
    """Tokens of `older`, which is added_tokens.json, and of tokenizer_config.json, which knows more of them."""
    special = {*found.special.values(), *found.unnamed}
    added = {
        _id(found, ADDED, number): AddedToken(
            token, normalized=token not in special, special=token in special
        )
        for token, number in older.items()
    }
    newer = found.settings.get("added_tokens_decoder") or {}
    if not isinstance(newer, dict) or not all(isinstance(token, dict) for token in newer.values()):
        raise found.error("added_tokens_decoder is no table of tokens")
    for number, token in newer.items():
        flags = {name: value for name, value in token.items() if name in _FLAGS}
        if not all(isinstance(flag, bool) for flag in flags.values()):
            raise found.error(f"added_tokens_decoder has flags of {number} that are not true or false")
        added[_id(found, SETTINGS, number)] = AddedToken(_token(found, SETTINGS, token), **flags)
    return dict(sorted(added.items()))


def _token(found: TokenizerConfig, file: str, value: Any) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise found.error(f"{value!r} is no token", file)
    return content


def _id(found: TokenizerConfig, file: str, value: Any) -> int:
    """An id, which is a number in added_tokens.json and a name in tokenizer_config.json."""
    text = str(value)
    if isinstance(value, bool | float) or not re.fullmatch("[0-9]{1,10}", text):
        raise found.error(f"{value!r} is no id", file)
    return int(text)
