"""Rates of every user's acts and first contacts, made and received, over several scales of the log."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from graphrec.jit import kernel
from graphrec.temporal.first_acts import fill_first_targets
from graphrec.temporal.timeline import Timeline

ACTED, RECEIVED, FIRST_ACTED, FIRST_RECEIVED = range(4)
"""Kinds of rates: acts of a user, acts on them, and those of each that open a direction of a pair."""

NUM_KINDS = 4


class RateColumns(NamedTuple):
    """What is kept of each of N users after the events before a position of the log.

    A position stands for all events of one time: it is that of the first of them. Its distance from the end
    is the age of an event in events of the log: a network's own pace is the clock.

    Attributes:
        decayed: [N, 4, S] float64, events of each kind, halved every half-life, as of `updated_at`.
        updated_at: [N] float64, position of the user's last event.
        total: [N, 4] float64, events of each kind.
        answered: [N] float64, contacts with whom acts went both ways; at the time of the user's last event.
        last: [N, 2] float64, positions of the last act of the user and of the last on them, or -1.
        first: [N] float64, position of the first event, or -1.
    """

    decayed: np.ndarray
    updated_at: np.ndarray
    total: np.ndarray
    answered: np.ndarray
    last: np.ndarray
    first: np.ndarray

    @classmethod
    def empty(cls, num_users: int, num_scales: int) -> Self:
        """Return the columns before any event."""
        return cls(
            np.zeros((num_users, NUM_KINDS, num_scales)),
            np.zeros(num_users),
            np.zeros((num_users, NUM_KINDS)),
            np.zeros(num_users),
            np.full((num_users, 2), -1.0),
            np.full(num_users, -1.0),
        )

    def copy(self) -> RateColumns:
        """Return columns that can be written to."""
        return RateColumns(*(column.copy() for column in self))


class Rates:
    """Rates of all users strictly before ticks; asked in order of time, the whole log is read once.

    Args:
        timeline: the index.
        half_lives: S numbers of events after which an event counts half.
    """

    def __init__(self, timeline: Timeline, half_lives: tuple[float, ...]) -> None:
        self._timeline, self.half_lives = timeline, np.array(half_lives)
        events, columns = timeline.events, timeline.columns
        self._src, self._dst = events.src.numpy(), events.dst.numpy()
        self._event_tick, self._pair = timeline.event_tick.numpy(), columns.pair
        self._target = np.empty(len(events), np.int64)
        fill_first_targets(
            columns.half_edges, self._pair, self._src, self._dst, self._event_tick, 0, self._target
        )
        self._kept = 0, RateColumns.empty(timeline.num_users, len(half_lives))

    def before(self, tick: int) -> tuple[int, RateColumns]:
        """Return the number of events before a tick, and the columns there; they must not be written to."""
        end = int(self._timeline.end_of_log(tick))
        begin, columns = self._kept
        if begin == end:
            return end, columns
        if begin > end:
            begin, columns = 0, RateColumns.empty(self._timeline.num_users, len(self.half_lives))
        else:
            columns = columns.copy()
        add_events(
            self._src,
            self._dst,
            self._event_tick,
            self._target,
            self._pair,
            begin,
            end,
            self.half_lives,
            columns,
        )
        self._kept = end, columns  # one assignment: other threads see the old pair or the new one
        return end, columns


@kernel
def add_events(
    src: np.ndarray,
    dst: np.ndarray,
    event_tick: np.ndarray,
    target: np.ndarray,
    pair: np.ndarray,
    begin: int,
    end: int,
    half_lives: np.ndarray,
    columns: RateColumns,
) -> None:
    """Add events of the log to the rates of their users.

    Args:
        src: [E] int64, below 0 where an event was removed.
        dst: [E] int64.
        event_tick: [E] int32.
        target: [E] int64, -1 but for first acts; see `fill_first_targets`.
        pair: of `IndexColumns`.
        begin: position of the first event to add, the first of its time.
        end: position after the last one.
        half_lives: [S] float64.
        columns: changed.
    """
    decayed, updated_at, total, answered, last, first = columns
    position = begin
    for event in range(begin, end):
        if event_tick[event] != event_tick[position]:
            position = event
        if src[event] < 0:
            continue
        opens = target[event] >= 0
        both = 0.0
        if opens and pair[event, 1] > 0:  # of two first acts at one time each counts half
            both = 1.0 if pair[event, 3] < event_tick[event] else 0.5
        for side in range(2):
            user = src[event] if side == 0 else dst[event]
            passed = position - updated_at[user]
            if passed > 0:
                for scale in range(len(half_lives)):
                    factor = 2.0 ** (-passed / half_lives[scale])
                    for kind in range(4):
                        decayed[user, kind, scale] *= factor
            updated_at[user] = position
            for scale in range(len(half_lives)):
                decayed[user, side, scale] += 1.0
                if opens:
                    decayed[user, 2 + side, scale] += 1.0
            total[user, side] += 1.0
            if opens:
                total[user, 2 + side] += 1.0
            answered[user] += both
            last[user, side] = position
            if first[user] < 0:
                first[user] = position


@kernel
def gather_rates(
    user: np.ndarray, now: int, half_lives: np.ndarray, columns: RateColumns, out: np.ndarray
) -> None:
    """Fill what is known of users after `now` events of the log.

    Args:
        user: [M] int64.
        now: number of events so far.
        half_lives: [S] float64.
        columns: the rates.
        out: [4 S + 9, M] float32, filled: decayed and whole counts of each kind (4 x (S + 1)), the shares of
            first contacts received and made that went both ways (2), ages of the last act, of the last act
            received and of the first event in events (3), `now` where there is none.
    """
    decayed, updated_at, total, answered, last, first = columns
    scales = len(half_lives)
    base = 4 * (scales + 1)
    for m in range(len(user)):
        one = user[m]
        for scale in range(scales):
            factor = 2.0 ** (-(now - updated_at[one]) / half_lives[scale])
            for kind in range(4):
                out[kind * (scales + 1) + scale, m] = decayed[one, kind, scale] * factor
        for kind in range(4):
            out[kind * (scales + 1) + scales, m] = total[one, kind]
        out[base, m] = (answered[one] + 0.3) / (total[one, 3] + 1.0)
        out[base + 1, m] = (answered[one] + 0.3) / (total[one, 2] + 1.0)
        out[base + 2, m] = now - last[one, 0] if last[one, 0] >= 0 else now
        out[base + 3, m] = now - last[one, 1] if last[one, 1] >= 0 else now
        out[base + 4, m] = now - first[one] if first[one] >= 0 else now
