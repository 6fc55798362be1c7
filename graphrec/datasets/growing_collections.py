"""Collections of user indices that grow by many entries at a time while a world is simulated."""

from __future__ import annotations

import numpy as np

MAX_UNMERGED_KEYS = 2**15
"""New keys of a set that are kept apart before they are merged into the sorted ones."""


class GrowingLists:
    """A growing list of users for each of N owners, all in one pool.

    A list that outgrows its room moves to the end of the pool, where it gets twice the room that it needs.

    Attributes:
        size: [N] int64, lengths of the lists.
    """

    def __init__(self, num_owners: int) -> None:
        self.size = np.zeros(num_owners, dtype=np.int64)
        self._start = np.zeros(num_owners, dtype=np.int64)
        self._room = np.zeros(num_owners, dtype=np.int64)
        self._pool = np.empty(1024, dtype=np.int32)
        self._used = 0

    def extend(self, owner: np.ndarray, item: np.ndarray) -> None:
        """Append items [M] to the lists of their owners [M]."""
        order = np.argsort(owner, kind="stable")
        owner, item = owner[order], item[order]
        grown, place, count = runs(owner)
        need = self.size[grown] + count
        self._move(grown[need > self._room[grown]], 2 * need[need > self._room[grown]])
        self._pool[self._start[owner] + self.size[owner] + place] = item
        self.size[grown] = need

    def all_of(self, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all items of the lists of owners [M]: (row [K], 0..M-1, of the owner; item [K])."""
        row, place = enumerate_lists(self.size[owner])
        return row, self._pool[self._start[owner][row] + place]

    def pick(self, owner: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Pick an item of each owner's list by a number in [0, 1) each; -1 where it is empty: [M]."""
        at = self._start[owner] + (uniform * self.size[owner]).astype(np.int64)
        return np.where(self.size[owner] > 0, self._pool[np.minimum(at, len(self._pool) - 1)], -1)

    def _move(self, owner: np.ndarray, room: np.ndarray) -> None:
        """Move the lists of owners [M] to the end of the pool, each with `room` [M] for items."""
        end = self._used + int(room.sum())
        if end > len(self._pool):
            self._pool = np.concatenate([self._pool, np.empty(end, dtype=np.int32)])
        row, items = self.all_of(owner)
        self._start[owner] = self._used + np.cumsum(room) - room
        self._room[owner] = room
        self._pool[self._start[owner][row] + enumerate_lists(self.size[owner])[1]] = items
        self._used = end


class GrowingKeySet:
    """A growing set of int64: a large sorted part, and a small one that is merged into it now and then."""

    def __init__(self) -> None:
        self._old = self._new = np.empty(0, dtype=np.int64)

    def add(self, keys: np.ndarray) -> None:
        """Add keys, which may repeat."""
        self._new = np.sort(np.concatenate([self._new, keys]), kind="stable")
        if len(self._new) > MAX_UNMERGED_KEYS:
            self._old = np.sort(np.concatenate([self._old, self._new]), kind="stable")
            self._new = np.empty(0, dtype=np.int64)

    def contain(self, keys: np.ndarray) -> np.ndarray:
        """Tell which keys [M] are in the set: [M] bool."""
        found = np.zeros(len(keys), dtype=bool)
        for part in (self._old, self._new):
            if len(part):
                found |= part[np.minimum(np.searchsorted(part, keys), len(part) - 1)] == keys
        return found


class ArrivingGroups:
    """Groups whose members arrive one after the other.

    Args:
        group: [N] int64, the group of each user.
        arrivals: [N] int64, all users in order of arrival.
    """

    def __init__(self, group: np.ndarray, arrivals: np.ndarray) -> None:
        self._group = group
        self._members = arrivals[np.argsort(group[arrivals], kind="stable")]
        size = np.bincount(group)
        self._start = np.cumsum(size) - size
        self._arrived = np.zeros_like(size)

    def arrive(self, users: np.ndarray) -> None:
        """Add the next users, in order of arrival."""
        self._arrived += np.bincount(self._group[users], minlength=len(self._arrived))

    def pick(self, user: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Pick an arrived member of each user's group by a number in [0, 1) each: [M]."""
        group = self._group[user]
        at = self._start[group] + (uniform * self._arrived[group]).astype(np.int64)
        return np.asarray(self._members[at])


def runs(sorted_values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find runs of equal values: (value [R], position of each item in its run [M], length [R])."""
    start = np.flatnonzero(np.diff(sorted_values, prepend=-1))
    length = np.diff(start, append=len(sorted_values))
    return sorted_values[start], np.arange(len(sorted_values)) - np.repeat(start, length), length


def enumerate_lists(length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Enumerate the items of lists of given lengths, concatenated: (row [K], place in the row [K])."""
    row = np.repeat(np.arange(len(length)), length)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
