"""The events that are the first act of a user on another."""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel
from graphrec.temporal.columns import HalfEdges, end_before


@kernel
def fill_first_targets(
    half: HalfEdges,
    pair: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    event_tick: np.ndarray,
    since: int,
    target: np.ndarray,
) -> None:
    """Fill the target of each event that is the first act of its actor on it, and -1 for other events.

    Of several such acts at one time the earliest row counts.

    Args:
        half: the timelines.
        pair: of `IndexColumns`.
        src: [E] int64, of the events, below 0 where removed.
        dst: [E] int64, of the events.
        event_tick: [E] int32, of the events.
        since: position of the first event to fill.
        target: [E - since] int64, filled.
    """
    start, length, other, tick, code = half.start, half.length, half.other, half.tick, half.code
    for event in range(since, len(src)):
        user, person, now = src[event], dst[event], event_tick[event]
        target[event - since] = -1
        if user < 0:
            continue
        acts, same, earliest = pair[event, 0], 1, event
        if acts > 1:
            same, begin = 0, start[user]
            at = end_before(begin, length[user], tick, now + 1) - 1
            while at >= begin and tick[at] == now:
                if other[at] == person and code[at] & 1:
                    same += 1
                    earliest = min(earliest, code[at] >> 1)
                at -= 1
        if same == acts and earliest == event:
            target[event - since] = person
