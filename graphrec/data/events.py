"""The validated event log: who did what to whom, when."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data.errors import DataError
from graphrec.data.ids import UserIds, forbid_bad_ids, integer_remedy, plain_ids
from graphrec.data.table import ArrowTable, as_table, get_column

DEFAULT_ACTION = "contact"
DERIVED_ACTION = "friend"
RESERVED_ACTIONS = (DERIVED_ACTION, "event")
"""Names of edge types that graphrec makes itself: mutual ties, and the seeds of a loader."""

REVERSE_PREFIXES = ("rev_of_", "rev_from_")
"""Begin the names that `reverse_of` makes; no action may begin so."""

Column: TypeAlias = Sequence[Any] | np.ndarray | Tensor | pa.ChunkedArray
"""What can be a column: a list, a NumPy array, a tensor, an Arrow array, a data frame's column."""

TIME_COLUMNS = ("timestamp", "time")
"""Where the time is looked for, unless its column is named."""

LATEST_TIME = 253_402_300_799
"""The last second of year 9999: a larger time is surely not in seconds."""


@dataclass(frozen=True)
class EventLog:
    """Events in order of time, file order inside ties, without self-loops.

    Attributes:
        src: [E] int64, index of the user who acts.
        dst: [E] int64, index of the user acted upon.
        time: [E] int64, seconds, UTC where they are absolute; ascending.
        action: [E] int64, index into `actions`.
        actions: names of the actions, sorted.
        user_ids: raw ids, sorted; every id of the input, also one met in self-loops alone.
        weight: [E] float32, or None. Kept and saved; no rule or model reads it.
        num_self_loops: how many rows with src == dst were dropped.
    """

    src: Tensor
    dst: Tensor
    time: Tensor
    action: Tensor
    actions: tuple[str, ...]
    user_ids: UserIds
    weight: Tensor | None = None
    num_self_loops: int = 0

    def __len__(self) -> int:
        return self.src.size(0)

    @classmethod
    def from_arrays(
        cls,
        src: Column,
        dst: Column,
        time: Column,
        action: Column | None = None,
        weight: Column | None = None,
    ) -> EventLog:
        """Validate parallel sequences (lists, NumPy arrays, tensors, Arrow arrays) of equal length."""
        where = "the events given"
        columns = {"src": src, "dst": dst, "time": time, "action": action, "weight": weight}
        given = {
            name: to_arrow(values, where=where, column=name)
            for name, values in columns.items()
            if values is not None
        }
        lengths = {name: len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"event columns differ in length: {lengths}")
        return cls.from_table(pa.table(given), where=where, time="time")

    @classmethod
    def from_table(
        cls,
        source: ArrowTable,
        *,
        where: str = "the table given",
        src: str = "src",
        dst: str = "dst",
        time: str | None = None,
        action: str | None = None,
        weight: str | None = None,
    ) -> EventLog:
        """Validate a table in memory: a pandas or polars data frame, a pyarrow table, a DuckDB relation, ...

        Columns that are not asked for are ignored.

        Args:
            source: ids are integers, decimals without a fraction, or strings; times are integers, floats or
                decimals (rounded down to the second), timestamps, dates, or strings of any of these (ISO
                8601). Without a zone times are UTC. Text may be categories. Nothing may be missing.
            where: what to call the table in an error, such as its file name.
            src: column of the acting user.
            dst: column of the user acted upon.
            time: column of the time; by default `timestamp` or `time`.
            action: column of the action; by default `action` if there is one.
            weight: column of a weight; by default `weight` if there is one. No rule or model reads it.

        Raises:
            DataError: naming `where`, the row (counted from 1, header excluded) and the column.
        """
        table = as_table(source, where)
        if table.num_rows == 0:
            raise DataError(f"{where}: there are no events")
        roles = event_columns(table.column_names, src=src, dst=dst, time=time, action=action, weight=weight)
        times = parse_times(get_column(table, roles["time"], where), where=where, column=roles["time"])
        sources, targets, user_ids = _index_users(table, src, dst, where)
        codes, actions = _index_actions(table, roles.get("action"), where)
        weights = _parse_weights(table, roles.get("weight"), where)

        keep = sources != targets
        num_self_loops = int(len(keep) - keep.sum())
        if num_self_loops == len(keep):
            raise DataError(f"{where}: every row has the same user as src and dst")
        order = np.flatnonzero(keep)
        if np.any(np.diff(times[order]) < 0):
            order = order[np.argsort(times[order], kind="stable")]
        return cls(
            src=torch.from_numpy(sources[order]),
            dst=torch.from_numpy(targets[order]),
            time=torch.from_numpy(times[order]),
            action=torch.from_numpy(codes[order]),
            actions=actions,
            user_ids=user_ids,
            weight=None if weights is None else torch.from_numpy(weights[order]),
            num_self_loops=num_self_loops,
        )


