"""Kernels that take events off timelines, and bring what depends on them up to date."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.append import fill_tie, last_entry
from graphrec.temporal.build import content_hash, pair_kinds
from graphrec.temporal.columns import (
    LAST_PLACE,
    LAST_TICK,
    HalfEdges,
    IndexColumns,
    end_before,
    pair_state,
)
from graphrec.temporal.sorting import reorder, stable_order


class Ties(NamedTuple):
    """Half-edges of one owner and tick each, to be ordered again.

    Attributes:
        owner: [G] int64.
        first: [G] int64, position of the first half-edge.
        last: [G] int64, position after the last.
    """

    owner: np.ndarray
    first: np.ndarray
    last: np.ndarray


@kernel
def list_ties(
    half: HalfEdges, owner: np.ndarray, since: np.ndarray, first: np.ndarray, out: np.ndarray
) -> int:
    """List where tied half-edges of third users include one with an owner that loses an earlier event.

    Args:
        half: the timelines, still whole.
        owner: [U], ascending, users who lose events.
        since: [U], the ticks from which on they do.
        first: [U], their first half-edges of these ticks.
        out: [3, M], large enough, filled with the columns of `Ties`.
    """
    start, length, other, ticks = half.start, half.length, half.other, half.tick
    size = 0
    for u in range(len(owner)):
        end = start[owner[u]] + length[owner[u]]
        for at in range(first[u], end):
            user, tick = other[at], ticks[at]
            if tick == since[u] or (at > first[u] and other[at - 1] == user and ticks[at - 1] == tick):
                continue
            place = end_before(int64(0), len(owner), owner, user)
            if place < len(owner) and owner[place] == user and since[place] <= tick:
                continue  # derived again with all of that user's later half-edges
            low = end_before(start[user], length[user], ticks, tick)
            stop, high = start[user] + length[user], low + 1
            mixed = False
            while high < stop and ticks[high] == tick:
                mixed |= other[high] != other[low]
                high += 1
            if mixed:
                out[0, size], out[1, size], out[2, size] = user, low, high
                size += 1
    return size


@kernel
def list_pair_events(
    half: HalfEdges, one: np.ndarray, other: np.ndarray, since: np.ndarray, out: np.ndarray
) -> int:
    """List the events of pairs [P] from ticks on, from the shorter rest of the two timelines."""
    size = 0
    for p in range(len(one)):
        few, many = one[p], other[p]
        low = end_before(half.start[few], half.length[few], half.tick, since[p])
        low_many = end_before(half.start[many], half.length[many], half.tick, since[p])
        high, high_many = half.start[few] + half.length[few], half.start[many] + half.length[many]
        if high - low > high_many - low_many:
            few, many, low, high = many, few, low_many, high_many
        for at in range(low, high):
            if half.other[at] == many:
                out[size] = half.code[at] >> 1
                size += 1
    return size


@kernel
def last_places(half: HalfEdges, owner: np.ndarray, first: np.ndarray, out: np.ndarray) -> None:
    """Fill the places (see `lookups.link_appearances`) of owners' last events before half-edges, or -1."""
    for u in range(len(owner)):
        at, latest = first[u] - 1, -1
        while at >= half.start[owner[u]] and half.tick[at] == half.tick[first[u] - 1]:
            latest = max(latest, half.code[at])
            at -= 1
        out[u] = latest ^ 1 if latest >= 0 else -1


@kernel
def drop_half_edges(
    half: HalfEdges, src: np.ndarray, owner: np.ndarray, first: np.ndarray, number: np.ndarray
) -> None:
    """Close up owners' timelines, from half-edges `first` on, where `number` events have no users now."""
    other, ticks, codes, next_tick = half.other, half.tick, half.code, half.next_tick
    for u in range(len(owner)):
        start, length = half.start[owner[u]], half.length[owner[u]]
        to, dropped = first[u], 0
        for at in range(first[u], start + length):
            if dropped < number[u] and src[codes[at] >> 1] < 0:
                dropped += 1
                continue
            other[to], ticks[to], codes[to] = other[at], ticks[at], codes[at]
            next_tick[to] = next_tick[at]
            to += 1
        half.length[owner[u]] = to - start


