"""Kernels that read the index: users before ticks, and what is known of them there.

Arrays of queries are contiguous int64; results are written into arrays given by the caller.
"""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel
from graphrec.temporal.columns import LAST_TICK, HalfEdges, TimedLists, end_before, pair_state
from graphrec.temporal.contacts import NEVER
from graphrec.temporal.removed import look_back, num_left


@kernel
def number_ticks(time: np.ndarray, tick: np.ndarray) -> int:
    """Fill the rank of each time [E], ascending, among the distinct times; return the number of these."""
    number = -1
    for event in range(len(time)):
        if event == 0 or time[event] != time[event - 1]:
            number += 1
        tick[event] = number
    return number + 1


@kernel
def ends_before(
    start: np.ndarray,
    length: np.ndarray,
    tick: np.ndarray,
    user: np.ndarray,
    bound: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the positions after each user's last entry before a tick: [M] each."""
    for i in range(len(user)):
        out[i] = end_before(start[user[i]], length[user[i]], tick, bound[i])


@kernel
def count_acts(half: HalfEdges, user: np.ndarray, bound: np.ndarray, out: np.ndarray) -> None:
    """Fill the numbers of acts by users, and on users, before ticks: out [2, M]."""
    start, length, tick, num_acts = half.start, half.length, half.tick, half.num_acts
    for i in range(len(user)):
        begin = start[user[i]]
        end = end_before(begin, length[user[i]], tick, bound[i])
        acts = num_acts[end - 1] if end > begin else 0
        out[0, i], out[1, i] = acts, end - begin - acts


@kernel
def last_ticks(
    half: HalfEdges, user: np.ndarray, bound: np.ndarray, instants: np.ndarray, out: np.ndarray
) -> None:
    """Fill the times of users' last acts, and of the last acts on them, before ticks: out [2, M]."""
    start, length, tick, code, last_opposite = (
        half.start,
        half.length,
        half.tick,
        half.code,
        half.last_opposite,
    )
    for i in range(len(user)):
        begin = start[user[i]]
        end = end_before(begin, length[user[i]], tick, bound[i])
        out[0, i] = out[1, i] = NEVER
        if end > begin:
            side = 1 - (code[end - 1] & 1)
            out[side, i] = instants[tick[end - 1]]
            if last_opposite[end - 1] >= 0:
                out[1 - side, i] = instants[last_opposite[end - 1]]


@kernel
def fill_activity(
    half: HalfEdges,
    contacts: TimedLists,
    user: np.ndarray,
    bound: np.ndarray,
    instants: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill counts and latest times of users before ticks: out [5, M], in the order of `UserActivity`."""
    start, length, tick, code = half.start, half.length, half.tick, half.code
    num_acts, last_opposite = half.num_acts, half.last_opposite
    met_start, met_length, met_tick = contacts.start, contacts.length, contacts.tick
    for i in range(len(user)):
        begin = start[user[i]]
        end = end_before(begin, length[user[i]], tick, bound[i])
        out[0, i] = out[1, i] = out[2, i] = 0
        out[3, i] = out[4, i] = NEVER
        if end > begin:
            acts = num_acts[end - 1]
            out[0, i], out[1, i] = acts, end - begin - acts
            met = met_start[user[i]]
            out[2, i] = end_before(met, met_length[user[i]], met_tick, bound[i]) - met
            side = 4 - (code[end - 1] & 1)
            out[side, i] = instants[tick[end - 1]]
            if last_opposite[end - 1] >= 0:
                out[7 - side, i] = instants[last_opposite[end - 1]]


@kernel
def list_contacts(
    half: HalfEdges,
    pair: np.ndarray,
    instants: np.ndarray,
    user: np.ndarray,
    bound: np.ndarray,
    left_out: np.ndarray,
    k: int,
    window: int,
    out: np.ndarray,
) -> int:
    """Fill users' distinct contacts before ticks, latest first, and return how many there are.

    Args:
        half: the timelines.
        pair: of `IndexColumns`.
        instants: [T] int64 seconds, the distinct times.
        user: [B].
        bound: [B] ticks.
        left_out: [B], a user for each row who is counted and ranked like the others, but not listed; or -1.
        k: contacts of a row at most.
        window: half-edges of a row looked back on at most.
        out: [8, M], large enough, filled in the order of `Contacts`.
    """
    start, length, other, tick, code, next_tick = (
        half.start,
        half.length,
        half.other,
        half.tick,
        half.code,
        half.next_tick,
    )
    size = 0
    for b in range(len(user)):
        begin = start[user[b]]
        end = end_before(begin, length[user[b]], tick, bound[b])
        oldest = max(begin, end - window)
        number, rank, latest = 0, 0, LAST_TICK
        at = end - 1
        while at >= oldest and number < k:
            if next_tick[at] >= bound[b]:
                if tick[at] != latest:
                    rank, latest = number, tick[at]
                number += 1
                if other[at] != left_out[b]:
                    out[0, size], out[6, size], out[7, size] = b, rank, at
                    size += 1
            at -= 1
    # Apart and without branches, so that the machine waits for many of these look-ups at once.
    for i in range(size):
        at = out[7, i]
        num_out, num_in, last_out, last_in, _ = pair_state(code, tick, pair, at)
        time_out, time_in = instants[max(int(last_out), 0)], instants[max(int(last_in), 0)]
        out[1, i], out[4, i], out[5, i] = other[at], num_out, num_in
        out[2, i] = time_out if last_out >= 0 else NEVER
        out[3, i] = time_in if last_in >= 0 else NEVER
    return size


@kernel
def fill_met(
    contacts: TimedLists, one: np.ndarray, other: np.ndarray, bound: np.ndarray, out: np.ndarray
) -> None:
    """Fill which pairs had contact before ticks, looking through the shorter list: out [M] bool."""
    start, length, user, tick = contacts.start, contacts.length, contacts.other, contacts.tick
    for i in range(len(one)):
        few, many = one[i], other[i]
        if length[few] > length[many]:
            few, many = many, few
        out[i] = False
        for at in range(start[few], start[few] + length[few]):
            if tick[at] >= bound[i]:
                break
            if user[at] == many:
                out[i] = True
                break


@kernel
def link_appearances(
    src: np.ndarray, dst: np.ndarray, first: int, following: np.ndarray, out: np.ndarray
) -> None:
    """Fill, for both users of each event in order, the place of the same user's next: out [2E] int32.

    The places of event e are 2 e, of its `src`, and 2 e + 1; the last of each user gets `LAST_PLACE`.

    Args:
        src: [E] int64, of consecutive events.
        dst: [E] int64.
        first: position of the first of them in the log.
        following: [N] int64, place of each user's first appearance after them, or `LAST_PLACE`; brought up to
            the first of them.
        out: filled.
    """
    for event in range(len(src) - 1, -1, -1):
        place = 2 * (first + event)
        out[2 * event + 1], following[dst[event]] = following[dst[event]], place + 1
        out[2 * event], following[src[event]] = following[src[event]], place


@kernel
def list_recently_seen(
    src: np.ndarray,
    dst: np.ndarray,
    event_tick: np.ndarray,
    following: np.ndarray,
    removed: np.ndarray,
    num_before: np.ndarray,
    k: int,
    window: int,
    out: np.ndarray,
) -> int:
    """Fill the distinct users last active in the network, latest first, and return how many there are.

    Args:
        src: [E], of the events.
        dst: [E], of the events.
        event_tick: [E], of the events.
        following: of `link_appearances`, below 0 for removed events.
        removed: [R] int64, ascending positions of these.
        num_before: [B] int64, positions in the log that are before each query.
        k: users of a row, or more where a tie crosses it.
        window: half-edges of the network looked back on; a tie that reaches beyond is left out.
        out: [2, M] int64, large enough, filled with rows and users.
    """
    size = 0
    for b in range(len(num_before)):
        last = 2 * num_before[b]
        border = -1
        if 2 * num_left(removed, num_before[b]) > window:
            border = event_tick[look_back(removed, num_before[b], (window >> 1) + 1)]
        first = counted = size
        place = last - 1
        while place >= 0 and event_tick[place >> 1] > border:
            if following[place] >= last:
                if size > first and event_tick[place >> 1] != event_tick[out[1, size - 1] >> 1]:
                    counted = size
                if counted - first >= k:
                    break
                out[0, size], out[1, size] = b, place
                size += 1
            place -= 1
    for i in range(size):
        place = out[1, i]
        out[1, i] = src[place >> 1] if place % 2 == 0 else dst[place >> 1]
    return size
