"""The error of data that cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """Data cannot be used as it is; the message says where and why."""


class RowError(DataError):
    """A value in one row cannot be used.

    Args:
        where: what the row is part of, such as a file.
        row: its position, from 0; the message counts from 1.
        column: name of the column.
        fault: what is wrong with the value.
    """

    def __init__(self, where: str, row: int, column: str, fault: str) -> None:
        self.row = int(row)
        self.column = column
        self.fault = fault
        super().__init__(f"{where}: row {self.row + 1}, column {column!r}: {fault}")
