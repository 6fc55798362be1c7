"""The lists of a heuristic, found directly: the best candidates, then the first users of an order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.models.direct_lists import NO_CANDIDATES, ListQueries, OrderData, SourceData, list_best
from graphrec.models.recommender import Wanted
from graphrec.retrieval.topk import tie_order, tie_rank
from graphrec.temporal import Timeline
from graphrec.temporal.columns import TimedLists
from graphrec.temporal.user_order import Measure, UserOrder, acts_by_user, received_acts

MAX_TIED = 1024
"""Candidates of equal values whose popularity is looked up one by one; see `list_best`."""


class Measured(Enum):
    """What a rule measures of every user of the network, whoever asks."""

    NOTHING = "nothing"
    RECEIVED = "acts received"
    DEGREE = "degree"
    LAST_ACT = "last act"
    LAST_EVENT = "last event"


ROLES = {
    Measured.NOTHING: 2,
    Measured.RECEIVED: 2,
    Measured.DEGREE: 3,
    Measured.LAST_ACT: 1,
    Measured.LAST_EVENT: 3,
}
"""Whose measure (or popularity) an event changes; see `UserOrder`."""


@dataclass(frozen=True)
class DirectRule:
    """What the scores of a rule consist of.

    Attributes:
        candidates: who has a value of their own; see `direct_lists`.
        measure: what is measured of all other users.
        popularity: whether recent popularity is added to it.
        squash: whether it is added as p / (p + 1).
        add_popularity: whether it is added to the values of candidates too.
    """

    candidates: int = NO_CANDIDATES
    measure: Measured = Measured.NOTHING
    popularity: bool = True
    squash: bool = True
    add_popularity: bool = True


class HeuristicLists:
    """Lists of one rule on one graph.

    Args:
        rule: what scores consist of.
        timeline: the index.
        half_life: seconds, of popularity.
        origin: seconds, where recency counts from.
        weight: [D] float64, of a common contact by its degree.
    """

    def __init__(
        self, rule: DirectRule, timeline: Timeline, *, half_life: float, origin: int, weight: Tensor
    ) -> None:
        self._rule, self._timeline, self._events = rule, timeline, timeline.events
        num_users, columns = timeline.num_users, timeline.columns
        measure, lists = Measure.NOTHING, None
        if rule.measure in (Measured.LAST_ACT, Measured.LAST_EVENT):
            measure = Measure.LAST_TIME
        elif rule.measure is not Measured.NOTHING:
            measure = Measure.COUNT
        received = (
            received_acts(timeline, half_life)
            if rule.popularity or rule.measure is Measured.RECEIVED
            else None
        )
        if rule.measure is Measured.DEGREE:
            lists = columns.contacts
        elif rule.measure is Measured.LAST_ACT:
            lists = acts_by_user(timeline)
        elif rule.measure is Measured.LAST_EVENT:
            half = columns.half_edges
            lists = TimedLists(half.start, half.length, half.other, half.tick)
        elif received is not None and rule.measure is Measured.RECEIVED:
            lists = TimedLists(received.start, received.length, received.tick, received.tick)
        self._order = UserOrder(
            timeline,
            tie_rank(num_users),
            received=received if rule.popularity else None,
            half_life=half_life,
            measure=measure,
            lists=lists,
            roles=ROLES[rule.measure],
            origin=origin,
        )
        self._source = SourceData(
            rule.candidates,
            columns.half_edges,
            columns.pair,
            columns.contacts,
            weight.numpy(),
            float(num_users) ** 2,
            origin,
        )

    @property
    def is_current(self) -> bool:
        """Whether no events were appended to the index since."""
        return self._timeline.events is self._events

    def best(self, query: Query, wanted: Wanted, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the lists of B > 0 queries.

        Args:
            query: B queries.
            wanted: what to list.
            scale: [B] float64, factor of the measure in scores.

        Returns:
            users [B, k] int64, padded with -1; scores [B, k] float64, padded with -inf; [B] bool, False for
            queries that are left to be answered from scores of all users.
        """
        num_users, tick = self._timeline.num_users, self._timeline.tick(query.time)
        users = torch.empty(len(query), wanted.k, dtype=torch.int64)
        scores = torch.empty(len(query), wanted.k, dtype=torch.float64)
        answered = torch.empty(len(query), dtype=torch.bool)
        segment = self._order.segment_of(tick)
        for number in segment.unique().tolist():
            rows = (segment == number).nonzero().squeeze(1)
            whole = len(rows) == len(query)
            part = wanted if whole else wanted.select(rows, len(query))
            excluded = part.user[(part.row * num_users + part.user).argsort()]
            keys = (query.user[rows], tick[rows], query.time[rows], scale[rows])
            starts = torch.searchsorted(part.row, torch.arange(len(rows) + 1))
            queries = ListQueries(
                *(key.contiguous().numpy() for key in (*keys, excluded, starts, part.exclude_users))
            )
            out = users, scores, answered
            if not whole:
                out = users[rows], scores[rows], answered[rows]
            list_best(
                queries,
                self._source,
                self._order_data(number),
                self._rule.squash,
                self._rule.add_popularity,
                MAX_TIED,
                *(array.numpy() for array in out),
            )
            if not whole:
                users[rows], scores[rows], answered[rows] = out
        return users, scores, answered

    def _order_data(self, segment: int) -> OrderData:
        order, made = self._order, self._order.checkpoints(segment)
        return OrderData(
            order.columns,
            order.tie_rank,
            tie_order(self._timeline.num_users).numpy(),
            order.src,
            order.dst,
            order.event_tick,
            made.bound,
            made.listed,
            made.size,
            made.complete,
        )
