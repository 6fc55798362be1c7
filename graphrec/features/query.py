"""Features of the user of a query, and of the network, just before it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import query_pace, seconds_since, write_columns
from graphrec.jit import kernel
from graphrec.temporal import Timeline
from graphrec.temporal.columns import end_before

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
        timeline.event_tick.numpy(),
        timeline.acted_on.chronological[0].numpy(),
        time.numpy(),
        tick.numpy(),
        own.num_acts.numpy(),
        own.num_received.numpy(),
        own.degree.numpy(),
        own.last_act.numpy(),
        own.last_received.numpy(),
        timeline.first_event_time(user, tick).numpy(),
        timeline.acted_on.count(user, tick).numpy(),
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
    event_tick: np.ndarray,
    first_act_tick: np.ndarray,
    time: np.ndarray,
    tick: np.ndarray,
    num_acts: np.ndarray,
    num_received: np.ndarray,
    degree: np.ndarray,
    last_act: np.ndarray,
    last_received: np.ndarray,
    first_event: np.ndarray,
    num_acted_on: np.ndarray,
    log: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the rates of first contacts, and the numbers whose logarithms are features.

    Args:
        event_tick: [E], of the events.
        first_act_tick: [P] int64, ascending, of the first acts from user to user.
        time: [B] int64 seconds, of the queries, [B] like all that follow.
        tick: of the queries.
        num_acts: of `UserActivity`, of the queries' users.
        num_received: of `UserActivity`.
        degree: of `UserActivity`.
        last_act: of `UserActivity`.
        last_received: of `UserActivity`.
        first_event: int64 seconds, of the users' first events, or `NEVER`.
        num_acted_on: distinct users acted on.
        log: [6, B] float32, filled with the numbers of `LOGS`.
        out: [B, NUM_QUERY_FEATURES] float32, filled with the rates.
    """
    one = np.float32(1)
    for b in range(len(time)):
        log[0, b], log[1, b] = seconds_since(time[b], last_act[b]), seconds_since(time[b], last_received[b])
        log[2, b] = seconds_since(time[b], first_event[b])
        log[3, b], log[4, b], log[5, b] = num_acts[b], num_received[b], degree[b]
        out[b, 6] = np.float32(num_acted_on[b]) / (np.float32(num_acts[b]) + one)
        seen = end_before(0, len(event_tick), event_tick, tick[b])
        since = event_tick[max(seen - RATE_EVENTS, 0)] if seen else 0
        number = np.searchsorted(first_act_tick, tick[b]) - np.searchsorted(first_act_tick, since)
        events = seen - end_before(0, len(event_tick), event_tick, since)
        out[b, 7] = np.float32(number) / np.float32(max(events, 1))
