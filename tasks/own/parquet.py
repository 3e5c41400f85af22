"""Rows of a parquet file, batch by batch: the columns that are used, of text, numbers, true and false."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from tasks.errors import TaskError
from tasks.sources.bad_lines import tolerated
from tasks.sources.lines import Place

ROWS = 1024  # in memory at once

_USABLE = (
    kinds.is_string,
    kinds.is_large_string,
    kinds.is_string_view,
    kinds.is_integer,
    kinds.is_floating,
    kinds.is_boolean,
    kinds.is_null,
)
_LISTS = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)


def parquet_rows(
    path: pathlib.Path, wanted: Collection[str]
) -> tuple[Sequence[str], Iterator[tuple[Place, dict[str, Any]]]]:
    """The names of all columns; and an iterator over the rows, each with its place and the columns `wanted`.

    A value that is missing is None. The iterator raises TaskError where a wanted column holds something else than
    text, numbers, true and false or lists of these, or where the file is damaged.

    Raises:
      TaskError: the file cannot be read, or is no parquet.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return schema.names, _rows(path, schema, [name for name in schema.names if name in wanted])


def _rows(path: pathlib.Path, schema: pa.Schema, names: list[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    for name in names:
        _check_kind(path, name, schema.field(name).type)
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=names):
                columns = {name: batch.column(name) for name in names}
                for row in range(batch.num_rows):
                    number += 1
                    place = Place(path, number, unit="row")
                    with tolerated():
                        yield place, {name: _value(values[row], place) for name, values in columns.items()}
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _value(scalar: pa.Scalar, place: Place) -> Any:
    if any(is_list(scalar.type) for is_list in _LISTS):
        return None if not scalar.is_valid else [_value(part, place) for part in scalar]
    if kinds.is_float16(scalar.type) or kinds.is_float32(scalar.type):
        # 3.8 and not 3.799999952316284, which is the same number in 32 bits.
        return None if scalar.as_py() is None else float(str(np.float32(scalar.as_py())))
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise place.error("not UTF-8") from error


def _check_kind(path: pathlib.Path, name: str, kind: pa.DataType) -> None:
    inner = kind.value_type if any(is_list(kind) for is_list in _LISTS) else kind
    inner = inner.value_type if kinds.is_dictionary(inner) else inner
    if not any(usable(inner) for usable in _USABLE):
        raise TaskError(
            f"{path}: column {name!r} holds {str(kind)[:80]}, and what is used has to be text, numbers, true and "
            "false, or for OwnTask.answers lists of these: write it as such, or use another column"
        )


def _unreadable(path: pathlib.Path, error: Exception) -> TaskError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return TaskError(f"{path} cannot be read ({reason}); replace the file")
