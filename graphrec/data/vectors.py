"""Lists of numbers as features of users."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.data.errors import DataError, RowError

MAX_VECTOR_LENGTH = 5000

MISSING_SUFFIX = "_missing"
"""Ends the name of the feature that is 1 where the one before it is missing."""


def vector_columns(values: pa.ChunkedArray, name: str, where: str) -> tuple[np.ndarray, list[str]]:
    """Encode lists of K numbers, such as embeddings, as columns [n, K] float32, and return their names.

    A missing list is all 0, with a 1 in one more column.

    Raises:
        DataError: naming the first row whose list has another length, or a value missing or not finite.
    """
    kind = values.type.value_type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise DataError(f"{where}: column {name!r} holds {values.type}; lists are of strings or numbers")
    lists = values.combine_chunks()
    is_missing = lists.is_null().to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    known = np.flatnonzero(~is_missing)
    width = int(lengths[known[0]]) if len(known) else 0
    if width == 0:
        raise DataError(f"{where}: column {name!r} holds empty lists alone; leave it out")
    if width > MAX_VECTOR_LENGTH:
        raise DataError(
            f"{where}: column {name!r} holds lists of {width} numbers, more than {MAX_VECTOR_LENGTH}"
        )
    other = known[lengths[known] != width]
    if len(other):
        fault = f"{lengths[other[0]]} numbers where the rows before have {width}; lists need one length"
        raise RowError(where, other[0], name, fault)
    block = np.zeros((len(lists), width + bool(is_missing.any())))
    flat = pc.list_flatten(lists).cast(pa.float64()).to_numpy(zero_copy_only=False)
    block[known, :width] = flat.reshape(len(known), width)
    row, position = np.nonzero(~(np.abs(block) <= np.finfo(np.float32).max))
    if len(row):
        fault = f"{block[row[0], position[0]]} at position {position[0]} is not a finite 32-bit number"
        raise RowError(where, row[0], name, fault)
    names = [f"{name}[{number}]" for number in range(width)]
    if is_missing.any():
        block[:, width] = is_missing
        names.append(name + MISSING_SUFFIX)
    return block.astype(np.float32), names
