"""Kernels that list the best users of a rule without scores of all users.

Only a query's *candidates* (contacts of contacts, or contacts) have a value of their own, above 0; all other
users are ordered by the network alone (`temporal.user_order`). A list takes the best candidates and then the
first of that order, so its cost grows with the query's neighborhood, not with the network.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.jit import int64, kernel, subkernel
from graphrec.temporal.bounded_heap import offer, sort_best_first
from graphrec.temporal.columns import HalfEdges, TimedLists, end_before, pair_state
from graphrec.temporal.order_kernels import (
    OrderColumns,
    count_before,
    measure_before,
    order_users,
    popularity_before,
    slot_of,
    table_size,
    users_since,
)

NO_CANDIDATES, COMMON_CONTACTS, JACCARD, LAST_ACT, LAST_EVENT = range(5)
"""Where candidates and their values come from."""


class ListQueries(NamedTuple):
    """B queries and the users that their lists must not hold.

    Attributes:
        user: [B] int64.
        bound: [B] int64, ticks.
        time: [B] int64 seconds.
        scale: [B] float64, factor of the order's measure in scores.
        excluded: [M] int64, users, those of a query together and ascending.
        excluded_start: [B + 1] int64, position of each query's first.
        excluded_always: [O] int64, ascending.
    """

    user: np.ndarray
    bound: np.ndarray
    time: np.ndarray
    scale: np.ndarray
    excluded: np.ndarray
    excluded_start: np.ndarray
    excluded_always: np.ndarray


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


class OrderData(NamedTuple):
    """The order of all other users; see `UserOrder`, `Checkpoints` and `retrieval.topk.tie_shuffle`."""

    columns: OrderColumns
    tie_rank: np.ndarray
    tie_shuffle: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    event_tick: np.ndarray
    checkpoint: np.ndarray
    listed: np.ndarray
    size: np.ndarray
    complete: np.ndarray


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
    """

    kind: int
    half: HalfEdges
    pair: np.ndarray
    contacts: TimedLists
    weight: np.ndarray
    unit: float
    origin: int


@subkernel
def empty_candidates(most: int) -> Candidates:
    """Return a table with room for a number of users."""
    size = table_size(most)
    return Candidates(np.full(size, -1, np.int64), np.zeros(size), np.empty(most, np.int64))


@subkernel
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


@kernel
def holds(users: np.ndarray, low: int, high: int, user: int) -> bool:
    """Tell whether a user is among users[low:high], which are in ascending order."""
    end = high
    while low < high:
        middle = (low + high) >> 1
        if users[middle] < user:
            low = middle + 1
        else:
            high = middle
    return low < end and users[low] == user


@subkernel
def is_allowed(queries: ListQueries, b: int, user: int) -> bool:
    """Tell whether a user may be on the list of query b."""
    if user == queries.user[b]:
        return False
    low, high = queries.excluded_start[b], queries.excluded_start[b + 1]
    if low < high and holds(queries.excluded, low, high, user):
        return False
    always = queries.excluded_always
    return len(always) == 0 or not holds(always, int64(0), len(always), user)


