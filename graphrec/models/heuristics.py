"""Heuristics as recommenders: the baselines that a learned model has to beat.

All read the strictly-past index (`graphrec.temporal`). The undirected *contact graph* has an edge between two
users from their first event in either direction; a user's degree is the number of distinct contacts.
"""

from __future__ import annotations

import json
import os
from copy import copy
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from graphrec.data import DataError, FriendGraph, Query
from graphrec.data.checks import check_count, check_number
from graphrec.data.draws import hashed, mix
from graphrec.data.precision import single_precision
from graphrec.data.saved import make_folder
from graphrec.models.appending import reads_graph
from graphrec.models.direct_lists import COMMON_CONTACTS, JACCARD, LAST_ACT, LAST_EVENT
from graphrec.models.heuristic_lists import DirectRule, HeuristicLists, Measured
from graphrec.models.recommender import Recommender, Wanted
from graphrec.temporal import NEVER, Timeline, dense, popularity_half_life
from graphrec.temporal.patched import PatchedSweep

MAX_FRESH = 2**21
"""New contacts between the first and the last query, times queries, held at once."""

CACHED = 2**17
"""Scores worked on at once where an expression has temporary values, so that these stay in the cache."""

MAX_STEPS = 10_000
"""Limit of the steps of a walk; from far fewer on nothing changes any more."""

FIXED_POINT = 2.0**32
"""Real weights become whole numbers (exact in float64), so that sums do not depend on the order of users."""

FILE = "heuristic.json"


