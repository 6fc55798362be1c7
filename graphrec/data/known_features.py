"""Features of more users, encoded in the columns of a graph."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data.errors import DataError, RowError
from graphrec.data.events import parse_numbers
from graphrec.data.table import decoded, get_column
from graphrec.data.users import CATEGORY_SEPARATOR, without_blanks
from graphrec.data.vectors import MISSING_SUFFIX, vector_columns

MAX_NAMED_CATEGORIES = 5
"""Unknown categories that a warning names, at most."""


def encode_as(table: pa.Table, names: Sequence[str], where: str) -> Tensor:
    """Encode columns of users [n] as features [n, F] float32 with given names.

    An unknown category is all 0, as if it were missing, with a warning that names it.

    Raises:
        DataError: a column is missing or too many; a number or list is missing in a column that has no
            feature `NAME_missing`; a list has another length.
    """
    place = {name: number for number, name in enumerate(names)}
    if len(place) < len(names):
        raise DataError("two features of the graph have one name: which column is meant cannot be told")
    out = np.zeros((table.num_rows, len(names)), dtype=np.float32)
    claimed: set[str] = set()
    for column in table.column_names:
        values = get_column(table, column, where)
        vector = _positions(column, names)
        categories = [name for name in names if name.startswith(column + CATEGORY_SEPARATOR)]
        # A feature named after a text column that ends so belongs to another column.
        is_text = bool(categories) and column.endswith(MISSING_SUFFIX)
        if column in place and not is_text:
            own, block = [column], _numbers(values, column, where)
        elif vector and _is_list(values.type):
            own, block = vector, _vectors(values, column, where, len(vector))
        elif categories:
            claimed |= set(categories)
            labels = [name[len(column) + 1 :] for name in categories]
            out[:, [place[name] for name in categories]] = _one_hot(values, column, where, labels)
            continue
        elif values.null_count == len(values):
            continue
        else:
            raise DataError(f"{where}: column {column!r} is none of the graph's features; {_has(names)}")
        is_missing = np.isnan(block).any(1)
        if column + MISSING_SUFFIX in place:
            own, block = [*own, column + MISSING_SUFFIX], np.column_stack([block, is_missing])
        elif is_missing.any():
            fault = (
                f"the value is missing, and the graph has no feature {column + MISSING_SUFFIX!r} to say so"
            )
            raise RowError(where, np.flatnonzero(is_missing)[0], column, fault)
        out[:, [place[name] for name in own]] = np.nan_to_num(block)
        claimed |= set(own)
    left = [name for name in names if name not in claimed]
    if left:
        column = _column_of(left[0])
        raise DataError(f"{where}: column {column!r} is missing; {_has(names)}")
    return torch.from_numpy(out)


def _column_of(name: str) -> str:
    return re.sub(r"\[\d+\]$", "", name.split(CATEGORY_SEPARATOR)[0])


def _has(names: Sequence[str]) -> str:
    columns = list(dict.fromkeys(map(_column_of, names)))
    columns = [
        name
        for name in columns
        if name.removesuffix(MISSING_SUFFIX) not in columns or MISSING_SUFFIX not in name
    ]
    return f"its users have {', '.join(columns) or 'no features'} (fit anew to change them)"


def _positions(column: str, names: Sequence[str]) -> list[str]:
    """Names of the features of a column of lists of numbers, in order."""
    known, out = set(names), list[str]()
    while f"{column}[{len(out)}]" in known:
        out.append(f"{column}[{len(out)}]")
    return out


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds)


def _numbers(values: pa.ChunkedArray, column: str, where: str) -> np.ndarray:
    """Numbers [n, 1] float64, NaN where the value is missing."""
    if pa.types.is_string(values.type):
        values = without_blanks(values)
    return parse_numbers(values, where=where, column=column)[:, None]


def _vectors(values: pa.ChunkedArray, column: str, where: str, width: int) -> np.ndarray:
    """Vectors [n, width], NaN where the list is missing."""
    if values.null_count == len(values):
        return np.full((len(values), width), np.nan)
    block, titles = vector_columns(values, column, where)
    found = len(titles) - (titles[-1] == column + MISSING_SUFFIX)
    if found != width:
        raise DataError(
            f"{where}: column {column!r} has lists of {found} numbers, those of the graph {width}"
        )
    out = block[:, :width].astype(np.float64)
    out[values.is_null().to_numpy()] = np.nan
    return out


def _one_hot(values: pa.ChunkedArray, column: str, where: str, labels: list[str]) -> np.ndarray:
    """Ones at the labels of each row: [n, K] float32."""
    rows: Any = np.arange(len(values))
    items: Any = values
    if _is_list(values.type):
        lists = values.combine_chunks()
        items = decoded(pc.list_flatten(lists))
        rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    if pa.types.is_string(items.type):
        items = without_blanks(items)
    number_of = {label: number for number, label in enumerate(labels)}
    texts = [None if item is None else str(item) for item in items.to_pylist()]
    block = np.zeros((len(values), len(labels)), dtype=np.float32)
    for row, text in zip(rows.tolist(), texts, strict=True):
        if text in number_of:
            block[row, number_of[text]] = 1.0
    unknown = list(dict.fromkeys(text for text in texts if text is not None and text not in number_of))
    if unknown:
        shown = ", ".join(map(repr, unknown[:MAX_NAMED_CATEGORIES])) + ", ..." * (
            len(unknown) > MAX_NAMED_CATEGORIES
        )
        warnings.warn(
            f"{where}: column {column!r} has categories that the graph does not know ({shown}); they count "
            "as missing until the next fit",
            UserWarning,
            stacklevel=2,
        )
    return block
