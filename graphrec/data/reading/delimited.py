"""Columns of a delimited file, as strings."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv

from graphrec.data.errors import DataError, RowError
from graphrec.data.reading.lines import CheckedLines, Layout
from graphrec.data.reading.opening import TextStream
from graphrec.data.reading.sources import SourceFile
from graphrec.data.table import first_not_utf8

_WRONG_WIDTH = re.compile(
    r"CSV parse error: (?:Row #(?P<row>\d+): )?Expected \d+ columns, got (?P<width>\d+): ?(?P<text>(?s:.*))"
)

BLOCK_BYTES = (1 << 20, 1 << 24, 1 << 28)
"""Sizes of the blocks that are parsed separately, tried in turn until the longest row fits."""


def read_delimited(file: SourceFile, layout: Layout, wanted: Sequence[int]) -> pa.Table:
    """Read columns of a text file, by their numbers from 0: all strings, named as in the layout.

    Raises:
        DataError: the file cannot be read; the message has the file, and the row and column at fault.
    """
    try:
        return _parse(file, layout, wanted, pa.string())
    except pa.ArrowInvalid as error:
        if "invalid UTF8" in str(error):
            raise _not_utf8(file, layout, wanted) from None
        raise DataError(f"{file.name}: cannot be read ({error})") from None


def _parse(file: SourceFile, layout: Layout, wanted: Sequence[int], kind: pa.DataType) -> pa.Table:
    sizes = iter(BLOCK_BYTES)
    block_bytes = next(sizes)
    skips_blank = False
    while True:
        lines = CheckedLines(TextStream(file), file.name, layout, skips_blank=skips_blank)
        try:
            table = _parse_blocks(lines, layout, wanted, kind, block_bytes, use_threads=True)
        except pa.ArrowInvalid as error:
            if "straddles two block boundaries" in str(error) and block_bytes < BLOCK_BYTES[-1]:
                block_bytes = next(sizes)
                continue
            if _WRONG_WIDTH.search(str(error)):
                if (
                    not skips_blank
                ):  # lines of blanks alone are looked for only where a row has the wrong width
                    skips_blank = True
                    continue
                raise _wrong_width(file, layout, wanted, block_bytes) from None
            if "Empty CSV file" not in str(error):
                raise
            table = pa.table({str(number): pa.array([], kind) for number in wanted})
        if table.num_rows != lines.num_rows:
            raise DataError(
                f"{file.name}: the file has {lines.num_rows} rows, but {table.num_rows} were read; "
                "its quotes or line ends are damaged"
            )
        return table.rename_columns([layout.names[number] for number in wanted])


def _parse_blocks(
    lines: CheckedLines,
    layout: Layout,
    wanted: Sequence[int],
    kind: pa.DataType,
    block_bytes: int,
    *,
    use_threads: bool,
) -> pa.Table:
    columns = [str(number) for number in range(len(layout.names))]  # names may be empty, or there twice
    return pa.csv.read_csv(
        lines,
        read_options=pa.csv.ReadOptions(
            column_names=columns, block_size=block_bytes, use_threads=use_threads
        ),
        parse_options=pa.csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            include_columns=[columns[number] for number in wanted],
            column_types=dict.fromkeys(columns, kind),
            strings_can_be_null=False,
        ),
    )


def _wrong_width(file: SourceFile, layout: Layout, wanted: Sequence[int], block_bytes: int) -> DataError:
    """The error of the first row of another width, found on one thread, since several have no row numbers."""
    lines = CheckedLines(TextStream(file), file.name, layout, skips_blank=True)
    try:
        _parse_blocks(lines, layout, wanted, pa.binary(), block_bytes, use_threads=False)
    except pa.ArrowInvalid as error:
        found = _WRONG_WIDTH.search(str(error))
    if not found:
        raise AssertionError("a row of the wrong width is found again on one thread")
    expected, width = len(layout.names), int(found["width"])
    text = found["text"].rstrip()
    hint = ""
    if width == expected + 1 and text.endswith(layout.delimiter):
        hint = f"; it ends in {layout.delimiter!r}, so end the header in it too, or remove it"
    elif text.startswith(("#", "%")):
        hint = "; comments are allowed only at the top"
    return DataError(
        f"{file.name}: row {found['row']} has {width} columns where {expected} are expected "
        f"({', '.join(layout.names)}){hint}"
    )


def _not_utf8(file: SourceFile, layout: Layout, wanted: Sequence[int]) -> DataError:
    """The error of the first value that is not UTF-8."""
    table = _parse(file, layout, wanted, pa.binary())
    faults = []
    for column, values in zip(table.column_names, table.columns, strict=True):
        row = first_not_utf8(values)
        if row is not None:
            faults.append((row, column, values[row].as_py()))
    row, column, value = min(faults)
    return RowError(file.name, row, column, f"{value[:40]!r} is not UTF-8 text; save the file as UTF-8")
