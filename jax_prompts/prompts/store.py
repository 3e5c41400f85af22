"""A prompt store: a folder, here or at a URL, of prompt files, each with an entry that says what it is.

    STORE/NAME.json                        the entry: file, size, checksum, shape, and the file's own metadata
    STORE/NAME.3f9c21ab04de.safetensors    the prompt, in a file that every addition makes anew

The entries are the index; nothing is shared that two writers could take from each other, so that no lock is needed
where there are none (`gs://`, `s3://`). An addition first writes its file, which nobody knows of yet, then the entry,
in one step that of two writers of one name lets only the first succeed. Removal takes the entry first. What is
stopped in between leaves a file without an entry, never an entry without its file; `verify` cleans such up, and does
so at once where a lock, which writers share, says that none is writing.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import datetime
import fnmatch
import math
import re
import uuid
import warnings
from typing import TypeGuard

from jax_prompts.errors import ConfigError, RunError, SettingWarning, nearest, system_reason
from jax_prompts.prompts.prompt_file import (
    PromptMetadata,
    read_content,
)
from jax_prompts.prompts.store_entry import DamagedEntryError, Entry
from jax_prompts.storage import files, folder_lock
from jax_prompts.storage.files import PathOrUrl
from jax_prompts.storage.home import with_home
from jax_prompts.storage.temporary import final_name

MAX_ENTRY_BYTES = 2**22  # a prompt file's metadata has at most 2**20
READERS = 16  # entries read at once: object stores answer slowly, but many at a time
LEFT_SECONDS = (
    3600.0  # an addition is over long before: each of its two files is given up after half a minute
)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclasses.dataclass(frozen=True)
class Verified:
    """State of every file of a store.

    Attributes:
      whole: names of prompts that are as they were added.
      damaged: name -> what is wrong with its entry or file.
      missing: names of prompts whose file is gone.
      unknown: files without an entry: left by an addition that was stopped, being added just now, or no part of it.
      removed: files that a stopped addition or removal had left, where `verify` was asked to clean.
    """

    whole: tuple[str, ...]
    damaged: dict[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    removed: tuple[str, ...] = ()


class PromptStore:
    """The prompts at a folder or URL; `list`, `find` and `verify` take no notice of subfolders.

    Every method raises RunError where the store cannot be read or written, a remote one within
    `remote.TIMEOUT_SECONDS` for each file.
    """

    def __init__(self, url: PathOrUrl) -> None:
        url = with_home(url)
        self.url = url if url.endswith("://") else url.rstrip("/")

    def list(self) -> tuple[Entry, ...]:
        """All entries by name; damaged ones are left out with a warning.

        Raises:
          ConfigError: no store is there.
        """
        entries, damaged = self._entries()
        for wrong in damaged.values():
            warnings.warn(wrong, SettingWarning, stacklevel=2)
        return tuple(entries[name] for name in sorted(entries))

    def find(
        self,
        *,
        task: str = "*",
        model: str = "*",
        metric: str = "*",
        method: str = "*",
        min_score: float | None = None,
        fingerprint: str = "*",
    ) -> tuple[Entry, ...]:
        """Entries that meet every condition, the highest score first.

        Texts may hold `*` and `?`. `model` is the base model's size or its full name; `fingerprint` that of the
        base model's weights.

        Raises:
          ConfigError: no store is there; a condition that is no text, or `min_score` no number.
        """
        texts = {"task": task, "model": model, "metric": metric, "method": method, "fingerprint": fingerprint}
        for what, pattern in texts.items():
            if not isinstance(pattern, str):
                raise ConfigError(f"{what} is {pattern!r}: give a text, which may hold * and ?")
        if min_score is not None and (not isinstance(min_score, int | float) or math.isnan(min_score)):
            raise ConfigError(f"min_score is {min_score!r}: give a number")

        def fits(metadata: PromptMetadata) -> bool:
            wanted = [
                (task, metadata.task),
                (metric, metadata.metric),
                (method, metadata.method),
                (fingerprint, metadata.model_fingerprint),
            ]
            models = metadata.base_model, metadata.base_model.partition(" ")[0]
            return (
                all(fnmatch.fnmatchcase(text, pattern) for pattern, text in wanted)
                and any(fnmatch.fnmatchcase(text, model) for text in models)
                and (min_score is None or (_is_score(metadata.score) and metadata.score >= min_score))
            )

        def order(entry: Entry) -> tuple[float, str]:
            score = entry.metadata.score
            return (-score if _is_score(score) else math.inf), entry.name

        return tuple(sorted((entry for entry in self.list() if fits(entry.metadata)), key=order))

    def path(self, name: str) -> str:
        """Path or URL of a prompt's file, for whatever takes a prompt file. It never changes.

        Raises:
          ConfigError: there is no such prompt.
        """
        entry = self._read_entry(name)
        if entry is None:
            raise ConfigError(self._absent(name))
        return f"{self.url}/{entry.file}"

    def add(self, name: str, path: PathOrUrl, *, replace: bool = False) -> Entry:
        """Stores a copy of a prompt file, byte by byte.

        Raises:
          ConfigError: a name that cannot be one, or is taken (without `replace`); no such file; a file in place of
            the store.
          RunError: it is no prompt file.
        """
        if not _is_name(name):
            raise ConfigError(f"{name!r} cannot name a prompt: use letters, digits and . _ -, at most 100")
        file = f"{name}.{uuid.uuid4().hex[:12]}.safetensors"
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        content = read_content(path)
        entry = Entry.of(name, file, now, path, content)
        if entry.metadata.score is not None and not math.isfinite(entry.metadata.score):
            raise RunError(
                f"{path} has the score {entry.metadata.score}, which is no finite number: correct its metadata"
            )
        try:
            with folder_lock.shared(self.url):  # `verify` cleans only where nobody adds
                return self._add(entry, content, replace=replace)
        except NotADirectoryError as error:
            raise ConfigError(
                f"{name} could not be added to {self.url} ({system_reason(error)}): give a directory, or a URL"
            ) from error
        except OSError as error:
            raise RunError(f"{name} could not be added to {self.url}: {system_reason(error)}") from error

    def _add(self, entry: Entry, content: bytes, *, replace: bool) -> Entry:
        name, file = entry.name, entry.file
        taken = ConfigError(f"{self.url} has a prompt {name} already: choose another name, or replace it")
        try:
            before = self._read_entry(name)
        except DamagedEntryError:  # of which only the name is left
            before = None
            if not replace:
                raise
        if before is not None and not replace:
            raise taken
        try:
            files.write(f"{self.url}/{file}", content, replace=True)  # its name is nobody else's
            files.write(f"{self.url}/{name}.json", entry.to_json(), replace=replace)
        except FileExistsError as error:
            # A library that sent a write twice, the first answer being lost, has met its own entry.
            first = self._read_entry(name)
            if first is None or first.file != file:
                self._remove_file(file)
                raise taken from error
        if before is not None:
            self._remove_file(before.file)
        return entry

    def remove(self, name: str) -> None:
        """Takes a prompt out; of a damaged one, whose file is not known any more, the entry.

        Raises:
          ConfigError: there is no such prompt.
        """
        try:
            entry = self._read_entry(name)
        except DamagedEntryError:
            entry = None
        else:
            if entry is None:
                raise ConfigError(self._absent(name))
        self._remove_file(f"{name}.json")
        if entry is not None:
            self._remove_file(entry.file)

    def verify(self, *, clean: bool = False) -> Verified:
        """Reads every file and compares it with its entry.

        Args:
          clean: remove what additions and removals that were stopped have left: files of this store's naming that no
            entry names. Where others may be adding just now, those of the last hour stay.

        Raises:
          ConfigError: no store is there.
        """
        removed = self._clean() if clean else ()
        present = self._files()  # before the entries, so that what is added meanwhile is not unknown
        entries, damaged = self._entries()
        whole, missing = [], []
        for name, entry in sorted(entries.items()):
            place = f"{self.url}/{entry.file}"
            try:
                found = Entry.of(name, entry.file, entry.added, place, read_content(place))
            except ConfigError:  # no such file
                missing.append(name)
            except RunError as error:
                damaged[name] = str(error)
            else:
                if found.to_json() == entry.to_json():
                    whole.append(name)
                else:
                    damaged[name] = f"{place} is not what was added as {name}"
        known = {entry.file for entry in entries.values()} | {f"{name}.json" for name in _names(present)}
        return Verified(
            tuple(whole),
            dict(sorted(damaged.items())),
            tuple(missing),
            tuple(sorted(present - known)),
            removed,
        )

    def _clean(self) -> tuple[str, ...]:
        present = self._files()
        with folder_lock.alone(self.url) as alone:
            entries, damaged = self._entries()
            used = {entry.file for entry in entries.values()}
            left = [
                file
                for file in sorted(present - used)
                # The file of a damaged entry may be what the entry is restored from.
                if (name := _writes(file)) and name not in damaged and (alone or self._is_old(file))
            ]
            for file in left:
                self._remove_file(file)
        return tuple(left)

    def _is_old(self, file: str) -> bool:
        try:
            return files.age(f"{self.url}/{file}") > LEFT_SECONDS
        except OSError:  # gone, or nobody knows
            return False

    def _files(self) -> set[str]:
        try:
            return files.listing(self.url)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError(
                f"there is no prompt store at {self.url}: check the place, or add a prompt"
            ) from error
        except OSError as error:
            raise RunError(
                f"{self.url} could not be listed ({system_reason(error)}): check the place and the network"
            ) from error

    def _entries(self) -> tuple[dict[str, Entry], dict[str, str]]:
        """By name all entries, and what is wrong with damaged ones."""
        entries: dict[str, Entry] = {}
        damaged: dict[str, str] = {}

        def read(name: str) -> None:
            try:
                entry = self._read_entry(name)
            except RunError as error:
                damaged[name] = str(error)
            else:
                if entry is not None:  # removed since it was listed
                    entries[name] = entry

        names = _names(self._files())
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            collections.deque(pool.map(read, names), maxlen=0)
        return entries, damaged

    def _read_entry(self, name: str) -> Entry | None:
        """The entry of a prompt; None where there is none.

        Raises:
          DamagedEntryError: it is damaged.
          RunError: it cannot be read.
        """
        place = f"{self.url}/{name}.json"
        if not _is_name(name):
            return None
        try:
            content = files.read(place, MAX_ENTRY_BYTES)
        except FileNotFoundError:
            return None
        except files.TooLargeError as error:
            raise DamagedEntryError(f"{place} is no entry of a prompt store: {error}") from error
        except OSError as error:
            raise RunError(f"{place} could not be read: {system_reason(error)}") from error
        return Entry.from_json(place, name, content)

    def _absent(self, name: str) -> str:
        names = _names(self._files())
        likely = f"; did you mean {nearest(str(name), names)}?" if names else ", nor any other"
        return f"{self.url} has no prompt {name}{likely}"

    def _remove_file(self, file: str) -> None:
        try:
            files.remove(f"{self.url}/{file}")
        except FileNotFoundError:
            pass  # somebody else removed it
        except OSError as error:
            raise RunError(f"{self.url}/{file} could not be removed: {system_reason(error)}") from error


def _is_name(name: object) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _is_score(score: float | None) -> TypeGuard[float]:
    """Whether it can be compared: an older store may hold some that are not finite."""
    return score is not None and math.isfinite(score)


def _writes(file: str) -> str | None:
    """Name of the prompt that an addition writes this file for; None for what no addition writes."""
    if final := final_name(file):  # of a prompt's file or its entry
        file = final
        if file.endswith(".json"):
            return file.removesuffix(".json")
    found = re.fullmatch(rf"({NAME.pattern})\.[0-9a-f]{{12}}\.safetensors", file)
    return found and found[1]


def _names(found: set[str]) -> list[str]:
    """Names that have an entry, among files of a store."""
    stems = (file.removesuffix(".json") for file in found if file.endswith(".json"))
    return sorted(name for name in stems if NAME.fullmatch(name))
