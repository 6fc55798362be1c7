"""A column of an index on disk, written in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphrec.temporal.long_lists import LongLists

HEADER_BYTES = 128
"""Bytes of the header of a NumPy file, which leaves room for the largest length of a column."""


class ColumnFile:
    """A NumPy file that is written in parts, in any order, with room behind what is used.

    Args:
        folder: the folder of the index.
        name: name of the column.
        dtype: type of its values.
        width: the length of a row, or None for a column of single values.
    """

    def __init__(self, folder: Path, name: str, dtype: type, width: int | None = None) -> None:
        self.path = folder / f"{name}.npy"
        self.name = name
        self._dtype = np.dtype(dtype)
        self._tail = () if width is None else (width,)
        self._row_bytes = self._dtype.itemsize * (width or 1)
        self.end = 0
        self.path.touch()

    def write(self, at: int, values: np.ndarray) -> None:
        """Write rows from a position on."""
        out = np.ascontiguousarray(values, self._dtype)
        if out.size:
            with self.path.open("r+b") as file:
                file.seek(HEADER_BYTES + at * self._row_bytes)
                file.write(out.data)
        self.end = max(self.end, at + len(out))

    def append(self, values: np.ndarray) -> None:
        """Write rows after the last."""
        self.write(self.end, values)

    def move(self, lists: LongLists) -> None:
        """Copy lists to their new places, and count the room behind the last one as used."""
        for old, length, new in lists.copies():
            self.write(new, self.read(old, length))
        self.end = max(self.end, lists.end)

    def read(self, at: int, size: int) -> np.ndarray:
        """Read rows from a position on."""
        count = size * self._row_bytes // self._dtype.itemsize
        offset = HEADER_BYTES + at * self._row_bytes
        return np.fromfile(self.path, self._dtype, count, offset=offset).reshape(size, *self._tail)

    def finish(self, room: int) -> list[int]:
        """Write the header, with room for so many more rows; returns the shape."""
        shape = (self.end + room, *self._tail)
        with self.path.open("r+b") as file:
            header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            if file.tell() != HEADER_BYTES:
                raise AssertionError("the header of a NumPy file has another size")
            file.truncate(HEADER_BYTES + shape[0] * self._row_bytes)
        return list(shape)
