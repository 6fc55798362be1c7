"""The columns of the index: typed, contiguous arrays that kernels read and tensors share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.jit import subkernel

LAST_TICK = np.iinfo(np.int32).max
"""The next tick of a pair's last half-edge: later than any query's."""

LAST_PLACE = np.iinfo(np.int32).max
"""The place after a user's last appearance in the log."""


class HalfEdges(NamedTuple):
    """Both half-edges of E events, grouped by owner; each owner's in order of tick (24 bytes a half-edge).

    At equal ticks their order follows from the past of the pair and of the other user, never from the order
    of rows or the index of users (see `build.derive_tie`). Half-edges of one pair and tick are side by side.

    Attributes:
        start: [N] int64, position of each user's first half-edge.
        length: [N] int32, number of half-edges of each user.
        other: [2E] int32, the other user of the event.
        tick: [2E] int32, rank of the event's time among the distinct times.
        code: [2E] int32, 2 x position of the event in the log, + 1 if the owner acted.
        num_acts: [2E] int32, acts of the owner so far, this one included.
        last_opposite: [2E] int32, tick of the owner's latest half-edge of the other direction, or -1.
        next_tick: [2E] int32, tick of the pair's next half-edge, or `LAST_TICK`.
    """

    start: np.ndarray
    length: np.ndarray
    other: np.ndarray
    tick: np.ndarray
    code: np.ndarray
    num_acts: np.ndarray
    last_opposite: np.ndarray
    next_tick: np.ndarray


class TimedLists(NamedTuple):
    """Users in lists, one list an owner, in order of time.

    Attributes:
        start: [N] int64, position of each list's first entry.
        length: [N] int32.
        other: [P] int32, the user of each entry.
        tick: [P] int32, ascending in each list.
    """

    start: np.ndarray
    length: np.ndarray
    other: np.ndarray
    tick: np.ndarray


class IndexColumns(NamedTuple):
    """All columns of an index.

    Attributes:
        half_edges: the timelines.
        contacts: for each user the distinct contacts, at the first event either way.
        acted_on: for each user the distinct users acted on, at the first act.
        pair: [E, 4] int32, the pair of each event just after the event's tick, in the event's direction: acts
            forward, acts backward, tick of the last act backward or -1, tick of the first contact. The last
            act forward is the event's own. One row serves both half-edges.
    """

    half_edges: HalfEdges
    contacts: TimedLists
    acted_on: TimedLists
    pair: np.ndarray


@subkernel
def end_before(start: int, length: int, tick: np.ndarray, bound: int) -> int:
    """Return the position after the last entry of a list whose tick is below a bound."""
    low, high = start, start + length
    if length and tick[high - 1] < bound:  # a query at present: all of the list
        return high
    while low < high:
        middle = (low + high) >> 1
        if tick[middle] < bound:
            low = middle + 1
        else:
            high = middle
    return low


@subkernel
def pair_state(
    code: np.ndarray, tick: np.ndarray, pair: np.ndarray, at: int
) -> tuple[np.int32, np.int32, np.int32, np.int32, np.int32]:
    """Return the state of a half-edge's pair just after its tick, as its owner sees it (int32 each).

    Args:
        code: of `HalfEdges`.
        tick: of `HalfEdges`.
        pair: of `IndexColumns`.
        at: position of the half-edge.

    Returns:
        (acts of the owner, acts on the owner, tick of the last act of the owner or -1, tick of the last act
        on the owner or -1, tick of the first contact).
    """
    event = code[at] >> 1
    forward, backward, last_backward, first = pair[event, 0], pair[event, 1], pair[event, 2], pair[event, 3]
    if code[at] & 1:
        return forward, backward, tick[at], last_backward, first
    return backward, forward, last_backward, tick[at], first
