"""Columns of a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet

from graphrec.data.errors import DataError
from graphrec.data.reading.sources import SourceFile

_FAULTS = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, MemoryError)
"""What reading a damaged file raises."""


def parquet_names(file: SourceFile) -> list[str]:
    """Names of the columns."""
    try:
        with file.filesystem.open_input_file(file.path) as stream:
            return list(pa.parquet.read_schema(stream).names)
    except _FAULTS as error:
        raise _unreadable(file, error) from None


def read_parquet(file: SourceFile, wanted: Sequence[str] | None = None) -> pa.Table:
    """The wanted columns, or all."""
    try:
        with (
            file.filesystem.open_input_file(file.path) as stream,
            pa.parquet.ParquetFile(stream, pre_buffer=True, page_checksum_verification=True) as parquet,
        ):
            return parquet.read(columns=None if wanted is None else list(wanted))
    except _FAULTS as error:
        raise _unreadable(file, error) from None


def _unreadable(file: SourceFile, error: BaseException) -> DataError:
    reason = str(error).split("\n")[0]
    return DataError(f"{file.name}: not a readable Parquet file ({reason}); write or fetch it again")
