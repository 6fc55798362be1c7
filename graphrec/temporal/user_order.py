"""The best users of the network at any time, by popularity, degree or recency, without a look at all of them.

Between two times the order of two users changes only if one of them has an event in between: decay lowers all
popularities by one factor. So the first users at any time are among the first ones at an earlier checkpoint
and those with events since. Checkpoints are made when they are first needed, in segments, from those before;
all users are looked at only for a segment with none made among the N events before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphrec.temporal.columns import TimedLists
from graphrec.temporal.order_kernels import OrderColumns, fill_checkpoints, fill_received
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


class Received(NamedTuple):
    """The acts on each user, in order of time.

    Attributes:
        start: [N] int64, position of each user's first.
        length: [N] int32.
        tick: [E] int32, ascending for each user.
        total: [E] float64, popularity just after each act: acts so far, each halved every half-life.
        event_total: [E] float64, the same in the order of the log.
    """

    start: np.ndarray
    length: np.ndarray
    tick: np.ndarray
    total: np.ndarray
    event_total: np.ndarray


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
    ) -> None:
        no_ints, no_ticks = np.empty(0, np.int64), np.empty(0, np.int32)
        acts = received or Received(no_ints, no_ticks, no_ticks, np.empty(0), np.empty(0))
        measured = lists or TimedLists(no_ints, no_ticks, no_ticks, no_ticks)
        self.columns = OrderColumns(
            int(measure),
            origin,
            float(half_life) if received else 0.0,
            timeline.instants.numpy(),
            measured.start,
            measured.length,
            measured.tick,
            acts.start,
            acts.length,
            acts.tick,
            acts.total,
            acts.event_total,
            roles,
        )
        self.tie_rank = tie_rank.numpy()
        self.src, self.dst = timeline.events.src.numpy(), timeline.events.dst.numpy()
        self.event_tick = timeline.event_tick.numpy()
        # After whole ties, and by number of events: no later event decides where a checkpoint is.
        after = self.event_tick[::EVENTS_BETWEEN_CHECKPOINTS].astype(np.int64) + 1
        self._bounds = np.unique(np.concatenate([np.zeros(1, np.int64), after]))
        self._longest_chain = timeline.num_users // (EVENTS_BETWEEN_CHECKPOINTS * SEGMENT_LENGTH)
        self._segments: dict[int, Checkpoints] = {}

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


def received_acts(timeline: Timeline, half_life: float) -> Received:
    """Return the acts on each user with popularity after each (20 bytes an event)."""
    dst = timeline.events.dst.numpy()
    length = np.bincount(dst[dst >= 0], minlength=timeline.num_users)
    start = np.cumsum(length, dtype=np.int64) - length
    tick, total, event_total = np.empty(len(dst), np.int32), np.empty(len(dst)), np.empty(len(dst))
    fill_received(
        dst,
        timeline.event_tick.numpy(),
        timeline.instants.numpy(),
        float(half_life),
        start,
        tick,
        total,
        event_total,
    )
    return Received(start, length.astype(np.int32), tick, total, event_total)


def acts_by_user(timeline: Timeline) -> TimedLists:
    """Return the acts of each user in order of time; `other` is left empty."""
    acted = np.flatnonzero(timeline.events.src.numpy() >= 0)
    src = timeline.events.src.numpy()[acted]
    length = np.bincount(src, minlength=timeline.num_users)
    start = np.cumsum(length, dtype=np.int64) - length
    tick = timeline.event_tick.numpy()[acted[np.argsort(src, kind="stable")]]
    return TimedLists(start, length.astype(np.int32), np.empty(0, np.int32), tick)
