"""Append events to an index in place: work for each grows with the timelines of its two users at most.

Every list (a timeline, contacts, users acted on) has room behind it. A list that is full moves to the end of
its arrays, with half as much room again, so that an append costs a constant number of moves on average.
Positions of half-edges are valid until the next append.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.data import Events
from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.build import content_hash, group_pairs, pair_kinds
from graphrec.temporal.columns import (
    LAST_PLACE,
    LAST_TICK,
    HalfEdges,
    IndexColumns,
    TimedLists,
    end_before,
    pair_state,
)
from graphrec.temporal.sorting import reorder, stable_order

MIN_ROOM = 4
"""Entries that a list gets room for when it moves, at least; long lists get room for half as many more."""

MIN_HEADROOM = 2**16
"""Events that an index has room for after its first append, at least."""

BLOCK = 256
"""Entries that are searched without a branch."""


class GrowingIndex(NamedTuple):
    """An index with room for more; arrays are longer than what is used of them.

    Attributes:
        columns: of the index.
        room: [3, N] int32, entries that each timeline, list of contacts, and list of users acted on can hold.
        src: [E] int64, of the log, as the next three.
        dst: [E] int64.
        time: [E] int64 seconds.
        action: [E] int64.
        event_tick: [E] int32.
        following: [E, 2] int32, of both users of each event the place of the next appearance in the log; see
            `lookups.link_appearances`.
        instants: [T] int64 seconds.
        used: [5] int64, events, ticks, and entries of the arrays of half-edges, contacts, users acted on.
        removed: [R] int64, ascending positions in the log from which events were removed.
    """

    columns: IndexColumns
    room: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    time: np.ndarray
    action: np.ndarray
    event_tick: np.ndarray
    following: np.ndarray
    instants: np.ndarray
    used: np.ndarray
    removed: np.ndarray


def growing(
    columns: IndexColumns,
    events: Events,
    event_tick: np.ndarray,
    instants: np.ndarray,
    following: np.ndarray,
) -> GrowingIndex:
    """Return the index of a log, as it was built, without any room yet."""
    lists = columns.half_edges, columns.contacts, columns.acted_on
    used = [len(event_tick), len(instants), *(len(part.other) for part in lists)]
    room = np.stack([part.length for part in lists])
    following = following.reshape(-1, 2)
    src, dst, time, action = (column.numpy() for column in vars(events).values())
    sizes = np.array(used, np.int64)
    none = np.empty(0, np.int64)
    return GrowingIndex(columns, room, src, dst, time, action, event_tick, following, instants, sizes, none)


def _with_room(array: np.ndarray, used: int, extra: int) -> np.ndarray:
    """A copy of the used part of an array, with room behind it that costs memory only when written."""
    out = np.empty((used + extra, *array.shape[1:]), array.dtype)
    out[:used] = array[:used]
    return out


def headroom(num_events: int) -> int:
    """Return for how many more events an index of so many has room."""
    return max(num_events // 2, MIN_HEADROOM)


def entries_room(events: int, longest: int) -> int:
    """Return the entries of lists for so many more events, where the longest timeline may have to move."""
    return 8 * (events + longest + 2 * MIN_ROOM)


def room_after(index: GrowingIndex, events: int) -> dict[str, int]:
    """Return how many `events`, and how many `entries` of lists, there should be room for."""
    longest = int(index.columns.half_edges.length.max(initial=0))
    return {"events": events, "entries": entries_room(events, longest)}


def grow(index: GrowingIndex, *, events: int, num_users: int) -> GrowingIndex:
    """Copy an index to arrays with room for at least so many more events, and for `num_users` users."""
    columns, used = index.columns, index.used
    num_events, num_ticks, num_half, num_contacts, num_acted_on = used.tolist()
    more_users = max(num_users - len(columns.half_edges.start), 0)
    extra = room_after(index, events)["entries"]

    def lists(old: HalfEdges | TimedLists, entries: int) -> list[np.ndarray]:
        users = [np.concatenate([x, np.zeros(more_users, x.dtype)]) for x in old[:2]]
        return [*users, *(_with_room(x, entries, extra) for x in old[2:])]

    def events_column(old: np.ndarray) -> np.ndarray:
        return _with_room(old, num_events, events)

    return GrowingIndex(
        columns=IndexColumns(
            half_edges=HalfEdges(*lists(columns.half_edges, num_half)),
            contacts=TimedLists(*lists(columns.contacts, num_contacts)),
            acted_on=TimedLists(*lists(columns.acted_on, num_acted_on)),
            pair=events_column(columns.pair),
        ),
        room=np.concatenate([index.room, np.zeros((3, more_users), np.int32)], axis=1),
        src=events_column(index.src),
        dst=events_column(index.dst),
        time=events_column(index.time),
        action=events_column(index.action),
        event_tick=events_column(index.event_tick),
        following=events_column(index.following),
        instants=_with_room(index.instants, num_ticks, events),
        used=used.copy(),
        removed=index.removed,
    )


@kernel
def append_events(
    index: GrowingIndex,
    src: np.ndarray,
    dst: np.ndarray,
    time: np.ndarray,
    action: np.ndarray,
    num_actions: int,
) -> int:
    """Append events, and return how many there was room for.

    Args:
        index: the index.
        src: [M] int64, the acting users.
        dst: [M] int64, the users acted on, never the acting ones.
        time: [M] int64 seconds, ascending, none before the index's last event.
        action: [M] int64.
        num_actions: number of actions.
    """
    half, pair, used = index.columns.half_edges, index.columns.pair, index.used
    for i in range(len(src)):
        actor, target = src[i], dst[i]
        if not has_room(index, actor, target):
            return i
        event, tick = used[0], used[1] - 1
        if tick < 0 or time[i] > index.instants[tick]:
            tick += 1
            index.instants[tick] = time[i]
            used[1] = tick + 1
        index.src[event], index.dst[event], index.time[event] = actor, target, time[i]
        index.action[event], index.event_tick[event] = action[i], tick
        used[0] = event + 1
        for side in range(2):
            user = actor if side == 0 else target
            index.following[event, side] = LAST_PLACE
            if half.length[user]:
                before = last_event(half, user)
                index.following[before >> 1, 1 - (before & 1)] = 2 * event + side
        by_actor, by_target = last_half_edges_of_pair(half, actor, target)
        add_to_pair(half, pair, event, tick, actor, target, by_actor)
        if by_actor >= 0:
            half.next_tick[by_actor] = half.next_tick[by_target] = tick
        add_half_edge(index, actor, target, 2 * event + 1, tick, num_actions)
        add_half_edge(index, target, actor, 2 * event, tick, num_actions)
    return len(src)


@inlined
def has_room(index: GrowingIndex, actor: int, target: int) -> bool:
    """Tell whether all arrays have room for one more event of two users, even if their lists have to move."""
    columns, used = index.columns, index.used
    if used[0] == len(index.src) or used[1] == len(index.instants):
        return False
    half = columns.half_edges.length
    if used[2] + 2 * (half[actor] + half[target] + 2 * MIN_ROOM) > len(columns.half_edges.other):
        return False
    contacts = columns.contacts.length
    if used[3] + 2 * (contacts[actor] + contacts[target] + 2 * MIN_ROOM) > len(columns.contacts.other):
        return False
    acted_on = columns.acted_on.length
    needed = used[4] + 2 * (acted_on[actor] + acted_on[target] + 2 * MIN_ROOM)
    return bool(needed <= len(columns.acted_on.other))


@inlined
def last_event(half: HalfEdges, user: int) -> np.int32:
    """Return the code (see `HalfEdges`) of a user's last event in the log; the user has one."""
    start, at = half.start[user], half.start[user] + half.length[user] - 1
    tick, latest = half.tick[at], np.int32(half.code[at])
    while at >= start and half.tick[at] == tick:
        latest = max(latest, half.code[at])
        at -= 1
    return np.int32(latest)


