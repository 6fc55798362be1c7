"""Features of an initiation, the first event between two people, just before it is made."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import ACTIVITY_WINDOWS
from graphrec.features.query import query_features
from graphrec.temporal import ReplyIndex, Timeline
from graphrec.temporal.removed import position_of

NUM_INITIATION_FEATURES = 56
RECENT_INITIATIONS = 500
"""Decided initiations of the network from which its present reply rate is read."""

PRIOR_INITIATIONS = 2.0
"""Number of initiations at the network's reply rate that are added to each user's own, as a prior."""

DAY = 86_400
"""In seconds."""


def initiation_features(
    timeline: Timeline, replies: ReplyIndex, query: Query, person: Tensor, *, reply_window: int
) -> Tensor:
    """Both timelines, both sides' records of initiating and replying, common contacts, time of day and week.

    Everything is read strictly before the query's time.

    Args:
        timeline: the index.
        replies: the index of initiations and replies of the same graph.
        query: M queries: the users who initiate, the times, the actions.
        person: [M] int64, the users they turn to.
        reply_window: seconds within which a reply counts.

    Returns:
        [M, NUM_INITIATION_FEATURES] float32.
    """
    user, time = query.user, query.time
    tick, before = timeline.tick(time), timeline.tick(time - reply_window)
    rate = replies.recent_reply_rate(time, reply_window=reply_window, count=RECENT_INITIATIONS)
    columns = [rate]
    for who in (user, person):
        for role in ("initiator", "recipient"):
            now, decided = (replies.history(who, moment, role) for moment in (tick, before))
            columns += [
                now.num_initiations.double().log1p(),
                now.num_replies.double().log1p(),
                (now.num_replies + PRIOR_INITIATIONS * rate) / (now.num_initiations + PRIOR_INITIATIONS),
                (now.num_initiations - decided.num_initiations).double().log1p(),
                (now.sum_log_delay + math.log(reply_window)) / (now.num_replies + 1),
            ]

    row, middle = timeline.common_contacts(user, person, tick)
    weight = 1.0 / timeline.degree(middle, tick[row]).clamp(min=2).double().log()
    none = torch.zeros(len(user), dtype=torch.float64)
    common = none.index_add(0, row, torch.ones_like(weight))
    met = timeline.degree(user, tick) + timeline.degree(person, tick)
    columns += [common.log1p(), none.index_add(0, row, weight).log1p(), common / (met - common).clamp(min=1)]

    seen = timeline.num_events_before(tick)
    last = len(timeline.events) - len(timeline.removed) - 1
    for size in ACTIVITY_WINDOWS:
        first = (seen - size).clamp(min=0, max=last)
        since = timeline.tick_of(position_of(timeline.removed, first))
        for who in (user, person):
            both = zip(timeline.counts(who, tick), timeline.counts(who, since), strict=True)
            columns += [(now - then).clamp(min=0).double().log1p() for now, then in both]
    for period in (DAY, 7 * DAY):
        phase = (time % period).double() * (2 * math.pi / period)
        columns += [phase.sin(), phase.cos()]
    sides = (query_features(timeline, Query(who, time, query.action)) for who in (user, person))
    return torch.cat([torch.stack(columns, dim=1).float(), *sides], dim=1)
