"""Text with columns in braces: `premise: {premise} hypothesis: {hypothesis}`."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping

from tasks.errors import TaskError


@dataclasses.dataclass(frozen=True)
class Template:
    """Text with `{column}` where a column's text belongs; `{{` and `}}` are braces.

    Attributes:
      text: as the user wrote it.
      setting: where it is set, for messages.

    Raises:
      TaskError: it names no column, or braces hold more than a name.
    """

    text: str
    setting: str

    def __post_init__(self) -> None:
        problem = f"{self.setting} {self.text!r}"
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise TaskError(f"{problem}: {error}; write it like 'review: {{text}}'") from error
        if any(column == "" or spec or conversion for _, column, spec, conversion in parts):
            raise TaskError(f"{problem}: braces hold a column's name alone; write it like 'review: {{text}}'")
        if not self.columns:
            raise TaskError(f"{problem} names no column; write it like 'review: {{text}}'")

    @property
    def columns(self) -> list[str]:
        return [column for _, column, _, _ in string.Formatter().parse(self.text) if column]

    def fill(self, row: Mapping[str, str]) -> str:
        """Text of a row."""
        parts = string.Formatter().parse(self.text)
        return "".join(text + (row[column] if column else "") for text, column, _, _ in parts)
