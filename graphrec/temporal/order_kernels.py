"""Kernels that order users by a key before a tick: a measure, then decayed popularity, then a fixed order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.bounded_heap import offer, sort_best_first
from graphrec.temporal.columns import end_before


class OrderColumns(NamedTuple):
    """What the key of a user is computed from.

    Attributes:
        measure: a `Measure`.
        origin: seconds; a last time t has the key max(t - origin + 1, 0).
        half_life: seconds, or 0 if popularity plays no part.
        instants: [T] int64 seconds, the distinct times.
        start: [N] int64, of the lists that are counted, or whose last entry counts.
        length: [N] int32, of these lists.
        tick: int32, of these lists.
        received_start: [N] int64, of `Received`, as the next three.
        received_length: [N] int32.
        received_tick: [E] int32.
        total: [E] float64.
        event_total: [E] float64, popularity of each event's target just after it, or -1.
        roles: whose keys an event changes: 1 for the actor's, 2 for the target's, 3 for both.
    """

    measure: int
    origin: int
    half_life: float
    instants: np.ndarray
    start: np.ndarray
    length: np.ndarray
    tick: np.ndarray
    received_start: np.ndarray
    received_length: np.ndarray
    received_tick: np.ndarray
    total: np.ndarray
    event_total: np.ndarray
    roles: int


@kernel
def fill_received(
    dst: np.ndarray,
    event_tick: np.ndarray,
    instants: np.ndarray,
    half_life: float,
    start: np.ndarray,
    tick: np.ndarray,
    total: np.ndarray,
    event_total: np.ndarray,
) -> None:
    """Fill tick, total and event_total of `Received` from events in order of time.

    Args:
        dst: [E], of the events, below 0 for those that do not count.
        event_tick: [E], of the events.
        instants: [T] seconds.
        half_life: seconds.
        start: [N], of `Received`.
        tick: [E], filled.
        total: [E], filled.
        event_total: [E], filled.
    """
    place = start.copy()
    for event in range(len(dst)):
        user = dst[event]
        if user < 0:
            event_total[event] = -1.0
            continue
        at = place[user]
        place[user] = at + 1
        tick[at], total[at] = event_tick[event], 1.0
        if at > start[user]:
            passed = instants[event_tick[event]] - instants[tick[at - 1]]
            total[at] += total[at - 1] * 2.0 ** (-passed / half_life)
        event_total[event] = total[at]


@subkernel
def count_before(start: int, length: int, tick: np.ndarray, bound: int) -> int:
    """Count the entries of a list whose tick is below a bound."""
    return end_before(start, length, tick, bound) - start


@inlined
def measure_before(
    measure: int,
    origin: int,
    instants: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    tick: np.ndarray,
    user: int,
    bound: int,
) -> float:
    """Return what is measured of a user before tick `bound`; the rest is of `OrderColumns`."""
    if measure == 0:
        return 0.0
    number = count_before(start[user], length[user], tick, bound)
    if number == 0 or measure == 1:
        return float(number)
    return float(max(instants[tick[start[user] + number - 1]] - origin + 1, 0))


@subkernel
def popularity_before(
    half_life: float,
    instants: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    tick: np.ndarray,
    total: np.ndarray,
    user: int,
    bound: int,
    time: int,
) -> float:
    """Return a user's popularity before tick `bound`, at `time` (s); start to total are of `Received`."""
    if half_life == 0.0:
        return 0.0
    number = count_before(start[user], length[user], tick, bound)
    if number == 0:
        return 0.0
    at = start[user] + number - 1
    popularity: float = total[at] * 2.0 ** ((instants[tick[at]] - time) / half_life)
    return popularity


