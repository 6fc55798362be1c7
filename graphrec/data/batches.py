"""Event logs in parts, for those larger than memory: columns, checks and errors as in `read_events`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.data.errors import DataError, RowError
from graphrec.data.events import id_column, index_actions, untrimmed_ids
from graphrec.data.read import ColumnName, open_events
from graphrec.data.reading.columns import ColumnNames
from graphrec.data.reading.sources import Paths, describe
from graphrec.data.reading.tables import FileColumns, common_schema, plain
from graphrec.data.table import get_column
from graphrec.data.times import parse_times


@dataclass(frozen=True)
class EventBatch:
    """Consecutive rows of one file, in its order; rows with `src` equal to `dst` are among them.

    Attributes:
        src: [n] ids of the acting users, int64, or strings without white space around them.
        dst: [n] ids of the users acted on, of the same type.
        time: [n] int64 seconds.
        action: [n] int64, index into `actions`.
        actions: names of the actions of these rows.
        table: the rows as they are in the file.
        roles: names of the columns `src` and `dst`.
        where: name of the file.
        first_row: position of the first row in the file.
    """

    src: pa.ChunkedArray
    dst: pa.ChunkedArray
    time: np.ndarray
    action: np.ndarray
    actions: tuple[str, ...]
    table: pa.Table
    roles: dict[str, str]
    where: str
    first_row: int

    def check_ids(self) -> None:
        """Raise DataError naming the first row with text that cannot be an id; integers always can be."""
        with _locating_rows(self.where, self.first_row):
            for role in ("src", "dst"):
                id_column(self.table, self.roles[role], self.where)


@dataclass(frozen=True)
class EventBatches:
    """The rows of Parquet files, to be read in batches.

    Attributes:
        files: the files, in order.
        roles: name of the column of each role: src, dst, time and, if there is one, action.
        schema: types of these columns in all files together.
        where: name of all files together.
    """

    files: tuple[FileColumns, ...]
    roles: dict[str, str]
    schema: pa.Schema
    where: str

    @classmethod
    def open(
        cls,
        paths: Paths,
        *,
        src: ColumnName | None = None,
        dst: ColumnName | None = None,
        time: ColumnName | None = None,
        action: ColumnName | None = None,
        filesystem: Any = None,
    ) -> EventBatches:
        """Find Parquet files and their columns; nothing is read yet. For the arguments see `read_events`.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: a file is not Parquet, a column is missing, or its types differ between files.
        """
        given = ColumnNames.of(src=src, dst=dst, time=time, action=action, weight=None)
        files, roles = open_events(paths, given, filesystem=filesystem)
        roles.pop("weight", None)
        for file in files:
            if not file.is_parquet:
                raise DataError(
                    f"{file.where}: is not Parquet; write the log as Parquet, or index text in memory: "
                    "Timeline(FriendGraph.from_events(read_events(...))).save(FOLDER)"
                )
        names = list(dict.fromkeys(roles.values()))
        schema = common_schema(files, [file.schema(names) for file in files])
        return cls(tuple(files), roles, schema, files[0].where if len(files) == 1 else describe(paths))

    @property
    def has_integer_ids(self) -> bool:
        """Whether both columns of ids are integers that fit into int64."""
        kinds = [self.schema.field(self.roles[role]).type for role in ("src", "dst")]
        return all(pa.types.is_integer(kind) and not pa.types.is_uint64(kind) for kind in kinds)

    def read(self, rows: int) -> Iterator[EventBatch]:
        """Read all rows, in batches of so many at most.

        Warns once if rounding to seconds makes many distinct times of a batch equal.

        Raises:
            DataError: a value cannot be used; the message has the file, the row and the column.
        """
        names = list(self.schema.names)
        forms: set[bool] = set()
        warned = False
        for file in self.files:
            first_row = 0
            for part in file.batches(names, rows):
                if not part.num_rows:
                    continue
                table = plain(part).cast(self.schema)
                with _locating_rows(file.where, first_row), warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    batch = self._parse(table, file.where, first_row)
                    self._check_form(table, file.where, forms)
                for warning in caught[: 0 if warned else 1]:
                    warnings.warn(str(warning.message), warning.category, stacklevel=2)
                    warned = True
                yield batch
                first_row += part.num_rows

    def _parse(self, table: pa.Table, where: str, first_row: int) -> EventBatch:
        time = self.roles["time"]
        times = parse_times(get_column(table, time, where), where=where, column=time)
        src, dst = (self._ids(table, self.roles[role], where) for role in ("src", "dst"))
        codes, actions = index_actions(table, self.roles.get("action"), where)
        return EventBatch(src, dst, times, codes, actions, table, self.roles, where, first_row)

    def _ids(self, table: pa.Table, column: str, where: str) -> pa.ChunkedArray:
        ids = untrimmed_ids(table, column, where)
        return ids if self.has_integer_ids else pc.utf8_trim_whitespace(ids.cast(pa.string()))

    def _check_form(self, table: pa.Table, where: str, forms: set[bool]) -> None:
        """Raise DataError if a batch has times as numbers and one before it as dates, or the reverse."""
        column = self.roles["time"]
        if not pa.types.is_string(self.schema.field(column).type):
            return
        first = table[column][0].as_py()
        try:
            float(first)
            forms.add(True)
        except ValueError:
            forms.add(False)
        if len(forms) > 1:
            fault = f"{first!r} is not a time like those before it (one form for the whole column)"
            raise RowError(where, 0, column, fault)


@contextmanager
def _locating_rows(where: str, first_row: int) -> Iterator[None]:
    """Make errors about a row of a batch name the row in the file."""
    try:
        yield
    except RowError as error:
        raise RowError(where, first_row + error.row, error.column, error.fault) from None
