"""Features of the people who share a code prefix, as a group, just before a query."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.features.gaps import gap

NUM_PREFIX_FEATURES = 7

MIN_POPULARITY = 0.01
"""Number of events added to popularity before the logarithm, so that unpopular groups look alike."""


def prefix_features(
    time: Tensor, pace: Tensor, activity: tuple[Tensor, ...], size: Tensor, cosine: Tensor
) -> Tensor:
    """Gaps of events sent and received, counts, size, spectral cosine, recent popularity.

    Args:
        time: [T] int64 seconds, of the queries.
        pace: [T], of `query_pace`.
        activity: of the groups, [T] each, see `GroupActivity.activity`.
        size: [T] int64, users in each group.
        cosine: [T] float32, of the spectral embeddings of the group and the query's user.

    Returns:
        [NUM_PREFIX_FEATURES, T] float32.
    """
    last_act, last_received, num_acts, num_received, popularity = activity
    return torch.stack(
        [
            gap(time, last_act, pace),
            gap(time, last_received, pace),
            num_acts.float().log1p(),
            num_received.float().log1p(),
            size.float().log(),
            cosine,
            (popularity + MIN_POPULARITY).log().float(),
        ]
    )
