"""Rates of users' acts and first contacts, made and received, over several scales of the log."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.columns import LAST_TICK, HalfEdges, end_before
from graphrec.temporal.event_counts import EventCounts
from graphrec.temporal.growing_lists import GrowingLists
from graphrec.temporal.removed import num_left
from graphrec.temporal.timeline import Timeline

ACTED, RECEIVED, FIRST_ACTED, FIRST_RECEIVED = range(4)
"""Kinds of rates: acts of a user, acts on them, and those of each that open a direction of a pair."""

NUM_KINDS = 4

SPACING = 16
"""Half-edges of a user between two saved states."""


class SavedStates(NamedTuple):
    """States of each of N users at moments of their timelines; see `walk`. The empty first one is not saved.

    Attributes:
        start: [N] int64, position of each user's first state.
        length: [N] int64, number of states of each user.
        state: [K, 4 S + 3] float64, after the events before a tick.
        tick: [K] int64, that tick.
        place: [K] int64, how many half-edges of the user come before it.
    """

    start: np.ndarray
    length: np.ndarray
    state: np.ndarray
    tick: np.ndarray
    place: np.ndarray


class Past(NamedTuple):
    """What states are computed from.

    Attributes:
        half: the timelines.
        pair: of `IndexColumns`.
        num_before: [T + 1] int64, events of the log before each tick; see `EventCounts`.
        removed: [R] int64, ascending positions of removed events.
        half_lives: [S] float64, in events.
    """

    half: HalfEdges
    pair: np.ndarray
    num_before: np.ndarray
    removed: np.ndarray
    half_lives: np.ndarray


class RemovedEvents(NamedTuple):
    """The events that an index has lost.

    Attributes:
        user: [U] int64, ascending, their users.
        tick: [G] int64, ascending, their distinct ticks.
        before: [G] int64, how many of them come before each of these.
    """

    user: np.ndarray
    tick: np.ndarray
    before: np.ndarray


class Rates:
    """Rates of any users strictly before any tick, in work that grows with the users asked for.

    The age of an event is counted in events of the log: a network's own pace is the clock. Events of one time
    have the position of the first of them. Of every `SPACING` half-edges of a user one state is saved
    (8 bytes a half-edge with three half-lives), and others are computed from the one before.

    Args:
        timeline: the index.
        half_lives: S numbers of events after which an event counts half.
    """

    def __init__(self, timeline: Timeline, half_lives: tuple[float, ...]) -> None:
        self._half_lives, self._counts = np.array(half_lives), EventCounts()
        due = np.maximum(timeline.columns.half_edges.length.astype(np.int64) - 1, 0) // SPACING
        size, width = int(due.sum()), NUM_KINDS * len(half_lives) + 3
        columns = np.empty((size, width)), np.empty(size, np.int64), np.empty(size, np.int64)
        self._saved = GrowingLists(due, columns)
        self._saved.length = np.zeros_like(due)
        nothing = np.empty(0, np.int64)
        self._gone = RemovedEvents(nothing, nothing, nothing)
        self._read(timeline)
        save_states(np.arange(timeline.num_users), self._past, self._states, SPACING)

    def _read(self, timeline: Timeline) -> None:
        columns = timeline.columns
        self._timeline, self._num_events = timeline, len(timeline.events)
        self._past = Past(
            columns.half_edges,
            columns.pair,
            self._counts.of(timeline),
            timeline.removed,
            self._half_lives,
        )

    @property
    def _states(self) -> SavedStates:
        saved = self._saved
        return SavedStates(saved.start, saved.length, *saved.columns)

    def follow(self, timeline: Timeline) -> None:
        """Read an index that events were appended to."""
        events, new = timeline.events, slice(self._num_events, None)
        self._read(timeline)
        user = torch.cat([events.src[new], events.dst[new]]).unique().numpy()
        length, saved = timeline.columns.half_edges.length[user].astype(np.int64), self._saved
        if len(saved.length) < timeline.num_users:
            saved.reserve(user[:0], timeline.num_users)
        more = np.maximum(length - 1, 0) // SPACING - saved.length[user]
        if more.any():
            saved.reserve(np.repeat(user, more), timeline.num_users)
            save_states(user, self._past, self._states, SPACING)

    def reading(self, timeline: Timeline, changed: Tensor) -> Self:
        """Return the rates on an index of the same users that has lost events (see `Timeline.remove`).

        Timelines of the users of these events are read from the first of them on. Other users' events keep
        their sums, and are only nearer by the events in between.

        Args:
            timeline: the index.
            changed: [U] int64, ascending, the users of these events.
        """
        out = copy(self)
        out._read(timeline)
        tick, count = np.unique(timeline.event_tick.numpy()[timeline.removed], return_counts=True)
        out._gone = RemovedEvents(changed.numpy(), tick.astype(np.int64), np.cumsum(count) - count)
        return out

    @property
    def clock(self) -> np.ndarray:
        """The number of events of the log before each tick, removed ones counted: [T + 1] int64."""
        return self._past.num_before

    def row_of(self, kind: int, scale: int) -> int:
        """Return the row of `gather` that holds the decayed counts of a kind by one of the half-lives."""
        return kind * (len(self._half_lives) + 1) + scale

    def num_before(self, tick: int) -> int:
        """Return the number of events before a tick."""
        return int(self._timeline.num_events_before(tick))

    def gather(self, user: Tensor, tick: int) -> Tensor:
        """Return what is known of users [M] int64 before a tick, each time computed once.

        Returns:
            [4 S + 9, M] float32: decayed and whole counts of each kind (4 x (S + 1)), the shares of first
            contacts received and made that went both ways (2), ages of the last act, of the last act
            received and of the first event in events (3), all events so far where there is none.
        """
        out = np.empty((NUM_KINDS * (len(self._half_lives) + 1) + 5, len(user)), np.float32)
        gather_rates(user.contiguous().numpy(), tick, self._past, self._states, SPACING, self._gone, out)
        return torch.from_numpy(out)


@subkernel
def walk(past: Past, at: int, end: int, position: int, state: np.ndarray) -> int:
    """Bring a user's state from one place of their timeline to another, and return the latter's position.

    A state [4 S + 3] is the user's events of each kind, halved every half-life (4 x S), then whole counts:
    first acts of the user, first acts on them, and those of both in pairs where acts went both ways. The
    position is that of the user's last event so far.

    Args:
        past: of the index.
        at: position of a half-edge, the first of its tick.
        end: position of a half-edge, the first of its tick.
        position: of the state.
        state: changed.
    """
    half, pair, num_before, removed, half_lives = past
    other, tick, code = half.other, half.tick, half.code
    scales = len(half_lives)
    while at < end:
        now = tick[at]
        before, position = position, num_left(removed, num_before[now])
        if position > before:
            for scale in range(scales):
                factor = 2.0 ** (-(position - before) / half_lives[scale])
                for kind in range(4):
                    state[kind * scales + scale] *= factor
        while at < end and tick[at] == now:
            person = other[at]  # the events of two users at one time are side by side
            for side in range(2):
                same, event = int64(0), int64(0)
                place = at
                while place < end and tick[place] == now and other[place] == person:
                    if (code[place] & 1) != side:
                        same += 1
                        event = int64(code[place]) >> 1
                    place += 1
                if same == 0:
                    continue
                opens = pair[event, 0] == same
                for scale in range(scales):
                    for _ in range(same):
                        state[side * scales + scale] += 1.0
                    if opens:
                        state[(2 + side) * scales + scale] += 1.0
                if opens:
                    state[4 * scales + side] += 1.0
                    if pair[event, 1] > 0:  # of two first acts at one time each counts half
                        state[4 * scales + 2] += 1.0 if pair[event, 3] < now else 0.5
            at = place
    return position


@inlined
def position_before(past: Past, start: int, at: int) -> int:
    """Return the position of the last event before a half-edge of a user, whose first is at `start`, or 0."""
    return num_left(past.removed, past.num_before[past.half.tick[at - 1]]) if at > start else int64(0)


@inlined
def copy_state(saved: np.ndarray, number: int, state: np.ndarray) -> None:
    """Copy a saved state to another, without a copy of slices: numba compiles a message of text for each."""
    for part in range(len(state)):
        state[part] = saved[number, part]


@kernel
def save_states(user: np.ndarray, past: Past, saved: SavedStates, spacing: int) -> None:
    """Save the states of users that are due; there is room for them.

    Args:
        user: [U] int64, distinct.
        past: of the index.
        saved: changed.
        spacing: half-edges between two states.
    """
    start, length, tick = past.half.start, past.half.length, past.half.tick
    state = np.empty(saved.state.shape[1])
    for i in range(len(user)):
        one = user[i]
        begin, size = start[one], int64(length[one])
        number = saved.length[one]
        if size <= (number + 1) * spacing:
            continue
        at = begin
        state[:] = 0.0
        if number > 0:
            last = saved.start[one] + number - 1
            at = begin + saved.place[last]
            copy_state(saved.state, last, state)
        position = position_before(past, begin, at)
        while size > (number + 1) * spacing:
            bound = tick[begin + (number + 1) * spacing]
            end = end_before(at, begin + size - at, tick, bound)
            position = walk(past, at, end, position, state)
            slot = saved.start[one] + number
            for part in range(len(state)):
                saved.state[slot, part] = state[part]
            saved.tick[slot], saved.place[slot] = bound, end - begin
            at = end
            number += 1
        saved.length[one] = number


@subkernel
def state_before(
    past: Past, saved: SavedStates, spacing: int, user: int, end: int, intact: int, state: np.ndarray
) -> int:
    """Fill a user's state before a half-edge, and return its position; see `walk`.

    Args:
        past: of the index.
        saved: states.
        spacing: half-edges between two of them.
        user: the user.
        end: position of a half-edge of the user, the first of its tick.
        intact: saved states of later ticks do not count.
        state: filled.
    """
    at = begin = past.half.start[user]
    first = saved.start[user]
    number = min((end - begin - 1) // spacing, saved.length[user]) if end > begin else int64(0)
    number = end_before(first, number, saved.tick, intact + 1) - first
    state[:] = 0.0
    if number > 0:
        at = begin + saved.place[first + number - 1]
        copy_state(saved.state, first + number - 1, state)
    return walk(past, at, end, position_before(past, begin, at), state)


@kernel
def gather_rates(
    user: np.ndarray,
    bound: int,
    past: Past,
    saved: SavedStates,
    spacing: int,
    gone: RemovedEvents,
    out: np.ndarray,
) -> None:
    """Fill what is known of users before a tick; see `Rates.gather`.

    Args:
        user: [M] int64.
        bound: the tick.
        past: of the index.
        saved: states.
        spacing: half-edges between two of them.
        gone: the removed events.
        out: [4 S + 9, M] float32, filled.
    """
    half, half_lives, removed, num_before = past.half, past.half_lives, past.removed, past.num_before
    start, length, tick, code = half.start, half.length, half.tick, half.code
    num_acts, last_opposite = half.num_acts, half.last_opposite
    whole = Past(half, past.pair, num_before, removed[:0], half_lives)
    scales = len(half_lives)
    base = 4 * (scales + 1)
    now = num_left(removed, num_before[bound])
    state, early = np.empty(saved.state.shape[1]), np.empty(saved.state.shape[1])
    nearer = np.zeros(4 * scales)
    num_gone = end_before(int64(0), len(gone.tick), gone.tick, bound)  # ticks with removed events
    intact = gone.tick[0] if num_gone else int64(LAST_TICK)
    done = np.full(len(start) if len(user) > len(start) else 0, -1, np.int64)
    for m in range(len(user)):
        one = user[m]
        if len(done):
            if done[one] >= 0:
                for row in range(len(out)):
                    out[row, m] = out[row, done[one]]
                continue
            done[one] = m
        begin = start[one]
        end = end_before(begin, length[one], tick, bound)
        then = now
        nearer[:] = 0.0
        at = end_before(int64(0), len(gone.user), gone.user, one)
        keeps = at == len(gone.user) or gone.user[at] != one
        since = end - end_before(begin, end - begin, tick, intact)
        if num_gone == 0 or not keeps or since <= num_gone * spacing:
            position = state_before(past, saved, spacing, one, end, intact, state)
        else:
            then = num_before[bound]
            position = state_before(whole, saved, spacing, one, end, int64(LAST_TICK), state)
            for i in range(num_gone):
                stop = end_before(begin, end - begin, tick, gone.tick[i] + 1)
                if stop == begin:
                    continue
                early_position = state_before(whole, saved, spacing, one, stop, int64(LAST_TICK), early)
                more = then - now - gone.before[i]  # removed events that lay between these and the end
                less = then - now - gone.before[i + 1] if i + 1 < num_gone else int64(0)
                for scale in range(scales):
                    factor = 2.0 ** (more / half_lives[scale]) - 2.0 ** (less / half_lives[scale])
                    factor *= 2.0 ** (-(then - early_position) / half_lives[scale])
                    for kind in range(4):
                        nearer[kind * scales + scale] += early[kind * scales + scale] * factor
        for scale in range(scales):
            factor = 2.0 ** (-(then - position) / half_lives[scale])
            for kind in range(4):
                place = kind * scales + scale
                out[kind * (scales + 1) + scale, m] = state[place] * factor + nearer[place]
        acts, last, last_received, oldest = int64(0), int64(-1), int64(-1), int64(-1)
        if end > begin:
            acts, oldest = int64(num_acts[end - 1]), int64(tick[begin])
            last, last_received = int64(tick[end - 1]), int64(last_opposite[end - 1])
            if not code[end - 1] & 1:
                last, last_received = last_received, last
        out[scales, m] = acts
        out[2 * scales + 1, m] = end - begin - acts
        out[3 * scales + 2, m] = state[4 * scales]
        out[4 * scales + 3, m] = state[4 * scales + 1]
        out[base, m] = (state[4 * scales + 2] + 0.3) / (state[4 * scales + 1] + 1.0)
        out[base + 1, m] = (state[4 * scales + 2] + 0.3) / (state[4 * scales] + 1.0)
        out[base + 2, m] = now - num_left(removed, num_before[last]) if last >= 0 else now
        out[base + 3, m] = now - num_left(removed, num_before[last_received]) if last_received >= 0 else now
        out[base + 4, m] = now - num_left(removed, num_before[oldest]) if oldest >= 0 else now