@kernel
def derive_pairs(
    half: HalfEdges,
    pair: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    since: np.ndarray,
    known: np.ndarray,
    earlier: np.ndarray,
    earlier_tick: np.ndarray,
) -> int:
    """Count the acts of pairs again, and set the next ticks of their half-edges.

    Args:
        half: the timelines, without the removed events.
        pair: of `IndexColumns`.
        one: [P], users.
        other: [P], users.
        since: [P], ticks from which on the pairs lost events.
        known: [P], ticks of their first contacts, with the removed events.
        earlier: [2 P], filled with positions of half-edges before these ticks whose next ticks change.
        earlier_tick: [2 P], filled with their next ticks before.

    Returns:
        how many of `earlier` are filled.
    """
    size = 0
    for p in range(len(one)):
        few, many = one[p], other[p]
        if half.length[few] > half.length[many]:
            few, many = many, few
        start, end = half.start[few], half.start[few] + half.length[few]
        at = end_before(start, half.length[few], half.tick, since[p])
        num_out = num_in = np.int32(0)
        last_out = last_in = first = np.int32(-1)
        own = twin = -1  # the pair's last half-edges so far, on both timelines
        if known[p] < since[p]:
            own = last_entry(half.other, start, at, many)
            num_out, num_in, last_out, last_in, first = pair_state(half.code, half.tick, pair, own)
            twin = last_of_pair(half, many, few, half.tick[own])
            earlier[size], earlier_tick[size] = own, half.next_tick[own]
            earlier[size + 1], earlier_tick[size + 1] = twin, half.next_tick[twin]
            size += 2
            half.next_tick[own] = half.next_tick[twin] = LAST_TICK
        while at < end:
            if half.other[at] != many:
                at += 1
                continue
            tick, stop = half.tick[at], at
            while stop < end and half.tick[stop] == tick and half.other[stop] == many:
                if half.code[stop] & 1:
                    num_out, last_out = np.int32(num_out + 1), tick
                else:
                    num_in, last_in = np.int32(num_in + 1), tick
                stop += 1
            if first < 0:
                first = tick
            if own >= 0:
                half.next_tick[own] = half.next_tick[twin] = tick
            own, twin = stop - 1, last_of_pair(half, many, few, tick)
            for i in range(at, stop):
                row = half.code[i] >> 1
                if half.code[i] & 1:
                    pair[row, 0], pair[row, 1], pair[row, 2] = num_out, num_in, last_in
                else:
                    pair[row, 0], pair[row, 1], pair[row, 2] = num_in, num_out, last_out
                pair[row, 3] = first
                half.next_tick[i] = half.next_tick[twin - (stop - 1 - i)] = tick
            half.next_tick[own] = half.next_tick[twin] = LAST_TICK
            at = stop
    return size


@inlined
def last_of_pair(half: HalfEdges, owner: int, other: int, tick: int) -> int:
    """Return the position of an owner's last half-edge with another user at a tick where there is one."""
    at = end_before(half.start[owner], half.length[owner], half.tick, tick + 1) - 1
    while half.other[at] != other:
        at -= 1
    return at


