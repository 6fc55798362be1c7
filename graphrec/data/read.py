"""Reading events and users from files."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from graphrec.data.errors import DataError
from graphrec.data.events import EventLog, event_columns
from graphrec.data.table import require_column
from graphrec.data.users import UserTable

DELIMITERS = ",\t; |"
PARQUET_SUFFIXES = (".parquet", ".pq")


def read_events(
    path: str | os.PathLike[str],
    *,
    src: str = "src",
    dst: str = "dst",
    time: str | None = None,
    action: str | None = None,
    weight: str | None = None,
    column_names: list[str] | None = None,
) -> EventLog:
    """Read an event log from a CSV file, plain or gzipped, or a Parquet file.

    The delimiter of a CSV file (comma, tab, semicolon, space or bar) is found from the first line. Columns
    that are not asked for are ignored.

    Args:
        path: the file; one that ends in `.gz` is read as gzip, in `.parquet` or `.pq` as Parquet.
        src: column of the acting user; for types see `EventLog.from_table`.
        dst: column of the user acted upon.
        time: column of the time; by default `timestamp` or `time`.
        action: column of the action; by default `action` if there is one.
        weight: column of a weight; by default `weight` if there is one.
        column_names: names of the columns, for a CSV file without a header.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: naming the file, and the row and column where they are known.
    """
    path = _existing(path)
    is_parquet = path.suffix in PARQUET_SUFFIXES
    if is_parquet and column_names is not None:
        raise DataError(f"{path}: a Parquet file names its own columns, so `column_names` must be left out")
    names, delimiter = (_parquet_names(path), "") if is_parquet else _header(path, column_names, {src, dst})
    columns = event_columns(names, src=src, dst=dst, time=time, action=action, weight=weight)
    wanted = list(dict.fromkeys(columns.values()))  # one column may have two roles
    for name in wanted:
        require_column(names, name, str(path))
    if is_parquet:
        table = _read_parquet(path, wanted)
    else:
        table = _read_csv(path, names, delimiter, wanted, has_header=column_names is None)
    return EventLog.from_table(table, where=str(path), **columns)


def read_users(
    path: str | os.PathLike[str], *, user: str = "user", join_time: str = "join_time"
) -> UserTable:
    """Read user features from a CSV file, plain or gzipped, or a Parquet file.

    Args:
        path: the file.
        user: column of the raw id, as in the event log.
        join_time: column of the time the user joined, if there is one.

    Every other column is a feature: numbers as they are, anything else one-hot (see `UserTable`).
    """
    path = _existing(path)
    if path.suffix in PARQUET_SUFFIXES:
        table = _read_parquet(path)
    else:
        names, delimiter = _header(path, None, {user})
        for name in names:
            require_column(names, name, str(path))
        table = _read_csv(path, names, delimiter, names, has_header=True)
    return UserTable.from_table(table, where=str(path), user=user, join_time=join_time)


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not a file")
    return path


def _parquet_names(path: Path) -> list[str]:
    try:
        return list(pa.parquet.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None


def _read_parquet(path: Path, wanted: list[str] | None = None) -> pa.Table:
    """The wanted columns, or all."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            return file.read(columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None


def _header(path: Path, column_names: list[str] | None, wanted: set[str]) -> tuple[list[str], str]:
    """Column names and delimiter: the first one that separates the wanted names, else the commonest."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            line = file.readline(1 << 20).decode("utf-8-sig")
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: not a readable gzip file ({error})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a UTF-8 text file") from None
    if not line.strip():
        raise DataError(f"{path}: the file is empty")
    if column_names is None and not line.endswith("\n"):
        raise DataError(f"{path}: there is nothing after the header")

    try:
        rows = {mark: next(csv.reader([line.strip("\r\n")], delimiter=mark)) for mark in DELIMITERS}
    except csv.Error as error:
        raise DataError(f"{path}: the first line cannot be read ({error})") from None
    rows = {mark: [name.strip() for name in row] for mark, row in rows.items()}
    if column_names is not None:
        fitting = [mark for mark, row in rows.items() if len(row) == len(column_names)]
        if not fitting:
            raise DataError(f"{path}: the first line {line[:80]!r} does not have {len(column_names)} columns")
        return column_names, fitting[0]
    delimiter = next(
        (mark for mark, row in rows.items() if wanted <= set(row)),
        max(rows, key=lambda mark: len(rows[mark])),
    )
    return rows[delimiter], delimiter


def _read_csv(
    path: Path, names: list[str], delimiter: str, wanted: list[str], *, has_header: bool
) -> pa.Table:
    """The wanted columns as strings, parsed on all cores."""
    try:
        return _parse(path, names, delimiter, wanted, has_header, use_threads=True)
    except (pa.ArrowInvalid, OSError, zlib.error) as error:
        if "Expected" in str(error) and "columns" in str(error):
            raise DataError(_wrong_width(path, names, delimiter, wanted, has_header)) from None
        if path.suffix == ".gz" and not isinstance(error, pa.ArrowInvalid):
            raise DataError(f"{path}: the gzip stream is truncated or damaged ({error})") from None
        raise DataError(f"{path}: {error}") from None


def _parse(
    path: Path,
    names: list[str],
    delimiter: str,
    wanted: list[str],
    has_header: bool,
    *,
    use_threads: bool,
    invalid_rows: list[tuple[int, int]] | None = None,
) -> pa.Table:
    def note_invalid(row: pa.csv.InvalidRow) -> str:
        if invalid_rows is not None:
            invalid_rows.append((row.number, row.actual_columns))
        return "error"

    with pa.input_stream(path, compression="gzip" if path.suffix == ".gz" else None) as stream:
        return pa.csv.read_csv(
            stream,
            read_options=pa.csv.ReadOptions(
                column_names=names, skip_rows=int(has_header), use_threads=use_threads
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, invalid_row_handler=note_invalid if invalid_rows is not None else None
            ),
            convert_options=pa.csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                strings_can_be_null=False,
            ),
        )


def _wrong_width(path: Path, names: list[str], delimiter: str, wanted: list[str], has_header: bool) -> str:
    """Find the row by reading once more on one thread, since row numbers are unknown on several."""
    invalid: list[tuple[int, int]] = []
    try:
        _parse(path, names, delimiter, wanted, has_header, use_threads=False, invalid_rows=invalid)
    except pa.ArrowInvalid:
        number, found = invalid[0]
        row = number - int(has_header)
        return f"{path}: row {row} has {found} columns where {len(names)} are expected ({', '.join(names)})"
    raise AssertionError("a row of the wrong width is found again on one thread")
