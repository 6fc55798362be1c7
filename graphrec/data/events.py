"""The validated event log: acting user, target, time and action of every event."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data.errors import DataError, RowError
from graphrec.data.ids import UserIds, bad_ids, forbid_bad_ids, integer_remedy, plain_ids
from graphrec.data.table import ArrowTable, as_table, forbid_empty, forbid_nulls, get_column
from graphrec.data.times import parse_times

DEFAULT_ACTION = "contact"
DERIVED_ACTION = "friend"
RESERVED_ACTIONS = (DERIVED_ACTION, "event")
"""Names of edge types made by graphrec: mutual ties, and the seeds of a loader."""

REVERSE_PREFIXES = ("rev_of_", "rev_from_")
"""Prefixes of the names from `reverse_of`; no action may have them."""

Column: TypeAlias = Sequence[Any] | np.ndarray | Tensor | pa.ChunkedArray
"""A column: a list, a NumPy array, a tensor, an Arrow array or a data frame's column."""

TIME_COLUMNS = ("timestamp", "time")
"""Default names of the time column, the first that exists."""


@dataclass(frozen=True)
class EventLog:
    """Events in order of time, file order inside ties, without self-loops.

    Attributes:
        src: [E] int64, index of the acting user.
        dst: [E] int64, index of the target.
        time: [E] int64, seconds, UTC where they are absolute; ascending.
        action: [E] int64, index into `actions`.
        actions: names of the actions, sorted.
        user_ids: raw ids, sorted: all ids of the input, also those only in self-loops.
        weight: [E] float32, or None. Kept and saved; no rule or model reads it.
        num_self_loops: number of rows with src == dst, which were dropped.
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
        """Build a log from parallel sequences (lists, NumPy arrays, tensors, Arrow arrays) of equal length.

        Values and errors are those of `from_table`.
        """
        where = "the events given"
        columns = {"src": src, "dst": dst, "time": time, "action": action, "weight": weight}
        given = {name: values for name, values in columns.items() if values is not None}
        return cls.from_table(as_columns(given, where=where), where=where, time="time")

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
        """Build a log from a table: a pandas or polars data frame, an Arrow table, a DuckDB relation, ...

        Other columns are ignored.

        Args:
            source: ids are integers, decimals without a fraction, or strings; times are integers, floats or
                decimals (rounded down to the second), timestamps, dates, or strings of any of these (ISO
                8601). Without a zone times are UTC. Text may be categories. Nothing may be missing.
            where: name of the table in errors, such as its file name.
            src: column of the acting user.
            dst: column of the target.
            time: column of the time; by default `timestamp` or `time`.
            action: column of the action; by default `action` if there is one.
            weight: column of a weight; by default `weight` if there is one. No rule or model reads it.

        Raises:
            DataError: a value cannot be used; the message has `where`, the row (from 1, without the header)
                and the column.
        """
        return read_rows(source, where=where, src=src, dst=dst, time=time, action=action, weight=weight)[0]


def read_rows(
    source: ArrowTable,
    *,
    where: str,
    src: str = "src",
    dst: str = "dst",
    time: str | None = None,
    action: str | None = None,
    weight: str | None = None,
) -> tuple[EventLog, Tensor]:
    """Build the log of `EventLog.from_table`, and return the table's row of each event, [E] int64 from 0."""
    table = as_table(source, where)
    if table.num_rows == 0:
        raise DataError(f"{where}: there are no events")
    roles = event_columns(table.column_names, src=src, dst=dst, time=time, action=action, weight=weight)
    times = parse_times(get_column(table, roles["time"], where), where=where, column=roles["time"])
    sources, targets, user_ids = _index_users(table, src, dst, where)
    codes, actions = index_actions(table, roles.get("action"), where)
    weights = _parse_weights(table, roles.get("weight"), where)

    keep = sources != targets
    num_self_loops = int(len(keep) - keep.sum())
    if num_self_loops == len(keep):
        raise DataError(f"{where}: every row has the same user as src and dst")
    order = np.flatnonzero(keep)
    if np.any(np.diff(times[order]) < 0):
        order = order[np.argsort(times[order], kind="stable")]
    log = EventLog(
        src=torch.from_numpy(sources[order]),
        dst=torch.from_numpy(targets[order]),
        time=torch.from_numpy(times[order]),
        action=torch.from_numpy(codes[order]),
        actions=actions,
        user_ids=user_ids,
        weight=None if weights is None else torch.from_numpy(weights[order]),
        num_self_loops=num_self_loops,
    )
    return log, torch.from_numpy(order)


def event_columns(
    names: Sequence[str], *, src: str, dst: str, time: str | None, action: str | None, weight: str | None
) -> dict[str, str]:
    """Return the column of each role; action and weight only if given, or present under the default name."""
    time = time or next((name for name in TIME_COLUMNS if name in names), TIME_COLUMNS[0])
    roles = {"src": src, "dst": dst, "time": time}
    for role, given in (("action", action), ("weight", weight)):
        if given is not None or role in names:
            roles[role] = given or role
    return roles


