"""Checked lines of text for the parser, with every line accounted for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphrec.data.errors import DataError, RowError
from graphrec.data.reading.opening import ByteStream
from graphrec.data.reading.quotes import BrokenQuoteError, QuotedRecord, scan_quotes, single_blanks

MAX_LINE_BYTES = 1 << 26
"""64 MiB."""

MAX_RECORD_BYTES = 1 << 20
"""Bytes of a row with quoted line ends, 1 MiB: a quote still open then was never closed."""

BLANKS = " "
"""The separator of columns in runs of blanks."""

BLANKS_AND_TABS = " \t"
"""The separators of columns in mixed runs of blanks and tabs."""

NUMERIC = re.compile(rb'\s*"?[+-]?(\d[\d.:eETZ+\- ]*|\.\d+)"?\s*')
"""A number, or a time such as 2024-05-01T12:00:00Z."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_LINE_OF_BLANKS = re.compile(rb"(?:(?<=[\r\n])|\A)[ \t]+(?=[\r\n]|\Z)")
_DOUBLING = "close it, or remove it (a quote inside quotes is doubled)"


@dataclass(frozen=True)
class Layout:
    """The layout of the rows of a delimited file.

    Attributes:
        names: names of the columns, in order.
        separators: the delimiter, or `BLANKS` or `BLANKS_AND_TABS`, which separate columns in runs.
        start: position of the first row, in bytes of UTF-8 text.
        numeric: for each column, whether the first row has a number or time.
        mark: mark of the comment lines at the top; empty if there are none.
    """

    names: tuple[str, ...]
    separators: str
    start: int
    numeric: tuple[bool, ...]
    mark: str = ""

    @property
    def in_runs(self) -> bool:
        """Whether a run of separators counts as one."""
        return self.separators.startswith(BLANKS)

    @property
    def delimiter(self) -> str:
        """The one character between columns, after runs are made single."""
        return self.separators[0]

    def split(self, line: bytes) -> list[bytes]:
        """Split a line at its separators, regardless of quotes."""
        if self.separators == BLANKS_AND_TABS:
            line = line.replace(b"\t", b" ")
        parts = line.split(self.delimiter.encode())
        return [part for part in parts if part] if self.in_runs else parts

    def looks_like_row(self, line: bytes) -> bool:
        """Tell whether a line could be a row: the layout's number of columns, numbers in numeric ones."""
        fields = self.split(line)
        return len(fields) == len(self.names) and all(
            NUMERIC.fullmatch(field) for field, numeric in zip(fields, self.numeric, strict=True) if numeric
        )


