"""Columns of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet

from graphrec.data.errors import DataError
from graphrec.data.reading.sources import SourceFile

_FAULTS = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, MemoryError)
"""Errors of reading a damaged file."""


STREAM_BYTES = 1 << 20
"""Bytes of each column of a file that are read at once where rows are read in parts."""


def parquet_names(file: SourceFile) -> list[str]:
    """Return the names of the columns."""
    return list(parquet_schema(file).names)


def parquet_schema(file: SourceFile) -> pa.Schema:
    """Return the names and types of the columns."""
    try:
        with file.filesystem.open_input_file(file.path) as stream:
            return pa.parquet.read_schema(stream)
    except _FAULTS as error:
        raise _unreadable(file, error) from None


def read_parquet(file: SourceFile, wanted: Sequence[str] | None = None) -> pa.Table:
    """Read the wanted columns, or all."""
    try:
        with (
            file.filesystem.open_input_file(file.path) as stream,
            pa.parquet.ParquetFile(stream, pre_buffer=True, page_checksum_verification=True) as parquet,
        ):
            table = parquet.read(columns=None if wanted is None else list(wanted))
            _check_counts(parquet.metadata, table.num_rows)
            return table
    except _FAULTS as error:
        raise _unreadable(file, error) from None


def iterate_parquet(file: SourceFile, wanted: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Read the wanted columns in parts of so many rows at most; memory does not grow with the file."""
    try:
        with (
            file.filesystem.open_input_file(file.path) as stream,
            pa.parquet.ParquetFile(
                stream, buffer_size=STREAM_BYTES, page_checksum_verification=True
            ) as parquet,
        ):
            _check_counts(parquet.metadata, parquet.metadata.num_rows)
            num_rows = 0
            for batch in parquet.iter_batches(batch_size=rows, columns=list(wanted)):
                num_rows += batch.num_rows
                yield batch
            _check_counts(parquet.metadata, num_rows)
    except _FAULTS as error:
        raise _unreadable(file, error) from None


def _check_counts(metadata: pa.parquet.FileMetaData, num_rows: int) -> None:
    """Raise ValueError unless all counts of rows in the footer agree: damage there would lose rows."""
    counted = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        counted += group.num_rows
        for place in range(group.num_columns):
            column = group.column(place)
            flat = metadata.schema.column(place).max_repetition_level == 0
            if flat and column.num_values != group.num_rows:
                name, found = column.path_in_schema, column.num_values
                raise ValueError(f"column {name!r} has {found} values for {group.num_rows} rows")
    if not counted == metadata.num_rows == num_rows:
        raise ValueError(f"its footer counts {metadata.num_rows} rows, its parts {counted}")


def _unreadable(file: SourceFile, error: BaseException) -> DataError:
    reason = str(error).split("\n")[0]
    return DataError(f"{file.name}: not a readable Parquet file ({reason}); write or fetch it again")
