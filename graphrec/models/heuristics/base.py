"""What all heuristics share: half-life, saving, lists found directly.

All read the strictly-past index (`graphrec.temporal`). The undirected *contact graph* has an edge between two
users from their first event in either direction; a user's degree is the number of distinct contacts. Only
ordinary acts count (see `graphrec.data.Roles`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from graphrec.data import DataError, FriendGraph, Query
from graphrec.data.precision import single_precision
from graphrec.data.saved import make_folder
from graphrec.models.heuristic_lists import DirectRule, HeuristicLists
from graphrec.models.recommender import Recommender
from graphrec.models.wanted import Wanted
from graphrec.temporal import ContactChanges, Timeline, dense, ordinary_graph, popularity_half_life
from graphrec.temporal.patched import PatchedSweep

MAX_FRESH = 2**21
"""New contacts between the first and the last query, times queries, held at once."""

CACHED = 2**17
"""Scores worked on at once where an expression has temporary values, so that these stay in the cache."""

FILE = "heuristic.json"


class Heuristic(Recommender):
    """A rule without parameters; only the half-life of recent popularity depends on the training period."""

    numbers: tuple[str, ...] = ("_half_life", "_origin")
    """Names of the attributes to save."""

    direct: ClassVar[DirectRule | None] = None
    """How `recommend` finds the best users without scores of all; if None, it scores all users."""

    reads_contacts: ClassVar[bool] = False
    """Whether scores depend on the contact graph; then users are listed from scores of all where ties end."""

    _timeline: Timeline
    """The index of the ordinary acts."""
    _changes: ContactChanges | None
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
        if type(self) not in HEURISTICS.values() or not self.graph.roles.all_ordinary:
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
        self._graph, self._timeline = graph, Timeline.of(ordinary_graph(graph))
        self._changes = ContactChanges.of(graph)
        self._popularity, self._lists = dense.PopularitySweep(self._timeline, self._half_life), {}

    def follow(self, graph: FriendGraph) -> None:
        """See `Recommender.follow`: the work grows with the events appended, if all actions are ordinary."""
        if not graph.roles.all_ordinary:
            self._read(graph)
            return
        self._graph, self._timeline = graph, Timeline.of(graph, follows=True)
        assert isinstance(self._popularity, dense.PopularitySweep)
        self._popularity.follow(self._timeline)
        for lists in self._lists.values():
            lists.follow(self._timeline)

    def _recommend(self, query: Query, wanted: Wanted) -> tuple[Tensor, Tensor]:
        if self.direct is None or not len(query) or (self._changes is not None and self.reads_contacts):
            return super()._recommend(query, wanted)
        return self._list_directly(self.direct, query, wanted, torch.ones(len(query), dtype=torch.float64))

    def _list_directly(
        self, rule: DirectRule, query: Query, wanted: Wanted, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """List the best users; scale [B] float64 is the factor of what the rule measures."""
        users, scores, answered = self._lists_of(rule).best(query, wanted, scale)
        rows = (~answered).nonzero().squeeze(1)
        if len(rows):
            left = super()._recommend(query[rows], wanted.select(rows, len(query)))
            users[rows], scores[rows] = left
        return users, scores

    def _lists_of(self, rule: DirectRule) -> HeuristicLists:
        """The lists of a rule, made when first needed."""
        lists = self._lists.get(rule)
        if lists is None:
            lists = self._lists[rule] = HeuristicLists(
                rule,
                self._timeline,
                half_life=self._half_life,
                origin=self._origin,
                weight=self._weight,
            )
        return lists

    def _weight(self, degree: Tensor) -> Tensor:
        """Weights of common contacts by their degrees (same shape): integers, whose sums are exact."""
        return torch.ones_like(degree, dtype=torch.float32)

    def _far_apart(self, query: Query) -> bool:
        """Whether to split a batch, since many first contacts lie between its first and last query."""
        ticks = self._timeline.tick(query.time)
        fresh = dense.ContactGraph.num_fresh(self._timeline, ticks)
        return len(query) > 1 and fresh * len(query) > MAX_FRESH

    def _degrees(self, query: Query) -> Tensor:
        """The number of contacts of every user, for queries in order of time: [B, N] float64."""
        degree = dense.degree(self._timeline, self._timeline.tick(query.time))
        if self._changes is not None:
            degree += self._changes.degree(query.time, self.graph.num_users)
        return degree

    def _contact_graph(self, query: Query) -> Callable[[Tensor], Tensor]:
        """Return the map from amounts to the sums of those of users' contacts: [N, B] -> [N, B]."""
        graph, changes = dense.ContactGraph(self._timeline, self._timeline.tick(query.time)), self._changes
        if changes is None:
            return graph.spread
        return lambda amounts: graph.spread(amounts) + changes.spread(amounts, query.time)

    def _fallback(self, query: Query) -> Tensor:
        """Recent popularity, [B, N] float64 in [0, 1): breaks ties of scores that are at least 1 apart."""
        popular = self._popularity.at(query.time)
        for rows in cache_blocks(popular):
            rows.div_(rows + 1.0)
        return popular


def cache_blocks(scores: Tensor) -> list[Tensor]:
    """Views of consecutive rows of scores [B, N], each small enough for the cache."""
    return list(scores.split(max(1, CACHED // scores.size(1))))


HEURISTICS: dict[str, type[Heuristic]] = {}
"""The heuristics of the library by name; `catalog` names them."""