class Heuristic(Recommender):
    """A rule without parameters; only the half-life of recent popularity depends on the training period."""

    numbers: tuple[str, ...] = ("_half_life", "_origin")
    """Names of the attributes to save."""

    direct: ClassVar[DirectRule | None] = None
    """How `recommend` finds the best users without scores of all; if None, it scores all users."""

    _timeline: Timeline
    _half_life: float
    _origin: int
    """Seconds: recency counts from here, whichever event is the first of a graph."""
    _popularity: dense.PopularitySweep | PatchedSweep
    _lists: dict[DirectRule, HeuristicLists]
    """Made when first needed."""

    def __init_subclass__(cls) -> None:
        """A rule that defines scores of its own is listed by these, unless it says how to list it."""
        super().__init_subclass__()
        if {"score_all", "_score_in_order"} & vars(cls).keys() and "direct" not in vars(cls):
            cls.direct = None

    @single_precision()
    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Index the graph, and set the half-life of popularity from the training span."""
        until = self._check_past(graph, until)
        training = graph.events().time[graph.events().time < until]
        self._origin, self.fitted_until = int(training[0]), until
        self._half_life = popularity_half_life(self._origin, until)
        self._read(graph)
        return self

    @single_precision()
    def on(self, graph: FriendGraph) -> Self:
        """Return this rule on another graph, with the half-life of the fit."""
        self._check_fitted()
        out = copy(self)
        out._origin = min([self._origin, *graph.events().time[:1].tolist()])
        out._read(graph)
        return out

    def reading(self, timeline: Timeline, changed: Tensor) -> Self | None:
        """See `Recommender.reading`; a class of your own may read more than the index."""
        if type(self) not in HEURISTICS.values():
            return None
        out = copy(self)
        assert isinstance(self._popularity, dense.PopularitySweep)
        out._timeline, out._lists = timeline, {}
        out._popularity = PatchedSweep(self._popularity, timeline, changed, self._half_life)
        return out

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the rule's few numbers (half-life, times, seeds) as JSON."""
        self._check_fitted()
        folder = make_folder(folder)
        content = {"name": self.name, "fitted_until": self.fitted_until}
        content |= {key.strip("_"): getattr(self, key) for key in self.numbers}
        if "origin" in content:  # the first event may have been a forgotten person's
            content["origin"] = max([self._origin, *self.graph.events().time[:1].tolist()])
        (folder / FILE).write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """Read the numbers that `save` wrote, and index the graph."""
        folder = Path(folder)
        out = cls()
        try:
            content = json.loads((folder / FILE).read_text())
            if content["name"] != cls.name:
                raise DataError(f"it holds {content['name']}, not {cls.name}")
            out.fitted_until = content.get("fitted_until")
            for key in cls.numbers:
                setattr(out, key, content[key.strip("_")])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / FILE}: not {cls.name} as it was saved ({error})") from None
        out._read(graph)
        return out

    def _read(self, graph: FriendGraph) -> None:
        self._graph, self._timeline = graph, Timeline.of(graph)
        self._popularity, self._lists = dense.PopularitySweep(self._timeline, self._half_life), {}

    def follow(self, graph: FriendGraph) -> None:
        """See `Recommender.follow`: the work grows with the events appended alone."""
        self._graph, self._timeline = graph, Timeline.of(graph, follows=True)
        assert isinstance(self._popularity, dense.PopularitySweep)
        self._popularity.follow(self._timeline)
        for lists in self._lists.values():
            lists.follow(self._timeline)

    def _recommend(self, query: Query, wanted: Wanted) -> tuple[Tensor, Tensor]:
        if self.direct is None or not len(query):
            return super()._recommend(query, wanted)
        return self._list_directly(self.direct, query, wanted, torch.ones(len(query), dtype=torch.float64))

    def _list_directly(
        self, rule: DirectRule, query: Query, wanted: Wanted, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """List the best users; scale [B] float64 is the factor of what the rule measures."""
        lists = self._lists.get(rule)
        if lists is None:
            lists = self._lists[rule] = HeuristicLists(
                rule,
                self._timeline,
                half_life=self._half_life,
                origin=self._origin,
                weight=self._weight,
            )
        users, scores, answered = lists.best(query, wanted, scale)
        rows = (~answered).nonzero().squeeze(1)
        if len(rows):
            left = super()._recommend(query[rows], wanted.select(rows, len(query)))
            users[rows], scores[rows] = left
        return users, scores

    def _weight(self, degree: Tensor) -> Tensor:
        """Weights of common contacts by their degrees (same shape): integers, whose sums are exact."""
        return torch.ones_like(degree, dtype=torch.float32)

    def _far_apart(self, query: Query) -> bool:
        """Whether to split a batch, since many first contacts lie between its first and last query."""
        ticks = self._timeline.tick(query.time)
        fresh = dense.ContactGraph.num_fresh(self._timeline, ticks)
        return len(query) > 1 and fresh * len(query) > MAX_FRESH

    def _fallback(self, query: Query) -> Tensor:
        """Recent popularity, [B, N] float64 in [0, 1): breaks ties of scores that are at least 1 apart."""
        popular = self._popularity.at(query.time)
        for rows in _blocks(popular):
            rows.div_(rows + 1.0)
        return popular


class Random(Heuristic):
    """A uniform random score for each (query, candidate), a hash of both: the same in any batch.

    Args:
        generator: fixes the draw; by default seed 0.
    """

    name = "random"
    numbers = (*Heuristic.numbers, "salt")

    def __init__(self, generator: torch.Generator | None = None) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got a {type(generator).__name__}")
        generator = generator or torch.Generator().manual_seed(0)
        self.salt = int(torch.randint(2**62, (1,), generator=generator))

    def _score_in_order(self, query: Query) -> Tensor:
        row = hashed(self.salt, query.user, query.time, query.action)
        column = mix(self.salt + torch.arange(self.graph.num_users))
        scores = torch.empty(len(query), self.graph.num_users, dtype=torch.float64)
        blocks = _blocks(scores)
        for drawn, salts in zip(blocks, row.split(len(blocks[0])), strict=True):
            drawn.copy_(mix(salts[:, None] + column) & (2**53 - 1)).div_(2.0**53)
        return scores


class Popularity(Heuristic):
    """Number of events that the candidate has received."""

    name = "popularity"
    direct = DirectRule(measure=Measured.RECEIVED, popularity=False)

    def _score_in_order(self, query: Query) -> Tensor:
        return dense.num_received(self._timeline, self._timeline.tick(query.time))


class RecentPopularity(Heuristic):
    """Events that the candidate has received, decayed with half-life max(3 days, training span / 48)."""

    name = "recent_popularity"
    direct = DirectRule(squash=False)

    def _score_in_order(self, query: Query) -> Tensor:
        return self._popularity.at(query.time)


class LastActive(Heuristic):
    """Time of the candidate's last act."""

    name = "last_active"
    direct = DirectRule(measure=Measured.LAST_ACT, popularity=False)
    _role: Literal["src", "either"] = "src"

    def _score_in_order(self, query: Query) -> Tensor:
        last = dense.last_time(self._timeline, self._timeline.tick(query.time), role=self._role)
        return last.sub_(self._origin - 1).clamp_(min=0).double()


class LastSeen(LastActive):
    """Time of the candidate's last event, as actor or as target."""

    name = "last_seen"
    direct = DirectRule(measure=Measured.LAST_EVENT, popularity=False)
    _role = "either"


class RepeatRecency(Heuristic):
    """Time of the user's last act on the candidate; candidates without one follow, by recent popularity."""

    name = "repeat_recency"
    direct = DirectRule(candidates=LAST_ACT, add_popularity=False)
    _either_way = False

    def _score_in_order(self, query: Query) -> Tensor:
        met = self._timeline.distinct_contacts(query.user, self._timeline.tick(query.time))
        last = torch.maximum(met.last_out, met.last_in) if self._either_way else met.last_out
        happened = last > NEVER
        row, user, last = met.row[happened], met.user[happened], last[happened]
        scores = self._fallback(query)
        scores[row, user] = (last - self._origin + 1).double()
        return scores


class ReplyRecency(RepeatRecency):
    """Time of the last event between user and candidate, either way; those without follow, by popularity."""

    name = "reply_recency"
    direct = DirectRule(candidates=LAST_EVENT, add_popularity=False)
    _either_way = True


class CommonNeighbors(Heuristic):
    """Number of common contacts of user and candidate; ties are broken by recent popularity."""

    name = "common_neighbors"
    direct = DirectRule(candidates=COMMON_CONTACTS)

    def _score_in_order(self, query: Query) -> Tensor:
        return self._fallback(query).add_(self._two_hop(query))

    def _two_hop(self, query: Query) -> Tensor:
        """Sums of `_weight` over common contacts with every user: [B, N] float64, exact whole numbers."""
        if self._far_apart(query):
            middle = len(query) // 2
            return torch.cat([self._two_hop(query[:middle]), self._two_hop(query[middle:])])
        ticks = self._timeline.tick(query.time)
        row, person = self._timeline.contacts.before(query.user, ticks)
        weight = self._weight(self._timeline.degree(person, ticks[row]))
        reached = weight.new_zeros(self.graph.num_users, len(query))
        reached[person, row] = weight
        return dense.ContactGraph(self._timeline, ticks).spread(reached).T.contiguous().double()


class Jaccard(CommonNeighbors):
    """Common contacts over the union of both users' contacts (Jaccard 1901); ties by recent popularity."""

    name = "jaccard"
    direct = DirectRule(candidates=JACCARD)

    def _score_in_order(self, query: Query) -> Tensor:
        common = self._two_hop(query)
        tick = self._timeline.tick(query.time)
        own = self._timeline.degree(query.user, tick).double()
        union = dense.degree(self._timeline, tick).add_(own[:, None]).sub_(common)
        # Two distinct fractions of integers up to N differ by at least 1 / N^2.
        squared = float(self.graph.num_users) ** 2
        return self._fallback(query).add_((common / union.clamp_(min=1.0)).mul_(squared))


class AdamicAdar(CommonNeighbors):
    """Common contacts, weighted 1 / ln(max(degree, 2)) (Adamic & Adar 2003); ties by recent popularity."""

    name = "adamic_adar"

    def _weight(self, degree: Tensor) -> Tensor:
        return (FIXED_POINT / degree.clamp(min=2).double().log()).round()


class PreferentialAttachment(Heuristic):
    """Product of both users' degrees (Barabasi & Albert 1999); ties by recent popularity."""

    name = "preferential_attachment"
    direct = DirectRule(measure=Measured.DEGREE)

    def _score_in_order(self, query: Query) -> Tensor:
        tick = self._timeline.tick(query.time)
        own = self._timeline.degree(query.user, tick).double()
        return self._fallback(query).add_(dense.degree(self._timeline, tick).mul_(own[:, None]))

    def _list_directly(
        self, rule: DirectRule, query: Query, wanted: Wanted, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        own = self._timeline.degree(query.user, self._timeline.tick(query.time)).double()
        users, scores = super()._list_directly(rule, query, wanted, own)
        strangers = (own == 0).nonzero().squeeze(1)
        if len(strangers):  # popularity alone tells users apart
            part = query[strangers], wanted.select(strangers, len(query)), scale[strangers]
            users[strangers], scores[strangers] = super()._list_directly(DirectRule(), *part)
        return users, scores


class PPR(Heuristic):
    """Personalized PageRank on the contact graph (Page et al. 1999); ties by recent popularity.

    Args:
        restart: probability of returning to the query's user at each step.
        num_steps: power iterations, and so the longest walk in hops; users farther away get no score from it.
    """

    name = "ppr"
    numbers = (*Heuristic.numbers, "restart", "num_steps")

    def __init__(self, *, restart: float = 0.15, num_steps: int = 5) -> None:
        self.restart = check_number("restart", restart, above=0.0, below=1.0)
        self.num_steps = check_count("num_steps", num_steps, minimum=0, maximum=MAX_STEPS)

    def _score_in_order(self, query: Query) -> Tensor:
        return self._fallback(query).add_(self.visits(query).mul_(FIXED_POINT).round_())

    @reads_graph
    def visits(self, query: Query) -> Tensor:
        """Personalized PageRank of all users, for B queries in order of time: [B, N] float64."""
        self._check(query)
        if self._far_apart(query):
            middle = len(query) // 2
            return torch.cat([self.visits(query[:middle]), self.visits(query[middle:])])
        ticks = self._timeline.tick(query.time)
        graph = dense.ContactGraph(self._timeline, ticks)
        # A user's mass times 1 - restart moves on, in equal parts to each contact.
        outflow = dense.degree(self._timeline, ticks).clamp_(min=1.0).div_(1.0 - self.restart).T.contiguous()
        visits = torch.zeros(self.graph.num_users, len(query), dtype=torch.float64)
        home = query.user, torch.arange(len(query))
        visits[home] = 1.0
        for _ in range(self.num_steps):
            visits = graph.spread(visits.div_(outflow))
            visits[home] += self.restart
        return visits.T.contiguous()


def _blocks(scores: Tensor) -> list[Tensor]:
    """Views of consecutive rows of scores [B, N], each small enough for the cache."""
    return list(scores.split(max(1, CACHED // scores.size(1))))


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
