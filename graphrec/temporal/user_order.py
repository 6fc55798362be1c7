"""The best users of the network at any time, by popularity, degree or recency, without a look at all of them.

Between two times the order of two users changes only if one of them has an event in between: decay lowers all
popularities by one factor. So the first users at any time are among the first ones at an earlier checkpoint
and those with events since. Checkpoints are made when they are first needed, in segments, from those before;
all users are looked at only for a segment with none made among the N events before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from graphrec.temporal.act_lists import Received
from graphrec.temporal.columns import LAST_TICK, TimedLists
from graphrec.temporal.order_kernels import OrderColumns, fill_checkpoints
from graphrec.temporal.timeline import Timeline

EVENTS_BETWEEN_CHECKPOINTS = 2048
"""Events between two checkpoints, at least; those of one time are not parted."""

LISTED_USERS = 512
"""Users listed at a checkpoint, at most."""

SEGMENT_LENGTH = 2
"""Checkpoints made at once."""


class Measure(IntEnum):
    """What users are ordered by first; popularity breaks ties where it is asked for."""

    NOTHING = 0
    COUNT = 1
    LAST_TIME = 2


@dataclass(frozen=True)
class Checkpoints:
    """Consecutive checkpoints of one segment.

    Attributes:
        bound: [J] int64, ascending ticks; a checkpoint knows the events before its tick.
        listed: [J, M] int32, users, best first.
        size: [J] int64, how many are listed.
        complete: [J] bool, whether all users with a key above 0 are listed.
    """

    bound: np.ndarray
    listed: np.ndarray
    size: np.ndarray
    complete: np.ndarray


class UserOrder:
    """Orders users by a key before any time: a measure, then popularity, then a fixed order of users.

    Args:
        timeline: the index.
        tie_rank: [N] int64, each user's place where keys are equal.
        received: the acts on users, if popularity breaks ties.
        half_life: seconds, of popularity.
        measure: what users are ordered by first.
        lists: what is measured.
        roles: whose keys an event changes: 1 for the actor's, 2 for the target's, 3 for both.
        origin: seconds, where last times count from.
        clock: [T] int64, when each tick is, by which popularity decays; by default its time in seconds, and
            the half-life and origin count what it counts.
    """

    def __init__(
        self,
        timeline: Timeline,
        tie_rank: Tensor,
        *,
        received: Received | None,
        half_life: float = 0.0,
        measure: Measure = Measure.NOTHING,
        lists: TimedLists | None = None,
        roles: int = 2,
        origin: int = 0,
        clock: np.ndarray | None = None,
    ) -> None:
        self._half_life = float(half_life) if received else 0.0
        self._measure, self._roles, self._origin = measure, roles, origin
        self._longest_chain = timeline.num_users // (EVENTS_BETWEEN_CHECKPOINTS * SEGMENT_LENGTH)
        self._segments: dict[int, Checkpoints] = {}
        self._made: dict[int, tuple[int, np.ndarray]] = {}
        self._bounds, self._num_seen = np.zeros(1, np.int64), 0
        self._read(timeline, tie_rank, received, lists, clock)

    def _read(
        self,
        timeline: Timeline,
        tie_rank: Tensor,
        received: Received | None,
        lists: TimedLists | None,
        clock: np.ndarray | None,
    ) -> None:
        no_ints, no_ticks = np.empty(0, np.int64), np.empty(0, np.int32)
        acts = received or Received(no_ints, no_ticks, no_ticks, np.empty(0), np.empty(0))
        measured = lists or TimedLists(no_ints, no_ticks, no_ticks, no_ticks)
        self.columns = OrderColumns(
            int(self._measure),
            self._origin,
            self._half_life,
            timeline.instants.numpy() if clock is None else clock,
            measured.start,
            measured.length,
            measured.tick,
            acts.start,
            acts.length,
            acts.tick,
            acts.total,
            acts.event_total,
            self._roles,
        )
        self.tie_rank, self._shuffle = tie_rank.numpy(), tie_rank.data_ptr()
        self.src, self.dst = timeline.events.src.numpy(), timeline.events.dst.numpy()
        self.event_tick = timeline.event_tick.numpy()
        # After whole ties, and by number of events: no later event decides where a checkpoint is.
        first = -(-self._num_seen // EVENTS_BETWEEN_CHECKPOINTS) * EVENTS_BETWEEN_CHECKPOINTS
        after = np.unique(self.event_tick[first::EVENTS_BETWEEN_CHECKPOINTS].astype(np.int64) + 1)
        after = after[after > self._bounds[-1]]
        self._bounds = np.concatenate([self._bounds, after]) if len(after) else self._bounds
        self._num_seen = len(self.event_tick)

    def follow(
        self,
        timeline: Timeline,
        tie_rank: Tensor,
        received: Received | None,
        lists: TimedLists | None,
        clock: np.ndarray | None = None,
    ) -> None:
        """Read an index that events were appended to; arguments as those of the class."""
        last = int(self.event_tick[-1]) if self._num_seen else -1
        size, num_bounds, shuffle = self._num_seen, len(self._bounds), self._shuffle
        self._read(timeline, tie_rank, received, lists, clock)
        changed = num_bounds // SEGMENT_LENGTH if len(self._bounds) > num_bounds else len(self._bounds)
        if size < self._num_seen and self.event_tick[size] == last and self._bounds[num_bounds - 1] > last:
            changed = (num_bounds - 1) // SEGMENT_LENGTH  # a checkpoint's last tie has grown
        first_new = int(self.event_tick[size]) if size < self._num_seen else LAST_TICK
        self._made = {k: made for k, made in self._made.items() if made[0] <= first_new}
        if shuffle != self._shuffle:
            changed, self._made = 0, {}
        for number in [number for number in self._segments if number >= changed]:
            del self._segments[number]

    def first(self, tick: int, k: int) -> np.ndarray:
        """Return the first users of the order before a tick, best first, at most k: int32.

        They are made from the last ones asked for where not many events lie between, or else from a
        checkpoint.
        """
        since, base = self._made.get(k, (LAST_TICK, None))
        if since == tick and base is not None:
            return base
        end, size = (int(np.searchsorted(self.event_tick, np.int32(bound))) for bound in (tick, since))
        complete = False  # it only says whether others have keys above 0
        if base is None or not 0 <= end - size <= EVENTS_BETWEEN_CHECKPOINTS:
            made = self.checkpoints(int(self.segment_of(torch.tensor([tick]))))
            j = int(np.searchsorted(made.bound, tick, side="right")) - 1
            base, since = made.listed[j, : made.size[j]], int(made.bound[j])
        listed, sizes, completes = np.empty((1, k), np.int32), np.zeros(1, np.int64), np.zeros(1, np.bool_)
        log = self.columns, self.tie_rank, self.src, self.dst, self.event_tick
        fill_checkpoints(*log, base, since, complete, np.array([tick]), listed, sizes, completes)
        out = listed[0, : sizes[0]]
        self._made[k] = tick, out  # one assignment: other threads see the old users or the new ones
        return out

    def segment_of(self, tick: Tensor) -> Tensor:
        """Return the segment of each tick [B] int64: [B] int64."""
        place = torch.searchsorted(torch.from_numpy(self._bounds), tick, right=True) - 1
        return place // SEGMENT_LENGTH

    def checkpoints(self, segment: int) -> Checkpoints:
        """Return a segment's checkpoints; they are made once."""
        if segment in self._segments:
            return self._segments[segment]
        made = range(segment - 1, max(-1, segment - 2 - self._longest_chain), -1)
        base = next((number for number in made if number in self._segments), None)
        if base is None:
            self._segments[segment] = self._make(segment, None)
        else:
            for number in range(base + 1, segment + 1):
                self._segments[number] = self._make(number, self._segments[number - 1])
        return self._segments[segment]

    def _make(self, segment: int, base: Checkpoints | None) -> Checkpoints:
        """Make a segment's checkpoints from those of the segment before, or from all users."""
        first = segment * SEGMENT_LENGTH
        bound = self._bounds[first : first + SEGMENT_LENGTH].copy()
        made = Checkpoints(
            bound,
            np.empty((len(bound), LISTED_USERS), np.int32),
            np.zeros(len(bound), np.int64),
            np.zeros(len(bound), np.bool_),
        )
        users, since, complete = np.arange(len(self.tie_rank), dtype=np.int32), int(bound[0]), True
        if base is not None:
            users, since = base.listed[-1, : base.size[-1]], int(base.bound[-1])
            complete = bool(base.complete[-1])
        data = self.columns, self.tie_rank, self.src, self.dst, self.event_tick
        fill_checkpoints(*data, users, since, complete, made.bound, made.listed, made.size, made.complete)
        return made
