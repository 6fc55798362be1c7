"""Reading events and users from files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from graphrec.data.errors import DataError
from graphrec.data.events import EventLog, event_columns
from graphrec.data.ratings import distrust_of_ratings
from graphrec.data.reading.columns import ColumnNames, hint_of_names, require_columns
from graphrec.data.reading.sources import Paths, describe, find_files
from graphrec.data.reading.tables import FileColumns, JoinedTable, join_files
from graphrec.data.users import UserTable

ColumnName: TypeAlias = str | int
"""Name of a column, or its number from 1 in files without a header."""


def read_events(
    paths: Paths,
    *,
    src: ColumnName | None = None,
    dst: ColumnName | None = None,
    time: ColumnName | None = None,
    action: ColumnName | None = None,
    weight: ColumnName | None = None,
    rating: ColumnName | None = None,
    header: bool = True,
    column_names: Sequence[str] | None = None,
    filesystem: Any = None,
) -> EventLog:
    """Read an event log from delimited text (CSV) or Parquet, in one file or many.

    Formats and compressions are recognized by the first bytes of a file, not by its name: Parquet, or text,
    plain or compressed with gzip, bz2, zstd, lz4 or xz, in UTF-8, or in UTF-16 with a byte order mark. The
    delimiter of text (comma, tab, semicolon, bar, or runs of blanks) is found from its first lines; lines at
    its top that begin with `#` or `%` are comments. Other columns are ignored. Quoted values may hold line
    ends.

    Events of one time are in order of their files' paths, and of rows inside a file.

    Args:
        paths: a file, a folder with all files below it, a pattern (`logs/*.csv`, `logs/**/*.csv`), an address
            (`s3://bucket/logs`, `gs://...`, `file://...`), or several. Folders named `action=sms` below the
            folder, pattern or common folder given are columns. Names that begin with `.` or `_` are left out.
        src: column of the acting user, by default `src`; for types see `EventLog.from_table`.
        dst: column of the target, by default `dst`.
        time: column of the time; by default `timestamp` or `time`.
        action: column of the action; by default `action` if there is one.
        weight: column of a weight; by default `weight` if there is one.
        rating: column of a signed rating, in place of `weight`: an event with a negative one has the action
            `distrust`, which is a negative act (see `graphrec.data.Roles`). It is kept as the weight.
        header: False for text without a header: columns are then numbered from 1; by default `src` is 1,
            `dst` 2 and, if there are three, `time` 3.
        column_names: names of all columns, for text without a header.
        filesystem: the file system of the paths, one of `pyarrow.fs` or fsspec; by default that of the
            address, or the local one.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file cannot be read, or a value not be used; the message has the file and, where known,
            the row (from 1, without the header) and column.
    """
    if rating is not None and weight is not None:
        raise DataError("rating and weight are one column of a log: give either")
    signed = weight if rating is None else rating
    names = ColumnNames.of(src=src, dst=dst, time=time, action=action, weight=signed)
    opened, roles = open_events(paths, names, header=header, column_names=column_names, filesystem=filesystem)
    joined = join_files(opened, list(dict.fromkeys(roles.values())), describe(paths))
    with joined.locating_rows():
        log = EventLog.from_table(joined.table, where=joined.where, **roles)
    return log if rating is None else distrust_of_ratings(log)


def open_events(
    paths: Paths,
    given: ColumnNames,
    *,
    header: bool = True,
    column_names: Sequence[str] | None = None,
    filesystem: Any = None,
) -> tuple[list[FileColumns], dict[str, str]]:
    """Open the files of an event log; for the arguments see `read_events`.

    Returns:
        (the files that are not empty, the column of each role).

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file cannot be read, or a column is missing.
    """
    files = find_files(paths, filesystem)
    numbered = not header and column_names is None
    opened = [
        FileColumns.of(
            file,
            has_header=header and column_names is None,
            column_names=column_names,
            wanted=given.header_names(),
        )
        for file in files
        if file.size or len(files) == 1
    ]
    if not opened:
        raise DataError(f"{describe(paths)}: all files are empty")
    names = _all_names(opened)
    if numbered:
        given = given.numbered(opened[0], [file for file in opened if not file.is_parquet])
    roles = event_columns(
        names,
        src=given.src or "src",
        dst=given.dst or "dst",
        time=given.time,
        action=given.action,
        weight=given.weight,
    )
    for file in opened:
        require_columns(file, roles, lambda columns: hint_of_names(columns, given))
    return opened, roles


def read_users(
    paths: Paths, *, user: str = "user", join_time: str = "join_time", filesystem: Any = None
) -> UserTable:
    """Read user features from delimited text (CSV) or Parquet, in one file or many.

    Args:
        paths: as in `read_events`; every file has the same columns.
        user: column of the raw id, as in the event log.
        join_time: column of the time the user joined, if there is one.
        filesystem: as in `read_events`.

    Every other column is a feature: numbers as they are, anything else one-hot (see `UserTable`).

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file cannot be read, or a value not be used; the message has the file and, where known,
            the row (from 1, without the header) and column.
    """
    files = find_files(paths, filesystem)
    opened = [
        FileColumns.of(file, has_header=True, column_names=None, wanted=[user])
        for file in files
        if file.size or len(files) == 1
    ]
    if not opened:
        raise DataError(f"{describe(paths)}: all files are empty")
    names = _all_names(opened)
    for file in opened:
        require_columns(file, {name: name for name in [user, *names]}, lambda _: "")
    joined: JoinedTable = join_files(opened, names, describe(paths))
    with joined.locating_rows():
        return UserTable.from_table(joined.table, where=joined.where, user=user, join_time=join_time)


def _all_names(files: Sequence[FileColumns]) -> list[str]:
    """Names of the columns of all files, in order."""
    return list(dict.fromkeys(name for file in files for name in file.names))
