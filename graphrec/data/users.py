"""Features and join times of users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data.errors import DataError
from graphrec.data.events import id_column, parse_numbers
from graphrec.data.ids import plain_ids
from graphrec.data.table import ArrowTable, as_table, decoded, get_column, index_columns
from graphrec.data.times import parse_times
from graphrec.data.vectors import MISSING_SUFFIX, vector_columns

CATEGORY_SEPARATOR = "="
"""Separates the column and the category in the name of a feature."""

MAX_CATEGORIES = 1000
"""Distinct values of a categorical column."""

MAX_LIST_CATEGORIES = 5000
"""Distinct values of a column of lists."""


@dataclass(frozen=True)
class UserTable:
    """Features of users, one row each, by raw id.

    Attributes:
        ids: [n] Arrow array of distinct raw ids, int64 or string.
        x: [n, F] float32. A column of numbers is kept as it is, with a second column `NAME_missing` if any
            value is missing (the value is then 0); text and typed categories are one-hot encoded, in columns
            `NAME=VALUE`, all 0 where it is missing; lists of strings or integers are multi-hot encoded; lists
            of floats, all of one length (embeddings), become one column a position, `NAME[0]`, `NAME[1]`, ...
        feature_names: F names.
        join_time: [n] int64 seconds, -1 where it is missing; or None.
        columns: the columns of features as given, which `FriendGraph.with_users` encodes as its graph's
            features; or None.
        where: name of the table in errors.
    """

    ids: pa.Array
    x: Tensor
    feature_names: tuple[str, ...]
    join_time: Tensor | None = None
    columns: pa.Table | None = field(default=None, repr=False)
    where: str = "the users given"

    @classmethod
    def from_table(
        cls,
        source: ArrowTable,
        *,
        where: str = "the users given",
        user: str = "user",
        join_time: str = "join_time",
    ) -> UserTable:
        """Read a table in memory: a pandas or polars data frame, an Arrow table, a DuckDB relation.

        All other columns are features, but not an index of pandas.

        Args:
            source: one row a user; types as in `EventLog.from_table`.
            where: name of the table in errors, such as its file name.
            user: column of the raw id.
            join_time: column of the time the user joined, if there is one; it may be missing for some.

        Raises:
            DataError: a value cannot be used; the message has `where`, the row (from 1, without the header)
                and the column.
        """
        table = as_table(source, where)
        if table.num_rows == 0:
            raise DataError(f"{where}: there are no users")
        ids = id_column(table, user, where).combine_chunks()
        ids = plain_ids(ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids)
        again = _repeated(ids)
        if len(again):
            row = again[0]
            raise DataError(f"{where}: row {row + 1}, column {user!r}: id {ids[row]} appears a second time")

        blocks: list[np.ndarray] = [np.zeros((table.num_rows, 0), dtype=np.float32)]
        names: list[str] = []
        left_out = {user, join_time} | index_columns(table)
        features = [name for name in table.column_names if name not in left_out]
        for name in features:
            if CATEGORY_SEPARATOR in name:
                raise DataError(f"{where}: column {name!r}: the name of a feature must not contain '='")
            encode = _one_hot if pa.types.is_dictionary(table[name].type) else _encode
            block, titles = encode(get_column(table, name, where), name, where)
            blocks.append(block)
            names += titles
        again_named = (
            [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
        )
        if again_named:
            raise DataError(f"{where}: two features would be named {again_named[0]!r}; rename a column")
        joined = None
        if join_time in table.column_names:
            joined = _join_times(get_column(table, join_time, where), join_time, where)
        x = torch.from_numpy(np.concatenate(blocks, axis=1))
        return cls(ids, x, tuple(names), joined, table.select(features), where)


def unknown_features(names: Sequence[str]) -> Tensor:
    """Return the features [F] float32 of a user without any: all values missing."""
    return torch.tensor(
        [float(name.endswith(MISSING_SUFFIX) and CATEGORY_SEPARATOR not in name) for name in names]
    )


def forget_category(name: str, column: int) -> str:
    """Return a name for the feature at position `column` that does not reveal its category."""
    return f"{name.split(CATEGORY_SEPARATOR, 1)[0]}{CATEGORY_SEPARATOR}(removed {column})"


def _repeated(values: pa.Array) -> np.ndarray:
    codes = values.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.setdiff1d(np.arange(len(codes)), np.unique(codes, return_index=True)[1])


def _join_times(values: pa.ChunkedArray, name: str, where: str) -> Tensor:
    if pa.types.is_string(values.type):
        values = without_blanks(values)
    known = values.is_valid().to_numpy()
    times = np.full(len(values), -1)
    if known.any():
        first = pc.drop_null(values)[0]
        times = parse_times(pc.fill_null(values, first), where=where, column=name)  # keeps the rows' numbers
    return torch.from_numpy(np.where(known, times, -1))


def without_blanks(values: Any) -> Any:
    """Return trimmed text, null where it is empty."""
    text = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _encode(values: pa.ChunkedArray, name: str, where: str) -> tuple[np.ndarray, list[str]]:
    """Encode one column: its features [n, K] float32, and their names."""
    kind = values.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if pa.types.is_fixed_size_list(kind) or (is_list and pa.types.is_floating(kind.value_type)):
        return vector_columns(values, name, where)
    if is_list:
        return _multi_hot(values, name, where)
    if pa.types.is_string(kind):
        values = without_blanks(values)
        try:
            values = values.cast(pa.float64())
        except pa.ArrowInvalid:
            return _one_hot(values, name, where)
    numbers = parse_numbers(values, where=where, column=name)
    missing = np.isnan(numbers)
    if not missing.any():
        return numbers[:, None].astype(np.float32), [name]
    both = np.stack([np.where(missing, 0.0, numbers), missing], axis=1)
    return both.astype(np.float32), [name, name + MISSING_SUFFIX]


def _one_hot(values: pa.ChunkedArray, name: str, where: str) -> tuple[np.ndarray, list[str]]:
    return _hot(values, np.arange(len(values)), len(values), name, where, MAX_CATEGORIES)


def _multi_hot(values: pa.ChunkedArray, name: str, where: str) -> tuple[np.ndarray, list[str]]:
    lists = values.combine_chunks()
    items = decoded(pc.list_flatten(lists))
    if pa.types.is_string(items.type):
        items = without_blanks(items)
    elif not (pa.types.is_integer(items.type) or pa.types.is_null(items.type)):
        raise DataError(f"{where}: column {name!r} holds {values.type}; lists are of strings or numbers")
    rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    return _hot(items, rows, len(values), name, where, MAX_LIST_CATEGORIES)


def _hot(
    values: Any, rows: np.ndarray, num_rows: int, name: str, where: str, most: int
) -> tuple[np.ndarray, list[str]]:
    """Encode values [M] with their rows [M] as ones in a column for each distinct value."""
    categories = pc.unique(pc.drop_null(values)).sort()
    if len(categories) > most:
        raise DataError(
            f"{where}: column {name!r} has {len(categories)} distinct values, more than the "
            f"limit of {most} for one column; leave it out or turn it into numbers"
        )
    codes = pc.fill_null(pc.index_in(values, value_set=categories), -1).to_numpy()
    block = np.zeros((num_rows, len(categories)), dtype=np.float32)
    block[rows[codes >= 0], codes[codes >= 0]] = 1.0
    return block, [f"{name}{CATEGORY_SEPARATOR}{category}" for category in categories.to_pylist()]
