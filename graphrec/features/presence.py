"""Features of every user's recent activity just before a query, cheap to compute for all users at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import gap, query_pace
from graphrec.temporal import SpectralQuery, Timeline, UserActivity, dense

NUM_PRESENCE_FEATURES = 5

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
    tick, time, pace = timeline.tick(query.time), query.time[:, None], query_pace(timeline, query)[:, None]
    if user is None:
        acted, heard = (dense.last_time(timeline, tick, role=role) for role in ("src", "dst"))
        received, degree = dense.num_received(timeline, tick), dense.degree(timeline, tick)
    else:
        moment, at = tick.unique(return_inverse=True)  # in service, all queries have one time
        now: UserActivity = timeline.activity(user, moment[:, None])
        parts = now.last_act, now.last_received, now.num_received, now.degree
        acted, heard, received, degree = (part[at] for part in parts)
    people = slice(None) if user is None else user
    near = torch.zeros(acted.shape) if spectral is None else spectral.cosines(people)
    rows = max(1, SCORES_PER_BLOCK // acted.size(1))
    for start in range(0, max(1, len(query)), rows):
        block = slice(start, start + rows)
        yield torch.stack(
            [
                gap(time[block], acted[block], pace[block]),
                gap(time[block], heard[block], pace[block]),
                received[block].float().log1p(),
                degree[block].float().log1p(),
                near[block],
            ]
        )
