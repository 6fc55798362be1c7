"""Appending to an index, with room for users and events."""

from __future__ import annotations

import numpy as np

from graphrec.data import Events
from graphrec.temporal.append import GrowingIndex, append_events, grow
from graphrec.temporal.columns import HalfEdges, IndexColumns, TimedLists
from graphrec.temporal.long_lists import full_long_lists


def columns_of(index: GrowingIndex, num_users: int) -> IndexColumns:
    """Return the columns of an index without the room for more users, as views."""
    half, contacts, acted_on, pair = index.columns
    return IndexColumns(
        HalfEdges(half.start[:num_users], half.length[:num_users], *half[2:]),
        TimedLists(contacts.start[:num_users], contacts.length[:num_users], *contacts[2:]),
        TimedLists(acted_on.start[:num_users], acted_on.length[:num_users], *acted_on[2:]),
        pair,
    )


def without_room_for_users(index: GrowingIndex, num_users: int) -> GrowingIndex:
    """Return an index without the room for more users."""
    room = np.ascontiguousarray(index.room[:, :num_users])
    return index._replace(columns=columns_of(index, num_users), room=room)


def give_long_lists_room(index: GrowingIndex) -> None:
    """Move long lists that are full to places with room, as far as the arrays have room, in place."""
    half, contacts, acted_on, _ = index.columns
    parts: tuple[HalfEdges | TimedLists, ...] = (half, contacts, acted_on)
    for number, part in enumerate(parts):
        moves = full_long_lists(part.start, part.length, index.room[number], int(index.used[2 + number]))
        if 2 * (moves.end - index.used[2 + number]) > len(part.other) - index.used[2 + number]:
            continue
        for old, length, new in moves.copies():
            for column in part[2:]:
                column[new : new + length] = column[old : old + length]
        part.start[:], index.room[number] = moves.moved(part.start, index.room[number])
        index.used[2 + number] = moves.end


def with_events(
    index: GrowingIndex, events: Events, num_users: int, num_actions: int, *, room: int, has_room: bool
) -> GrowingIndex:
    """Append checked events to an index in place, or to a copy with more room.

    Args:
        index: the index.
        events: [M] events.
        num_users: users there are with them.
        num_actions: number of actions.
        room: how many events a copy has room for.
        has_room: whether the arrays are the index's own, with room behind them.
    """
    capacity = len(index.columns.half_edges.start)
    if num_users > capacity:
        capacity, has_room = num_users + num_users // 2, False
    if not has_room:
        index = grow(index, events=room, num_users=capacity)
        give_long_lists_room(index)
    done = 0
    while True:
        src, dst, time, action = (x[done:].contiguous().numpy() for x in vars(events).values())
        done += append_events(index, src, dst, time, action, num_actions)
        if done == len(events):
            return index
        index = grow(index, events=room, num_users=capacity)