class CheckedLines:
    """The rows of a delimited file as a stream for `pyarrow.csv`, without comments and header.

    Each line becomes one row, except empty lines and rows with line ends inside quotes, which are counted, so
    that rows can be reconciled with lines. Runs of blanks become single ones where they are the delimiter.

    Args:
        stream: UTF-8 text, at the start of the file.
        where: name of the file in errors.
        layout: its layout.
        skips_blank: skip lines of blanks only, too.

    Attributes:
        num_rows: rows read so far.
        closed: whether reading has ended, for `pyarrow`.

    Raises:
        DataError: while reading, naming the row: a quote that is not closed or whose text looks like rows, a
            zero byte, a comment between rows, a line of more than 64 MiB.
    """

    def __init__(self, stream: ByteStream, where: str, layout: Layout, *, skips_blank: bool = False) -> None:
        self.num_rows = 0
        self.closed = False
        self._stream = stream
        self._where = where
        self._layout = layout
        self._skips_blank = skips_blank
        self._to_skip = layout.start
        self._carry = b""
        self._ready = b""
        self._is_done = False

    def readable(self) -> bool:
        """True: the stream can be read."""
        return True

    def seekable(self) -> bool:
        """False: the stream cannot seek."""
        return False

    def close(self) -> None:
        """End reading."""
        self.closed = True

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes, whole rows if they fit; none at the end."""
        while not self._ready and not self._is_done:
            self._ready = self._next(size)
        block, self._ready = self._ready[:size], self._ready[size:]
        return block

    def _next(self, size: int) -> bytes:
        """The next whole rows, checked; none if more has to be read first."""
        block = self._stream.read(max(size - len(self._carry), size // 2, 1))
        self._is_done = not block
        skipped = min(self._to_skip, len(block))
        self._to_skip -= skipped
        rows = self._carry + block[skipped:]
        self._carry = b""
        if not self._is_done:  # a carriage return at the end may be half of a line end
            cut = 1 + max(rows.rfind(b"\n"), rows.rfind(b"\r", 0, max(len(rows) - 1, 0)))
            if cut == 0 and len(rows) > MAX_LINE_BYTES:
                raise self._error(
                    0, rows, f"is longer than {MAX_LINE_BYTES >> 20} MiB; is this a table of text?"
                )
            rows, self._carry = rows[:cut], rows[cut:]
        return self._checked(rows) if rows else b""

    def _checked(self, rows: bytes) -> bytes:
        self._forbid_zero_bytes(rows)
        if self._skips_blank and self._layout.separators != "\t":
            rows = _LINE_OF_BLANKS.sub(b"", rows)
        num_joined = 0
        checked = rows
        if b'"' in rows:
            checked, num_joined = self._check_quotes(rows)
        self._forbid_comments(checked)
        self.num_rows += count_lines(checked) - num_joined
        if not self._layout.in_runs:
            return checked
        return single_blanks(checked, with_tabs=self._layout.separators == BLANKS_AND_TABS)

    def _forbid_zero_bytes(self, rows: bytes) -> None:
        at = rows.find(b"\0")
        if at >= 0:
            raise self._error(
                at,
                rows,
                "a zero byte; the file is damaged, or not UTF-8 (save it as UTF-8)",
                with_column=True,
            )

    def _forbid_comments(self, rows: bytes) -> None:
        mark = self._layout.mark.encode()
        if mark and mark in rows:
            found = re.search(rb"(?:\A|[\r\n])" + re.escape(mark), rows)
            if found:
                raise self._error(
                    found.end() - 1,
                    rows,
                    f"begins with {mark.decode()!r} like the comments at the top; remove it",
                )

    def _check_quotes(self, rows: bytes) -> tuple[bytes, int]:
        """The rows before one that is still open, and the number of their lines that continue a row."""
        try:
            scan = scan_quotes(rows, self._layout.separators.encode())
        except BrokenQuoteError as broken:
            raise self._error(broken.position, rows, str(broken), broken.records, with_column=True) from None
        num_joined = 0
        for number, record in enumerate(scan.records):
            lines = _LINE_END.split(rows[record.start : record.stop].rstrip(b"\r\n"))
            num_joined += count_lines(rows[record.start : record.stop]) - 1
            if any(self._layout.looks_like_row(line) for line in lines[1:]):
                later = f"is closed {len(lines) - 1} lines later"
                fault = f"a quote opens that {later}, and a line between looks like a row"
                raise self._error(
                    record.quote, rows, f"{fault}; {_DOUBLING}", scan.records[:number], with_column=True
                )
        if scan.open_at is not None:
            if self._is_done or len(rows) - scan.open_at > MAX_RECORD_BYTES:
                limit = "never closed" if self._is_done else "not closed within 1 MiB"
                fault = f"a quote opens that is {limit}; {_DOUBLING}"
                raise self._error(scan.quote, rows, fault, scan.records, with_column=True)
            self._carry = rows[scan.open_at :] + self._carry
        return scan.text, num_joined

    def _error(
        self,
        at: int,
        rows: bytes,
        fault: str,
        records: Sequence[QuotedRecord] = (),
        *,
        with_column: bool = False,
    ) -> DataError:
        """The error about the row at a position."""
        start = 1 + max(rows.rfind(b"\n", 0, at), rows.rfind(b"\r", 0, at))
        row = self.num_rows + count_lines(rows[:start])
        row -= sum(count_lines(rows[record.start : record.stop]) - 1 for record in records)
        if with_column:
            before = self._layout.split(rows[start:at] + b"x")
            number = len(before) - 1
            if number < len(self._layout.names):
                return RowError(self._where, row, self._layout.names[number], fault)
        return DataError(f"{self._where}: row {row + 1}: {fault}")


def count_lines(text: bytes) -> int:
    """Count the lines that are not empty; the text begins at the start of a line."""
    codes = np.frombuffer(text, dtype=np.uint8)
    if not len(codes):
        return 0
    is_text = (codes != 10) & (codes != 13)
    return int(is_text[0]) + int(np.count_nonzero(is_text[1:] & ~is_text[:-1]))
