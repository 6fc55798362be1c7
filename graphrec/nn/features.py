"""What a query and a pair look like just before a moment, as features of comparable scale.

Gaps are log1p seconds against the network's own pace (log1p of the mean gap between its last 200 events), so
that one configuration fits networks of different tempo; a thing that never happened has the gap `NO_GAP`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.sampler import NEVER, Contacts, Timeline, everyone

NO_GAP = 2.0
NUM_PAIR_FEATURES = 12
NUM_QUERY_FEATURES = 9
NUM_PRESENCE_FEATURES = 6
PACE_EVENTS = 200
RATE_EVENTS = 1000


def pair_features(timeline: Timeline, query: Query, contacts: Contacts) -> Tensor:
    """Gaps, counts, recency rank, direction, turn to be answered: [M, NUM_PAIR_FEATURES] float32."""
    time, pace = query.time[contacts.row], _pace(timeline, query)[contacts.row]
    rank = contacts.rank.float()
    waiting = contacts.last_in > contacts.last_out  # the other side acted last
    turn = _rank_among(waiting, contacts.row).float()
    own_rank = _rank_of(contacts.last_out, contacts.row).float()
    return torch.stack(
        [
            _gap(time, contacts.last_out, pace),
            _gap(time, contacts.last_in, pace),
            contacts.num_out.float().log1p(),
            contacts.num_in.float().log1p(),
            rank.log1p(),
            1.0 / (1.0 + rank),
            (contacts.last_out >= contacts.last_in).float(),
            (contacts.num_out > 0).float(),
            turn.log1p(),
            waiting / (1.0 + turn),
            own_rank.log1p(),
            1.0 / (1.0 + own_rank),
        ],
        dim=1,
    )


def query_features(timeline: Timeline, query: Query) -> Tensor:
    """Own gaps, counts, degree, and rates of new contacts: [B, NUM_QUERY_FEATURES] float32."""
    user, time, tick = query.user, query.time, timeline.tick(query.time)
    pace = _pace(timeline, query)
    acts, received = timeline.num_acts(user, tick).float(), timeline.num_received(user, tick).float()
    approached = timeline.approached.count(user, tick).float()
    act_gap = _gap(time, timeline.last_act(user, tick), pace)
    received_gap = _gap(time, timeline.last_received(user, tick), pace)
    return torch.stack(
        [
            act_gap,
            received_gap,
            torch.minimum(act_gap, received_gap),
            acts.log1p(),
            received.log1p(),
            timeline.degree(user, tick).float().log1p(),
            approached / (acts + 1.0),
            _opening_rate(timeline, tick),
            pace,
        ],
        dim=1,
    )


def _rank_of(time: Tensor, row: Tensor) -> Tensor:
    """How many entries of its row are later than each entry, [M] int64."""
    order = time.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    when, where = time[order], row[order]
    position = torch.arange(len(row))
    opens_row, opens_tie = torch.ones_like(row, dtype=torch.bool), torch.ones_like(row, dtype=torch.bool)
    opens_row[1:] = where[1:] != where[:-1]
    opens_tie[1:] = opens_row[1:] | (when[1:] != when[:-1])
    first, tie = (torch.where(opens, position, 0).cummax(0).values for opens in (opens_row, opens_tie))
    return torch.empty_like(row).index_copy_(0, order, tie - first)


def _rank_among(chosen: Tensor, row: Tensor) -> Tensor:
    """How many chosen entries of its row stand before each entry, [M] int64."""
    before = chosen.long().cumsum(0) - chosen.long()
    opens = torch.ones_like(chosen)
    opens[1:] = row[1:] != row[:-1]
    start = torch.where(opens, torch.arange(len(row)), 0).cummax(0).values
    return before - before[start]


def presence_features(timeline: Timeline, query: Query, user: Tensor | None = None) -> Tensor:
    """How present people are at each query's time: gaps since they acted and were acted upon, counts, degree.

    Args:
        timeline: the index.
        query: B queries, in order of time where everyone is asked for.
        user: [C] int64; everyone by default, by sweeps instead of look-ups.

    Returns:
        [B, C, NUM_PRESENCE_FEATURES] float32.
    """
    tick, time, pace = timeline.tick(query.time), query.time[:, None], _pace(timeline, query)[:, None]
    if user is None:
        acted, heard = (everyone.last_time(timeline, tick, role=role) for role in ("src", "dst"))
        received = everyone.num_received(timeline, tick)
        degree = everyone.degree(timeline, tick)
    else:
        acted, heard = timeline.last_act(user, tick[:, None]), timeline.last_received(user, tick[:, None])
        received = timeline.num_received(user, tick[:, None])
        degree = timeline.degree(user, tick[:, None])
    return torch.stack(
        [
            _gap(time, acted, pace),
            _gap(time, heard, pace),
            (acted > NEVER).float(),
            (heard > NEVER).float(),
            received.float().log1p(),
            degree.float().log1p(),
        ],
        dim=2,
    )


def _gap(time: Tensor, last: Tensor, pace: Tensor) -> Tensor:
    gap = (time - last).clamp(min=0).float().log1p() / 10.0 - pace
    return torch.where(last > NEVER, gap, NO_GAP)


def _pace(timeline: Timeline, query: Query) -> Tensor:
    """log1p of the mean gap between the network's last events before each query, over 10: [B] float32."""
    seen = torch.searchsorted(timeline.events.time, query.time.contiguous())
    first = timeline.events.time[(seen - PACE_EVENTS).clamp(min=0)]
    return ((query.time - first).clamp(min=0).float() / PACE_EVENTS).log1p() / 10.0


def _opening_rate(timeline: Timeline, tick: Tensor) -> Tensor:
    """How many of the network's last acts, about 1,000 of them, were first acts on a person: [B] float32."""
    seen = torch.searchsorted(timeline.event_tick, tick)
    since = timeline.event_tick[(seen - RATE_EVENTS).clamp(min=0)]
    opened = timeline.approached.chronological[0]
    number = torch.searchsorted(opened, tick) - torch.searchsorted(opened, since)
    return number.float() / (seen - torch.searchsorted(timeline.event_tick, since)).clamp(min=1).float()
