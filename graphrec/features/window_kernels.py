"""Kernels that find the candidates of lists for the coming days, and their ranks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.bounded_heap import offer
from graphrec.temporal.columns import HalfEdges, TimedLists, end_before
from graphrec.temporal.contacts import DECAY_FLOOR, DECAY_SHARE, FIXED_POINT
from graphrec.temporal.order_kernels import count_before, slot_of, table_size
from graphrec.temporal.removed import num_left
from graphrec.temporal.sorting import stable_order

FINE_BITS = 10
FINE_MASK = (1 << FINE_BITS) - 1
"""Decays of ages are products of two: of the age without its last bits, and of these alone."""


class Found(NamedTuple):
    """The users that were found for a query, and a hash table of their places.

    Attributes:
        key: [H] int32, place of the user of each slot, or -1; H is a power of two.
        person: [n] int64, users in the order in which they were found.
        value: [n, 3] float64, of each.
    """

    key: np.ndarray
    person: np.ndarray
    value: np.ndarray


@subkernel
def place_of(found: Found, user: int, number: int) -> tuple[int, int]:
    """Return a user's place among the `number` users found, where they are added if new; and their number."""
    key, person, value = found
    mask = len(key) - 1
    slot = ((user * 0x1E3779B97F4A7C15) >> 24) & mask
    while key[slot] >= 0:
        if person[key[slot]] == user:
            return int64(key[slot]), number
        slot = (slot + 1) & mask
    key[slot], person[number] = number, user
    value[number, 0] = value[number, 1] = value[number, 2] = 0.0
    return number, number + 1


@inlined
def halvings(longest: int, half_life: float) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 tables whose products are 2^(-age / half-life) for ages up to the longest."""
    coarse, fine = np.empty((longest >> FINE_BITS) + 1), np.empty(FINE_MASK + 1)
    for i in range(len(coarse)):
        coarse[i] = 2.0 ** (-(i << FINE_BITS) / half_life)
    for i in range(len(fine)):
        fine[i] = 2.0 ** (-i / half_life)
    return coarse, fine


@kernel
def count_paths(contacts: TimedLists, user: np.ndarray, bound: int, out: np.ndarray) -> None:
    """Fill how many contacts each user's contacts have before a tick, in all: out [B] int64."""
    start, length, other, tick = contacts.start, contacts.length, contacts.other, contacts.tick
    for b in range(len(user)):
        first = start[user[b]]
        out[b] = 0
        for at in range(first, first + count_before(first, length[user[b]], tick, bound)):
            contact = other[at]
            out[b] += count_before(start[contact], length[contact], tick, bound)