def event_columns(
    names: Sequence[str], *, src: str, dst: str, time: str | None, action: str | None, weight: str | None
) -> dict[str, str]:
    """The column of each role; those of action and weight where they are named, or there by default."""
    time = time or next((name for name in TIME_COLUMNS if name in names), TIME_COLUMNS[0])
    roles = {"src": src, "dst": dst, "time": time}
    for role, given in (("action", action), ("weight", weight)):
        if given is not None or role in names:
            roles[role] = given or role
    return roles


def parse_times(values: pa.ChunkedArray, *, where: str, column: str) -> np.ndarray:
    """Times of any accepted form as [n] int64 seconds, UTC. Raises DataError naming the first bad row."""
    _forbid_nulls(values, where, column)
    kind = values.type
    if pa.types.is_string(kind):
        values = _parse_time_strings(values, where, column)
        kind = values.type
    if pa.types.is_uint64(kind):  # what does not fit into int64 is refused below
        values = values.cast(pa.float64(), safe=False)
        kind = values.type
    if pa.types.is_integer(kind):
        seconds = values.cast(pa.int64()).to_numpy()
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        floats = values.cast(pa.float64()).to_numpy()
        bad = np.flatnonzero(~np.isfinite(floats))
        if len(bad):
            raise DataError(f"{where}: row {bad[0] + 1}, column {column!r}: {floats[bad[0]]} is not a time")
        seconds = np.floor(np.clip(floats, -(2.0**62), 2.0**62)).astype(np.int64)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        unit = kind.unit if pa.types.is_timestamp(kind) else "s"
        ticks = values.cast(pa.timestamp(unit)).cast(pa.int64()).to_numpy()
        seconds = ticks // {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    else:
        raise DataError(f"{where}: column {column!r} holds {kind}, which is not a time")
    bad = np.flatnonzero((seconds > LATEST_TIME) | (seconds < -LATEST_TIME))
    if len(bad):
        raise DataError(
            f"{where}: row {bad[0] + 1}, column {column!r}: {seconds[bad[0]]} lies beyond the year 9999; "
            "times are in seconds (are these milliseconds?)"
        )
    return np.ascontiguousarray(seconds)


_ZONE = r"[0-9]([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"


def _parse_time_strings(values: pa.ChunkedArray, where: str, column: str) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(values.cast(pa.string()))
    for number in (pa.int64(), pa.float64()):
        try:
            return text.cast(number)
        except pa.ArrowInvalid:
            pass
    is_date = pc.match_substring_regex(text, _DATE)
    zoned = pc.and_(is_date, pc.match_substring_regex(pc.utf8_slice_codeunits(text, 10), _ZONE))
    nothing = pa.scalar(None, pa.string())
    try:
        for unit in ("us", "ns"):
            try:
                with_zone = pc.if_else(zoned, text, nothing).cast(pa.timestamp(unit, tz="UTC"))
                without = pc.if_else(zoned, nothing, text).cast(pa.timestamp(unit))
                return pc.coalesce(with_zone.cast(pa.timestamp(unit)), without)
            except pa.ArrowInvalid:
                if unit == "ns":
                    raise
    except pa.ArrowInvalid:
        pass
    row = _first_bad_time(text)
    raise DataError(
        f"{where}: row {row + 1}, column {column!r}: {text[row].as_py()!r} is not a time "
        "(seconds, or ISO 8601 such as 2024-05-01T12:00:00Z; one form for the whole column)"
    )


def _first_bad_time(text: pa.ChunkedArray) -> int:
    """The first row that does not read like the row before it: bisection over the cast that row 0 takes."""

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


def _index_users(table: pa.Table, src: str, dst: str, where: str) -> tuple[np.ndarray, np.ndarray, UserIds]:
    """Indices of both ends and the sorted ids. Sorted, so that file order leaves no trace in an index."""
    rows = table.num_rows
    ends = [id_column(table, name, where) for name in (src, dst)]
    if ends[0].type != ends[1].type:
        ends = [end.cast(pa.string()) for end in ends]
    both = pa.chunked_array([chunk for end in ends for chunk in end.chunks], type=ends[0].type)
    encoded = both.dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    distinct = plain_ids(encoded.dictionary)
    order = pc.sort_indices(distinct).to_numpy()
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    index = position[encoded.indices.to_numpy()]
    return index[:rows], index[rows:], UserIds.from_values(distinct.take(pa.array(order)))


