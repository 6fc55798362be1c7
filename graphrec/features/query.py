"""Features of the user of a query, and of the network, just before it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import query_pace, seconds_since, write_columns
from graphrec.jit import inlined, int64, kernel
from graphrec.temporal import Timeline
from graphrec.temporal.columns import HalfEdges, TimedLists, end_before
from graphrec.temporal.removed import look_back, num_left

NUM_QUERY_FEATURES = 10
RATE_EVENTS = 1000
"""Events of the network from which the present rate of first contacts is read, about."""

LOGS = np.array([0, 1, 9, 3, 4, 5])
"""Features that are logarithms, in the order in which `gather_queries` fills the numbers; first the gaps."""

NUM_GAPS = 3
PACE = 8


def query_features(timeline: Timeline, query: Query) -> Tensor:
    """The user's gaps, counts, degree, rates of first contacts and age: [B, NUM_QUERY_FEATURES] float32."""
    user, time = query.user, query.time.contiguous()
    tick, pace = timeline.tick(time), query_pace(timeline, query)
    own = timeline.activity(user, tick)
    out, log = torch.empty(len(query), NUM_QUERY_FEATURES), torch.empty(len(LOGS), len(query))
    gather_queries(
        timeline.columns.half_edges,
        timeline.columns.acted_on,
        timeline.columns.pair,
        timeline.events.src.numpy(),
        timeline.events.dst.numpy(),
        timeline.event_tick.numpy(),
        timeline.removed,
        timeline.instants.numpy(),
        user.contiguous().numpy(),
        time.numpy(),
        tick.numpy(),
        own.num_acts.numpy(),
        own.num_received.numpy(),
        own.degree.numpy(),
        own.last_act.numpy(),
        own.last_received.numpy(),
        log.numpy(),
        out.numpy(),
    )
    row = torch.arange(len(query)).numpy()
    write_columns(log.log1p_().numpy(), NUM_GAPS, row, pace.numpy(), LOGS, out.numpy())
    torch.minimum(out[:, 0], out[:, 1], out=out[:, 2])
    out[:, PACE] = pace
    return out


@kernel
def gather_queries(
    half: HalfEdges,
    acted_on: TimedLists,
    pair: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    event_tick: np.ndarray,
    removed: np.ndarray,
    instants: np.ndarray,
    user: np.ndarray,
    time: np.ndarray,
    tick: np.ndarray,
    num_acts: np.ndarray,
    num_received: np.ndarray,
    degree: np.ndarray,
    last_act: np.ndarray,
    last_received: np.ndarray,
    log: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the rates of first contacts, and the numbers whose logarithms are features.

    Args:
        half: the timelines.
        acted_on: of `IndexColumns`.
        pair: of `IndexColumns`.
        src: [E], of the events.
        dst: [E], of the events.
        event_tick: [E], of the events.
        removed: [R] int64, ascending positions of removed events.
        instants: [T] int64 seconds, the distinct times.
        user: [B], of the queries, like all that follow.
        time: int64 seconds.
        tick: of the queries.
        num_acts: of `UserActivity`, of the queries' users.
        num_received: of `UserActivity`.
        degree: of `UserActivity`.
        last_act: of `UserActivity`.
        last_received: of `UserActivity`.
        log: [6, B] float32, filled with the numbers of `LOGS`.
        out: [B, NUM_QUERY_FEATURES] float32, filled with the rates.
    """
    one, rate = np.float32(1), np.float32(0)
    for b in range(len(time)):
        log[0, b], log[1, b] = seconds_since(time[b], last_act[b]), seconds_since(time[b], last_received[b])
        log[2, b] = np.float32(-1)
        if half.length[user[b]] and half.tick[half.start[user[b]]] < tick[b]:
            log[2, b] = seconds_since(time[b], instants[half.tick[half.start[user[b]]]])
        log[3, b], log[4, b], log[5, b] = num_acts[b], num_received[b], degree[b]
        begin = acted_on.start[user[b]]
        num_acted_on = end_before(begin, acted_on.length[user[b]], acted_on.tick, tick[b]) - begin
        out[b, 6] = np.float32(num_acted_on) / (np.float32(num_acts[b]) + one)
        if b == 0 or tick[b] != tick[b - 1]:
            seen = end_before(int64(0), len(event_tick), event_tick, tick[b])
            since = event_tick[look_back(removed, seen, int64(RATE_EVENTS))] if num_left(removed, seen) else 0
            first = end_before(int64(0), len(event_tick), event_tick, since)
            number = count_first_acts(half, pair, src, dst, event_tick, first, seen)
            num_events = num_left(removed, seen) - num_left(removed, first)
            rate = np.float32(number) / np.float32(max(num_events, 1))
        out[b, 7] = rate


@inlined
def count_first_acts(
    half: HalfEdges,
    pair: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    event_tick: np.ndarray,
    begin: int,
    end: int,
) -> int:
    """Count the pairs whose first act, from one user to the other, is among the events of some ticks.

    Args:
        half: the timelines.
        pair: of `IndexColumns`.
        src: [E], of the events.
        dst: [E], of the events.
        event_tick: [E], of the events.
        begin: the first event, which is the first of its tick.
        end: the position after the last event, which is the last of its tick.
    """
    number, first = 0, begin
    while first < end:
        tick, last = event_tick[first], first + 1
        while last < end and event_tick[last] == tick:
            last += 1
        for event in range(first, last):
            num_acts = pair[event, 0]  # until and at the tick; more than any of a removed event
            if num_acts == 1:
                number += 1
            elif num_acts <= last - first:  # perhaps all at this tick: then the first of them counts
                at = end_before(half.start[src[event]], half.length[src[event]], half.tick, tick)
                while half.other[at] != dst[event]:
                    at += 1
                earliest, tied = event, 0
                stop = half.start[src[event]] + half.length[src[event]]
                while at < stop and half.other[at] == dst[event] and half.tick[at] == tick:
                    if half.code[at] & 1:
                        earliest, tied = min(earliest, half.code[at] >> 1), tied + 1
                    at += 1
                number += tied == num_acts and earliest == event
        first = last
    return number
