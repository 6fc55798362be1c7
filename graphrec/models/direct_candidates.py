"""Kernels that find a query's candidates: contacts of contacts, or contacts, and their values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.columns import HalfEdges, TimedLists, end_before, pair_state
from graphrec.temporal.contacts import FIXED_POINT
from graphrec.temporal.order_kernels import count_before, slot_of, table_size
from graphrec.temporal.removed import num_left

NO_CANDIDATES, COMMON_CONTACTS, JACCARD, LAST_ACT, LAST_EVENT, DECAYED_CONTACTS = range(6)
"""Where candidates and their values come from."""


class Candidates(NamedTuple):
    """A hash table of one query's candidates.

    Attributes:
        key: [H] int64, user of each slot, or -1; H is a power of two.
        value: [H] float64.
        slot: int64, the slots in use, in the order of their first use.
    """

    key: np.ndarray
    value: np.ndarray
    slot: np.ndarray


class SourceData(NamedTuple):
    """What candidates and their values are computed from.

    Attributes:
        kind: `NO_CANDIDATES`, `COMMON_CONTACTS`, ...
        half: the timelines.
        pair: of `IndexColumns`.
        contacts: the contact graph.
        weight: [D] float64, of a common contact by its degree.
        unit: factor of values (for `JACCARD`).
        origin: seconds, where recency counts from.
        num_before: [T + 1] int64, events of the log before each tick; empty but for `DECAYED_CONTACTS`.
        removed: [R] int64, ascending positions of removed events.
        share: half-life of contacts, as a share of the events so far.
        floor: what is left of contacts in the long run.
    """

    kind: int
    half: HalfEdges
    pair: np.ndarray
    contacts: TimedLists
    weight: np.ndarray
    unit: float
    origin: int
    num_before: np.ndarray
    removed: np.ndarray
    share: float
    floor: float


@subkernel
def empty_candidates(most: int) -> Candidates:
    """Return a table with room for a number of users."""
    size = table_size(most)
    return Candidates(np.full(size, -1, np.int64), np.zeros(size), np.empty(most, np.int64))


@inlined
def find_common(source: SourceData, user: int, bound: int) -> tuple[Candidates, int]:
    """Find the contacts of a user's contacts before a tick, with sums of weights, or Jaccard's ratios.

    Returns:
        the candidates, the user among them, and how many.
    """
    start, length, other, tick = source.contacts
    weight = source.weight
    first = start[user]
    degree = count_before(first, length[user], tick, bound)
    known = np.empty(degree, np.int64)  # contacts of each contact
    total = int64(0)
    for i in range(degree):
        contact = other[first + i]
        known[i] = count_before(start[contact], length[contact], tick, bound)
        total += known[i]
    found = empty_candidates(min(total, len(start)))
    key, value, slots = found
    size = int64(0)
    for i in range(degree):
        begin = start[other[first + i]]
        amount = weight[known[i]]
        for at in range(begin, begin + known[i]):
            candidate = int64(other[at])
            slot = slot_of(key, candidate)
            if key[slot] < 0:
                key[slot] = candidate
                slots[size] = slot
                size += 1
            value[slot] += amount
    if source.kind == 2:
        for i in range(size):
            slot = slots[i]
            union = degree + count_before(start[key[slot]], length[key[slot]], tick, bound) - value[slot]
            value[slot] = value[slot] / max(union, 1.0) * source.unit
    return found, size


@subkernel
def find_decayed(source: SourceData, user: int, bound: int) -> tuple[Candidates, int]:
    """Find the contacts of a user's contacts before a tick, with sums of weights that both contacts decay.

    A contact's factor is 2^(-age / half-life) + floor; its age is the number of events of the log since the
    pair's last event. Values are sums of whole numbers, exact in any order.

    Returns:
        the candidates, the user among them, and how many.
    """
    half, num_before, removed = source.half, source.num_before, source.removed
    start, length, tick, next_tick, other = half.start, half.length, half.tick, half.next_tick, half.other
    first, known, known_tick = source.contacts.start, source.contacts.length, source.contacts.tick
    now = num_left(removed, num_before[bound])
    half_life, floor, weight = source.share * now, source.floor, source.weight
    begin = start[user]
    end = end_before(begin, length[user], tick, bound)
    degree = count_before(first[user], known[user], known_tick, bound)
    contact, amount = np.empty(degree, np.int64), np.empty(degree)
    number = total = int64(0)
    for at in range(begin, end):
        if next_tick[at] >= bound:
            someone = int64(other[at])
            contacts = count_before(first[someone], known[someone], known_tick, bound)
            age = now - num_left(removed, num_before[tick[at]])
            contact[number] = someone
            amount[number] = weight[contacts] * (2.0 ** (-age / half_life) + floor)
            number += 1
            total += contacts
    found = empty_candidates(min(total, len(start)))
    key, value, slots = found
    size = int64(0)
    for i in range(number):
        begin = start[contact[i]]
        end = end_before(begin, length[contact[i]], tick, bound)
        for at in range(begin, end):
            if next_tick[at] < bound:
                continue
            candidate = int64(other[at])
            slot = slot_of(key, candidate)
            if key[slot] < 0:
                key[slot] = candidate
                slots[size] = slot
                size += 1
            age = now - num_left(removed, num_before[tick[at]])
            path = amount[i] * (2.0 ** (-age / half_life) + floor)
            value[slot] += np.floor(path * FIXED_POINT + 0.5)
    return found, size


@kernel
def fill_decayed(user: np.ndarray, bound: np.ndarray, source: SourceData, out: np.ndarray) -> None:
    """Fill the values that `find_decayed` finds for all users.

    Args:
        user: [B] int64, of the queries.
        bound: [B] int64, their ticks.
        source: the candidates.
        out: [B, N] float64, filled; 0 for users who are no candidates.
    """
    out[:] = 0.0
    for b in range(len(user)):
        found, size = find_decayed(source, user[b], bound[b])
        for i in range(size):
            slot = found.slot[i]
            out[b, found.key[slot]] = found.value[slot]


@inlined
def find_contacts(source: SourceData, instants: np.ndarray, user: int, bound: int) -> tuple[Candidates, int]:
    """Find a user's contacts before a tick, with the times of last acts on them or of last events.

    Returns:
        the candidates, and how many.
    """
    half = source.half
    tick, code, next_tick, other, pair = half.tick, half.code, half.next_tick, half.other, source.pair
    begin = half.start[user]
    end = end_before(begin, half.length[user], tick, bound)
    found = empty_candidates(end - begin)
    size = int64(0)
    for at in range(begin, end):
        if next_tick[at] >= bound:
            last = tick[at]
            if source.kind == 3:
                _, _, last, _, _ = pair_state(code, tick, pair, at)
            if last >= 0:
                contact = int64(other[at])
                slot = slot_of(found.key, contact)
                found.key[slot], found.value[slot] = contact, float(instants[last] - source.origin + 1)
                found.slot[size] = slot
                size += 1
    return found, size
