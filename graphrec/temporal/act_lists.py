"""The acts by each user, or on each user, in order of time, with decayed counts; they grow with the index."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphrec.jit import kernel
from graphrec.temporal.append import MIN_ROOM
from graphrec.temporal.first_acts import fill_first_targets
from graphrec.temporal.order_kernels import fill_popularity, fill_received
from graphrec.temporal.timeline import Timeline


class Received(NamedTuple):
    """The acts on each user (or by each), in order of time.

    Attributes:
        start: [N] int64, position of each user's first.
        length: [N] int32.
        tick: [E or more] int32, ascending for each user.
        total: [E or more] float64, popularity just after each act: acts so far, each halved every half-life.
        event_total: [E] float64, the same in the order of the log; -1 for events that do not count.
    """

    start: np.ndarray
    length: np.ndarray
    tick: np.ndarray
    total: np.ndarray
    event_total: np.ndarray


class ActLists:
    """The acts on each user, or by each, of an index that grows (20 bytes an event).

    Args:
        timeline: the index.
        side: 'dst' for the acts on users, 'src' for those by users.
        half_life: seconds, or what `clock` counts; infinite for plain counts.
        first_only: whether only the first act of one user on another counts.
        clock: [T] int64, when each tick is, by which acts decay; by default its time in seconds.
    """

    def __init__(
        self,
        timeline: Timeline,
        side: Literal["src", "dst"],
        half_life: float,
        *,
        first_only: bool = False,
        clock: np.ndarray | None = None,
    ) -> None:
        self._side, self._half_life, self._first_only = side, float(half_life), first_only
        user = self._users(timeline, 0)
        length = np.bincount(user[user >= 0], minlength=timeline.num_users)
        start = np.cumsum(length, dtype=np.int64) - length
        size = int(length.sum())
        columns = np.empty(size, np.int32), np.empty(size), np.empty(len(user))
        clock = timeline.instants.numpy() if clock is None else clock
        fill_received(user, timeline.event_tick.numpy(), clock, self._half_life, start, *columns)
        self._lists = Received(start, length.astype(np.int32), *columns)
        self._room = self._lists.length.copy()
        self._used = np.array([size, len(user)])
        self._num_users = timeline.num_users

    @property
    def lists(self) -> Received:
        """The lists now."""
        start, length, tick, total, event_total = self._lists
        size = int(self._used[1])
        return Received(start[: self._num_users], length[: self._num_users], tick, total, event_total[:size])

    def at(self, timeline: Timeline, time: Tensor) -> Tensor:
        """Return the decayed counts of all users just before ascending times [B] (s): [B, N] float64."""
        lists, bound = self.lists, timeline.tick(time)
        out = torch.empty(len(time), self._num_users, dtype=torch.float64)
        columns = timeline.instants.numpy(), *lists[:4]
        keys = (key.contiguous().numpy() for key in (bound, time, out))
        fill_popularity(self._half_life, *columns, *keys)
        return out

    def _users(self, timeline: Timeline, since: int) -> np.ndarray:
        """Whose act each event from position `since` on is, or -1 where it does not count: [M] int64."""
        if not self._first_only:
            users: np.ndarray = getattr(timeline.events, self._side).numpy()[since:]
            return users  # removed events have no users
        columns, events = timeline.columns, timeline.events
        log = events.src.numpy(), events.dst.numpy(), timeline.event_tick.numpy()
        target = np.empty(len(events) - since, np.int64)
        fill_first_targets(columns.half_edges, columns.pair, *log, since, target)
        if self._side == "src":
            return np.where(target < 0, -1, log[0][since:])
        return target

    def follow(self, timeline: Timeline, clock: np.ndarray | None = None) -> None:
        """Add the events appended to the index since; `clock` as for the class."""
        first = done = int(self._used[1])
        size, self._num_users = len(timeline.events), timeline.num_users
        self._lists = self._lists._replace(
            start=enlarged(self._lists.start, self._num_users),
            length=enlarged(self._lists.length, self._num_users),
            event_total=enlarged(self._lists.event_total, size),
        )
        self._room = enlarged(self._room, self._num_users)
        user, event_tick = self._users(timeline, first), timeline.event_tick.numpy()
        clock = timeline.instants.numpy() if clock is None else clock
        while True:
            done += append_acts(
                user[done - first :],
                event_tick[done:],
                clock,
                self._half_life,
                self._room,
                self._used,
                *self._lists,
            )
            if done == size:
                return
            longest = int(self._lists.length.max(initial=0))
            room = int(self._used[0]) + 2 * (size - first + longest + MIN_ROOM)
            self._lists = self._lists._replace(
                tick=enlarged(self._lists.tick, room), total=enlarged(self._lists.total, room)
            )


def enlarged(array: np.ndarray, size: int) -> np.ndarray:
    """Return an array with room for at least `size` entries, zeros behind it; itself if it has that room."""
    if size <= len(array):
        return array
    out = np.zeros((size + size // 2, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


@kernel
def append_acts(
    user: np.ndarray,
    event_tick: np.ndarray,
    instants: np.ndarray,
    half_life: float,
    room: np.ndarray,
    used: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    tick: np.ndarray,
    total: np.ndarray,
    event_total: np.ndarray,
) -> int:
    """Append acts to lists with room, and return how many there was room for; full lists move to the end.

    Args:
        user: [M] int64, of the acts in order of time, below 0 for those that do not count.
        event_tick: [M] int32.
        instants: [T] int64 seconds.
        half_life: seconds.
        room: [N] int32, entries that each list can hold.
        used: [2] int64, entries and events in use.
        start: of `Received`, as the next four.
        length: of `Received`.
        tick: of `Received`.
        total: of `Received`.
        event_total: of `Received`.
    """
    for i in range(len(user)):
        owner = user[i]
        if owner < 0:
            event_total[used[1]] = -1.0
            used[1] += 1
            continue
        size, old = length[owner], start[owner]
        if size == room[owner]:
            more = size + max(MIN_ROOM, size // 2)
            if used[0] + more > len(tick):
                return i
            new = used[0]
            for j in range(size):
                tick[new + j], total[new + j] = tick[old + j], total[old + j]
            start[owner], room[owner], used[0], old = new, more, new + more, new
        at = old + size
        tick[at], total[at] = event_tick[i], 1.0
        if size > 0:
            passed = instants[event_tick[i]] - instants[tick[at - 1]]
            total[at] += total[at - 1] * 2.0 ** (-passed / half_life)
        event_total[used[1]] = total[at]
        used[1] += 1
        length[owner] = size + 1
    return len(user)
