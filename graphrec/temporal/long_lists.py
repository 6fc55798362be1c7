"""Room behind long lists, made when an index is written: full ones would move whole at the next append."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

LONG_LIST = 1024
"""Entries of a list that gets room when an index is written, at least; shorter ones move in microseconds."""


class LongLists(NamedTuple):
    """Full lists that get a place with half as much room again behind all others.

    Attributes:
        owner: [L] int64.
        old: [L] int64, position of each list's first entry so far.
        length: [L] int64.
        new: [L] int64, its position from now on.
        room: [L] int64, entries that it can hold there.
        end: position after the room of the last one.
    """

    owner: np.ndarray
    old: np.ndarray
    length: np.ndarray
    new: np.ndarray
    room: np.ndarray
    end: int

    def copies(self) -> Iterator[tuple[int, int, int]]:
        """For each list where it begins, its length, and where it is copied to."""
        yield from zip(self.old.tolist(), self.length.tolist(), self.new.tolist(), strict=True)

    def moved(self, start: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return starts [N] and rooms [N] of all lists, with these ones in their new places."""
        start, room = start.copy(), room.copy()
        start[self.owner], room[self.owner] = self.new, self.room
        return start, room


def full_long_lists(start: np.ndarray, length: np.ndarray, room: np.ndarray, used: int) -> LongLists:
    """Find the long lists without any room behind them.

    Args:
        start: [N] positions of the lists.
        length: [N] entries.
        room: [N] entries that each can hold.
        used: position after the last list.
    """
    owner = np.flatnonzero((length >= LONG_LIST) & (length == room))
    size = length[owner].astype(np.int64)
    wanted = size + size // 2
    end = used + np.cumsum(wanted)
    return LongLists(owner, start[owner], size, end - wanted, wanted, int(end[-1]) if len(end) else used)