@kernel
def derive_again(
    columns: IndexColumns,
    action: np.ndarray,
    num_actions: int,
    owner: np.ndarray,
    first: np.ndarray,
    since: np.ndarray,
    ties: Ties,
) -> None:
    """Order ties, count, and list contacts again: on owners' timelines from half-edges on, and in `ties`."""
    half, pair, contacts, acted_on = columns.half_edges, columns.pair, columns.contacts, columns.acted_on
    ticks, codes, others = half.tick, half.code, half.other
    num_acts, last_opposite = half.num_acts, half.last_opposite
    for u in range(len(owner)):
        user, at = owner[u], first[u]
        begin = half.start[user]
        end = begin + half.length[user]
        for lists in (contacts, acted_on):
            start = lists.start[user]
            lists.length[user] = end_before(start, lists.length[user], lists.tick, since[u]) - start
        while at < end:
            tick, stop = ticks[at], at + 1
            while stop < end and ticks[stop] == tick:
                stop += 1
            if stop > at + 1:
                order_again(half, pair, action, num_actions, at, stop)
                fill_tie(half, pair, contacts, acted_on, user, at, stop)
                at = stop
                continue
            out, event = codes[at] & 1, codes[at] >> 1  # as `fill_tie` does, for most half-edges
            acts, same, opposite = np.int32(0), np.int32(-1), np.int32(-1)
            if at > begin:
                acts, same, opposite = num_acts[at - 1], last_opposite[at - 1], ticks[at - 1]
                if (codes[at - 1] & 1) == out:
                    same, opposite = opposite, same
            num_acts[at], last_opposite[at] = acts + out, opposite
            if pair[event, 3] == tick:
                place = contacts.start[user] + contacts.length[user]
                contacts.other[place], contacts.tick[place] = others[at], tick
                contacts.length[user] += 1
            if out and pair[event, 0] == 1:
                place = acted_on.start[user] + acted_on.length[user]
                acted_on.other[place], acted_on.tick[place] = others[at], tick
                acted_on.length[user] += 1
            at = stop
    for g in range(len(ties.owner)):
        user, at, stop = ties.owner[g], ties.first[g], ties.last[g]
        num_contacts, num_acted_on = contacts.length[user], acted_on.length[user]
        order_again(half, pair, action, num_actions, at, stop)
        fill_tie(half, pair, contacts, acted_on, user, at, stop)
        contacts.length[user], acted_on.length[user] = num_contacts, num_acted_on


@subkernel
def order_again(
    half: HalfEdges, pair: np.ndarray, action: np.ndarray, num_actions: int, first: int, last: int
) -> None:
    """Order half-edges of one owner and tick as `build.derive_tie` does; next ticks move along."""
    tick, size = half.tick[first], last - first
    key, content = np.empty(size, np.int64), np.empty(size, np.int64)
    num_kinds = np.int64(2 * num_actions)
    for i in range(size):
        code = half.code[first + i]
        key[i] = half.other[first + i] * num_kinds + (code & 1) * num_actions + action[code >> 1]
    order = stable_order(key)
    reorder(half.other, first, order)
    reorder(half.code, first, order)
    reorder(half.next_tick, first, order)
    for i in range(size):
        content[i] = key[order[i]] % num_kinds
    kind, at = content.copy(), first
    while at < last:
        end = at + 1
        while end < last and half.other[end] == half.other[at]:
            end += 1
        num_out, num_in, _, _, _ = pair_state(half.code, half.tick, pair, at)
        kinds = pair_kinds(kind, at - first, end - first)
        known = content_hash(half.start, half.length, half.tick, kinds, num_out, num_in, half.other[at], tick)
        for i in range(at, end):
            content[i - first] = known
        at = end
    order = stable_order(content)
    reorder(half.other, first, order)
    reorder(half.code, first, order)
    reorder(half.next_tick, first, order)


@kernel
def link_again(
    half: HalfEdges, following: np.ndarray, owner: np.ndarray, first: np.ndarray, before: np.ndarray
) -> None:
    """Link owners' appearances in the log again, from half-edges on.

    Args:
        half: the timelines.
        following: [2E], see `lookups.link_appearances`.
        owner: [U].
        first: [U], half-edges.
        before: [U], of `last_places`.
    """
    start, length, ticks, codes = half.start, half.length, half.tick, half.code
    for u in range(len(owner)):
        at, end, place = first[u], start[owner[u]] + length[owner[u]], before[u]
        while at < end:
            stop = at + 1
            while stop < end and ticks[stop] == ticks[at]:
                stop += 1
            if stop == at + 1:
                if place >= 0:
                    following[place] = codes[at] ^ 1
                place = codes[at] ^ 1
            else:
                tied = codes[at:stop].astype(np.int64)
                for i in stable_order(tied):
                    if place >= 0:
                        following[place] = tied[i] ^ 1
                    place = tied[i] ^ 1
            at = stop
        if place >= 0:
            following[place] = LAST_PLACE
