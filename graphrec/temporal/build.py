"""Build the index of a log: a counting sort by owner, then one pass over each timeline.

Work and memory grow with the number of events. Nothing is sorted by comparison but half-edges of one owner
and tick.
"""

from __future__ import annotations

import numpy as np

from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.columns import (
    LAST_TICK,
    HalfEdges,
    IndexColumns,
    TimedLists,
    end_before,
)
from graphrec.temporal.sorting import reorder, stable_order

AHEAD = 256
"""Half-edges whose users are read ahead."""

NOTHING = np.int32(0)
OPENS_CONTACT = np.int32(1)
OPENS_DIRECTION = np.int32(2)


def build_index(
    src: np.ndarray,
    dst: np.ndarray,
    action: np.ndarray,
    tick: np.ndarray,
    *,
    num_users: int,
    num_actions: int,
) -> IndexColumns:
    """Index E events.

    Args:
        src: [E] int64, the acting users, in order of time.
        dst: [E] int64, the users acted on.
        action: [E] int64.
        tick: [E] int32, rank of each event's time among the distinct times.
        num_users: N.
        num_actions: number of actions.
    """
    num_events = len(src)
    length = np.bincount(src, minlength=num_users) + np.bincount(dst, minlength=num_users)
    half = empty_timelines(length)
    fill_timelines(src, dst, tick, half)
    return complete_columns(
        half,
        action,
        np.empty((2, 0), np.int32),
        num_acts=num_events,
        num_users=num_users,
        num_actions=num_actions,
    )


def empty_timelines(length: np.ndarray) -> HalfEdges:
    """Return timelines of given lengths [n] int64, to be filled."""
    size = int(length.sum())
    return HalfEdges(_starts(length), length.astype(np.int32), *_int32_columns(size, 6))


def complete_columns(
    half: HalfEdges,
    action: np.ndarray,
    past: np.ndarray,
    *,
    num_acts: int,
    num_users: int,
    num_actions: int,
) -> IndexColumns:
    """Derive all other columns of timelines whose half-edges are in order of events.

    The owners are all users, or the users of one piece of the index. Then `code` counts half-edges, not
    events, and so do the rows of `action` and `pair`.

    Args:
        half: of n owners; `other`, `tick` and `code` are filled.
        action: [E] int64.
        past: of a piece: see `derive_columns`; else [2, 0].
        num_acts: number of half-edges whose owners acted.
        num_users: N.
        num_actions: number of actions.
    """
    owners, size = len(half.start), len(half.other)
    contacts, acted_on = (
        TimedLists(np.zeros(owners, np.int64), np.zeros(owners, np.int32), *_int32_columns(most, 2))
        for most in (size, num_acts)
    )
    pair = np.empty((len(action), 4), np.int32)
    derive_columns(half, pair, contacts, acted_on, action, num_actions, past, num_users)
    return IndexColumns(half, _trim(contacts), _trim(acted_on), pair)


def _starts(length: np.ndarray) -> np.ndarray:
    """Positions of consecutive lists of given lengths: [N] int64."""
    starts: np.ndarray = np.cumsum(length, dtype=np.int64) - length
    return starts


def _int32_columns(size: int, number: int) -> tuple[np.ndarray, ...]:
    return tuple(np.empty(size, np.int32) for _ in range(number))


def _trim(lists: TimedLists) -> TimedLists:
    """What is used of columns that were allocated for the most there could be; the rest was never touched."""
    size = int(lists.length.sum())
    return TimedLists(lists.start, lists.length, lists.other[:size], lists.tick[:size])


@kernel
def fill_timelines(src: np.ndarray, dst: np.ndarray, tick: np.ndarray, half: HalfEdges) -> None:
    """Place both half-edges of each event on the timelines, in order of events."""
    place = half.start.copy()
    others, ticks, codes = half.other, half.tick, half.code
    for event in range(len(src)):
        for outgoing in range(2):
            owner, other = (src[event], dst[event]) if outgoing else (dst[event], src[event])
            at = place[owner]
            place[owner] = at + 1
            others[at], ticks[at], codes[at] = other, tick[event], 2 * event + outgoing


