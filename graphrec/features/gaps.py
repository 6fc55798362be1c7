"""Gaps, ranks and the pace of a network: the scales that all features share.

Gaps are log1p seconds against the network's own pace (log1p of the mean gap between its last 200 events), so
that one configuration fits networks of different tempo. Something that never happened has the gap `NO_GAP`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.temporal import NEVER, Timeline, run_starts

NO_GAP = 2.0
"""The gap of something that never happened."""

PACE_EVENTS = 200
"""Events of the network from which its pace is read."""

ACTIVITY_WINDOWS = (300, 3000)
"""Events of the network over which recent activity is counted."""


def query_pace(timeline: Timeline, query: Query) -> Tensor:
    """log1p of the mean gap between the network's last events before each query, over 10: [B] float32."""
    seen = torch.searchsorted(timeline.events.time, query.time.contiguous())
    first = timeline.events.time[(seen - PACE_EVENTS).clamp(min=0)]
    return ((query.time - first).clamp(min=0).float() / PACE_EVENTS).log1p() / 10.0


def gap(time: Tensor, last: Tensor, pace: Tensor) -> Tensor:
    """Scaled log seconds between two times, minus the pace; `NO_GAP` where `last` is `NEVER`: float32.

    Args:
        time: int64 seconds, of the queries.
        last: int64 seconds, of an earlier event or `NEVER`; of a shape that broadcasts.
        pace: of `query_pace`.
    """
    out = (time - last).clamp(min=0).float().log1p() / 10.0 - pace
    return torch.where(last > NEVER, out, NO_GAP)


def rank_forms(rank: Tensor) -> list[Tensor]:
    """A rank from 0 on as two features: log1p(rank) and 1 / (1 + rank), float32 each."""
    return [rank.float().log1p(), 1.0 / (1.0 + rank.float())]


def recency_rank(time: Tensor, row: Tensor) -> Tensor:
    """How many entries of the same row [M] have a later time [M] than each entry: [M] int64."""
    order = time.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    rank = run_starts(row[order], time[order]) - run_starts(row[order])
    return torch.empty_like(row).index_copy_(0, order, rank)