@inlined
def last_half_edges_of_pair(half: HalfEdges, one: int, other: int) -> tuple[int, int]:
    """Return the positions of a pair's last half-edge on either user's timeline, or -1 twice.

    The shorter timeline is looked through; of one tick a pair's last half-edges can be of two events.
    """
    swapped = half.length[one] > half.length[other]
    few, many = (other, one) if swapped else (one, other)
    found = last_entry(half.other, half.start[few], half.start[few] + half.length[few], many)
    if found < 0:
        return -1, -1
    twin = end_before(half.start[many], half.length[many], half.tick, half.tick[found] + 1) - 1
    while half.other[twin] != few:
        twin -= 1
    return (twin, found) if swapped else (found, twin)


@subkernel
def last_entry(column: np.ndarray, start: int, end: int, value: int) -> int:
    """Return the last position of a value in column[start:end], or -1; whole blocks are compared at once."""
    while end > start:
        begin = max(start, end - BLOCK)
        hits = 0
        for at in range(begin, end):
            hits += column[at] == value
        if hits:
            while column[end - 1] != value:
                end -= 1
            return end - 1
        end = begin
    return -1


@inlined
def add_to_pair(
    half: HalfEdges, pair: np.ndarray, event: int, tick: int, actor: int, target: int, before: int
) -> None:
    """Fill the pair of a new event, and bring the pair's other events of the same tick up to it.

    `before` is the pair's last half-edge on the actor's timeline, or -1.
    """
    num_out = num_in = np.int32(0)
    last_in, first = np.int32(-1), np.int32(tick)
    if before >= 0:
        num_out, num_in, _, last_in, first = pair_state(half.code, half.tick, pair, before)
    num_out = np.int32(num_out + 1)
    pair[event, 0], pair[event, 1], pair[event, 2], pair[event, 3] = num_out, num_in, last_in, first
    at = before
    while at >= half.start[actor] and half.tick[at] == tick and half.other[at] == target:
        row = half.code[at] >> 1
        if half.code[at] & 1:
            pair[row, 0] = num_out
        else:
            pair[row, 1], pair[row, 2] = num_out, tick
        at -= 1


