"""Gaps, ranks and the pace of a network: the scales that all features share.

Gaps are log1p seconds against the network's own pace (log1p of the mean gap between its last 200 events), so
that one configuration fits networks of different tempo. Something that never happened has the gap `NO_GAP`.

Kernels gather raw numbers of a whole batch, a row for each feature; torch takes log1p of all of them at once,
and `write_columns` scales the gaps and lays the features out by entry.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.jit import inlined, int64, kernel
from graphrec.temporal import NEVER, Timeline
from graphrec.temporal.columns import end_before
from graphrec.temporal.removed import look_back, num_left

NO_GAP = 2.0
"""The gap of something that never happened."""

PACE_EVENTS = 200
"""Events of the network from which its pace is read."""

ACTIVITY_WINDOWS = (300, 3000)
"""Events of the network over which recent activity is counted."""

LOG_SCALE = np.float32(10.0)
"""Log seconds are divided by it."""


def query_pace(timeline: Timeline, query: Query) -> Tensor:
    """log1p of the mean gap between the network's last events before each query, over 10: [B] float32."""
    out = torch.empty(len(query))
    fill_pace(timeline.events.time.numpy(), timeline.removed, query.time.contiguous().numpy(), out.numpy())
    return out.log1p_().div_(float(LOG_SCALE))


def gap(time: Tensor, last: Tensor, pace: Tensor) -> Tensor:
    """Scaled log seconds between two times, minus the pace; `NO_GAP` where `last` is `NEVER`: float32.

    Args:
        time: int64 seconds, of the queries.
        last: int64 seconds, of an earlier event or `NEVER`; of a shape that broadcasts.
        pace: of `query_pace`.
    """
    out = (time - last).clamp(min=0).float().log1p() / float(LOG_SCALE) - pace
    return torch.where(last > NEVER, out, NO_GAP)


@kernel
def fill_pace(event_time: np.ndarray, removed: np.ndarray, time: np.ndarray, out: np.ndarray) -> None:
    """Fill the mean gap in seconds between the last `PACE_EVENTS` of events [E] before each time: [B]."""
    for b in range(len(time)):
        seen = end_before(int64(0), len(event_time), event_time, time[b])
        first = time[b]
        if num_left(removed, seen):
            first = event_time[look_back(removed, seen, int64(PACE_EVENTS))]
        out[b] = np.float32(max(time[b] - first, 0)) / np.float32(PACE_EVENTS)


@inlined
def seconds_since(time: int, last: int) -> np.float32:
    """Return the seconds from a time to another that is not earlier; -1, whose log1p is below 0, if never."""
    return np.float32(max(time - last, 0)) if last > NEVER else np.float32(-1)


@inlined
def scaled_gap(log_seconds: np.float32, pace: np.float32) -> np.float32:
    """Return the gap of log1p of `seconds_since`."""
    return log_seconds / LOG_SCALE - pace if log_seconds >= 0 else np.float32(NO_GAP)


@kernel
def write_columns(
    log: np.ndarray,
    num_gaps: int,
    row: np.ndarray,
    pace: np.ndarray,
    column: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write log1p of raw numbers as features, gaps scaled.

    Args:
        log: [L, M] float32; the first rows are gaps.
        num_gaps: number of these.
        row: [M] int64, the query of each entry.
        pace: [B] float32, of `query_pace`.
        column: [L] int64, the feature of each row of `log`.
        out: [M, F] float32, filled in these columns.
    """
    for m in range(len(row)):
        own_pace = pace[row[m]]
        for i in range(num_gaps):
            out[m, column[i]] = scaled_gap(log[i, m], own_pace)
        for i in range(num_gaps, len(column)):
            out[m, column[i]] = log[i, m]