@kernel
def fill_popularity(
    half_life: float,
    instants: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    tick: np.ndarray,
    total: np.ndarray,
    bound: np.ndarray,
    time: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the popularity of all users, each value as `popularity_before` has it.

    Args:
        half_life: seconds.
        instants: [T] int64 seconds.
        start: of `Received`, as the next three.
        length: of `Received`.
        tick: of `Received`.
        total: of `Received`.
        bound: [B] int64 ticks, ascending.
        time: [B] int64 seconds.
        out: [B, N] float64, filled.
    """
    end = np.empty(len(start), np.int64)
    for b in range(len(bound)):
        for user in range(len(start)):
            first = start[user]
            if b == 0:
                end[user] = end_before(first, length[user], tick, bound[0])
            at = end[user]
            while at < first + length[user] and tick[at] < bound[b]:
                at += 1
            end[user] = at
            out[b, user] = 0.0
            if at > first:
                out[b, user] = total[at - 1] * 2.0 ** ((instants[tick[at - 1]] - time[b]) / half_life)


@subkernel
def order_users(
    columns: OrderColumns,
    tie_rank: np.ndarray,
    user: np.ndarray,
    known: np.ndarray,
    bound: int,
    time: int,
    listed: np.ndarray,
    measured: np.ndarray,
    popularity: np.ndarray,
) -> tuple[int, bool]:
    """List the best users, best first, among some that hold all who can be listed.

    Args:
        columns: of the order.
        tie_rank: [N].
        user: [U] int64, users in any order, repeated or not; the first of several counts.
        known: [2, >= U] float64, their keys, or -1 where these are looked up.
        bound: tick; events before it are known.
        time: seconds.
        listed: [M] int32, filled.
        measured: [M] float64, filled with the first part of the keys.
        popularity: [M] float64, filled with the second part.

    Returns:
        how many are listed, and whether all of `user` with a key above 0 are.
    """
    measure, origin, half_life, instants = (
        columns.measure,
        columns.origin,
        columns.half_life,
        columns.instants,
    )
    start, length, tick = columns.start, columns.length, columns.tick
    got_start, got_length, got_tick = columns.received_start, columns.received_length, columns.received_tick
    total = columns.total
    seen = np.full(table_size(len(user)), -1, np.int64)
    ranks = np.empty(len(listed), np.int64)
    size = number = int64(0)
    for i in range(len(user)):
        slot = slot_of(seen, user[i])
        if seen[slot] >= 0:
            continue
        seen[slot] = user[i]
        first, second = known[0, i], known[1, i]
        if first < 0.0:
            first = measure_before(measure, origin, instants, start, length, tick, user[i], bound)
        if size == len(listed) and first < measured[0]:
            number += 1
            continue
        if second < 0.0:
            second = popularity_before(
                half_life, instants, got_start, got_length, got_tick, total, user[i], bound, time
            )
        if first > 0.0 or second > 0.0:
            number += 1
            # The place in `user` comes along in the low bits.
            rank = (tie_rank[user[i]] << 32) | i
            size = offer(measured, popularity, ranks, size, first, second, rank)
    sort_best_first(measured, popularity, ranks, size)
    for i in range(size):
        listed[i] = user[ranks[i] & 0xFFFFFFFF]
    return size, number == size


@subkernel
def table_size(number: int) -> int:
    """Return the size of a hash table for a number of users: a power of two."""
    size = 16
    while size < 2 * number:
        size *= 2
    return size


@subkernel
def slot_of(key: np.ndarray, user: int) -> int:
    """Return the slot of a user in a hash table, or the free slot (key -1) where the user belongs."""
    mask = len(key) - 1
    slot = ((user * 0x1E3779B97F4A7C15) >> 24) & mask
    while key[slot] != user and key[slot] >= 0:
        slot = (slot + 1) & mask
    return slot


@subkernel
def users_since(
    columns: OrderColumns,
    base: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    event_tick: np.ndarray,
    since: int,
    bound: int,
    time: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return users whose keys change from tick `since` to before `bound`, latest first, then users `base`.

    Returns:
        users [U] int64, repeated or not; their keys at `time` (s), -1 where these are not at hand: [2, >= U].
    """
    roles, origin, half_life, instants = columns.roles, columns.origin, columns.half_life, columns.instants
    event_total, is_time = columns.event_total, columns.measure == 2
    low = end_before(int64(0), len(event_tick), event_tick, since)
    high = end_before(int64(0), len(event_tick), event_tick, bound)
    user = np.empty(len(base) + 2 * (high - low), np.int64)
    known = np.empty((2, len(user)))
    size = int64(0)
    for event in range(high - 1, low - 1, -1):
        if dst[event] < 0:  # removed
            continue
        then = instants[event_tick[event]]
        last = float(max(then - origin + 1, 0)) if is_time else -1.0
        if roles & 2:
            user[size], known[0, size], known[1, size] = dst[event], last, -1.0
            if half_life > 0.0:
                known[1, size] = event_total[event] * 2.0 ** ((then - time) / half_life)
            size += 1
        if roles & 1:
            user[size], known[0, size], known[1, size] = src[event], last, -1.0
            size += 1
    for i in range(len(base)):
        user[size + i], known[0, size + i], known[1, size + i] = base[i], -1.0, -1.0
    return user[: size + len(base)], known


@kernel
def fill_checkpoints(
    columns: OrderColumns,
    tie_rank: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    event_tick: np.ndarray,
    base: np.ndarray,
    since: int,
    base_complete: bool,
    bound: np.ndarray,
    listed: np.ndarray,
    size: np.ndarray,
    complete: np.ndarray,
) -> None:
    """Fill the lists of consecutive checkpoints, each from the one before.

    Args:
        columns: of the order.
        tie_rank: [N].
        src: [E], of the events.
        dst: [E], of the events.
        event_tick: [E], of the events.
        base: int32, users who hold all that can be listed before tick `since`.
        since: tick.
        base_complete: whether they hold all users with a key above 0.
        bound: of `Checkpoints`, as the next three.
        listed: filled.
        size: filled.
        complete: filled.
    """
    measured, popularity = np.empty(listed.shape[1]), np.empty(listed.shape[1])
    for j in range(len(bound)):
        time = columns.instants[bound[j] - 1] if bound[j] else int64(0)
        users, known = users_since(columns, base, src, dst, event_tick, since, bound[j], time)
        size[j], whole = order_users(
            columns, tie_rank, users, known, bound[j], time, listed[j], measured, popularity
        )
        complete[j] = whole and base_complete
        base, since, base_complete = listed[j, : size[j]], bound[j], complete[j]
