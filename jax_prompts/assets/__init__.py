"""Files shipped with the package: the embedded `micro` model and its vocabulary."""

from __future__ import annotations

import pathlib


def resolve_asset(path: str) -> str:
    """Path of `asset:NAME`, a directory beside this file; other paths pass through."""
    return (
        str(pathlib.Path(__file__).parent / path.removeprefix("asset:"))
        if path.startswith("asset:")
        else path
    )
