"""What queries, pairs, paths and people look like just before a moment, as features of comparable scale.

Gaps are log1p seconds against the network's own pace (log1p of the mean gap between its last 200 events), so
that one configuration fits networks of different tempo; a thing that never happened has the gap `NO_GAP`.
Ranks come twice, as log1p(rank) and as 1 / (1 + rank).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.temporal import (
    NEVER,
    Contacts,
    Neighborhood,
    SpectralQuery,
    Timeline,
    UserActivity,
    dense,
    run_starts,
)

NO_GAP = 2.0
NUM_PAIR_FEATURES = 15
NUM_QUERY_FEATURES = 10
NUM_PRESENCE_FEATURES = 5
NUM_PATH_FEATURES = 14
NUM_PERSON_FEATURES = 19
NUM_NODE_FEATURES = 7
PACE_EVENTS = 200
RATE_EVENTS = 1000
LATELY = (300, 3000)
"""Events of the network over which it is counted how often people acted and were acted upon."""

BLOCK = 2**16
"""Scores of presence worked out at once, in numbers."""

LEAST_POPULARITY = 0.01
"""In acts: circles less popular than this look alike."""

FAR_RANK = 1024
"""The rank of people who are not in the list that is ranked."""


def pair_features(timeline: Timeline, query: Query, contacts: Contacts) -> Tensor:
    """Gaps, counts, ranks, direction, turn to be answered, ages, rate: [M, NUM_PAIR_FEATURES] float32."""
    time, pace = query.time[contacts.row], query_pace(timeline, query)[contacts.row]
    age = _gap(time, timeline.first_contact_time(contacts.half_edge), pace)
    since = timeline.first_event_time(contacts.user, timeline.tick(time))
    waiting = contacts.last_in > contacts.last_out  # the other side acted last
    turn = _rank_among(waiting, contacts.row).float()
    return torch.stack(
        [
            _gap(time, contacts.last_out, pace),
            _gap(time, contacts.last_in, pace),
            contacts.num_out.float().log1p(),
            contacts.num_in.float().log1p(),
            *_both_forms(contacts.rank),
            (contacts.last_out >= contacts.last_in).float(),
            (contacts.num_out > 0).float(),
            turn.log1p(),
            waiting / (1.0 + turn),
            *_both_forms(_rank_of(contacts.last_out, contacts.row)),
            age,
            (contacts.num_out + contacts.num_in).float().log1p() / 10.0 - age,
            _gap(time, since, pace),
        ],
        dim=1,
    )


def query_features(timeline: Timeline, query: Query) -> Tensor:
    """Own gaps, counts, degree, rates of new contacts, age: [B, NUM_QUERY_FEATURES] float32."""
    user, time, tick = query.user, query.time, timeline.tick(query.time)
    pace = query_pace(timeline, query)
    own = timeline.activity(user, tick)
    act_gap, received_gap = _gap(time, own.last_act, pace), _gap(time, own.last_received, pace)
    return torch.stack(
        [
            act_gap,
            received_gap,
            torch.minimum(act_gap, received_gap),
            own.num_acts.float().log1p(),
            own.num_received.float().log1p(),
            own.degree.float().log1p(),
            timeline.acted_on.count(user, tick).float() / (own.num_acts.float() + 1.0),
            _opening_rate(timeline, tick),
            pace,
            _gap(time, timeline.first_event_time(user, tick), pace),
        ],
        dim=1,
    )


def path_features(timeline: Timeline, query: Query, around: Neighborhood, now: UserActivity) -> Tensor:
    """Both hops' gaps, counts and recency ranks, degrees, the end's gaps: [P, NUM_PATH_FEATURES] float32."""
    first, second = around.contacts.select(around.first), around.second
    row = first.row
    time, pace = query.time[row], query_pace(timeline, query)[row]
    degree = now.degree.float().log1p()
    return torch.stack(
        [
            *(
                part
                for hop in (first, second)
                for part in (
                    _gap(time, hop.last_out, pace),
                    _gap(time, hop.last_in, pace),
                    hop.num_out.float().log1p(),
                    hop.num_in.float().log1p(),
                    hop.rank.float().log1p(),
                )
            ),
            degree[around.contact][around.first],
            degree[around.end],
            _gap(time, now.last_received[around.end], pace),
            _gap(time, now.last_act[around.end], pace),
        ],
        dim=1,
    )


def person_features(
    timeline: Timeline,
    query: Query,
    around: Neighborhood,
    now: UserActivity,
    stands: SpectralQuery | None = None,
) -> Tensor:
    """How present the people around a query are, their age, ranks among those seen lately, common contacts.

    Args:
        timeline: the index.
        query: B queries.
        around: M people around them.
        now: of these M, just before their queries.
        stands: where the users do, for the cosine of user and person; 0 without it.

    Returns:
        [M, NUM_PERSON_FEATURES] float32.
    """
    row, tick = around.row, timeline.tick(query.time)
    time, pace = query.time[row], query_pace(timeline, query)[row]
    seen, ticks = torch.searchsorted(timeline.event_tick, tick), timeline.event_tick
    lately = [
        _since_tick(timeline, around.user, now, ticks[(seen - size).clamp(min=0)][row]) for size in LATELY
    ]
    ranks = []
    for last in (torch.maximum(now.last_act, now.last_received), now.last_act, now.last_received):
        rank = torch.full_like(row, FAR_RANK)
        rank[around.recent] = _rank_of(last[around.recent], row[around.recent])
        ranks += _both_forms(rank)
    middle = now.degree[around.contact][around.first].float()
    zero = torch.zeros(len(around))
    adamic_adar = zero.index_add(0, around.end, 1.0 / middle.clamp(min=2.0).log())
    common = zero.index_add(0, around.end, torch.ones_like(middle))
    return torch.stack(
        [
            _gap(time, now.last_act, pace),
            _gap(time, now.last_received, pace),
            now.num_acts.float().log1p(),
            now.num_received.float().log1p(),
            now.degree.float().log1p(),
            _gap(time, timeline.first_event_time(around.user, tick[row]), pace),
            *(number.float().log1p() for numbers in zip(*lately, strict=True) for number in numbers),
            *ranks,
            adamic_adar.log1p(),
            common.log1p(),
            zero if stands is None else stands.cosine(row, around.user),
        ],
        dim=1,
    )


def presence_features(
    timeline: Timeline, query: Query, user: Tensor | None = None, stands: SpectralQuery | None = None
) -> Iterator[Tensor]:
    """How present people are at each query's time: gaps of acting and being acted upon, counts, nearness.

    Args:
        timeline: the index.
        query: B queries, in order of time where everyone is asked for.
        user: [C] int64; everyone by default, by sweeps instead of look-ups.
        stands: where the asking users do, for the cosine of user and person; 0 without it.

    Yields:
        [NUM_PRESENCE_FEATURES, b, C] float32 for a few consecutive queries at a time, small enough for a
        processor's cache.
    """
    tick, time, pace = timeline.tick(query.time), query.time[:, None], query_pace(timeline, query)[:, None]
    if user is None:
        acted, heard = (dense.last_time(timeline, tick, role=role) for role in ("src", "dst"))
        received, degree = dense.num_received(timeline, tick), dense.degree(timeline, tick)
    else:
        moment, at = tick.unique(return_inverse=True)  # in service, all ask at one
        now: UserActivity = timeline.activity(user, moment[:, None])
        parts = now.last_act, now.last_received, now.num_received, now.degree
        acted, heard, received, degree = (part[at] for part in parts)
    people = slice(None) if user is None else user
    near = torch.zeros(acted.shape) if stands is None else stands.cosines(people)
    rows = max(1, BLOCK // acted.size(1))
    for start in range(0, max(1, len(query)), rows):
        block = slice(start, start + rows)
        yield torch.stack(
            [
                _gap(time[block], acted[block], pace[block]),
                _gap(time[block], heard[block], pace[block]),
                received[block].float().log1p(),
                degree[block].float().log1p(),
                near[block],
            ]
        )


def _since_tick(timeline: Timeline, user: Tensor, now: UserActivity, tick: Tensor) -> tuple[Tensor, Tensor]:
    """How often users [M] were acted upon and acted since ticks [M] (int64 each)."""
    seen = torch.maximum(now.last_act, now.last_received) >= timeline.instants[tick]
    acts, received = torch.zeros_like(user), torch.zeros_like(user)
    acts_then, received_then = timeline.counts(user[seen], tick[seen])
    acts[seen] = now.num_acts[seen] - acts_then
    received[seen] = now.num_received[seen] - received_then
    return received, acts


def _both_forms(rank: Tensor) -> list[Tensor]:
    return [rank.float().log1p(), 1.0 / (1.0 + rank.float())]


def _rank_of(time: Tensor, row: Tensor) -> Tensor:
    """How many entries of its row are later than each entry, [M] int64."""
    order = time.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    rank = run_starts(row[order], time[order]) - run_starts(row[order])
    return torch.empty_like(row).index_copy_(0, order, rank)


def _rank_among(chosen: Tensor, row: Tensor) -> Tensor:
    """How many chosen entries of its row stand before each entry, [M] int64."""
    before = chosen.long().cumsum(0) - chosen.long()
    return before - before[run_starts(row)]


def _gap(time: Tensor, last: Tensor, pace: Tensor) -> Tensor:
    gap = (time - last).clamp(min=0).float().log1p() / 10.0 - pace
    return torch.where(last > NEVER, gap, NO_GAP)


def query_pace(timeline: Timeline, query: Query) -> Tensor:
    """log1p of the mean gap between the network's last events before each query, over 10: [B] float32."""
    seen = torch.searchsorted(timeline.events.time, query.time.contiguous())
    first = timeline.events.time[(seen - PACE_EVENTS).clamp(min=0)]
    return ((query.time - first).clamp(min=0).float() / PACE_EVENTS).log1p() / 10.0


