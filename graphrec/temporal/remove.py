"""Removing events from the index, and putting them back: work that grows with the timelines of their users.

The log keeps its positions and ticks their numbers: the position of a removed event holds no users (-1), and
`GrowingIndex.removed` lists it. All else is what an index of the remaining events, with these ticks, holds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from graphrec.data.checks import check_index
from graphrec.temporal.append import GrowingIndex
from graphrec.temporal.columns import LAST_TICK, HalfEdges, TimedLists
from graphrec.temporal.lookups import ends_before
from graphrec.temporal.remove_kernels import (
    Ties,
    derive_again,
    derive_pairs,
    drop_half_edges,
    last_places,
    link_again,
    list_pair_events,
    list_ties,
)


class Removal(NamedTuple):
    """What a removal changes, as it was before.

    Attributes:
        owner: [U] int64, users whose timelines lose events.
        length: [3, U] int32, lengths of timelines, lists of contacts, and lists of users acted on.
        half_edge: [H] int64 positions.
        half_edges: [6, H] int32, of `HalfEdges` there.
        next_tick: [P] int64 positions, more half-edges of which only the next tick changes.
        next_ticks: [P] int32.
        contact: [C] int64 positions.
        contacts: [2, C] int32, other and tick.
        acted_on: [A] int64 positions.
        acted_ons: [2, A] int32.
        event: [E] int64 positions.
        pairs: [E, 4] int32.
        place: [F] int64, see `lookups.link_appearances`.
        followings: [F] int32.
        gone: [R] int64, the removed events.
        users: [2, R] int64, their `src` and `dst`.
        removed: [n] int64, the events that had been removed before.
    """

    owner: np.ndarray
    length: np.ndarray
    half_edge: np.ndarray
    half_edges: np.ndarray
    next_tick: np.ndarray
    next_ticks: np.ndarray
    contact: np.ndarray
    contacts: np.ndarray
    acted_on: np.ndarray
    acted_ons: np.ndarray
    event: np.ndarray
    pairs: np.ndarray
    place: np.ndarray
    followings: np.ndarray
    gone: np.ndarray
    users: np.ndarray
    removed: np.ndarray


def positions_of_events(events: Tensor, src: Tensor) -> np.ndarray:
    """Return positions [R] in a log, ascending, that hold events, given in any order.

    Raises:
        TypeError, IndexError: they are not whole numbers, or not positions in the log.
        ValueError: an event is named twice, or was removed before.
    """
    out, count = check_index("event", events, len(src), shape=(None,)).unique(return_counts=True)
    if bool((count > 1).any()):
        raise ValueError(f"event {int(out[count > 1][0])} is named twice: remove each event once")
    if bool((src[out] < 0).any()):
        raise ValueError(f"event {int(out[src[out] < 0][0])} was removed before")
    positions: np.ndarray = out.numpy()
    return positions


def remove_events(index: GrowingIndex, gone: np.ndarray, num_actions: int) -> tuple[GrowingIndex, Removal]:
    """Remove events [R] int64, ascending positions that hold events; the arrays are changed in place."""
    columns, half = index.columns, index.columns.half_edges
    users = np.stack([index.src[gone], index.dst[gone]])
    tick = index.event_tick[gone]
    owner, since = _earliest(users.reshape(-1), np.tile(tick, 2))
    pairs, pair_since = _earliest(users.min(0) * len(half.start) + users.max(0), tick)
    one, other = pairs // len(half.start), pairs % len(half.start)
    first = _ends(half, owner, since)
    ties, before = _ties(half, owner, since, first), np.empty(len(owner), np.int64)
    last_places(half, owner, first, before)

    tail = _ragged(first, half.start[owner] + half.length[owner])
    code = half.code[tail]
    half_edge = np.concatenate([tail, _ragged(ties.first, ties.last)])
    place = np.concatenate([2 * (code >> 1).astype(np.int64) + 1 - (code & 1), before[before >= 0]])
    contact, acted_on = (_entries(part, half, owner, since, ties) for part in columns[1:3])
    event = _pair_events(half, one, other, pair_since)
    following = index.following.reshape(-1)
    earlier, earlier_ticks = np.empty(2 * len(one), np.int64), np.empty(2 * len(one), np.int32)
    removal = Removal(
        owner,
        np.stack([part.length[owner] for part in columns[:3]]),
        half_edge,
        np.stack([column[half_edge] for column in half[2:]]),
        earlier,
        earlier_ticks,
        contact,
        np.stack([column[contact] for column in columns.contacts[2:]]),
        acted_on,
        np.stack([column[acted_on] for column in columns.acted_on[2:]]),
        event,
        columns.pair[event],
        place,
        following[place],
        gone,
        users,
        index.removed,
    )
    index.src[gone] = index.dst[gone] = -1
    index.following[gone] = -1
    met_before = columns.pair[gone, 3]
    columns.pair[gone] = LAST_TICK
    known = np.full(len(pairs), LAST_TICK, np.int32)  # tick of the first contact, as it was
    np.minimum.at(known, np.searchsorted(pairs, users.min(0) * len(half.start) + users.max(0)), met_before)
    lost = np.unique(users, return_counts=True)[1]  # by owner
    drop_half_edges(half, index.src, owner, first, lost)
    size = derive_pairs(half, columns.pair, one, other, pair_since, known, earlier, earlier_ticks)
    derive_again(columns, index.action, num_actions, owner, first, since, ties)
    link_again(half, following, owner, first, before)
    removed = np.union1d(index.removed, gone)
    removal = removal._replace(next_tick=earlier[:size], next_ticks=earlier_ticks[:size])
    return index._replace(removed=removed), removal


def restore_events(index: GrowingIndex, removal: Removal) -> GrowingIndex:
    """Put back the events of the last removal that was not undone; nothing may have been appended since."""
    columns, half = index.columns, index.columns.half_edges
    lengths = half.length, columns.contacts.length, columns.acted_on.length
    for column, old in zip(lengths, removal.length, strict=True):
        column[removal.owner] = old
    half.next_tick[removal.next_tick] = removal.next_ticks
    for part, at, values in (
        (half, removal.half_edge, removal.half_edges),
        (columns.contacts, removal.contact, removal.contacts),
        (columns.acted_on, removal.acted_on, removal.acted_ons),
    ):
        for column, old in zip(part[2:], values, strict=True):
            column[at] = old
    columns.pair[removal.event] = removal.pairs
    index.following.reshape(-1)[removal.place] = removal.followings
    index.src[removal.gone], index.dst[removal.gone] = removal.users
    return index._replace(removed=removal.removed)


def _earliest(key: np.ndarray, tick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys [n] int64, ascending, and the earliest tick of each: [n] int64."""
    order = np.lexsort((tick, key))
    key, first = np.unique(key[order], return_index=True)
    return key, tick[order][first].astype(np.int64)


