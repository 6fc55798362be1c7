"""The features by tensor operations, to read and to compare with."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import ACTIVITY_WINDOWS, NO_GAP, PACE_EVENTS
from graphrec.features.person import UNRANKED
from graphrec.features.query import RATE_EVENTS
from graphrec.temporal import (
    NEVER,
    Contacts,
    Neighborhood,
    SpectralQuery,
    Timeline,
    UserActivity,
    run_starts,
)


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


def first_contact_time(timeline: Timeline, half_edge: Tensor) -> Tensor:
    """The time of the first event between the two users of half-edges: int64 seconds."""
    return timeline.instants[torch.from_numpy(timeline.columns.pair)[timeline.event_of(half_edge), 3].long()]


def pair_features(timeline: Timeline, query: Query, contacts: Contacts) -> Tensor:
    """Features of M contacts: [M, 15] float32."""
    time, pace = query.time[contacts.row], query_pace(timeline, query)[contacts.row]
    age = gap(time, first_contact_time(timeline, contacts.half_edge), pace)
    since = timeline.first_event_time(contacts.user, timeline.tick(time))
    pending = contacts.last_in > contacts.last_out  # the contact acted last
    turn = _chosen_before(pending, contacts.row).float()
    return torch.stack(
        [
            gap(time, contacts.last_out, pace),
            gap(time, contacts.last_in, pace),
            contacts.num_out.float().log1p(),
            contacts.num_in.float().log1p(),
            *rank_forms(contacts.rank),
            (contacts.last_out >= contacts.last_in).float(),
            (contacts.num_out > 0).float(),
            turn.log1p(),
            pending / (1.0 + turn),
            *rank_forms(recency_rank(contacts.last_out, contacts.row)),
            age,
            (contacts.num_out + contacts.num_in).float().log1p() / 10.0 - age,
            gap(time, since, pace),
        ],
        dim=1,
    )


def _chosen_before(chosen: Tensor, row: Tensor) -> Tensor:
    """How many chosen entries of the same row come before each entry: [M] int64."""
    before = chosen.long().cumsum(0) - chosen.long()
    return before - before[run_starts(row)]


def path_features(timeline: Timeline, query: Query, around: Neighborhood, now: UserActivity) -> Tensor:
    """Features of P paths: [P, 14] float32."""
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


def person_features(
    timeline: Timeline,
    query: Query,
    around: Neighborhood,
    now: UserActivity,
    spectral: SpectralQuery | None = None,
) -> Tensor:
    """Features of M people: [M, 19] float32."""
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
            zero
            if spectral is None
            else (spectral.vector[row] * spectral.embedding[spectral.snapshot[row], around.user]).sum(1),
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


def query_features(timeline: Timeline, query: Query) -> Tensor:
    """The user's gaps, counts, degree, rates of first contacts and age: [B, 10] float32."""
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


def presence_features(
    timeline: Timeline, query: Query, user: Tensor, spectral: SpectralQuery | None = None
) -> Tensor:
    """Features of users [C] before each of B queries: [5, B, C] float32."""
    tick, time, pace = timeline.tick(query.time), query.time[:, None], query_pace(timeline, query)[:, None]
    now = timeline.activity(user, tick[:, None])
    return torch.stack(
        [
            gap(time, now.last_act, pace),
            gap(time, now.last_received, pace),
            now.num_received.float().log1p(),
            now.degree.float().log1p(),
            torch.zeros(len(query), len(user)) if spectral is None else spectral.cosines(user),
        ]
    )
