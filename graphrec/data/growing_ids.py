"""Raw ids that grow at the end: users keep their indices, newcomers get the next ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from graphrec.data.growing_column import GrowingColumn
from graphrec.data.id_search import SortedIds, search_keys
from graphrec.data.ids import MAX_ID_BYTES, UserIds

MIN_LATER = 1024
"""Ids kept apart from the sorted ones, before all are sorted again; more where there are more users."""


class GrownIds(UserIds):
    """The ids of a graph that has grown: not sorted, since indices are never renumbered.

    Args:
        raw: as in `UserIds`.
        first: the first ids, in order.
        later: index of each other id, int64 or bytes, and perhaps of ids that are not among these yet.
    """

    def __init__(self, raw: Tensor, first: SortedIds, later: dict[Any, int]) -> None:
        super().__init__(raw)
        self._first, self._later = first, later

    def _positions(self, wanted: Any) -> np.ndarray:
        keys, known = search_keys(wanted)
        out = np.where(known, self._first.find(keys), -1)
        for row in np.flatnonzero(known & (out < 0)).tolist():
            index = self._later.get(keys[row].item(), -1)
            out[row] = index if index < len(self) else -1
        return out


class GrowingIds:
    """The ids of a growing graph. An id is looked up or added in constant time on average.

    Args:
        ids: of the graph so far.
    """

    def __init__(self, ids: UserIds) -> None:
        self._start(ids)

    def _start(self, ids: UserIds) -> None:
        self._raw, self._width = GrowingColumn(ids.raw), 0 if ids.raw.dim() == 1 else ids.raw.size(1)
        self._first: SortedIds = ids.sorted
        self._later: dict[Any, int] = {}
        self.view = ids

    def __len__(self) -> int:
        return len(self.view)

    def append(self, values: pa.Array) -> UserIds:
        """Append n distinct ids, none of which is there yet, and return all ids."""
        if not len(values):
            return self.view
        if self._width and not pa.types.is_string(values.type):
            values = values.cast(pa.string())
        elif not self._width and pa.types.is_string(values.type):
            self._start(UserIds.from_values(self.view.values.cast(pa.string())))
        size, new = len(self), UserIds.from_values(values).raw
        keys, _ = search_keys(values)
        for number, key in enumerate(keys.tolist(), start=size):
            self._later[key] = number
        if self._width:
            self._append_text(new)
        else:
            self._raw.append(new)
        raw = self._raw.view[:, : self._width] if self._width else self._raw.view
        if len(self._later) > max(MIN_LATER, len(self._first)):
            self._first, self._later = SortedIds(raw.numpy()), {}
        self.view = GrownIds(raw, self._first, self._later)
        return self.view

    def _append_text(self, new: Tensor) -> None:
        """Append texts [n, L] uint8; the buffer gets twice as wide if they are too long."""
        old = self._raw.view
        self._width = max(self._width, new.size(1))
        if self._width > old.size(1):
            room = min(MAX_ID_BYTES, max(self._width, 2 * old.size(1)))
            wide = old.new_zeros(len(old), room)
            wide[:, : old.size(1)] = old
            self._raw = GrowingColumn(wide)
        rows = new.new_zeros(len(new), self._raw.view.size(1))
        rows[:, : new.size(1)] = new
        self._raw.append(rows)
