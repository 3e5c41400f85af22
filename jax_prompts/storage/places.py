"""Small files by address, a path or a URL; what fails in a bucket and may pass is asked again for minutes."""

from __future__ import annotations

import contextlib

from jax_prompts.storage import buckets, files


def below(folder: str, name: str) -> str:
    """Address of what lies in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def read(address: str, limit: int) -> bytes | None:
    """The content of a file of at most `limit` bytes; None where there is none.

    Raises:
      OSError: it cannot be read, or is larger.
    """
    place = files.place_of(address)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return buckets.content(place, limit) if isinstance(place, str) else files.read(place, limit)
    return None


def write(address: str, content: bytes | str, *, replace: bool = True) -> bool:
    """Writes a file whole or not at all; without `replace`, returns False where there is one already.

    Raises:
      OSError: it cannot be written.
    """
    content, place = content.encode() if isinstance(content, str) else content, files.place_of(address)
    try:
        if isinstance(place, str):
            buckets.put(place, content, replace=replace)
        else:
            files.write(place, content, replace=replace)
    except FileExistsError:
        return False
    return True


def names(folder: str) -> set[str]:
    """Names of the files in a folder; none where there is no such folder.

    Raises:
      OSError: it cannot be listed.
    """
    place = files.place_of(folder)
    if isinstance(place, str):
        return {name for name in buckets.stored(place) if "/" not in name}
    try:
        return files.listing(place)
    except FileNotFoundError:
        return set()


def is_there(folder: str) -> bool:
    """Whether a folder is there: of a bucket's, whether anything lies below it. Raises OSError."""
    place = files.place_of(folder)
    return bool(buckets.stored(place)) if isinstance(place, str) else place.exists()


def remove(address: str) -> None:
    """Removes a file, if it is there. Raises OSError."""
    place = files.place_of(address)
    if isinstance(place, str):
        buckets.remove(place)
    else:
        place.unlink(missing_ok=True)


def remove_folder(folder: str) -> None:
    """Removes the files in a folder, and an empty directory with them. Raises OSError."""
    place = files.place_of(folder)
    for name in names(folder):
        remove(below(folder, name))
    if not isinstance(place, str):
        with contextlib.suppress(OSError):
            place.rmdir()