@kernel
def list_window_candidates(
    half: HalfEdges,
    contacts: TimedLists,
    num_before: np.ndarray,
    removed: np.ndarray,
    user: np.ndarray,
    bound: int,
    pool: np.ndarray,
    tie_rank: np.ndarray,
    most: int,
    out_row: np.ndarray,
    out_user: np.ndarray,
    out: np.ndarray,
) -> int:
    """Fill the candidates of users before one tick, and return how many there are.

    They are a pool for every query, and the contacts of contacts with the largest values of Adamic-Adar and
    of its decayed form; without the user and their contacts.

    Args:
        half: the timelines.
        contacts: of `IndexColumns`.
        num_before: [T + 1] int64, events of the log before each tick.
        removed: [R] int64, ascending positions of removed events.
        user: [B] int64.
        bound: the tick.
        pool: [P] int64, distinct.
        tie_rank: [N] int64, distinct: of equal values the smaller rank comes first.
        most: contacts of contacts of each kind, at most.
        out_row: [M] int64, filled with the row of each candidate, ascending.
        out_user: [M] int64, filled.
        out: [4, M] float32, filled with Adamic-Adar, its decayed form, common contacts, and the candidate's
            contacts.
    """
    start, length, tick, next_tick, other = half.start, half.length, half.tick, half.next_tick, half.other
    first, known, known_tick = contacts.start, contacts.length, contacts.tick
    now = num_left(removed, num_before[bound])
    coarse, fine = halvings(now, DECAY_SHARE * now)
    best, none, ranks = np.empty(most), np.zeros(most), np.empty(most, np.int64)
    place, decay = np.empty(0, np.int64), np.empty(0)
    size = 0
    for b in range(len(user)):
        one = user[b]
        begin = start[one]
        end = end_before(begin, length[one], tick, bound)
        degree = count_before(first[one], known[one], known_tick, bound)
        total = int64(0)
        for at in range(first[one], first[one] + degree):
            contact = int64(contacts.other[at])
            total += count_before(first[contact], known[contact], known_tick, bound)
        room = min(total + degree + 1 + len(pool), len(start))
        found = Found(np.full(table_size(room), -1, np.int32), np.empty(room, np.int64), np.empty((room, 3)))
        number = int64(0)
        for i in range(len(pool)):
            number = place_of(found, pool[i], number)[1]
        for at in range(begin, end):
            if next_tick[at] < bound:
                continue
            contact = int64(other[at])
            theirs = count_before(first[contact], known[contact], known_tick, bound)
            weight = 1.0 / np.log(max(theirs, 2))
            whole = np.floor(weight * FIXED_POINT + 0.5)
            age = now - num_left(removed, num_before[tick[at]])
            weight *= coarse[age >> FINE_BITS] * fine[age & FINE_MASK] + DECAY_FLOOR
            if length[contact] > len(place):
                place, decay = np.empty(2 * length[contact], np.int64), np.empty(2 * length[contact])
            # Three loops without branches that a processor would guess wrong.
            last = int64(0)
            middle = start[contact]
            for far in range(middle, end_before(middle, length[contact], tick, bound)):
                place[last] = far
                last += next_tick[far] >= bound
            for i in range(last):
                age = now - num_left(removed, num_before[tick[place[i]]])
                decay[i] = coarse[age >> FINE_BITS] * fine[age & FINE_MASK] + DECAY_FLOOR
            for i in range(last):
                entry, number = place_of(found, int64(other[place[i]]), number)
                found.value[entry, 0] += whole
                found.value[entry, 1] += np.floor(weight * decay[i] * FIXED_POINT + 0.5)
                found.value[entry, 2] += 1.0
        person, value = found.person, found.value
        taken = np.zeros(number, np.bool_)
        taken[: len(pool)] = True
        entry, number = place_of(found, one, number)
        value[entry, 2] = -1.0  # the user and their contacts are not candidates
        for at in range(first[one], first[one] + degree):
            entry, number = place_of(found, int64(contacts.other[at]), number)
            value[entry, 2] = -1.0
        for kind in range(2):
            kept = int64(0)
            for i in range(len(taken)):
                amount = value[i, kind]
                if value[i, 2] > 0 and (kept < most or amount >= best[0]):
                    rank = (tie_rank[person[i]] << 32) | i
                    kept = offer(best, none, ranks, kept, amount, 0.0, rank)
            for i in range(kept):
                taken[ranks[i] & 0xFFFFFFFF] = True
        for i in range(len(taken)):
            if taken[i] and value[i, 2] >= 0:
                out_row[size], out_user[size] = b, person[i]
                out[0, size] = value[i, 0] / FIXED_POINT
                out[1, size] = value[i, 1] / FIXED_POINT
                out[2, size] = value[i, 2]
                out[3, size] = count_before(first[person[i]], known[person[i]], known_tick, bound)
                size += 1
    return size


@kernel
def list_last_actors(
    src: np.ndarray, event_tick: np.ndarray, tie_rank: np.ndarray, end: int, most: int, out: np.ndarray
) -> int:
    """Fill the users who acted last, in any order, and return how many; -1 if they acted too long ago.

    Args:
        src: [E] int64, of the events, below 0 where removed.
        event_tick: [E] int32, of the events.
        tie_rank: [N] int64, distinct: of those who acted last at one time the smaller rank comes first.
        end: events of the log before this position are known.
        most: events looked back on.
        out: [k] int64, filled.
    """
    seen = np.full(table_size(min(most, end)), -1, np.int64)
    tied, none, ranks = np.zeros(len(out)), np.zeros(len(out)), np.empty(len(out), np.int64)
    size, at = 0, end - 1
    while at >= 0 and size < len(out):
        now, begin, num_tied = event_tick[at], size, int64(0)
        room = len(out) - size
        while at >= 0 and event_tick[at] == now:
            if end - at > most:
                return -1
            user = src[at]
            at -= 1
            if user < 0:
                continue
            slot = slot_of(seen, user)
            if seen[slot] >= 0:
                continue
            seen[slot] = user
            rank = (tie_rank[user] << 32) | user
            num_tied = offer(tied[:room], none[:room], ranks[:room], num_tied, 0.0, 0.0, rank)
        for i in range(num_tied):
            out[begin + i] = ranks[i] & 0xFFFFFFFF
        size += num_tied
    return size


@kernel
def fill_ranks(row: np.ndarray, value: np.ndarray, out: np.ndarray) -> None:
    """Fill the number of entries of the same row with a larger value: value and out [R, M] float32.

    Args:
        row: [M] int64, ascending.
        value: [R, M].
        out: [R, M], filled.
    """
    begin = 0
    while begin < len(row):
        end = begin
        while end < len(row) and row[end] == row[begin]:
            end += 1
        for r in range(len(value)):
            key = np.empty(end - begin, np.float32)
            for i in range(end - begin):
                key[i] = -value[r, begin + i]
            order = stable_order(key)
            larger = 0
            for place in range(end - begin):
                at = begin + order[place]
                if place and value[r, at] != value[r, begin + order[place - 1]]:
                    larger = place
                out[r, at] = larger
        begin = end