@subkernel
def add_half_edge(
    index: GrowingIndex, owner: int, other: int, code: int, tick: int, num_actions: int
) -> None:
    """Add a half-edge of the latest tick to its owner's timeline, and order those of the tick anew."""
    half, contacts, acted_on = index.columns.half_edges, index.columns.contacts, index.columns.acted_on
    move_timeline(half, index.room[0], index.used, owner)
    move_list(contacts, index.room[1], index.used, int64(3), owner)
    move_list(acted_on, index.room[2], index.used, int64(4), owner)
    start, last = half.start[owner], half.start[owner] + half.length[owner] + 1
    half.other[last - 1], half.tick[last - 1], half.code[last - 1] = other, tick, code
    half.length[owner] += 1
    first = last - 1
    while first > start and half.tick[first - 1] == tick:
        first -= 1
    if last - first > 1:
        order_tie(half, index.columns.pair, index.action, num_actions, first, last)
    for i in range(first, last):
        half.next_tick[i] = tick if i < last - 1 and half.other[i + 1] == half.other[i] else LAST_TICK
    fill_tie(half, index.columns.pair, contacts, acted_on, owner, first, last)


@inlined
def order_tie(
    half: HalfEdges, pair: np.ndarray, action: np.ndarray, num_actions: int, first: int, last: int
) -> None:
    """Order half-edges of one owner and tick as `build.derive_tie` does."""
    tick = half.tick[first]
    kind = group_pairs(half.other, half.code, action, num_actions, first, last)
    content, at = np.empty(last - first, np.int64), first
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


@inlined
def fill_tie(
    half: HalfEdges,
    pair: np.ndarray,
    contacts: TimedLists,
    acted_on: TimedLists,
    owner: int,
    first: int,
    last: int,
) -> None:
    """Fill the counts of an owner's half-edges of one tick, and the lists' entries of it, their last ones."""
    start, tick = half.start[owner], half.tick[first]
    acts, last_act, last_received = np.int32(0), np.int32(-1), np.int32(-1)
    if first > start:
        acts = half.num_acts[first - 1]
        last_act = last_received = half.tick[first - 1]
        if half.code[first - 1] & 1:
            last_received = half.last_opposite[first - 1]
        else:
            last_act = half.last_opposite[first - 1]
    num_contacts = end_before(contacts.start[owner], contacts.length[owner], contacts.tick, tick)
    num_acted_on = end_before(acted_on.start[owner], acted_on.length[owner], acted_on.tick, tick)
    at = first
    while at < last:
        other, end, out = half.other[at], at, 0
        while end < last and half.other[end] == other:
            out += half.code[end] & 1
            end += 1
        num_out, _, _, _, met = pair_state(half.code, half.tick, pair, at)
        if met == tick:
            contacts.other[num_contacts], contacts.tick[num_contacts] = other, tick
            num_contacts += 1
        if out and num_out == out:
            acted_on.other[num_acted_on], acted_on.tick[num_acted_on] = other, tick
            num_acted_on += 1
        for i in range(at, end):
            if half.code[i] & 1:
                acts, last_act = np.int32(acts + 1), tick
                half.last_opposite[i] = last_received
            else:
                last_received = tick
                half.last_opposite[i] = last_act
            half.num_acts[i] = acts
        at = end
    contacts.length[owner] = num_contacts - contacts.start[owner]
    acted_on.length[owner] = num_acted_on - acted_on.start[owner]


@inlined
def move_timeline(half: HalfEdges, room: np.ndarray, used: np.ndarray, owner: int) -> None:
    """Move a timeline that is full to the end of the arrays, with room for more."""
    length = half.length[owner]
    if length < room[owner]:
        return
    old, new = half.start[owner], used[2]
    for i in range(length):
        half.other[new + i], half.tick[new + i] = half.other[old + i], half.tick[old + i]
        half.code[new + i], half.num_acts[new + i] = half.code[old + i], half.num_acts[old + i]
        half.last_opposite[new + i] = half.last_opposite[old + i]
        half.next_tick[new + i] = half.next_tick[old + i]
    half.start[owner], room[owner] = new, length + max(MIN_ROOM, length // 2)
    used[2] = new + room[owner]


@subkernel
def move_list(lists: TimedLists, room: np.ndarray, used: np.ndarray, number: int, owner: int) -> None:
    """Move a list that is full to the end of its arrays, whose use is `used[number]`, with room for more."""
    length = lists.length[owner]
    if length < room[owner]:
        return
    old, new = lists.start[owner], used[number]
    for i in range(length):
        lists.other[new + i], lists.tick[new + i] = lists.other[old + i], lists.tick[old + i]
    lists.start[owner], room[owner] = new, length + max(MIN_ROOM, length // 2)
    used[number] = new + room[owner]