def _opening_rate(timeline: Timeline, tick: Tensor) -> Tensor:
    """How many of the network's last acts, about 1,000 of them, were first acts on a person: [B] float32."""
    seen = torch.searchsorted(timeline.event_tick, tick)
    since = timeline.event_tick[(seen - RATE_EVENTS).clamp(min=0)]
    opened = timeline.acted_on.chronological[0]
    number = torch.searchsorted(opened, tick) - torch.searchsorted(opened, since)
    return number.float() / (seen - torch.searchsorted(timeline.event_tick, since)).clamp(min=1).float()


def node_features(
    time: Tensor, pace: Tensor, activity: tuple[Tensor, ...], size: Tensor, near: Tensor
) -> Tensor:
    """What circles look like, for T pairs of query and circle: [NUM_NODE_FEATURES, T] float32.

    Gaps of acting and being acted upon, counts, size, nearness, recent popularity.

    Args:
        time: [T] int64 seconds, of the queries.
        pace: [T], of `query_pace`.
        activity: of circles, [T] each, see `GroupActivity.activity`.
        size: [T] int64, how many people they are.
        near: [T] float32, the cosine of where they and the user stand.
    """
    last_act, last_received, num_acts, num_received, popularity = activity
    return torch.stack(
        [
            _gap(time, last_act, pace),
            _gap(time, last_received, pace),
            num_acts.float().log1p(),
            num_received.float().log1p(),
            size.float().log(),
            near,
            (popularity + LEAST_POPULARITY).log().float(),
        ]
    )