@kernel
def derive_columns(
    half: HalfEdges,
    pair: np.ndarray,
    contacts: TimedLists,
    acted_on: TimedLists,
    action: np.ndarray,
    num_actions: int,
    past: np.ndarray,
    num_users: int,
) -> int:
    """Order tied half-edges, and fill all other columns, of timelines that are in order of events.

    `past` is [2, 0] int32 if the owners are all N users. Else it is [2, E]: of the other user of each
    half-edge, by its code without the lowest bit, the number of half-edges before the tick, and the tick of
    the last of them, or -1.

    Returns a sum of what was read ahead, so that no compiler leaves it out.
    """
    starts, lengths, others, ticks, codes, num_acts, last_opposite, next_tick = half
    contact_start, contact_length, contact_other, contact_tick = contacts
    acted_on_start, acted_on_length, acted_on_other, acted_on_tick = acted_on
    num_owners = len(starts)
    # For each user, the pair with the owner so far; see `update_pair`.
    state = np.full((num_users, 6), -1, np.int32)
    longest = int64(1)
    for owner in range(num_owners):
        longest = max(longest, lengths[owner])
    opened = np.empty(longest, np.int32)
    num_contacts = num_acted_on = 0
    ahead, touched = int64(0), int64(0)
    for owner in range(num_owners):
        begin, end = starts[owner], starts[owner] + lengths[owner]
        if begin >= ahead:  # independent reads overlap, and the state of all users is larger than any cache
            ahead = min(begin + AHEAD, len(others))
            for at in range(begin, ahead):
                touched += state[others[at], 0]
        contact_start[owner], acted_on_start[owner] = num_contacts, num_acted_on
        acts, last_act, last_received = 0, -1, -1
        first = begin
        while first < end:
            tick, last = ticks[first], first + 1
            while last < end and ticks[last] == tick:
                last += 1
            if last == first + 1:
                opened[0] = update_pair(state, next_tick, others[first], begin, first, tick, codes[first] & 1)
                if codes[first] & 1:
                    keep_pair(state, pair, others[first], codes[first] >> 1)
            else:
                derive_tie(
                    starts,
                    lengths,
                    others,
                    ticks,
                    codes,
                    next_tick,
                    pair,
                    state,
                    action,
                    num_actions,
                    past,
                    begin,
                    first,
                    last,
                    opened,
                )
            for at in range(first, last):
                if codes[at] & 1:
                    acts, last_act = acts + 1, tick
                    last_opposite[at] = last_received
                else:
                    last_received = tick
                    last_opposite[at] = last_act
                num_acts[at] = acts
                if opened[at - first] & OPENS_CONTACT:
                    contact_other[num_contacts], contact_tick[num_contacts] = others[at], tick
                    num_contacts += 1
                if opened[at - first] & OPENS_DIRECTION:
                    acted_on_other[num_acted_on], acted_on_tick[num_acted_on] = others[at], tick
                    num_acted_on += 1
            first = last
        contact_length[owner] = num_contacts - contact_start[owner]
        acted_on_length[owner] = num_acted_on - acted_on_start[owner]
    return int(touched)


@inlined
def update_pair(
    state: np.ndarray, next_tick: np.ndarray, other: int, begin: int, at: int, tick: int, outgoing: int
) -> np.int32:
    """Bring the state of the owner's pair with another user up to a half-edge.

    Args:
        state: [N, 6] int32: acts of the owner, acts on the owner, ticks of the last of these or -1, tick of
            the first contact, position of the latest half-edge; stale where the last is below `begin`.
        next_tick: of `HalfEdges`; the one of the pair's half-edge before is set.
        other: the user.
        begin: the owner's first half-edge.
        at: the half-edge.
        tick: of the half-edge.
        outgoing: whether the owner acted.

    Returns:
        What it opens: `OPENS_CONTACT`, `OPENS_DIRECTION`, their sum or `NOTHING`.
    """
    opens = NOTHING
    if state[other, 5] < begin:
        state[other, 0] = state[other, 1] = 0
        state[other, 2] = state[other, 3] = -1
        state[other, 4] = tick
        opens = OPENS_CONTACT
    else:
        next_tick[state[other, 5]] = tick
    side = 1 - outgoing
    if outgoing and state[other, 0] == 0:
        opens |= OPENS_DIRECTION
    state[other, side] += 1
    state[other, 2 + side] = tick
    state[other, 5] = at
    next_tick[at] = LAST_TICK
    return opens


@inlined
def keep_pair(state: np.ndarray, pair: np.ndarray, other: int, event: int) -> None:
    """Write the state of the owner's pair with another user beside an event in which the owner acted."""
    pair[event, 0], pair[event, 1] = state[other, 0], state[other, 1]
    pair[event, 2], pair[event, 3] = state[other, 3], state[other, 4]


