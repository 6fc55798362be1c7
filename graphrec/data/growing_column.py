"""Tensors that grow at the end."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_ROWS = 64
"""Rows that a column has room for once it grows, at least."""


class GrowingColumn:
    """A tensor with rows appended to it, in constant time for each row on average.

    What `view` returned stays as it was: rows are written behind it only, and the tensor given is never
    written to.

    Args:
        values: [n, ...], the first rows.
    """

    def __init__(self, values: Tensor) -> None:
        self._buffer, self._size = values, len(values)

    @property
    def view(self) -> Tensor:
        """All rows: [n, ...], without a copy."""
        return self._buffer[: self._size]

    def append(self, rows: Tensor) -> None:
        """Append rows [m, ...]."""
        size = self._size + len(rows)
        if size > len(self._buffer):
            room = max(MIN_ROWS, size + size // 2)
            buffer = self._buffer.new_empty(room, *self._buffer.shape[1:])
            buffer[: self._size] = self.view
            self._buffer = buffer
        self._buffer[self._size : size] = rows
        self._size = size


def widened(values: Tensor, width: int) -> Tensor:
    """Return [S, W, ...] with at least `width` columns, those added all -1; itself if it has them.

    A copy has room for half as many more, so that columns added one by one cost few copies.
    """
    if width <= values.size(1):
        return values
    out = torch.full((values.size(0), width + width // 2, *values.shape[2:]), -1, dtype=values.dtype)
    out[:, : values.size(1)] = values
    return out
