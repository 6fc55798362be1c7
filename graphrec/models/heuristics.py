"""Rules of thumb as recommenders: the baselines that a learned model has to beat.

All read the strictly-past index (`graphrec.sampler`). The undirected *contact graph* joins two people from
their first contact either way; the degree of a person counts the distinct people met.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, Self

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.models.recommender import Recommender
from graphrec.sampler import NEVER, Timeline, everyone
from graphrec.sampler.draws import hashed, mix

DAY = 86_400
MAX_FRESH = 2**21
"""Contacts between the first and the last query times queries, held at once."""

FIXED_POINT = 2.0**32
"""Real weights become whole numbers (exact in float64), so that sums do not depend on the order of users."""


class Heuristic(Recommender):
    """A rule with nothing to learn but the pace of the training period."""

    _timeline: Timeline
    _half_life: float

    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Take the index of the graph; the training span sets the half-life of popularity."""
        timeline = Timeline.of(graph)
        training = timeline.events.time[timeline.events.time < until]
        if not training.numel():
            raise ValueError(f"{self.name}: there is no event before until={until} to fit on")
        self._graph, self._timeline = graph, timeline
        self._half_life = max(3.0 * DAY, (until - int(training[0])) / 48)
        return self

    def score_all(self, query: Query) -> Tensor:
        """Scores of everyone, [B, N] float64."""
        num_users = self.graph.num_users
        if not len(query):
            return torch.zeros(0, num_users, dtype=torch.float64)
        order = query.time.argsort(stable=True)
        scores = self._score_in_order(query[order])
        if torch.equal(order, torch.arange(len(order))):
            return scores
        return torch.empty_like(scores).index_copy_(0, order, scores)

    @abstractmethod
    def _score_in_order(self, query: Query) -> Tensor:
        """Scores [B, N] float64 for queries in order of time."""

    def _recent_popularity(self, query: Query) -> Tensor:
        return everyone.recent_popularity(self._timeline, query.time, self._half_life)

    def _far_apart(self, query: Query) -> bool:
        """Whether so many contacts lie between the queries that each half should have its own matrix."""
        ticks = self._timeline.tick(query.time)
        fresh = everyone.ContactGraph.num_fresh(self._timeline, ticks)
        return len(query) > 1 and fresh * len(query) > MAX_FRESH

    def _with_fallback(self, query: Query, scores: Tensor) -> Tensor:
        """Scores [B, N] whose distinct values lie at least 1 apart, ties broken by recent popularity."""
        popular = self._recent_popularity(query)
        return scores.add_(popular.div_(popular + 1.0))


class Random(Heuristic):
    """A number drawn for each query and person from their hash: the same in any batch.

    Args:
        generator: fixes the draw; by default seed 0.
    """

    name = "random"

    def __init__(self, generator: torch.Generator | None = None) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        self._salt = torch.randint(2**62, (1,), generator=generator)

    def _score_in_order(self, query: Query) -> Tensor:
        row = hashed(self._salt, query.user, query.time, query.action)
        drawn = mix(row[:, None] + mix(self._salt + torch.arange(self.graph.num_users)))
        return (drawn & (2**53 - 1)).double() / 2.0**53


class Popularity(Heuristic):
    """Events received."""

    name = "popularity"

    def _score_in_order(self, query: Query) -> Tensor:
        return everyone.num_received(self._timeline, self._timeline.tick(query.time))


class RecentPopularity(Heuristic):
    """Events received, each halved every max(3 days, training span / 48)."""

    name = "recent_popularity"

    def _score_in_order(self, query: Query) -> Tensor:
        return self._recent_popularity(query)


class LastActive(Heuristic):
    """The time a person last acted."""

    name = "last_active"

    def _score_in_order(self, query: Query) -> Tensor:
        return self._since_the_start(self._last(self._timeline.tick(query.time), "src"))

    def _last(self, ticks: Tensor, role: Literal["src", "dst"]) -> Tensor:
        return everyone.last_time(self._timeline, ticks, role=role)

    def _since_the_start(self, last: Tensor) -> Tensor:
        return last.sub_(self._timeline.instants[0] - 1).clamp_(min=0).double()


class LastSeen(LastActive):
    """The time a person last acted or was acted upon."""

    name = "last_seen"

    def _score_in_order(self, query: Query) -> Tensor:
        ticks = self._timeline.tick(query.time)
        return self._since_the_start(torch.maximum(self._last(ticks, "src"), self._last(ticks, "dst")))


class RepeatRecency(Heuristic):
    """The time of the user's last act on a person; below all these, recent popularity."""

    name = "repeat_recency"
    _either_way = False

    def _score_in_order(self, query: Query) -> Tensor:
        met = self._timeline.distinct_contacts(query.user, self._timeline.tick(query.time))
        last = torch.maximum(met.last_out, met.last_in) if self._either_way else met.last_out
        happened = last > NEVER
        row, user, last = met.row[happened], met.user[happened], last[happened]
        popular = self._recent_popularity(query)
        scores = popular.div_(popular + 1.0)
        scores[row, user] = (last - self._timeline.instants[0] + 1).double()
        return scores


