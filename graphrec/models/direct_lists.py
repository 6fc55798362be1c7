"""Kernels that list the best users of a rule without scores of all users.

Only a query's *candidates* (contacts of contacts, or contacts) have a value of their own, above 0; all other
users are ordered by the network alone (`temporal.user_order`). A list takes the best candidates and then the
first of that order, so its cost grows with the query's neighborhood, not with the network.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.jit import int64, kernel, subkernel
from graphrec.models.direct_candidates import (
    SourceData,
    empty_candidates,
    find_common,
    find_contacts,
    find_decayed,
)
from graphrec.temporal.bounded_heap import offer, sort_best_first
from graphrec.temporal.columns import end_before
from graphrec.temporal.order_kernels import (
    OrderColumns,
    measure_before,
    order_users,
    popularity_before,
    slot_of,
    users_since,
)


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
        elif source.kind == 5:
            found, num_found = find_decayed(source, user, bound)
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
