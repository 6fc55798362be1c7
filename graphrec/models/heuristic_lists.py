"""The lists of a heuristic, found directly: the best candidates, then the first users of an order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.models.direct_candidates import DECAYED_CONTACTS, NO_CANDIDATES, SourceData, fill_decayed
from graphrec.models.direct_lists import ListQueries, OrderData, list_best
from graphrec.models.wanted import Wanted
from graphrec.retrieval.topk import tie_capacity, tie_rank, tie_shuffle
from graphrec.temporal import Timeline
from graphrec.temporal.act_lists import ActLists, Received
from graphrec.temporal.columns import TimedLists
from graphrec.temporal.contacts import DECAY_FLOOR, DECAY_SHARE
from graphrec.temporal.event_counts import EventCounts
from graphrec.temporal.user_order import Measure, UserOrder

MIN_DEGREES = 1024
"""Degrees that a table of weights has more than there are, at least."""

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
        candidates: who has a value of their own; see `direct_candidates`.
        measure: what is measured of all other users.
        popularity: whether recent popularity is added to it.
        squash: whether it is added as p / (p + 1).
        add_popularity: whether it is added to the values of candidates too.
        first_only: whether it counts only the first act of each user on another.
    """

    candidates: int = NO_CANDIDATES
    measure: Measured = Measured.NOTHING
    popularity: bool = True
    squash: bool = True
    add_popularity: bool = True
    first_only: bool = False


class DegreeWeights:
    """A table of the weights of common contacts, for all degrees that there are, which follows an index.

    Args:
        weight: from degrees to weights.
    """

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        self._weight, self._table = weight, torch.empty(0, dtype=torch.float64)
        self._max_degree = self._num_events = 0

    def of(self, timeline: Timeline) -> Tensor:
        """Return the weights by degree: [D] float64."""
        num_events = len(timeline.events)
        self._max_degree += num_events - self._num_events  # no degree has grown by more
        self._num_events = num_events
        if len(self._table) <= self._max_degree:
            self._max_degree = int(timeline.columns.contacts.length.max(initial=0))
            self._table = self._weight(torch.arange(2 * self._max_degree + MIN_DEGREES)).double()
        return self._table


class HeuristicLists:
    """Lists of one rule on one graph.

    Args:
        rule: what scores consist of.
        timeline: the index.
        half_life: seconds, of popularity.
        origin: seconds, where recency counts from.
        weight: from degrees to the weights of common contacts with these degrees.
    """

    def __init__(
        self,
        rule: DirectRule,
        timeline: Timeline,
        *,
        half_life: float,
        origin: int,
        weight: Callable[[Tensor], Tensor],
    ) -> None:
        self._rule, self._timeline, self._half_life, self._origin = rule, timeline, half_life, origin
        measure = Measure.NOTHING
        if rule.measure in (Measured.LAST_ACT, Measured.LAST_EVENT):
            measure = Measure.LAST_TIME
        elif rule.measure is not Measured.NOTHING:
            measure = Measure.COUNT
        self._received = self._acts = None
        if rule.popularity or rule.measure is Measured.RECEIVED:
            self._received = ActLists(timeline, "dst", half_life, first_only=rule.first_only)
        if rule.measure is Measured.LAST_ACT:
            self._acts = ActLists(timeline, "src", math.inf)
        self._order = UserOrder(
            timeline,
            tie_rank(timeline.num_users),
            received=self._popular,
            half_life=half_life,
            measure=measure,
            lists=self._measured,
            roles=ROLES[rule.measure],
            origin=origin,
        )
        self._weights, self._event_counts = DegreeWeights(weight), EventCounts()
        self._source = self._source_data()

    def follow(self, timeline: Timeline) -> None:
        """Read an index that events were appended to."""
        self._timeline = timeline
        for acts in (self._received, self._acts):
            if acts is not None:
                acts.follow(timeline)
        self._order.follow(timeline, tie_rank(timeline.num_users), self._popular, self._measured)
        self._source = self._source_data()

    @property
    def _popular(self) -> Received | None:
        return self._received.lists if self._received is not None and self._rule.popularity else None

    @property
    def _measured(self) -> TimedLists | None:
        """The lists that are counted, or whose last entry counts; only their ticks matter."""
        columns, measure = self._timeline.columns, self._rule.measure
        if measure is Measured.DEGREE:
            return columns.contacts
        if measure is Measured.LAST_EVENT:
            half = columns.half_edges
            return TimedLists(half.start, half.length, half.other, half.tick)
        acts = self._acts if measure is Measured.LAST_ACT else self._received
        if acts is None or measure not in (Measured.LAST_ACT, Measured.RECEIVED):
            return None
        lists = acts.lists
        return TimedLists(lists.start, lists.length, lists.tick, lists.tick)

    def _source_data(self) -> SourceData:
        columns, kind = self._timeline.columns, self._rule.candidates
        return SourceData(
            kind,
            columns.half_edges,
            columns.pair,
            columns.contacts,
            self._weights.of(self._timeline).numpy(),
            float(self._timeline.num_users) ** 2,
            self._origin,
            self._event_counts.of(self._timeline) if kind == DECAYED_CONTACTS else np.empty(0, np.int64),
            self._timeline.removed,
            DECAY_SHARE,
            DECAY_FLOOR,
        )

    def popularity(self, query: Query) -> Tensor:
        """Return the popularity of all users for B > 0 queries in order of time: [B, N] float64."""
        assert self._received is not None
        return self._received.at(self._timeline, query.time)

    def decayed(self, query: Query) -> Tensor:
        """Return the values of `DECAYED_CONTACTS` of all users for B queries: [B, N] float64."""
        out = torch.empty(len(query), self._timeline.num_users, dtype=torch.float64)
        user, tick = query.user.contiguous(), self._timeline.tick(query.time)
        fill_decayed(user.numpy(), tick.numpy(), self._source, out.numpy())
        return out

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
            tie_shuffle(tie_capacity(self._timeline.num_users)).numpy(),
            order.src,
            order.dst,
            order.event_tick,
            made.bound,
            made.listed,
            made.size,
            made.complete,
        )