@subkernel
def derive_tie(
    starts: np.ndarray,
    lengths: np.ndarray,
    others: np.ndarray,
    ticks: np.ndarray,
    codes: np.ndarray,
    next_tick: np.ndarray,
    pair: np.ndarray,
    state: np.ndarray,
    action: np.ndarray,
    num_actions: int,
    past: np.ndarray,
    begin: int,
    first: int,
    last: int,
    opened: np.ndarray,
) -> None:
    """Order the half-edges `first` to before `last`, of one owner and tick; fill their pairs and next ticks.

    Half-edges of one pair come together, in order of their kinds (acts on the owner first, then by action).
    Pairs follow one another by a hash of what is known of them at the tick: the pair's acts until and at it,
    number and time of the other user's earlier half-edges. Where all this is the same, the index decides.

    Args:
        starts: of `HalfEdges`, as the next five.
        lengths: of each timeline.
        others: of each half-edge, as the next three.
        ticks: ascending for each owner.
        codes: reordered.
        next_tick: filled.
        pair: of `IndexColumns`.
        state: of `update_pair`.
        action: [E] int64.
        num_actions: number of actions.
        past: of `derive_columns`.
        begin: the owner's first half-edge.
        first: the first half-edge of the tick.
        last: the position after the last.
        opened: [last - first] int32, filled with what each half-edge opens.
    """
    tick = ticks[first]
    kind = group_pairs(others, codes, action, num_actions, first, last)
    content, at = np.empty(last - first, np.int64), first
    while at < last:
        other, end = others[at], at
        while end < last and others[end] == other:
            opened[end - first] = update_pair(state, next_tick, other, begin, end, tick, codes[end] & 1)
            end += 1
        for i in range(at, end):
            if codes[i] & 1:
                keep_pair(state, pair, other, codes[i] >> 1)
        kinds = pair_kinds(kind, at - first, end - first)
        num_out, num_in = state[other, 0], state[other, 1]
        if past.shape[1]:
            row = codes[at] >> 1
            known = past_hash(kinds, num_out, num_in, np.int64(past[0, row]), np.int64(past[1, row]))
        else:
            known = content_hash(starts, lengths, ticks, kinds, num_out, num_in, other, tick)
        for i in range(at, end):
            content[i - first] = known
        at = end
    order = stable_order(content)
    for column, start in ((others, first), (codes, first), (next_tick, first), (opened, 0)):
        reorder(column, start, order)
    for at in range(first, last):  # a pair's half-edges have stayed in order
        state[others[at], 5] = at


@subkernel
def group_pairs(
    others: np.ndarray, codes: np.ndarray, action: np.ndarray, num_actions: int, first: int, last: int
) -> np.ndarray:
    """Sort half-edges of one owner and tick by (other, kind, event); return their kinds [last - first]."""
    size = last - first
    kind, key = np.empty(size, np.int64), np.empty(size, np.int64)
    for i in range(size):
        code = codes[first + i]
        kind[i] = (code & 1) * num_actions + action[code >> 1]
        key[i] = others[first + i] * np.int64(2 * num_actions) + kind[i]
    order = stable_order(key)
    reorder(others, first, order)
    reorder(codes, first, order)
    for i in range(size):  # the keys have done their work
        key[i] = kind[order[i]]
    return key


@subkernel
def pair_kinds(kind: np.ndarray, first: int, last: int) -> np.int64:
    """Hash the kinds of a pair's half-edges of one tick."""
    out = np.int64(0)
    for i in range(first, last):
        out += multiply_hash(np.int64(2 * kind[i] + 1))
    return out


@subkernel
def content_hash(
    starts: np.ndarray,
    lengths: np.ndarray,
    ticks: np.ndarray,
    kinds: np.int64,
    num_out: np.int32,
    num_in: np.int32,
    other: int,
    tick: int,
) -> np.int64:
    """Hash what is known of a pair and of the other user at a tick: the order of the owner's tied pairs."""
    start = starts[other]
    known = end_before(start, lengths[other], ticks, tick)
    recent = ticks[known - 1] if known > start else -1
    return past_hash(kinds, num_out, num_in, np.int64(known - start), np.int64(recent))


@subkernel
def past_hash(
    kinds: np.int64, num_out: np.int32, num_in: np.int32, num_before: np.int64, recent: np.int64
) -> np.int64:
    """Hash what is known of a pair, and number and last tick of the other user's earlier half-edges."""
    mixed = multiply_hash(kinds)
    for part in (np.int64(num_out), np.int64(num_in), num_before, recent):
        mixed = multiply_hash(mixed ^ part)
    return mixed


@inlined
def multiply_hash(x: np.int64) -> np.int64:
    """Hash int64: an odd multiplier spreads every bit upward, the shift brings the high ones down.

    The order of tied half-edges, and so every saved score, depends on these values: `draws.mix`, which is
    stronger and slower, would give another.
    """
    x = x * np.int64(0x9E3779B97F4A7C1)
    return x ^ (x >> np.int64(29))
