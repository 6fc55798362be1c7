"""Tables in memory, of any library, as Arrow tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.data.errors import DataError, RowError

_UNNAMED = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Names of an unnamed pandas index: in a CSV file, after reading one again, in Arrow and Parquet."""


class ArrowTable(Protocol):
    """A table that exports its columns as an Arrow stream: pandas, polars, pyarrow, DuckDB, ..."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The stream, in a PyCapsule."""


def as_table(source: ArrowTable, where: str) -> pa.Table:
    """Return any `ArrowTable` as an Arrow table; a named pandas index becomes a column.

    Raises:
        DataError: it is not a table, or a column holds values of several types.
    """
    if not hasattr(source, "__arrow_c_stream__"):
        raise DataError(
            f"{where}: {type(source).__name__} is not a table of pandas, polars, pyarrow or any other kind "
            "that has '__arrow_c_stream__'"
        )
    try:
        table = source if isinstance(source, pa.Table) else pa.table(source)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{where}: not a table of plain columns ({error})") from None
    for index in _pandas_index(table):
        if isinstance(index, dict) and index.get("name") is not None:  # 0, 1, 2, ... are not stored
            values = range(index["start"], index["stop"], index["step"])
            table = table.append_column(str(index["name"]), pa.array(values, pa.int64()))
    return table


def index_columns(table: pa.Table) -> set[str]:
    """Return the names of columns that are a pandas index, which is not data."""
    stored = {index for index in _pandas_index(table) if isinstance(index, str)}
    ranges = {str(index["name"]) for index in _pandas_index(table) if isinstance(index, dict)}
    return stored | ranges | {name for name in table.column_names if _UNNAMED.fullmatch(name)}


def _pandas_index(table: pa.Table) -> list[Any]:
    metadata = (table.schema.metadata or {}).get(b"pandas", b"{}")
    try:
        return list(json.loads(metadata).get("index_columns", []))
    except (AttributeError, TypeError, ValueError):  # damaged, and says nothing of the columns' values
        return []


def require_column(names: Sequence[str], name: str, where: str, hint: str = "") -> None:
    """Raise DataError unless the name is among the names exactly once."""
    if names.count(name) != 1:
        fault = "is missing" if name not in names else "appears more than once"
        raise DataError(f"{where}: column {name!r} {fault}; the columns are {', '.join(names)}{hint}")


def get_column(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    """Return a column of a table with rows, its chunks `decoded`.

    Raises:
        DataError: there is no such column, or a row whose text is not UTF-8.
    """
    require_column(table.column_names, name, where)
    values = pa.chunked_array([decoded(chunk) for chunk in table[name].chunks])
    if (
        pa.types.is_string(values.type)
        or pa.types.is_binary(values.type)
        or pa.types.is_large_binary(values.type)
    ):
        try:
            values = values.cast(pa.string())
            values.validate(full=True)
        except pa.ArrowInvalid:
            row = first_not_utf8(values)
            if row is None:
                raise
            shown = values.cast(pa.binary())[row].as_py()[:40]
            raise RowError(where, row, name, f"{shown!r} is not UTF-8 text; save it as UTF-8") from None
    return values


def first_not_utf8(values: pa.ChunkedArray) -> int | None:
    """Return the first row whose bytes are not UTF-8 text, or None."""
    for row, value in enumerate(values.cast(pa.binary()).to_pylist()):
        try:
            (value or b"").decode()
        except UnicodeDecodeError:
            return row
    return None


def forbid_nulls(values: pa.ChunkedArray, where: str, column: str) -> None:
    """Raise DataError naming the first row without a value."""
    if values.null_count:
        row = np.flatnonzero(values.is_null().to_numpy())[0]
        raise RowError(where, row, column, "the value is missing")


def forbid_empty(text: pa.ChunkedArray, where: str, column: str) -> None:
    """Raise DataError naming the first row with an empty string."""
    empty = np.flatnonzero(pc.equal(text, "").to_numpy())
    if len(empty):
        raise RowError(where, empty[0], column, "the value is missing")


def decoded(values: pa.Array) -> pa.Array:
    """Return categories as their values, and all text types as plain strings."""
    if pa.types.is_dictionary(values.type):
        return decoded(values.dictionary).take(values.indices)
    if pa.types.is_run_end_encoded(values.type):
        return decoded(pc.run_end_decode(values))
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        return values.cast(pa.string())
    return values


def decoded_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `decoded` gives values of a type."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return decoded_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind
