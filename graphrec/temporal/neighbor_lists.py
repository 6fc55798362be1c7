"""Kernels that find the neighborhood of a query: contacts, paths, recently active users, and their union."""

from __future__ import annotations

import numpy as np

from graphrec.jit import inlined, int64, kernel
from graphrec.temporal.columns import HalfEdges, end_before
from graphrec.temporal.lookups import list_contacts, list_recently_seen
from graphrec.temporal.sorting import sort_pairs

HASH_FACTOR = 0x9E3779B97F4A7C1
"""An odd number of 60 bits: products with it spread consecutive users over a table."""


@kernel
def list_neighbors(
    half: HalfEdges,
    pair: np.ndarray,
    instants: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    event_tick: np.ndarray,
    following: np.ndarray,
    removed: np.ndarray,
    user: np.ndarray,
    bound: np.ndarray,
    limits: np.ndarray,
) -> tuple[np.ndarray, int, np.ndarray, int, np.ndarray, int, np.ndarray, int]:
    """Find the neighbors of users before ticks, and the paths to them.

    Args:
        half: the timelines.
        pair: of `IndexColumns`.
        instants: [T] int64 seconds, the distinct times.
        src: [E], of the events.
        dst: [E], of the events.
        event_tick: [E], of the events.
        following: of `link_appearances`, below 0 for removed events.
        removed: [R] int64, ascending positions of these.
        user: [B].
        bound: [B] ticks.
        limits: [7] int64, the values of `NeighborhoodConfig` in order.

    Returns:
        Four arrays of int64, each with the number of its columns that are filled: contacts [9, C] in the
        order of `Contacts`, then their positions in the union; paths [10, P], the pairs of bridges and ends
        in that order, then the positions of bridges among the contacts and of ends in the union; positions
        [1, R] of recently active users in the union; the union [2, M], rows and users, both ascending.
    """
    max_contacts, contact_window, max_bridges, max_per_bridge, bridge_window, max_recent, recent_window = (
        limits
    )
    num_rows = len(user)
    length = half.length

    most = 0
    for b in range(num_rows):
        most += min(length[user[b]], max_contacts, contact_window)
    contacts = np.empty((9, most), np.int64)
    nobody = np.full(num_rows, -1)
    num_contacts = list_contacts(
        half, pair, instants, user, bound, nobody, max_contacts, contact_window, contacts
    )

    bridge = np.empty((4, num_contacts), np.int64)  # user, tick, the query's user, position
    most = num_bridges = place = 0
    for i in range(num_contacts):
        row = contacts[0, i]
        place = place + 1 if i > 0 and contacts[0, i - 1] == row else 0
        if place < max_bridges:
            bridge[0, num_bridges], bridge[1, num_bridges] = contacts[1, i], bound[row]
            bridge[2, num_bridges], bridge[3, num_bridges] = user[row], i
            num_bridges += 1
            most += min(length[contacts[1, i]], max_per_bridge, bridge_window)
    paths = np.empty((10, most), np.int64)
    num_paths = list_contacts(
        half,
        pair,
        instants,
        bridge[0, :num_bridges],
        bridge[1, :num_bridges],
        bridge[2, :num_bridges],
        max_per_bridge,
        bridge_window,
        paths,
    )
    for p in range(num_paths):
        paths[8, p] = bridge[3, paths[0, p]]

    num_before = np.empty(num_rows, np.int64)
    most = 0
    for b in range(num_rows):
        num_before[b] = end_before(int64(0), len(event_tick), event_tick, bound[b])
        most += min(2 * num_before[b], recent_window)
    seen = np.empty((2, most), np.int64)
    num_seen = list_recently_seen(
        src, dst, event_tick, following, removed, num_before, max_recent, recent_window, seen
    )

    recent = np.empty((1, num_seen), np.int64)
    union = np.empty((2, num_contacts + num_paths + num_seen), np.int64)
    num_recent, size = unite(user, contacts, num_contacts, paths, num_paths, seen, num_seen, recent, union)
    return contacts, num_contacts, paths, num_paths, recent, num_recent, union, size


@inlined
def unite(
    user: np.ndarray,
    contacts: np.ndarray,
    num_contacts: int,
    paths: np.ndarray,
    num_paths: int,
    seen: np.ndarray,
    num_seen: int,
    recent: np.ndarray,
    union: np.ndarray,
) -> tuple[int, int]:
    """Fill each row's distinct neighbors in order of index, and the positions of all entries among them.

    A recently active user is an entry unless a contact or the query's own user.

    Args:
        user: [B].
        contacts: of `list_neighbors`; its last row is filled.
        num_contacts: C.
        paths: of `list_neighbors`; its last row is filled.
        num_paths: P.
        seen: rows and users, of `list_recently_seen`.
        num_seen: number of these.
        recent: filled.
        union: filled.

    Returns:
        (number of recent positions, number of neighbors).
    """
    bits = 10
    table = np.full((1 << bits, 2), -1, np.int64)  # user and entry number, by hash
    scratch = np.empty((5, 1 << bits), np.int64)
    size = num_recent = contact = path = at = 0
    for b in range(len(user)):
        contact_end, path_end, seen_end = contact, path, at
        while contact_end < num_contacts and contacts[0, contact_end] == b:
            contact_end += 1
        while path_end < num_paths and paths[8, path_end] < contact_end:
            path_end += 1
        while seen_end < num_seen and seen[0, seen_end] == b:
            seen_end += 1
        most = contact_end - contact + path_end - path + seen_end - at
        if 2 * most > len(table):
            while 2 * most > 1 << bits:
                bits += 1
            table = np.full((1 << bits, 2), -1, np.int64)
            scratch = np.empty((5, 1 << bits), np.int64)
        key, slot = scratch[0], scratch[1]

        number, first_recent = 0, num_recent
        for i in range(contact, contact_end):
            contacts[8, i], number = number_entry(table, bits, key, slot, contacts[1, i], number)
        own = number
        for i in range(path, path_end):
            paths[9, i], number = number_entry(table, bits, key, slot, paths[1, i], number)
        for i in range(at, seen_end):
            if seen[1, i] != user[b]:
                entry, number = number_entry(table, bits, key, slot, seen[1, i], number)
                if entry >= own:
                    recent[0, num_recent] = entry
                    num_recent += 1

        for entry in range(number):
            table[slot[entry], 0] = -1
        ordered = scratch[2, :number]
        for entry in range(number):
            ordered[entry] = entry
        sort_pairs(key[:number], ordered, scratch[3, :number], scratch[4, :number])
        for place in range(number):
            slot[ordered[place]] = size + place
            union[0, size + place], union[1, size + place] = b, key[place]
        for i in range(contact, contact_end):
            contacts[8, i] = slot[contacts[8, i]]
        for i in range(path, path_end):
            paths[9, i] = slot[paths[9, i]]
        for i in range(first_recent, num_recent):
            recent[0, i] = slot[recent[0, i]]
        size += number
        contact, path, at = contact_end, path_end, seen_end
    return num_recent, size


@inlined
def number_entry(
    table: np.ndarray, bits: int, key: np.ndarray, slot: np.ndarray, user: int, number: int
) -> tuple[int, int]:
    """Look up a user's entry number in a hash table; a new user gets the next.

    Args:
        table: [2**bits, 2], users and entry numbers; -1 for users where empty.
        bits: logarithm of the size.
        key: filled with the user, by entry number.
        slot: filled with the place in the table, by entry number.
        user: the user.
        number: entries so far.

    Returns:
        (the user's entry number, entries now).
    """
    mask = (1 << bits) - 1
    place = ((user * HASH_FACTOR) >> 24) & mask
    while table[place, 0] >= 0 and table[place, 0] != user:
        place = (place + 1) & mask
    if table[place, 0] < 0:
        table[place, 0], table[place, 1] = user, number
        key[number], slot[number] = user, place
        number += 1
    return table[place, 1], number
