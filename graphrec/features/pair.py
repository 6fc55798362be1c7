"""Features of the history of a pair, just before a query."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import LOG_SCALE, query_pace, seconds_since, write_columns
from graphrec.jit import kernel
from graphrec.temporal import Contacts, Timeline
from graphrec.temporal.columns import HalfEdges
from graphrec.temporal.sorting import rank_latest

NUM_PAIR_FEATURES = 15
AGE, EVENT_RATE = 12, 13

LOGS = np.array([0, 1, AGE, 14, 2, 3, 4, 8, 10, EVENT_RATE])
"""Features that are logarithms, in the order in which `gather_pairs` fills the numbers; first the gaps."""

NUM_GAPS = 4


def pair_features(timeline: Timeline, query: Query, contacts: Contacts, pace: Tensor | None = None) -> Tensor:
    """Gaps, counts, ranks, direction, pending replies, ages and rate of events of user and contact.

    Args:
        timeline: the index.
        query: B queries.
        contacts: M contacts of their users, those of a row together.
        pace: [B], of `query_pace`; computed by default.

    Returns:
        [M, NUM_PAIR_FEATURES] float32.
    """
    out, log = torch.empty(len(contacts), NUM_PAIR_FEATURES), torch.empty(len(LOGS), len(contacts))
    time = query.time.contiguous()
    gather_pairs(
        timeline.columns.half_edges,
        timeline.columns.pair,
        timeline.instants.numpy(),
        time.numpy(),
        timeline.tick(time).numpy(),
        contacts.row.contiguous().numpy(),
        contacts.user.contiguous().numpy(),
        contacts.last_out.contiguous().numpy(),
        contacts.last_in.contiguous().numpy(),
        contacts.num_out.contiguous().numpy(),
        contacts.num_in.contiguous().numpy(),
        contacts.rank.contiguous().numpy(),
        contacts.half_edge.contiguous().numpy(),
        log.numpy(),
        out.numpy(),
    )
    pace = query_pace(timeline, query) if pace is None else pace
    row = contacts.row.numpy()
    write_columns(log.log1p_().numpy(), NUM_GAPS, row, pace.numpy(), LOGS, out.numpy())
    out[:, EVENT_RATE].div_(float(LOG_SCALE)).sub_(out[:, AGE])
    return out


@kernel
def gather_pairs(
    half: HalfEdges,
    pair: np.ndarray,
    instants: np.ndarray,
    time: np.ndarray,
    tick: np.ndarray,
    row: np.ndarray,
    user: np.ndarray,
    last_out: np.ndarray,
    last_in: np.ndarray,
    num_out: np.ndarray,
    num_in: np.ndarray,
    rank: np.ndarray,
    half_edge: np.ndarray,
    log: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the features of contacts that are no logarithms, and the numbers of the others.

    Args:
        half: the timelines.
        pair: of `IndexColumns`.
        instants: [T] int64 seconds, the distinct times.
        time: [B] int64 seconds, of the queries.
        tick: [B], of the queries.
        row: of `Contacts`, [M] like the next seven.
        user: the contacts.
        last_out: of `Contacts`.
        last_in: of `Contacts`.
        num_out: of `Contacts`.
        num_in: of `Contacts`.
        rank: of `Contacts`.
        half_edge: of `Contacts`.
        log: [10, M] float32, filled with the numbers of `LOGS`.
        out: [M, NUM_PAIR_FEATURES] float32, filled in the other columns.
    """
    start, length, half_tick, code = half.start, half.length, half.tick, half.code
    one, recency = np.float32(1), np.empty(len(row), np.int64)
    first, num_pending = 0, 0
    for m in range(len(row)):
        if m == 0 or row[m] != row[m - 1]:
            first, num_pending = m, 0
        if m + 1 == len(row) or row[m + 1] != row[m]:
            rank_latest(last_out[first : m + 1], recency[first : m + 1])
        moment, begin = time[row[m]], start[user[m]]
        log[0, m], log[1, m] = seconds_since(moment, last_out[m]), seconds_since(moment, last_in[m])
        log[2, m] = seconds_since(moment, instants[pair[code[half_edge[m]] >> 1, 3]])
        log[3, m] = np.float32(-1)
        if length[user[m]] and half_tick[begin] < tick[row[m]]:
            log[3, m] = seconds_since(moment, instants[half_tick[begin]])
        log[4, m], log[5, m], log[6, m], log[7, m] = num_out[m], num_in[m], rank[m], num_pending
        log[9, m] = num_out[m] + num_in[m]
        pending = last_in[m] > last_out[m]  # the contact acted last
        out[m, 5] = one / (one + np.float32(rank[m]))
        out[m, 6], out[m, 7] = last_out[m] >= last_in[m], num_out[m] > 0
        out[m, 9] = np.float32(pending) / (one + np.float32(num_pending))
        num_pending += pending
    for m in range(len(row)):
        log[8, m] = recency[m]
        out[m, 11] = one / (one + np.float32(recency[m]))
