"""Lists of many owners in joint flat arrays, with room for more entries."""

from __future__ import annotations

from typing import Self

import numpy as np

from graphrec.temporal.act_lists import enlarged
from graphrec.temporal.append import MIN_ROOM


class GrowingLists:
    """A list of entries for each of G owners, which entries are appended to.

    A list that is full moves to the end of the arrays, with half as much room again, so that an append costs
    a constant number of moves on average.

    Args:
        length: [G] int64, entries of each list.
        columns: [E] each, the entries, owner after owner.

    Attributes:
        start: [G or more] int64, position of each list's first entry.
        length: [G or more] int64.
        columns: [E or more] each.
    """

    def __init__(self, length: np.ndarray, columns: tuple[np.ndarray, ...]) -> None:
        self.start, self.length, self.columns = np.cumsum(length) - length, length, columns
        self._room, self._used = length, int(length.sum())

    def copy(self) -> Self:
        """Copy the lists."""
        out = object.__new__(type(self))
        out.start, out.length, out._room = self.start.copy(), self.length.copy(), self._room.copy()
        out.columns, out._used = tuple(column.copy() for column in self.columns), self._used
        return out

    def reserve(self, owner: np.ndarray, num_owners: int) -> None:
        """Make room for entries of owners [M] int64, named once for each; there are `num_owners` now."""
        self.start, self.length, self._room = (
            enlarged(column, num_owners) for column in (self.start, self.length, self._room)
        )
        users, more = np.unique(owner, return_counts=True)
        wanted = self.length[users] + more
        full = wanted > self._room[users]
        users, wanted = users[full], wanted[full]
        if not len(users):
            return
        room, size = wanted + np.maximum(MIN_ROOM, wanted // 2), self.length[users]
        new = self._used + np.cumsum(room) - room
        self._used += int(room.sum())
        offset = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
        source, place = (np.repeat(start, size) + offset for start in (self.start[users], new))
        self.columns = tuple(enlarged(column, self._used) for column in self.columns)
        for column in self.columns:
            column[place] = column[source]
        self.start[users], self._room[users] = new, room
