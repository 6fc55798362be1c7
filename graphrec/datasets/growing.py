"""Collections of user numbers that grow, many at a time, while a world is simulated."""

from __future__ import annotations

import numpy as np

MERGE_AT = 2**15


class Lists:
    """A growing list of users for each of N owners, all in one pool.

    A list that outgrows its place moves to the end of the pool, where it gets twice the room it needs.
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
        who, place, count = runs(owner)
        need = self.size[who] + count
        self._move(who[need > self._room[who]], 2 * need[need > self._room[who]])
        self._pool[self._start[owner] + self.size[owner] + place] = item
        self.size[who] = need

    def all_of(self, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Everything in the lists of owners [M]: (row [K] of the owner, item [K])."""
        row, place = ragged(self.size[owner])
        return row, self._pool[self._start[owner][row] + place]

    def pick(self, owner: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One item of each owner's list by a number in [0, 1), or -1 where the list is empty: [M]."""
        at = self._start[owner] + (uniform * self.size[owner]).astype(np.int64)
        return np.where(self.size[owner] > 0, self._pool[np.minimum(at, len(self._pool) - 1)], -1)

    def _move(self, who: np.ndarray, room: np.ndarray) -> None:
        end = self._used + int(room.sum())
        if end > len(self._pool):
            self._pool = np.concatenate([self._pool, np.empty(end, dtype=np.int32)])
        row, items = self.all_of(who)
        self._start[who] = self._used + np.cumsum(room) - room
        self._room[who] = room
        self._pool[self._start[who][row] + ragged(self.size[who])[1]] = items
        self._used = end


class Keys:
    """A growing set of int64: a large sorted part, and a small one that is merged into it now and then."""

    def __init__(self) -> None:
        self._old = self._new = np.empty(0, dtype=np.int64)

    def add(self, keys: np.ndarray) -> None:
        """Add keys, which may repeat."""
        self._new = np.sort(np.concatenate([self._new, keys]), kind="stable")
        if len(self._new) > MERGE_AT:
            self._old = np.sort(np.concatenate([self._old, self._new]), kind="stable")
            self._new = np.empty(0, dtype=np.int64)

    def contain(self, keys: np.ndarray) -> np.ndarray:
        """Which keys are in the set, [M] bool."""
        found = np.zeros(len(keys), dtype=bool)
        for part in (self._old, self._new):
            if len(part):
                found |= part[np.minimum(np.searchsorted(part, keys), len(part) - 1)] == keys
        return found


class Groups:
    """Members of each group in order of arrival, of whom a growing number has arrived."""

    def __init__(self, group: np.ndarray, arrivals: np.ndarray) -> None:
        self._group = group
        self._members = arrivals[np.argsort(group[arrivals], kind="stable")]
        size = np.bincount(group)
        self._start = np.cumsum(size) - size
        self._arrived = np.zeros_like(size)

    def arrive(self, users: np.ndarray) -> None:
        """The next users, in order of arrival."""
        self._arrived += np.bincount(self._group[users], minlength=len(self._arrived))

    def pick(self, user: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """An arrived member of the group of each user, who has arrived, by a number in [0, 1): [M]."""
        group = self._group[user]
        at = self._start[group] + (uniform * self._arrived[group]).astype(np.int64)
        return np.asarray(self._members[at])


def runs(sorted_values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal values: (value of each [R], place of each item in its run [M], length of each [R])."""
    start = np.flatnonzero(np.diff(sorted_values, prepend=-1))
    length = np.diff(start, append=len(sorted_values))
    return sorted_values[start], np.arange(len(sorted_values)) - np.repeat(start, length), length


def ragged(length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and place of each item of lists of these lengths, concatenated: [K] each."""
    row = np.repeat(np.arange(len(length)), length)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