def _index_users(table: pa.Table, src: str, dst: str, where: str) -> tuple[np.ndarray, np.ndarray, UserIds]:
    """Indices of both ends, and the sorted ids: sorted, so that indices do not depend on file order."""
    rows = table.num_rows
    ends = [untrimmed_ids(table, name, where) for name in (src, dst)]
    if ends[0].type != ends[1].type:
        ends = [end.cast(pa.string()) for end in ends]
    both = pa.chunked_array([chunk for end in ends for chunk in end.chunks], type=ends[0].type)
    index, distinct = _encoded(both)
    if pa.types.is_string(distinct.type):
        trimmed = pc.utf8_trim_whitespace(distinct)
        if bad_ids(trimmed).any():  # among distinct texts, which are few; now the row is wanted
            for name in (src, dst):
                id_column(table, name, where)
        if not trimmed.equals(distinct):
            position, distinct = _encoded(trimmed)
            index = position[index]
    distinct = plain_ids(distinct)
    order = pc.sort_indices(distinct).to_numpy()
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    index = position[index]
    return index[:rows], index[rows:], UserIds.from_values(distinct.take(pa.array(order)))


def _encoded(values: Any) -> tuple[np.ndarray, pa.Array]:
    """Position of each value among the distinct values [n], and the distinct values."""
    encoded = values.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary


def id_column(table: pa.Table, column: str, where: str) -> pa.ChunkedArray:
    """Return raw ids as int64 or trimmed strings.

    Raises:
        DataError: naming the first row without an id, or with text that cannot be one.
    """
    values = untrimmed_ids(table, column, where)
    if not pa.types.is_string(values.type):
        return values
    text = pc.utf8_trim_whitespace(values)
    forbid_empty(text, where, column)
    forbid_bad_ids(text, where=where, column=column)
    return text


def untrimmed_ids(table: pa.Table, column: str, where: str) -> pa.ChunkedArray:
    """Return raw ids as int64 or strings as they stand; raises DataError for missing ones and other types."""
    values = get_column(table, column, where)
    forbid_nulls(values, where, column)
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
    return values


def index_actions(table: pa.Table, column: str | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the index of each row's action [n] int64, and the names of the actions, sorted."""
    if column is None:
        return np.zeros(table.num_rows, dtype=np.int64), (DEFAULT_ACTION,)
    names_given = get_column(table, column, where)
    forbid_nulls(names_given, where, column)
    kind = names_given.type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where}: column {column!r} holds {kind}; actions are strings or integers")
    text = pc.utf8_trim_whitespace(names_given.cast(pa.string()))
    forbid_empty(text, where, column)
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
    """Return the name, in batches, of the edge type of an action's reversed edges.

    It is unique, and no action has it. If the action is an identifier without `__`, as parts of PyG require,
    so is the name.
    """
    of, from_ = REVERSE_PREFIXES
    return from_ + action[1:] if action.startswith("_") else of + action


def forbid_reserved(name: str, where: str) -> None:
    """Raise DataError if an edge type must not have this name."""
    is_own = name in RESERVED_ACTIONS or "__" in name or name.startswith(REVERSE_PREFIXES)
    if not is_own and "#" not in name and not name.endswith("_"):
        return
    free = re.sub("__+", "_", name.replace("#", "_")).rstrip("_") + "_act"
    if free.startswith(REVERSE_PREFIXES):
        free = free.replace("_", "", 1)
    reason = (
        "is reserved for the graph's own edge types"
        if is_own
        else "has '#' or ends with '_', with which PyG's HeteroConv silently drops an edge type's edges"
    )
    raise DataError(f"{where}: the name {name!r} {reason}; rename it, for example to {free!r}")


def _parse_weights(table: pa.Table, column: str | None, where: str) -> np.ndarray | None:
    if column is None:
        return None
    values = get_column(table, column, where)
    forbid_nulls(values, where, column)
    return parse_numbers(values, where=where, column=column).astype(np.float32)


def parse_numbers(values: pa.ChunkedArray, *, where: str, column: str) -> np.ndarray:
    """Parse finite float32 numbers: [n] float64, NaN for nulls.

    Raises:
        DataError: naming the first row that is not such a number.
    """
    if pa.types.is_string(values.type):
        values = pc.utf8_trim_whitespace(values)
    try:
        numbers = values.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        for row, value in enumerate(values.to_pylist()):
            try:
                float(value if value is not None else 0.0)
            except (TypeError, ValueError):
                raise RowError(where, row, column, f"{value!r} is not a number") from None
        raise DataError(f"{where}: column {column!r}: {error}") from None
    present = ~values.is_null().to_numpy()
    bad = np.flatnonzero(present & ~(np.abs(numbers) <= np.finfo(np.float32).max))
    if len(bad):
        raise RowError(where, bad[0], column, f"{numbers[bad[0]]} is not a finite 32-bit number")
    return np.asarray(numbers)


def as_columns(columns: Mapping[str, Column], *, where: str) -> pa.Table:
    """Return a table of columns; raises DataError unless they have one length."""
    given = {name: to_arrow(values, where=where, column=name) for name, values in columns.items()}
    lengths = {name: len(values) for name, values in given.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"event columns differ in length: {lengths}")
    return pa.table(given)


def to_arrow(values: Column, *, where: str, column: str) -> pa.ChunkedArray:
    """Return a sequence as an Arrow column; raises DataError unless its values have one type."""
    if isinstance(values, str):
        raise DataError(f"{where}: column {column!r} is the single string {values!r}, not a sequence")
    try:
        if isinstance(values, Tensor):
            values = values.detach().cpu().numpy()
        array = pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: column {column!r} is not a sequence of one type ({error})") from None
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