class ReplyRecency(RepeatRecency):
    """The time of the last act between the user and a person, either way; below these, recent popularity."""

    name = "reply_recency"
    _either_way = True


class CommonNeighbors(Heuristic):
    """How many people both have met; then recent popularity."""

    name = "common_neighbors"

    def _score_in_order(self, query: Query) -> Tensor:
        return self._with_fallback(query, self._two_hop(query))

    def _weight(self, degree: Tensor) -> Tensor:
        """What a person in the middle of a path counts: whole numbers, float64 for int64 degrees."""
        return torch.ones_like(degree, dtype=torch.float64)

    def _two_hop(self, query: Query) -> Tensor:
        """Weighted paths of two contacts from each user to everyone, [B, N] float64, whole numbers."""
        if self._far_apart(query):
            middle = len(query) // 2
            return torch.cat([self._two_hop(query[:middle]), self._two_hop(query[middle:])])
        ticks = self._timeline.tick(query.time)
        row, person = self._timeline.contacts.before(query.user, ticks)
        reached = torch.zeros(self.graph.num_users, len(query), dtype=torch.float64)
        reached[person, row] = self._weight(self._timeline.degree(person, ticks[row]))
        return everyone.ContactGraph(self._timeline, ticks).spread(reached).T.contiguous()


class Jaccard(CommonNeighbors):
    """Share of common people among all that either has met (Jaccard 1901); then recent popularity."""

    name = "jaccard"

    def _score_in_order(self, query: Query) -> Tensor:
        common = self._two_hop(query)
        tick = self._timeline.tick(query.time)
        own = self._timeline.degree(query.user, tick).double()
        union = own[:, None] + everyone.degree(self._timeline, tick) - common
        # Two distinct fractions of integers up to N differ by at least 1 / N^2.
        squared = float(self.graph.num_users) ** 2
        return self._with_fallback(query, common.div_(union.clamp_(min=1.0)).mul_(squared))


class AdamicAdar(CommonNeighbors):
    """Common people, each weighted 1 / ln(max(degree, 2)) (Adamic & Adar 2003); then recent popularity."""

    name = "adamic_adar"

    def _weight(self, degree: Tensor) -> Tensor:
        return (FIXED_POINT / degree.clamp(min=2).double().log()).round()


class PreferentialAttachment(Heuristic):
    """Product of both degrees (Barabasi & Albert 1999); then recent popularity."""

    name = "preferential_attachment"

    def _score_in_order(self, query: Query) -> Tensor:
        tick = self._timeline.tick(query.time)
        own = self._timeline.degree(query.user, tick).double()
        return self._with_fallback(query, everyone.degree(self._timeline, tick).mul_(own[:, None]))


class PPR(Heuristic):
    """Personalised PageRank on the contact graph (Page et al. 1999); then recent popularity.

    Args:
        restart: probability of going back to the user at each step.
        num_steps: power iterations, that is how far a walk reaches: people further away hardly rank.
    """

    name = "ppr"

    def __init__(self, *, restart: float = 0.15, num_steps: int = 5) -> None:
        if not 0.0 < restart < 1.0 or num_steps < 0:
            raise ValueError(
                f"restart must lie in (0, 1) and num_steps not be negative, got {restart}, {num_steps}"
            )
        self.restart = restart
        self.num_steps = num_steps

    def _score_in_order(self, query: Query) -> Tensor:
        visits = self.visits(query)
        return self._with_fallback(query, (visits * FIXED_POINT).round_())

    def visits(self, query: Query) -> Tensor:
        """Visiting probabilities of a walk from each user, [B, N] float64, for queries in order of time."""
        if self._far_apart(query):
            middle = len(query) // 2
            return torch.cat([self.visits(query[:middle]), self.visits(query[middle:])])
        ticks = self._timeline.tick(query.time)
        graph = everyone.ContactGraph(self._timeline, ticks)
        degree = everyone.degree(self._timeline, ticks).T.clamp(min=1.0)
        home = torch.zeros(self.graph.num_users, len(query), dtype=torch.float64)
        home[query.user, torch.arange(len(query))] = self.restart
        visits = home / self.restart
        for _ in range(self.num_steps):
            visits = graph.spread(visits / degree).mul_(1.0 - self.restart).add_(home)
        return visits.T.contiguous()


HEURISTICS: dict[str, type[Heuristic]] = {
    kind.name: kind
    for kind in (
        Random,
        Popularity,
        RecentPopularity,
        LastActive,
        LastSeen,
        RepeatRecency,
        ReplyRecency,
        CommonNeighbors,
        Jaccard,
        AdamicAdar,
        PreferentialAttachment,
        PPR,
    )
}
