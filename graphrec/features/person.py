"""Features of the neighbors of a query, just before it."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import ACTIVITY_WINDOWS, gap, query_pace, rank_forms, recency_rank
from graphrec.temporal import Neighborhood, SpectralQuery, Timeline, UserActivity

NUM_PERSON_FEATURES = 19
UNRANKED = 1024
"""The rank of people who are not in the list that is ranked."""


def person_features(
    timeline: Timeline,
    query: Query,
    around: Neighborhood,
    now: UserActivity,
    spectral: SpectralQuery | None = None,
) -> Tensor:
    """Gaps, counts, age, recent activity, ranks among recently active people, common contacts.

    Args:
        timeline: the index.
        query: B queries.
        around: their neighborhoods, of M people.
        now: activity of the M people just before their queries.
        spectral: spectral embeddings of the users, for the cosine of user and person; 0 without.

    Returns:
        [M, NUM_PERSON_FEATURES] float32.
    """
    row, tick = around.row, timeline.tick(query.time)
    time, pace = query.time[row], query_pace(timeline, query)[row]
    seen = timeline.num_events_before(tick)
    recent = [
        _counts_since(timeline, around.user, now, timeline.tick_of((seen - size).clamp(min=0))[row])
        for size in ACTIVITY_WINDOWS
    ]
    ranks = []
    for last in (torch.maximum(now.last_act, now.last_received), now.last_act, now.last_received):
        rank = torch.full_like(row, UNRANKED)
        rank[around.recent_position] = recency_rank(last[around.recent_position], row[around.recent_position])
        ranks += rank_forms(rank)
    middle = now.degree[around.contact_position][around.path_bridge].float()
    zero = torch.zeros(len(around))
    adamic_adar = zero.index_add(0, around.path_end, 1.0 / middle.clamp(min=2.0).log())
    common = zero.index_add(0, around.path_end, torch.ones_like(middle))
    return torch.stack(
        [
            gap(time, now.last_act, pace),
            gap(time, now.last_received, pace),
            now.num_acts.float().log1p(),
            now.num_received.float().log1p(),
            now.degree.float().log1p(),
            gap(time, timeline.first_event_time(around.user, tick[row]), pace),
            *(number.float().log1p() for numbers in zip(*recent, strict=True) for number in numbers),
            *ranks,
            adamic_adar.log1p(),
            common.log1p(),
            zero if spectral is None else spectral.cosine(row, around.user),
        ],
        dim=1,
    )


def _counts_since(timeline: Timeline, user: Tensor, now: UserActivity, tick: Tensor) -> tuple[Tensor, Tensor]:
    """Events received and sent by users [M] since ticks [M]: [M] int64 each."""
    seen = torch.maximum(now.last_act, now.last_received) >= timeline.instants[tick]
    acts, received = torch.zeros_like(user), torch.zeros_like(user)
    acts_then, received_then = timeline.counts(user[seen], tick[seen])
    acts[seen] = now.num_acts[seen] - acts_then
    received[seen] = now.num_received[seen] - received_then
    return received, acts
