"""Features of the user of a query, and of the network, just before it."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import gap, query_pace
from graphrec.temporal import Timeline

NUM_QUERY_FEATURES = 10
RATE_EVENTS = 1000
"""Events of the network from which the present rate of first contacts is read, about."""


def query_features(timeline: Timeline, query: Query) -> Tensor:
    """The user's gaps, counts, degree, rates of first contacts and age: [B, NUM_QUERY_FEATURES] float32."""
    user, time, tick = query.user, query.time, timeline.tick(query.time)
    pace = query_pace(timeline, query)
    own = timeline.activity(user, tick)
    act_gap, received_gap = gap(time, own.last_act, pace), gap(time, own.last_received, pace)
    return torch.stack(
        [
            act_gap,
            received_gap,
            torch.minimum(act_gap, received_gap),
            own.num_acts.float().log1p(),
            own.num_received.float().log1p(),
            own.degree.float().log1p(),
            timeline.acted_on.count(user, tick).float() / (own.num_acts.float() + 1.0),
            _first_contact_rate(timeline, tick),
            pace,
            gap(time, timeline.first_event_time(user, tick), pace),
        ],
        dim=1,
    )


def _first_contact_rate(timeline: Timeline, tick: Tensor) -> Tensor:
    """The share of the network's last events that were a first event from user to user: [B] float32."""
    seen = timeline.num_events_before(tick)
    since = timeline.tick_of((seen - RATE_EVENTS).clamp(min=0))
    opened = timeline.acted_on.chronological[0]
    number = torch.searchsorted(opened, tick) - torch.searchsorted(opened, since)
    return number.float() / (seen - timeline.num_events_before(since)).clamp(min=1).float()