@kernel
def list_best(
    queries: ListQueries,
    source: SourceData,
    order: OrderData,
    squash: bool,
    add: bool,
    max_tied: int,
    users: np.ndarray,
    scores: np.ndarray,
    answered: np.ndarray,
) -> None:
    """Fill the best users of each query and their scores.

    Args:
        queries: B queries.
        source: the candidates.
        order: of the other users; all queries lie after its first checkpoint.
        squash: whether popularity p counts as p / (p + 1).
        add: whether popularity is added to the values of candidates.
        max_tied: candidates of equal values whose popularity is looked up one by one; of more, the most
            popular users of the network are looked for among them first.
        users: [B, k] int64, filled; padded with -1.
        scores: [B, k] float64, filled; padded with -inf.
        answered: [B] bool, filled: False where a list would take more users than the order lists.
    """
    columns, tie_rank, tie_shuffle, src, dst, event_tick, checkpoint, listed, sizes, complete = order
    measure, origin, half_life, instants = (
        columns.measure,
        columns.origin,
        columns.half_life,
        columns.instants,
    )
    start, length, tick = columns.start, columns.length, columns.tick
    got_start, got_length, got_tick = columns.received_start, columns.received_length, columns.received_tick
    total = columns.total
    k = users.shape[1]
    best, none, ranks = np.empty(k), np.zeros(k), np.empty(k, np.int64)
    room = 2 * listed.shape[1]
    near, measured, popularity = np.empty(room, np.int32), np.empty(room), np.empty(room)
    num_near, whole, near_bound, near_time = 0, True, int64(-1), int64(0)
    for b in range(len(queries.user)):
        user, bound, time = queries.user[b], queries.bound[b], queries.time[b]
        if source.kind == 0:
            found, num_found = empty_candidates(int64(1)), int64(0)
        elif source.kind <= 2:
            found, num_found = find_common(source, user, bound)
        else:
            found, num_found = find_contacts(source, instants, user, bound)
        key, value, slots = found
        # The k-th largest value of allowed candidates.
        size = int64(0)
        for i in range(num_found):
            slot = slots[i]
            if (size < k or value[slot] > best[0]) and is_allowed(queries, b, key[slot]):
                size = offer(best, none, ranks, size, value[slot], 0.0, int64(0))
        too_few = size < k
        least = 0.0 if too_few else best[0]
        num_tied = 0
        for i in range(num_found):
            num_tied += value[slots[i]] == least
        popular_first = add and num_tied > max_tied
        if (popular_first or too_few) and (near_bound != bound or near_time != time):
            j = end_before(int64(0), len(checkpoint), checkpoint, bound + 1) - 1
            recent, known = users_since(
                columns, listed[j, : sizes[j]], src, dst, event_tick, checkpoint[j], bound, time
            )
            num_near, whole = order_users(
                columns, tie_rank, recent, known, bound, time, near, measured, popularity
            )
            whole = whole and complete[j]
            if not complete[j]:
                num_near = min(num_near, listed.shape[1])
            near_bound, near_time = bound, time
        answered[b], size, tied_done = True, int64(0), False
        if popular_first:
            for i in range(num_near):
                someone = int64(near[i])
                slot = slot_of(key, someone)
                if key[slot] < 0 or value[slot] != least or not is_allowed(queries, b, someone):
                    continue
                score = popularity[i] / (popularity[i] + 1.0) + least
                if size == k and score < best[0]:
                    tied_done = True
                    break
                size = offer(best, none, ranks, size, score, 0.0, tie_rank[someone])
                value[slot] = -1.0
        for i in range(num_found):
            someone, score = key[slots[i]], value[slots[i]]
            if score < least or (tied_done and score == least):
                continue
            if add:
                popular = popularity_before(
                    half_life, instants, got_start, got_length, got_tick, total, someone, bound, time
                )
                score += popular / (popular + 1.0)
            if (size < k or score >= best[0]) and is_allowed(queries, b, someone):
                size = offer(best, none, ranks, size, score, 0.0, tie_rank[someone])
        if too_few:
            enough = False
            for i in range(num_near):
                popular = popularity[i] / (popularity[i] + 1.0) if squash else popularity[i]
                score = popular + queries.scale[b] * measured[i]
                if size == k and score < best[0]:
                    enough = True
                    break
                someone = int64(near[i])
                if key[slot_of(key, someone)] < 0 and is_allowed(queries, b, someone):
                    size = offer(best, none, ranks, size, score, 0.0, tie_rank[someone])
            # Beside a measure, popularities may be too small to count: then users beyond the list are tied.
            answered[b] = whole or enough or (size == k and (measure == 0 or half_life == 0.0))
            rank = int64(0)
            while whole and size < k and rank < len(tie_shuffle):  # those of whom nothing is known
                someone = tie_shuffle[rank]
                is_here = someone < len(tie_rank) and key[slot_of(key, someone)] < 0
                if is_here and is_allowed(queries, b, someone):
                    own = measure_before(measure, origin, instants, start, length, tick, someone, bound)
                    popular = popularity_before(
                        half_life, instants, got_start, got_length, got_tick, total, someone, bound, time
                    )
                    if own == 0.0 and popular == 0.0:
                        size = offer(best, none, ranks, size, 0.0, 0.0, rank)
                rank += 1
        sort_best_first(best, none, ranks, size)
        for i in range(k):
            users[b, i] = tie_shuffle[ranks[i]] if i < size else -1
            scores[b, i] = best[i] if i < size else -np.inf
