"""Kernels that find the candidates of lists for the coming days, and their ranks."""

from __future__ import annotations

import numpy as np

from graphrec.jit import int64, kernel
from graphrec.temporal.bounded_heap import offer
from graphrec.temporal.columns import HalfEdges, TimedLists, end_before
from graphrec.temporal.contacts import DECAY_FLOOR, DECAY_SHARE, FIXED_POINT
from graphrec.temporal.order_kernels import count_before, slot_of, table_size
from graphrec.temporal.removed import num_left


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
        slots = table_size(min(total + degree + 1 + len(pool), len(start)))
        key = np.full(slots, -1, np.int64)
        value = np.zeros((slots, 3))
        found = np.empty(min(total + degree + 1 + len(pool), len(start)), np.int64)
        number = int64(0)
        for i in range(len(pool)):
            slot = slot_of(key, pool[i])
            key[slot] = pool[i]
            found[number] = slot
            number += 1
        for at in range(begin, end):
            if next_tick[at] < bound:
                continue
            contact = int64(other[at])
            theirs = count_before(first[contact], known[contact], known_tick, bound)
            weight = 1.0 / np.log(max(theirs, 2))
            near = (
                2.0 ** (-(now - num_left(removed, num_before[tick[at]])) / (DECAY_SHARE * now)) + DECAY_FLOOR
            )
            middle = start[contact]
            for far in range(middle, end_before(middle, length[contact], tick, bound)):
                if next_tick[far] < bound:
                    continue
                person = int64(other[far])
                slot = slot_of(key, person)
                if key[slot] < 0:
                    key[slot] = person
                    found[number] = slot
                    number += 1
                age = (
                    2.0 ** (-(now - num_left(removed, num_before[tick[far]])) / (DECAY_SHARE * now))
                    + DECAY_FLOOR
                )
                value[slot, 0] += np.floor(weight * FIXED_POINT + 0.5)
                value[slot, 1] += np.floor(weight * near * age * FIXED_POINT + 0.5)
                value[slot, 2] += 1.0
        taken = np.zeros(number, np.bool_)
        taken[: len(pool)] = True
        for i in range(number):  # the user and their contacts are not candidates
            person = key[found[i]]
            if person == one:
                value[found[i], 2] = -1.0
        for at in range(first[one], first[one] + degree):
            slot = slot_of(key, int64(contacts.other[at]))
            if key[slot] >= 0:
                value[slot, 2] = -1.0
        kept = np.empty(number, np.int64)
        num_kept = int64(0)
        for i in range(number):
            if value[found[i], 2] > 0:
                kept[num_kept] = i
                num_kept += 1
        if num_kept > most:
            draws = np.empty(num_kept, np.int64)
            for i in range(num_kept):
                draws[i] = tie_rank[key[found[kept[i]]]]
            by_tie_rank = np.argsort(draws)
            for kind in range(2):
                falling = np.empty(num_kept)
                for i in range(num_kept):
                    falling[i] = -value[found[kept[by_tie_rank[i]]], kind]
                best = np.argsort(falling, kind="mergesort")
                for i in range(most):
                    taken[kept[by_tie_rank[best[i]]]] = True
        else:
            for i in range(num_kept):
                taken[kept[i]] = True
        for i in range(number):
            slot = found[i]
            if taken[i] and value[slot, 2] >= 0:
                person = key[slot]
                out_row[size], out_user[size] = b, person
                out[0, size] = value[slot, 0] / FIXED_POINT
                out[1, size] = value[slot, 1] / FIXED_POINT
                out[2, size] = value[slot, 2]
                out[3, size] = count_before(first[person], known[person], known_tick, bound)
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
            order = np.argsort(-value[r, begin:end])
            larger = 0
            for place in range(end - begin):
                at = begin + order[place]
                if place and value[r, at] != value[r, begin + order[place - 1]]:
                    larger = place
                out[r, at] = larger
        begin = end
