"""What is known of users beside their events: features and the time they joined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data.errors import DataError
from graphrec.data.events import get_column, id_column, parse_numbers, parse_times
from graphrec.data.ids import plain_ids

MAX_CATEGORIES = 1000


@dataclass(frozen=True)
class UserTable:
    """Features of users, one row each, by raw id.

    Attributes:
        ids: [n] Arrow array of distinct raw ids, int64 or string.
        x: [n, F] float32. A column of numbers is kept as it is, with a second column `NAME_missing` if any
            value is missing (the value is then 0); any other column becomes one column a category,
            `NAME=VALUE`, all 0 where it is missing.
        feature_names: F names.
        join_time: [n] int64 seconds, or None.
    """

    ids: pa.Array
    x: Tensor
    feature_names: tuple[str, ...]
    join_time: Tensor | None = None

    @classmethod
    def from_table(
        cls, table: pa.Table, *, where: str, user: str = "user", join_time: str = "join_time"
    ) -> UserTable:
        """Validate an Arrow table. Raises DataError naming `where`, the row and the column."""
        if table.num_rows == 0:
            raise DataError(f"{where}: there are no users")
        ids = id_column(table, user, where).combine_chunks()
        ids = plain_ids(ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids)
        again = _repeated(ids)
        if len(again):
            row = again[0]
            raise DataError(f"{where}: row {row + 1}, column {user!r}: id {ids[row]} appears a second time")

        columns: list[np.ndarray] = []
        names: list[str] = []
        for name in table.column_names:
            if name not in (user, join_time):
                added, titles = _encode(get_column(table, name, where), name, where)
                columns += added
                names += titles
        x = np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0))
        joined = None
        if join_time in table.column_names:
            times = get_column(table, join_time, where)
            joined = torch.tensor(parse_times(times, where=where, column=join_time))
        return cls(ids, torch.from_numpy(x.astype(np.float32)), tuple(names), joined)


def _repeated(values: pa.Array) -> np.ndarray:
    codes = values.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.setdiff1d(np.arange(len(codes)), np.unique(codes, return_index=True)[1])


def _encode(values: pa.ChunkedArray, name: str, where: str) -> tuple[list[np.ndarray], list[str]]:
    if pa.types.is_string(values.type):
        text = pc.utf8_trim_whitespace(values)
        values = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        try:
            values = values.cast(pa.float64())
        except pa.ArrowInvalid:
            return _one_hot(values, name, where)
    numbers = parse_numbers(values, where=where, column=name)
    missing = np.isnan(numbers)
    if not missing.any():
        return [numbers], [name]
    return [np.where(missing, 0.0, numbers), missing.astype(float)], [name, f"{name}_missing"]


def _one_hot(values: pa.ChunkedArray, name: str, where: str) -> tuple[list[np.ndarray], list[str]]:
    categories = sorted(pc.unique(values.drop_null()).to_pylist())
    if len(categories) > MAX_CATEGORIES:
        raise DataError(
            f"{where}: column {name!r} has {len(categories)} distinct values, more than the "
            f"{MAX_CATEGORIES} that can be features; leave it out or turn it into numbers"
        )
    codes = pc.fill_null(pc.index_in(values, value_set=pa.array(categories, pa.string())), -1).to_numpy()
    return [(codes == code).astype(float) for code in range(len(categories))], [
        f"{name}={category}" for category in categories
    ]
