"""Features of every user's recent activity just before a query, cheap to compute for all users at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import query_pace, scaled_gap, seconds_since, write_columns
from graphrec.jit import kernel
from graphrec.temporal import SpectralQuery, Timeline, UserActivity, dense
from graphrec.temporal.columns import HalfEdges, TimedLists, end_before

NUM_PRESENCE_FEATURES = 5

LOGS, COSINE = np.arange(4), 4
"""Features that are logarithms, first two gaps; and the cosine."""

SCORES_PER_BLOCK = 2**16
"""Pairs of query and person worked on at once, few enough for a processor's cache."""


def presence_features(
    timeline: Timeline, query: Query, user: Tensor | None = None, spectral: SpectralQuery | None = None
) -> Iterator[Tensor]:
    """Gaps of events sent and received, events received, degree, spectral cosine with the query's user.

    Args:
        timeline: the index.
        query: B queries, in order of time if `user` is None.
        user: [C] int64; by default all N users, by sweeps instead of look-ups.
        spectral: spectral embeddings of the queries' users; None makes the cosine 0.

    Yields:
        [NUM_PRESENCE_FEATURES, b, C] float32 for a few consecutive queries at a time.
    """
    time, pace = query.time.contiguous(), query_pace(timeline, query)
    tick = timeline.tick(time)
    if user is None:
        last = [dense.last_time(timeline, tick, role=role) for role in ("src", "dst")]
        counts = [dense.num_received(timeline, tick), dense.degree(timeline, tick)]
    width = timeline.num_users if user is None else len(user)
    near = None if spectral is None else spectral.cosines(user)
    rows = max(1, SCORES_PER_BLOCK // max(1, width))
    alike = user is not None and len(query) > 1 and bool((time == time[0]).all())  # as in a service
    for start in range(0, max(1, len(query)), rows):
        block = slice(start, start + rows)
        out = torch.empty(NUM_PRESENCE_FEATURES, len(time[block]), width)
        known = slice(start, start + 1) if alike else block
        activity = torch.empty(4, 1, width) if alike else out[:4]
        if user is None:
            for number in range(2):
                fill_seconds(time[block].numpy(), last[number][block].numpy(), out[number].numpy())
                out[2 + number] = counts[number][block]
        else:
            gather_presence(
                timeline.columns.half_edges,
                timeline.columns.contacts,
                timeline.instants.numpy(),
                time[known].numpy(),
                tick[known].numpy(),
                user.contiguous().numpy(),
                activity.numpy(),
            )
        scale_gaps(pace[known].numpy(), activity.log1p_()[:2].numpy())
        if alike:
            out[:4] = activity
        out[4] = 0.0 if near is None else near[block]
        yield out


def presence_features_of_pairs(
    timeline: Timeline,
    query: Query,
    row: Tensor,
    user: Tensor,
    spectral: SpectralQuery | None,
    now: UserActivity | None = None,
) -> Tensor:
    """The features of `presence_features` for M (query, user) pairs.

    Args:
        timeline: the index.
        query: B queries.
        row: [M] int64, the query of each pair.
        user: [M] int64.
        spectral: as in `presence_features`.
        now: activity of the M users just before their queries; looked up by default.

    Returns:
        [NUM_PRESENCE_FEATURES, M] float32.
    """
    if now is None:
        now = timeline.activity(user, timeline.tick(query.time)[row])
    log, out = torch.empty(4, len(user)), torch.empty(len(user), NUM_PRESENCE_FEATURES)
    where = row.contiguous().numpy()
    fill_presence(
        query.time.contiguous().numpy(),
        where,
        now.last_act.contiguous().numpy(),
        now.last_received.contiguous().numpy(),
        now.num_received.contiguous().numpy(),
        now.degree.contiguous().numpy(),
        log.numpy(),
    )
    write_columns(log.log1p_().numpy(), 2, where, query_pace(timeline, query).numpy(), LOGS, out.numpy())
    out[:, COSINE] = 0.0 if spectral is None else spectral.cosine(row, user)
    return out.T.contiguous()


@kernel
def fill_presence(
    time: np.ndarray,
    row: np.ndarray,
    last_act: np.ndarray,
    last_received: np.ndarray,
    num_received: np.ndarray,
    degree: np.ndarray,
    log: np.ndarray,
) -> None:
    """Fill the numbers of M (query, user) pairs whose logarithms are features.

    Args:
        time: [B] int64 seconds, of the queries.
        row: [M], the query of each pair.
        last_act: of `UserActivity`, [M] like the next three.
        last_received: of `UserActivity`.
        num_received: of `UserActivity`.
        degree: of `UserActivity`.
        log: [4, M] float32, filled with seconds since both, and both counts.
    """
    for m in range(len(row)):
        moment = time[row[m]]
        log[0, m], log[1, m] = seconds_since(moment, last_act[m]), seconds_since(moment, last_received[m])
        log[2, m], log[3, m] = num_received[m], degree[m]


@kernel
def fill_seconds(time: np.ndarray, last: np.ndarray, out: np.ndarray) -> None:
    """Fill the seconds from times [B] to earlier ones [B, N], or -1 where these are `NEVER`: out [B, N]."""
    for b in range(len(time)):
        for n in range(last.shape[1]):
            out[b, n] = seconds_since(time[b], last[b, n])


@kernel
def scale_gaps(pace: np.ndarray, out: np.ndarray) -> None:
    """Turn log1p of seconds, [2, B, C] float32, into gaps against the paces of the queries [B]."""
    for side in range(2):
        for b in range(len(pace)):
            for c in range(out.shape[2]):
                out[side, b, c] = scaled_gap(out[side, b, c], pace[b])


@kernel
def gather_presence(
    half: HalfEdges,
    contacts: TimedLists,
    instants: np.ndarray,
    time: np.ndarray,
    tick: np.ndarray,
    user: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill seconds since the last acts by and on users, and counts of acts on them and of contacts.

    Args:
        half: the timelines.
        contacts: of `IndexColumns`.
        instants: [T] int64 seconds, the distinct times.
        time: [B] int64 seconds, of the queries.
        tick: [B], of the queries.
        user: [C].
        out: [4, B, C] float32, filled.
    """
    start, length, half_tick, code = half.start, half.length, half.tick, half.code
    num_acts, last_opposite = half.num_acts, half.last_opposite
    met_start, met_length, met_tick = contacts.start, contacts.length, contacts.tick
    for c in range(len(user)):  # whose timeline stays in the cache for all queries
        begin, met = start[user[c]], met_start[user[c]]
        end = num_met = 0
        for b in range(len(time)):
            if b == 0 or tick[b] != tick[b - 1]:
                end = end_before(begin, length[user[c]], half_tick, tick[b])
                num_met = end_before(met, met_length[user[c]], met_tick, tick[b]) - met
            out[0, b, c] = out[1, b, c] = np.float32(-1)
            out[2, b, c], out[3, b, c] = np.float32(0), num_met
            if end > begin:
                side = 1 - (code[end - 1] & 1)
                out[side, b, c] = seconds_since(time[b], instants[half_tick[end - 1]])
                if last_opposite[end - 1] >= 0:
                    out[1 - side, b, c] = seconds_since(time[b], instants[last_opposite[end - 1]])
                out[2, b, c] = end - begin - num_acts[end - 1]
