"""Files as one table that can name the file of each row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from graphrec.data.errors import DataError, RowError
from graphrec.data.reading.delimited import read_delimited
from graphrec.data.reading.layout import find_layout
from graphrec.data.reading.lines import Layout
from graphrec.data.reading.opening import TextStream, is_parquet
from graphrec.data.reading.parquet import iterate_parquet, parquet_names, parquet_schema, read_parquet
from graphrec.data.reading.sources import SourceFile
from graphrec.data.table import decoded, decoded_type

NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
"""Name of a folder of rows without a value."""


@dataclass(frozen=True)
class FileColumns:
    """A file and its columns.

    Attributes:
        file: the file.
        own_names: names of the columns in the file.
        layout: layout of a text file; None for Parquet.
    """

    file: SourceFile
    own_names: tuple[str, ...]
    layout: Layout | None

    @classmethod
    def of(
        cls,
        file: SourceFile,
        *,
        has_header: bool,
        column_names: Sequence[str] | None,
        wanted: Collection[str],
    ) -> FileColumns:
        """Open a file and find its columns; for the arguments see `find_layout`."""
        if is_parquet(file):
            if column_names is not None:
                raise DataError(
                    f"{file.name}: a Parquet file names its own columns, so `column_names` must be left out"
                )
            return cls(file, tuple(parquet_names(file)), None)
        layout = find_layout(
            TextStream(file),
            file.name,
            has_header=has_header,
            column_names=column_names,
            wanted=[name for name in wanted if name not in file.keys],
        )
        return cls(file, layout.names, layout)

    @property
    def where(self) -> str:
        """Name of the file in errors."""
        return self.file.name

    @property
    def keys(self) -> dict[str, str]:
        """Values of the folders above the file, by name."""
        return self.file.keys

    @property
    def is_parquet(self) -> bool:
        """Whether the file is Parquet."""
        return self.layout is None

    @property
    def names(self) -> list[str]:
        """Names of the file's columns and of its folders."""
        return [*self.own_names, *(key for key in self.keys if key not in self.own_names)]

    def read(self, names: Sequence[str]) -> pa.Table:
        """Read columns of the file and of its folders; each must exist once."""
        own = [name for name in names if name in self.own_names]
        if self.layout is None:
            table = read_parquet(self.file, own)
        else:
            table = read_delimited(self.file, self.layout, [self.own_names.index(name) for name in own])
        return self._with_folders(table, names)

    def schema(self, names: Sequence[str]) -> pa.Schema:
        """Return the types of columns of a Parquet file and its folders; those of categories' values."""
        own = parquet_schema(self.file)
        kinds = [decoded_type(own.field(n).type) if n in self.own_names else pa.string() for n in names]
        return pa.schema(list(zip(names, kinds, strict=True)))

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Read columns of a Parquet file and of its folders in parts of so many rows at most."""
        own = [name for name in names if name in self.own_names]
        for batch in iterate_parquet(self.file, own, rows):
            yield self._with_folders(pa.Table.from_batches([batch]), names)

    def _with_folders(self, table: pa.Table, names: Sequence[str]) -> pa.Table:
        for name in names:
            if name not in table.column_names:
                value = None if self.keys[name] == NULL_KEY else self.keys[name]
                codes = pa.array(np.zeros(table.num_rows, dtype=np.int8))
                constant = pa.DictionaryArray.from_arrays(codes, pa.array([value], pa.string()))
                table = table.append_column(name, constant)
        return table.select(list(names))


@dataclass(frozen=True)
class JoinedTable:
    """Rows of several files.

    Attributes:
        table: the rows, file after file.
        where: name of all files together.
        files: names of the files.
        starts: position of the first row of each.
    """

    table: pa.Table
    where: str
    files: tuple[str, ...]
    starts: tuple[int, ...]

    @contextmanager
    def locating_rows(self) -> Iterator[None]:
        """Make errors about a row of the table name its file, and the row in that file."""
        try:
            yield
        except RowError as error:
            number = int(np.searchsorted(self.starts, error.row, side="right")) - 1
            row = error.row - self.starts[number]
            raise RowError(self.files[number], row, error.column, error.fault) from None


def join_files(files: Sequence[FileColumns], names: Sequence[str], where: str) -> JoinedTable:
    """Read the columns `names` of all files into one table; `where` names the files in errors.

    Raises:
        DataError: a file cannot be read, or its columns have other types than those of the first.
    """
    tables = [file.read(names) for file in files]
    if len(tables) > 1:
        tables = [plain(table) for table in tables]
        schema = common_schema(files, [table.schema for table in tables])
        tables = [table.cast(schema) for table in tables]
    starts = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
    return JoinedTable(
        pa.concat_tables(tables) if len(tables) > 1 else tables[0],
        where if len(files) > 1 else files[0].where,
        tuple(file.where for file in files),
        tuple(starts.tolist()),
    )


def common_schema(files: Sequence[FileColumns], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the types that hold the values of all files; `schemas` has the types of each.

    Raises:
        DataError: the columns of a file have other types than those of the first.
    """
    out = schemas[0].remove_metadata()
    for file, schema in zip(files[1:], schemas[1:], strict=True):
        for column in schema:
            out = _widened(out, column, file.where, files[0].where)
    return out


def plain(table: pa.Table) -> pa.Table:
    """Return a table with categories as their values, and all text types as plain strings."""
    columns = [
        pa.chunked_array(
            [decoded(chunk) for chunk in column.chunks], None if column.num_chunks else column.type
        )
        for column in table.columns
    ]
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


def _widened(schema: pa.Schema, column: pa.Field, where: str, first: str) -> pa.Schema:
    """Widen the type of a column in a schema such that it also holds the values of `column`."""
    before = schema.field(column.name)
    integers = pa.types.is_integer(before.type) and pa.types.is_integer(column.type)
    times = pa.types.is_timestamp(before.type) and pa.types.is_timestamp(column.type)
    floats = pa.types.is_floating(before.type) and pa.types.is_floating(column.type)
    nothing = pa.types.is_null(before.type) or pa.types.is_null(column.type)
    alike = before.type == column.type
    zones = times and (before.type.tz is None) == (column.type.tz is None)
    if not (alike or integers or floats or zones or nothing):
        raise DataError(
            f"{where}: column {column.name!r} holds {column.type} where {first} holds {before.type}; "
            "write both with one type"
        )
    if alike:
        return schema
    narrow = pa.schema([pa.field(column.name, before.type)])
    if zones:
        column = pa.field(column.name, pa.timestamp(column.type.unit, before.type.tz))
    wide = pa.unify_schemas([narrow, pa.schema([column])], promote_options="permissive").field(0)
    return schema.set(schema.get_field_index(column.name), wide)
