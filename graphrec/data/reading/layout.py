"""The layout of a delimited file, found from its first lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from graphrec.data.errors import DataError
from graphrec.data.reading.lines import BLANKS, BLANKS_AND_TABS, NUMERIC, Layout
from graphrec.data.reading.opening import ByteStream

DELIMITERS = ",\t;| "
"""Delimiters, in the order tried; a blank stands for runs of blanks, and of tabs mixed with them."""

COMMENTS = ("#", "%")

LAYOUT_BYTES = 1 << 20
"""Bytes of a file from which its layout is found; the header and the comments before it must fit."""

LAYOUT_LINES = 20
"""Lines from which the delimiter of a file without a header is found."""

_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


@dataclass(frozen=True)
class _Line:
    text: str
    start: int
    stop: int
    is_complete: bool

    @property
    def mark(self) -> str:
        """The mark of a comment that the line begins with, or nothing."""
        return next((mark for mark in COMMENTS if self.text.startswith(mark)), "")


def find_layout(
    stream: ByteStream,
    where: str,
    *,
    has_header: bool,
    column_names: Sequence[str] | None,
    wanted: Collection[str],
) -> Layout:
    """Find the layout of a text file.

    Empty lines, and lines that begin with `#` or `%`, are skipped before the first row. Where the last of
    them names the wanted columns, and no other line does, it is the header.

    Args:
        stream: UTF-8 text, at the start of the file.
        where: name of the file in errors.
        has_header: whether the first row names the columns.
        column_names: names of the columns of a file without a header; by default "1", "2", ...
        wanted: names that the header must have, from which the delimiter is found.

    Raises:
        DataError: the file is empty, has only a header, or its first line is not a header.
    """
    lines = _first_lines(stream, where)
    num_comments = next((number for number, line in enumerate(lines) if not line.mark), len(lines))
    comments, lines = lines[:num_comments], lines[num_comments:]
    if not has_header and column_names is not None and not lines:  # ids may begin with a mark
        comments, lines = [], comments
    if not lines:
        raise DataError(f"{where}: the file is empty{' but for comments' if comments else ''}")
    if has_header:
        return _with_header(lines, comments, where, wanted)
    delimiter = _delimiter_of_rows(lines, None if column_names is None else len(column_names))
    width = len(_split(lines[0].text, delimiter))
    if column_names is None:
        column_names = [str(number + 1) for number in range(width)]
    elif len(column_names) != width:
        raise DataError(
            f"{where}: the first line {lines[0].text[:80]!r} does not have {len(column_names)} columns"
        )
    numeric = _numeric(lines[0].text, delimiter, width)
    for number, comment in enumerate(comments):  # an id may begin with a mark
        after = comment.text[1:2]
        is_text = after not in " \t" or after == delimiter != BLANKS
        if is_text and len(_split(comment.text, delimiter)) == width:
            lines, comments = [comment, *lines], comments[:number]
            break
    mark = comments[0].mark if comments else ""
    separators = _separators(delimiter, lines, width)
    return Layout(tuple(column_names), separators, lines[0].start, numeric, mark)


def _with_header(lines: list[_Line], comments: list[_Line], where: str, wanted: Collection[str]) -> Layout:
    mark = comments[0].mark if comments else ""
    first = lines[0]
    if comments:
        for delimiter in DELIMITERS:
            names = _split(comments[-1].text.lstrip("".join(COMMENTS)), delimiter)
            if set(wanted) <= set(names) and len(_split(first.text, delimiter)) == len(names):
                numeric = _numeric(first.text, delimiter, len(names))
                return Layout(
                    tuple(names), _separators(delimiter, lines, len(names)), first.start, numeric, mark
                )
    splits = {delimiter: _split(first.text, delimiter) for delimiter in DELIMITERS}
    delimiter = next(
        (delimiter for delimiter, names in splits.items() if set(wanted) <= set(names)),
        max(splits, key=lambda delimiter: len(splits[delimiter])),
    )
    names = splits[delimiter]
    if not names:
        raise DataError(
            f"{where}: the first line cannot be read: {first.text[:80]!r} has a quote that is broken"
        )
    if all(NUMERIC.fullmatch(name.encode()) for name in names):
        time = 3 if len(names) == 3 else 4
        raise DataError(
            f"{where}: the first line {first.text[:80]!r} is numbers alone and no header; if the file has "
            f"none, give the numbers of the columns: header=False, src=1, dst=2, time={time} "
            f"(on the command line: --no-header --src 1 --dst 2 --time {time})"
        )
    if len(lines) == 1 and not first.is_complete:
        raise DataError(f"{where}: there is nothing after the header")
    numeric = _numeric(lines[1].text, delimiter, len(names)) if len(lines) > 1 else (False,) * len(names)
    return Layout(tuple(names), _separators(delimiter, lines, len(names)), first.stop, numeric, mark)


def _separators(delimiter: str, lines: list[_Line], width: int) -> str:
    """The delimiter; blanks and tabs together if they give the same number of columns in each line."""
    mixed = delimiter == BLANKS and any("\t" in line.text.strip() for line in lines)
    if mixed and all(len(line.text.split()) == width for line in lines):
        return BLANKS_AND_TABS
    return delimiter


def _delimiter_of_rows(lines: list[_Line], width: int | None) -> str:
    """Guess the delimiter from the first rows.

    With `width`, the first delimiter that splits the first row into `width` columns, or the comma. Without
    it, the one that splits all rows into the same, largest number; every other delimiter goes before blanks,
    unless blanks split the first row into numbers only.
    """
    widths = {mark: [len(_split(line.text, mark)) for line in lines] for mark in DELIMITERS}
    if width is not None:
        return next((mark for mark in DELIMITERS if widths[mark][0] == width), DELIMITERS[0])
    regular = [mark for mark in DELIMITERS if len(set(widths[mark])) == 1 and widths[mark][0] > 1]
    if BLANKS in regular and all(
        NUMERIC.fullmatch(field.encode()) for field in _split(lines[0].text, BLANKS)
    ):
        return max(regular, key=lambda mark: widths[mark][0])
    named = [mark for mark in regular if mark != BLANKS] or regular or list(DELIMITERS)
    return max(named, key=lambda mark: widths[mark][0])


def _numeric(text: str, delimiter: str, width: int) -> tuple[bool, ...]:
    fields = _split(text, delimiter)
    if len(fields) != width:
        return (False,) * width
    return tuple(NUMERIC.fullmatch(field.encode()) is not None for field in fields)


def _first_lines(stream: ByteStream, where: str) -> list[_Line]:
    """Read the first lines of a file that are not blank."""
    head, is_whole = b"", False
    while len(head) < LAYOUT_BYTES and not is_whole:
        block = stream.read(LAYOUT_BYTES)
        head += block
        is_whole = not block
    lines: list[_Line] = []
    num_rows = 0
    for number, found in enumerate(_LINE.finditer(head), 1):
        is_complete = bool(found[2])
        if not found[1].strip() or not (is_complete or is_whole):
            continue
        try:
            text = found[1].decode()
        except UnicodeDecodeError:
            if num_rows:
                break  # the parser names row and column
            raise DataError(f"{where}: line {number} is not UTF-8 text; save the file as UTF-8") from None
        if "\0" in text and not num_rows:
            raise DataError(
                f"{where}: line {number} has a zero byte; the file is damaged or not UTF-8 (save it so)"
            )
        lines.append(_Line(text, found.start(), found.end(), is_complete))
        num_rows += num_rows > 0 or not lines[-1].mark
        if num_rows >= LAYOUT_LINES:
            break
    if not lines and head.strip():
        raise DataError(
            f"{where}: the first line is longer than {LAYOUT_BYTES >> 20} MiB; is this a table of text?"
        )
    return lines


def _split(text: str, delimiter: str) -> list[str]:
    """The trimmed values of a line; none if its quotes are broken."""
    if delimiter == BLANKS:
        text = " ".join(text.split()) if '"' not in text else text.strip()
    try:
        row = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True))
    except (csv.Error, StopIteration):
        return []
    return [name.strip() for name in row]