def _ragged(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """All positions of ranges, one after another."""
    size = end - start
    total = np.cumsum(size)
    out: np.ndarray = np.arange(int(size.sum())) + np.repeat(start - total + size, size)
    return out


def _ends(lists: HalfEdges | TimedLists, user: np.ndarray, tick: np.ndarray) -> np.ndarray:
    out = np.empty(len(user), np.int64)
    ends_before(lists.start, lists.length, lists.tick, user, tick, out)
    return out


def _entries(
    lists: TimedLists, half: HalfEdges, owner: np.ndarray, since: np.ndarray, ties: Ties
) -> np.ndarray:
    """Positions of the entries of owners from ticks on, and of those of ties."""
    tick = half.tick[ties.first].astype(np.int64)
    tied = _ragged(_ends(lists, ties.owner, tick), _ends(lists, ties.owner, tick + 1))
    tail = _ragged(_ends(lists, owner, since), lists.start[owner] + lists.length[owner])
    return np.concatenate([tail, tied])


def _ties(half: HalfEdges, owner: np.ndarray, since: np.ndarray, first: np.ndarray) -> Ties:
    """Ties of third users, whose order may depend on an event that goes."""
    most = int((half.start[owner] + half.length[owner] - first).sum())
    out = np.empty((3, most), np.int64)
    return Ties(*out[:, : list_ties(half, owner, since, first, out)])


def _pair_events(half: HalfEdges, one: np.ndarray, other: np.ndarray, since: np.ndarray) -> np.ndarray:
    """The events of pairs from ticks on."""
    sides = [half.start[user] + half.length[user] - _ends(half, user, since) for user in (one, other)]
    out = np.empty(int(np.minimum(*sides).sum()), np.int64)
    return out[: list_pair_events(half, one, other, since, out)]
