"""Parsing of times as seconds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.data.errors import DataError, RowError
from graphrec.data.table import forbid_nulls

LATEST_TIME = 253_402_300_799
"""The last second of year 9999: a larger time is surely not in seconds."""

MANTISSA_BITS = {pa.float16(): 11, pa.float32(): 24}
"""Significant bits of narrow float types, which hold whole seconds only below 2 to that power."""

MIN_TIMES_TO_WARN = 10
"""Distinct times needed for a warning about rounding, unless all of them become one second."""

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_ZONE = r"[0-9]([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ROUNDED = r"^[+-]?[0-9](\.[0-9]{0,7})?[eE]\+?0*([89]|1[0-9])$"
"""Numbers such as 1.7e+09: their last digit may be worth more than a second."""


def parse_times(values: pa.ChunkedArray, *, where: str, column: str) -> np.ndarray:
    """Parse times of any accepted form as [n] int64 seconds, UTC, rounded down.

    Warns if rounding makes many distinct times equal.

    Raises:
        DataError: naming the first row without a time, with one beyond the year 9999, or with one that its
            type cannot hold exactly.
    """
    forbid_nulls(values, where, column)
    if pa.types.is_string(values.type):
        _forbid_rounded_text(values, where, column)
        values = _parse_time_strings(values, where, column)
    kind = values.type
    if pa.types.is_uint64(kind):  # values beyond int64 are refused below
        values = values.cast(pa.float64(), safe=False)
        kind = values.type
    if pa.types.is_integer(kind):
        seconds = values.cast(pa.int64()).to_numpy()
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        floats = values.cast(pa.float64()).to_numpy()
        _forbid_unholdable(floats, kind, where, column)
        seconds = np.floor(np.clip(floats, -(2.0**62), 2.0**62)).astype(np.int64)
        _warn_of_lost_fractions(floats, seconds, where, column)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        unit = kind.unit if pa.types.is_timestamp(kind) else "ms" if pa.types.is_date64(kind) else "s"
        ticks = values.cast(pa.timestamp(unit)).cast(pa.int64()).to_numpy()
        seconds = ticks // UNITS[unit]
        if unit != "s":
            _warn_of_lost_fractions(ticks, seconds, where, column)
    else:
        raise DataError(f"{where}: column {column!r} holds {kind}, which is not a time")
    bad = np.flatnonzero((seconds > LATEST_TIME) | (seconds < -LATEST_TIME))
    if len(bad):
        raise RowError(
            where,
            bad[0],
            column,
            f"{seconds[bad[0]]} lies beyond the year 9999; times are in seconds (are these milliseconds?)",
        )
    return np.ascontiguousarray(seconds)


def _forbid_unholdable(floats: np.ndarray, kind: pa.DataType, where: str, column: str) -> None:
    bad = np.flatnonzero(~np.isfinite(floats))
    if len(bad):
        raise RowError(where, bad[0], column, f"{floats[bad[0]]} is not a time")
    bits = MANTISSA_BITS.get(kind)
    bad = np.flatnonzero(np.abs(floats) >= 2.0**bits) if bits else bad
    if len(bad):
        width = "16-bit" if bits == 11 else "32-bit"
        raise RowError(
            where,
            bad[0],
            column,
            f"{floats[bad[0]]:.0f} is a {width} number, which cannot tell seconds of this size apart; "
            "make the column int64 or float64 before the times are rounded",
        )


def _forbid_rounded_text(values: pa.ChunkedArray, where: str, column: str) -> None:
    """Raise DataError for a column that a spreadsheet or `%g` has rounded, such as 1.7e+09."""
    rounded = pc.match_substring_regex(values.slice(0, 1000), _ROUNDED).to_numpy()
    if rounded.mean() > 0.5:
        row = int(np.flatnonzero(rounded)[0])
        raise RowError(
            where,
            row,
            column,
            f"{values[row].as_py()!r} is a rounded number, like most in this column; write all digits",
        )


def _warn_of_lost_fractions(exact: np.ndarray, seconds: np.ndarray, where: str, column: str) -> None:
    """Warn if rounding down to seconds makes distinct times equal."""
    if exact.dtype.kind == "f" and np.array_equal(exact, seconds):
        return
    num_exact, num_seconds = len(np.unique(exact)), len(np.unique(seconds))
    if num_seconds == 1 < num_exact or (num_exact >= MIN_TIMES_TO_WARN and 2 * num_seconds < num_exact):
        unit = "1 second" if num_seconds == 1 else f"{num_seconds:,} seconds"
        between = " (all between 0 and 1: are they scaled?)" if exact.min() >= 0 and exact.max() <= 1 else ""
        warnings.warn(
            f"{where}: column {column!r}: {num_exact:,} distinct times become {unit}, since times are whole "
            f"seconds{between}; events of one second are not seen by each other. Multiply the times to keep "
            "their order",
            UserWarning,
            stacklevel=2,
        )


def _parse_time_strings(values: pa.ChunkedArray, where: str, column: str) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(values)
    for number in (pa.int64(), pa.float64()):
        try:
            return text.cast(number)
        except pa.ArrowInvalid:
            pass
    is_date = pc.match_substring_regex(text, _DATE)
    zoned = pc.and_(is_date, pc.match_substring_regex(pc.utf8_slice_codeunits(text, 10), _ZONE))
    nothing = pa.scalar(None, pa.string())
    for unit in ("us", "ns"):
        try:
            with_zone = pc.if_else(zoned, text, nothing).cast(pa.timestamp(unit, tz="UTC"))
            without = pc.if_else(zoned, nothing, text).cast(pa.timestamp(unit))
            return pc.coalesce(with_zone.cast(pa.timestamp(unit)), without)
        except pa.ArrowInvalid:
            pass
    row = _first_bad_time(text)
    raise RowError(
        where,
        row,
        column,
        f"{text[row].as_py()!r} is not a time "
        "(seconds, or ISO 8601 such as 2024-05-01T12:00:00Z; one form for the whole column)",
    )


def _first_bad_time(text: Any) -> int:
    """The first row that cannot be cast together with the rows before it, by bisection."""

    def readable(rows: pa.ChunkedArray) -> bool:
        for kind in (pa.float64(), pa.timestamp("ns", tz="UTC"), pa.timestamp("ns")):
            try:
                rows.cast(kind)
                return True
            except pa.ArrowInvalid:
                pass
        return False

    low, high = 0, len(text)  # rows before `low` are readable together, rows before `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if readable(text.slice(0, middle)):
            low = middle
        else:
            high = middle
    return low
