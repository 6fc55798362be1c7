"""The error of data that cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """The error of data that cannot be used; the message has the place and the reason."""


class RowError(DataError):
    """A value in one row cannot be used.

    Args:
        where: name of the file or table.
        row: position of the row, from 0; the message counts from 1.
        column: name of the column.
        fault: description of the fault.
    """

    def __init__(self, where: str, row: int, column: str, fault: str) -> None:
        self.row = int(row)
        self.column = column
        self.fault = fault
        super().__init__(f"{where}: row {self.row + 1}, column {column!r}: {fault}")
