"""Features of the two-hop paths of a query, just before it."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import gap, query_pace
from graphrec.temporal import Neighborhood, Timeline, UserActivity

NUM_PATH_FEATURES = 14


def path_features(timeline: Timeline, query: Query, around: Neighborhood, now: UserActivity) -> Tensor:
    """Gaps, counts and recency ranks of both hops, degrees of bridge and end, gaps of the end.

    Args:
        timeline: the index.
        query: B queries.
        around: their neighborhoods, of M people on P paths.
        now: activity of the M people just before their queries.

    Returns:
        [P, NUM_PATH_FEATURES] float32.
    """
    first, second = around.contacts.select(around.path_bridge), around.path_pair
    row = first.row
    time, pace = query.time[row], query_pace(timeline, query)[row]
    degree = now.degree.float().log1p()
    return torch.stack(
        [
            *(
                part
                for hop in (first, second)
                for part in (
                    gap(time, hop.last_out, pace),
                    gap(time, hop.last_in, pace),
                    hop.num_out.float().log1p(),
                    hop.num_in.float().log1p(),
                    hop.rank.float().log1p(),
                )
            ),
            degree[around.contact_position][around.path_bridge],
            degree[around.path_end],
            gap(time, now.last_received[around.path_end], pace),
            gap(time, now.last_act[around.path_end], pace),
        ],
        dim=1,
    )
