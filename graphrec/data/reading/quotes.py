"""Quotes in delimited text: rows of several lines, and broken quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

QUOTE = 34
LINE_FEED, CARRIAGE_RETURN = 10, 13


@dataclass(frozen=True)
class QuotedRecord:
    """A row that spans several lines, because a quoted value has line ends.

    Attributes:
        start: position of the row in the text.
        stop: position of the next row.
        quote: position of the opening quote of the first value with a line end.
    """

    start: int
    stop: int
    quote: int


@dataclass(frozen=True)
class QuoteScan:
    """The result of `scan_quotes`.

    Attributes:
        text: whole rows, without blanks between a delimiter and a quote that opens a value.
        records: rows of several lines, in order; positions are those of the text given.
        open_at: position of a row whose quote is still open at the end, which is not in `text`; or None.
        quote: position of that quote.
    """

    text: bytes
    records: tuple[QuotedRecord, ...] = ()
    open_at: int | None = None
    quote: int = 0


class BrokenQuoteError(ValueError):
    """A quote that breaks the rules of CSV, at a position of the text."""

    def __init__(self, position: int, records: list[QuotedRecord], fault: str) -> None:
        super().__init__(fault)
        self.position = position
        self.records = records


@dataclass(frozen=True)
class _Patterns:
    opening: re.Pattern[bytes]
    closing: re.Pattern[bytes]
    unquoted: re.Pattern[bytes]


_BODY = re.compile(rb'[^"]*(?:""[^"]*)*')
_LINE_END = re.compile(rb"\r\n|\r|\n|\Z")


@lru_cache
def _patterns(separators: bytes) -> _Patterns:
    stop = b"".join(re.escape(separators[number : number + 1]) for number in range(len(separators)))
    mark = b"[" + stop + b"]"
    blanks = rb" *" if separators == b"\t" else rb"[ \t]*"
    return _Patterns(
        opening=re.compile(blanks + rb'"'),
        closing=re.compile(blanks + rb"(?=" + mark + rb"|[\r\n]|\Z)"),
        unquoted=re.compile(rb"[^\r\n" + stop + rb"]*"),
    )


def scan_quotes(text: bytes, separators: bytes) -> QuoteScan:
    """Find the rows of several lines in text that begins at the start of a row.

    Lines whose quotes all open after a delimiter and close before one are found by array operations; the
    others are read one by one.

    Args:
        text: whole lines.
        separators: the bytes that separate values.

    Raises:
        BrokenQuoteError: text follows a closing quote.
    """
    records: list[QuotedRecord] = []
    pieces: list[bytes] = []
    done = kept = 0
    for start in _irregular_lines(text, separators).tolist():
        if start < done:
            continue  # part of a row of several lines
        row = _scan_row(text, start, separators, records)
        if row.stop is None:
            pieces.append(text[kept:start])
            return QuoteScan(b"".join(pieces), tuple(records), start, row.quote)
        for begin, end in row.blanks:
            pieces.append(text[kept:begin])
            kept = end
        if row.is_joined:
            records.append(QuotedRecord(start, row.stop, row.quote))
        done = row.stop
    return QuoteScan(b"".join([*pieces, text[kept:]]), tuple(records))


def _irregular_lines(text: bytes, separators: bytes) -> np.ndarray:
    """Starts of the lines with a quote that does not open after a delimiter, or not close before one."""
    codes = np.frombuffer(text, dtype=np.uint8)
    quotes = np.flatnonzero(codes == QUOTE)
    ends = np.flatnonzero((codes == LINE_FEED) | (codes == CARRIAGE_RETURN))
    is_edge = np.zeros(256, dtype=bool)
    is_edge[[LINE_FEED, CARRIAGE_RETURN, *separators]] = True
    after_edge = np.where(quotes > 0, is_edge[codes[np.maximum(quotes - 1, 0)]], True)
    before_edge = np.where(
        quotes < len(codes) - 1, is_edge[codes[np.minimum(quotes + 1, len(codes) - 1)]], True
    )
    line = np.searchsorted(ends, quotes)
    is_first = np.append(True, line[1:] != line[:-1])
    is_last = np.append(is_first[1:], True)
    number = np.arange(len(quotes))
    opens = (number - np.maximum.accumulate(np.where(is_first, number, 0))) % 2 == 0
    adjacent = np.append(
        quotes[1:] == quotes[:-1] + 1, False
    )  # to the next: a doubled quote, if this one closes
    follows = np.append(False, adjacent[:-1])
    regular = np.where(opens, (after_edge | (follows & ~is_first)) & ~is_last, before_edge | adjacent)
    irregular = np.unique(line[~regular])
    starts = np.append(0, ends + 1)
    out: np.ndarray = starts[irregular]
    return out


@dataclass(frozen=True)
class _Row:
    stop: int | None
    quote: int
    is_joined: bool
    blanks: tuple[tuple[int, int], ...] = ()


def _scan_row(text: bytes, start: int, separators: bytes, records: list[QuotedRecord]) -> _Row:
    """Read one row value by value; it has no stop if its quote is still open at the end of the text."""
    patterns = _patterns(separators)
    position, first_joined = start, -1
    blanks: list[tuple[int, int]] = []
    while True:
        opening = patterns.opening.match(text, position)
        if opening is None:
            value = patterns.unquoted.match(text, position)
            assert value is not None, "the pattern fits nothing too"
            position = value.end()
            if separators.startswith(b" ") and b'"' in value[0]:
                raise BrokenQuoteError(
                    value.start(),
                    records,
                    "has a quote inside a value, where blanks separate columns; remove it",
                )
        else:
            quote = opening.end() - 1
            if quote > position:
                blanks.append((position, quote))
            body = _BODY.match(text, quote + 1)
            assert body is not None, "the pattern fits nothing too"
            if body.end() >= len(text):
                return _Row(None, quote, is_joined=True)
            is_joined = b"\n" in body[0] or b"\r" in body[0]
            closing = patterns.closing.match(text, body.end() + 1)
            if closing is None:
                fault = (
                    "opens a quote that is not closed on its line; close it, or remove it"
                    if is_joined
                    else "has text after a closing quote; double the quotes inside quotes, or remove them"
                )
                raise BrokenQuoteError(quote, records, fault)
            if is_joined and first_joined < 0:
                first_joined = quote
            position = closing.end()
        if position >= len(text) or text[position] in b"\r\n":
            end = _LINE_END.match(text, position)
            assert end is not None, "a row ends at a line end, or the text does"
            return _Row(end.end(), first_joined, first_joined >= 0, tuple(blanks))
        position += 1


def single_blanks(text: bytes, *, with_tabs: bool) -> bytes:
    """Replace runs of blanks (and tabs) outside quotes by single blanks, and remove those at line ends."""
    parts = text.split(b'"')
    parts[::2] = [_single_blanks(part, with_tabs) for part in parts[::2]]
    text = b'"'.join(parts)
    return text[1:] if text.startswith(b" ") else text


def _single_blanks(text: bytes, with_tabs: bool) -> bytes:
    if with_tabs:
        text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    for end in (b"\n", b"\r"):
        text = text.replace(b" " + end, end).replace(end + b" ", end)
    return text