def id_column(table: pa.Table, column: str, where: str) -> pa.ChunkedArray:
    """Raw ids as int64 or trimmed strings. Raises DataError naming the first row without one."""
    values = get_column(table, column, where)
    _forbid_nulls(values, where, column)
    kind = values.type
    if pa.types.is_integer(kind):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:  # too large for int64
            return values.cast(pa.string())
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return values.cast(pa.string())
    if not pa.types.is_string(kind):
        is_number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        raise DataError(
            f"{where}: column {column!r} holds {kind}; user ids are integers or strings"
            + (f"; {integer_remedy(column)}" if is_number else "")
        )
    text = pc.utf8_trim_whitespace(values)
    _forbid_empty(text, where, column)
    forbid_bad_ids(text, where=where, column=column)
    return text


def _index_actions(table: pa.Table, column: str | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if column is None:
        return np.zeros(table.num_rows, dtype=np.int64), (DEFAULT_ACTION,)
    names_given = get_column(table, column, where)
    _forbid_nulls(names_given, where, column)
    kind = names_given.type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where}: column {column!r} holds {kind}; actions are strings or integers")
    text = pc.utf8_trim_whitespace(names_given.cast(pa.string()))
    _forbid_empty(text, where, column)
    encoded = pa.chunked_array(text.chunks, type=pa.string()).dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    names = encoded.dictionary.to_pylist()
    actions = tuple(sorted(names))
    for name in actions:
        forbid_reserved(name, f"{where}: column {column!r}")
    place = {name: number for number, name in enumerate(actions)}
    position = np.array([place[name] for name in names], dtype=np.int64)
    return position[encoded.indices.to_numpy()], actions


def reverse_of(action: str) -> str:
    """The name, in batches, of the edge type that holds an action's edges the other way.

    No action has it, and no two actions share it; where the action is an identifier without `__`, as parts of
    PyG want it, so is the name.
    """
    of, from_ = REVERSE_PREFIXES
    return from_ + action[1:] if action.startswith("_") else of + action


def forbid_reserved(name: str, where: str) -> None:
    """Raise DataError if an edge type must not have this name."""
    if name in RESERVED_ACTIONS or "__" in name or name.startswith(REVERSE_PREFIXES):
        free = re.sub("__+", "_", name).rstrip("_") + "_act"
        if name.startswith(REVERSE_PREFIXES):
            free = free.replace("_", "", 1)
        raise DataError(
            f"{where}: the name {name!r} is reserved for the graph's own edge types; "
            f"rename it, for example to {free!r}"
        )


def _parse_weights(table: pa.Table, column: str | None, where: str) -> np.ndarray | None:
    if column is None:
        return None
    values = get_column(table, column, where)
    _forbid_nulls(values, where, column)
    return parse_numbers(values, where=where, column=column).astype(np.float32)


def parse_numbers(values: pa.ChunkedArray, *, where: str, column: str) -> np.ndarray:
    """Numbers that float32 can hold, as [n] float64; nulls become NaN. DataError names the first bad row."""
    if pa.types.is_string(values.type):
        values = pc.utf8_trim_whitespace(values)
    try:
        numbers = values.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        for row, value in enumerate(values.to_pylist()):
            try:
                float(value if value is not None else 0.0)
            except (TypeError, ValueError):
                raise DataError(
                    f"{where}: row {row + 1}, column {column!r}: {value!r} is not a number"
                ) from None
        raise DataError(f"{where}: column {column!r}: {error}") from None
    present = ~values.is_null().to_numpy()
    bad = np.flatnonzero(present & ~(np.abs(numbers) <= np.finfo(np.float32).max))
    if len(bad):
        raise DataError(
            f"{where}: row {bad[0] + 1}, column {column!r}: {numbers[bad[0]]} is not a finite 32-bit number"
        )
    return np.asarray(numbers)


def _forbid_nulls(values: pa.ChunkedArray, where: str, column: str) -> None:
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise DataError(f"{where}: row {row + 1}, column {column!r}: the value is missing")


def _forbid_empty(text: pa.ChunkedArray, where: str, column: str) -> None:
    empty = np.flatnonzero(pc.equal(text, "").to_numpy())
    if len(empty):
        raise DataError(f"{where}: row {empty[0] + 1}, column {column!r}: the value is missing")


def to_arrow(values: Column, *, where: str, column: str) -> pa.ChunkedArray:
    """A sequence as an Arrow column. Raises DataError where its values are not of one type."""
    if isinstance(values, str):
        raise DataError(f"{where}: column {column!r} is the single string {values!r}, not a sequence")
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: column {column!r} is not a sequence of one type ({error})") from None
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
