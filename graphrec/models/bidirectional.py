"""Any recommender made two-sided: its best new people are put in order by how likely both want the tie."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_count, check_list_length, check_number, check_time
from graphrec.data.precision import single_precision
from graphrec.evaluate import Initiations
from graphrec.evaluate.protocol import sample_rows
from graphrec.models.reciprocity import Reciprocity
from graphrec.models.recommender import Recommender, best_of, latest
from graphrec.models.saved import (
    load_members,
    made_folder,
    read_manifest,
    reading,
    save_members,
    write_manifest,
)
from graphrec.temporal import Timeline

FORMAT, MANIFEST, RECIPROCITY = "graphrec.Bidirectional/2", "both.json", "reciprocity"

BLOCK = 2**22
"""Scores of the other side held at once, in numbers."""

GRID = tuple(product((0.0, 0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 1.0, 2.0)))
"""Weights a and exponents q that validation chooses from."""

LOG_2 = math.log(2.0)
PLACES = 10.0
"""Where a list counts as having ended, about, when validation chooses."""

LEAST_TIES = 30
"""With fewer of them in validation the weights stay as they are."""

MOST_TIES = 2000
"""Judged at their first contact, of validation."""

REFRESHES = 200
"""How often the lists of the other side were renewed in training; later ones as often per event."""


class Bidirectional(Recommender):
    """Rescores the best people whom the user has had no contact with; nobody else's score changes.

    For a user u and one of the `num_candidates` best new people v,

        score = M(P(u -> v), P(v -> u)) P(v answers u | u -> v)^a,   M(x, y) = ((x^q + y^q) / 2)^(1 / q)

    P(u -> v) = 1 / rank of v among the new people of u, P(v -> u) = 1 / rank of u among those of v: ranks, so
    that any recommender will do, whatever its scores mean. The answer is that of `Reciprocity`. M is a power
    mean, since a tie may begin on either side: the smaller q, the more it asks of the side less inclined. By
    default a = 1 and q = 1/2; `choose` takes those that do best by the ties of validation.

    The scores which these people had are then dealt out among them in the new order. So people u knows, and
    everyone less likely, stand where they stood.

    The other side's ranks are those of its last renewal, which is strictly older than the query: as often as
    there are a two-hundredth of the training events.

    Args:
        recommender: what is wrapped; `fit` fits it.
        reciprocity: the model of answers; `fit` fits it.
        num_candidates: how many people are rescored; those who tie with the next one are not.
        weights: a and q.
    """

    def __init__(
        self,
        recommender: Recommender,
        reciprocity: Reciprocity,
        *,
        num_candidates: int = 50,
        weights: tuple[float, float] = (1.0, 0.5),
    ) -> None:
        num_candidates = check_count("num_candidates", num_candidates)
        if not isinstance(recommender, Recommender):
            raise TypeError(f"recommender must be a Recommender, got a {type(recommender).__name__}")
        if not isinstance(reciprocity, Reciprocity):
            raise TypeError(f"reciprocity must be a Reciprocity, got a {type(reciprocity).__name__}")
        for name, weight in zip(("weights: a", "weights: q"), weights, strict=True):
            check_number(name, weight, minimum=0.0)
        if not all(0 <= weight < float("inf") for weight in weights) or not weights[1]:
            raise ValueError(f"weights must be finite, a not negative and q positive, got {weights}")
        self.recommender, self.reciprocity = recommender, reciprocity
        self.num_candidates, self.weights = num_candidates, weights
        self.name = f"{recommender.name}_both"
        self.dtype = recommender.dtype

    @property
    def num_parameters(self) -> int:
        """Of both models."""
        network = getattr(self.reciprocity, "network", None)
        own = sum(parameter.numel() for parameter in network.parameters()) if network is not None else 0
        return self.recommender.num_parameters + own

    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Fit both models on the events strictly before `until`."""
        until = self._check_past(graph, until)
        self.recommender.fit(graph, until=until)
        self.reciprocity.fit(graph, until=until)
        return self.join(graph, until=until)

    def join(self, graph: FriendGraph, *, until: int) -> Self:
        """Take both models as they are, fitted on this graph's events before `until`."""
        until = self._check_past(graph, until)
        self._read(graph)
        num_events = int(torch.searchsorted(self._timeline.events.time, until))
        self._every = max(1, num_events // REFRESHES)
        return self

    @single_precision()
    def choose(self, *, start: int, end: int, action: str | None = None) -> Self:
        """Take the weights of `GRID` that do best by the ties formed in [start, end) seconds.

        Two figures of candidates are taken, relative to those of the recommender alone. The first is the
        mutual MRR of pairs whose first contact and answer fall there, just before that contact. The second
        counts the people with whom users then formed ties by their places on the lists of `start`, as
        1 / (1 + (place / 10)^2): a precision that changes smoothly. What is maximised is the smaller of both,
        so that neither is bought with the other. With fewer than 30 pairs, or without a tie among the
        candidates, the weights stay.

        Args:
            start: first second of validation.
            end: the second after its last.
            action: the act hoped for at `start`; by default the commonest.
        """
        start, end = check_time("start", start), check_time("end", end)
        if end <= start:
            raise ValueError(f"end must be later than start, got {end} and {start}")
        pairs, num_users = Initiations.of(self.graph), self.graph.num_users
        tie = np.flatnonzero(
            (pairs.initiation_time >= start) & (pairs.reply_time >= 0) & (pairs.reply_time < end)
        )
        if len(tie) < LEAST_TIES:
            return self
        tie = tie[np.lexsort((pairs.initiation_action[tie], pairs.initiation_time[tie]))]
        u, v, time, act = (
            torch.from_numpy(part[tie])
            for part in (pairs.initiator, pairs.recipient, pairs.initiation_time, pairs.initiation_action)
        )
        judged = np.arange(len(tie))
        if len(tie) > MOST_TIES:
            judged = np.sort(np.random.default_rng(0).choice(judged, MOST_TIES, replace=False))
        contact = Query(u, time, act)[torch.from_numpy(judged)]
        other = v[torch.from_numpy(judged)]
        sides = [
            self._candidates(contact, other),
            self._candidates(Query(other, contact.time, contact.action), contact.user),
        ]
        users = torch.cat([u, v]).unique()
        users = users[self._timeline.first_tick[users] < self._timeline.tick(torch.tensor(start))]
        users = users[torch.from_numpy(np.sort(sample_rows(np.arange(len(users)), num_users)))]
        if not len(users):
            return self
        moment = self._candidates(Query.of(self.graph, users, start, action), None)
        formed = torch.cat([u * num_users + v, v * num_users + u])
        goal = torch.isin(users[moment.row] * num_users + moment.person, formed)

        def figures(weights: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
            mutual = torch.minimum(*(1 / side.rank(weights) for side in sides)).mean()
            return mutual, (1 / (1 + (moment.ranks(weights)[goal] / PLACES).square())).sum()

        alone = figures(None)
        if min(alone) > 0:
            # Of equal ones the first.
            self.weights = max(GRID, key=lambda weights: min(map(torch.div, figures(weights), alone)))
        return self

    def _candidates(self, query: Query, target: Tensor | None) -> _Candidates:
        """What speaks for the candidates of queries, in order of time, and which of them is the target."""
        rows = max(1, BLOCK // self.graph.num_users)
        found = []
        for start in range(0, len(query), rows):
            asked = query[start : start + rows]
            with torch.no_grad():
                row, *parts = self._parts(asked, self.recommender.score_all(asked))
            found.append((row + start, *parts))
        row, person, *logs = (torch.cat(parts) for parts in zip(*found, strict=True))
        at = None if target is None else (person == target[row]).nonzero().squeeze(1)
        return _Candidates(len(query), row, person, torch.stack(logs), at)

    def on(self, graph: FriendGraph) -> Self:
        """The same recommender, with what both models have learned, on another graph."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.recommender = self.recommender.on(graph)
        other.reciprocity = self.reciprocity.on(graph)
        other._read(graph)
        return other

    def _read(self, graph: FriendGraph) -> None:
        self._graph, self._timeline = graph, Timeline.of(graph)
        self.tokenizer = self.recommender.tokenizer
        self.fitted_until = latest([self.recommender.fitted_until, self.reciprocity.fitted_until])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`; each of the two models in a folder of its own."""
        self._check_fitted()
        folder = made_folder(folder)
        self.reciprocity.save(folder / RECIPROCITY)
        content = {
            "members": save_members({"recommender": self.recommender}, folder),
            "num_candidates": self.num_candidates,
            "weights": self.weights,
            "every": self._every,
        }
        write_manifest(folder / MANIFEST, FORMAT, content)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        folder = Path(folder)
        with reading(cls, folder):
            content = read_manifest(folder / MANIFEST, FORMAT)
            out = cls(
                **load_members(content["members"], folder, graph),
                reciprocity=Reciprocity.load(folder / RECIPROCITY, graph),
                num_candidates=content["num_candidates"],
                weights=tuple(content["weights"]),
            )
            out._every = int(content["every"])
        out._read(graph)
        return out

    def _score_in_order(self, query: Query) -> Tensor:
        scores = self.recommender.score_all(query)
        row, person, *logs = self._parts(query, scores)
        return _dealt_out(scores, row, person, _joined(self.weights, *logs))

    @single_precision()
    def ties(self, query: Query, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k best new people of each query with what a re-ranker needs.

        Returns:
            people [B, k] int64, padded with -1; the joined scores, in (0, 1], 0 where padded; and the
            probabilities that they would be approached if suggested, P(u -> v) as above: [B, k] float64.
        """
        self._check(query)
        k = check_list_length(k, self.graph.num_users)
        people = torch.full((len(query), k), -1)
        joined, approach = (torch.zeros(len(query), k, dtype=torch.float64) for _ in range(2))
        rows = max(1, BLOCK // self.graph.num_users)
        order = query.time.argsort(stable=True)
        for part in order.split(rows) if len(query) else ():
            asked = query[part]
            row, person, *logs = self._parts(asked, self.recommender.score_all(asked))
            score = _joined(self.weights, *logs)
            best, place = best_of(row, person, score, k, self.graph.num_users)
            at = part[row[best]], place
            people[at], joined[at], approach[at] = person[best], score[best].exp(), logs[0][best].exp()
        return people, joined, approach

    def _parts(self, query: Query, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Candidates and the logarithms of what speaks for them.

        Args:
            query: B queries, in order of time.
            scores: [B, N], of the wrapped recommender.

        Returns:
            (row [M] ascending, person [M]) int64, and log P(u -> v), log P(v answers), log P(v -> u) [M].
        """
        new = self._new_people(query, scores)
        most = min(self.num_candidates + 1, new.size(1))
        best = new.topk(most, dim=1).values
        least = best[:, -1:] if most > self.num_candidates else -torch.inf
        row, person = (new > least).nonzero(as_tuple=True)
        forth = _mean_ranks(best.flip(1), row, new[row, person])
        asked = Query(query.user[row], query.time[row], query.action[row])
        answer = self.reciprocity.probability(asked, person)
        back = self._other_side(asked, person)
        return row, person, -forth.log(), answer.clamp(min=1e-9).log(), -back.log()

    def _other_side(self, asked: Query, person: Tensor) -> Tensor:
        """Ranks of users [M] for people [M], at the people's last renewal before the queries: float64."""
        num_users, num_actions = self.graph.num_users, len(self.graph.actions)
        events = self._timeline.events.time
        renewed = torch.searchsorted(events, asked.time.contiguous()) // self._every * self._every
        time = torch.where(renewed > 0, events[(renewed - 1).clamp(min=0)] + 1, events[0])
        key = (renewed * num_actions + asked.action) * num_users + person
        key, which = key.unique(return_inverse=True)  # in order of time
        first = torch.empty_like(key).scatter_(0, which, torch.arange(len(which)))
        order = which.argsort(stable=True)
        rank = torch.empty(len(which), dtype=torch.float64)
        bounds = torch.searchsorted(which[order], torch.arange(len(key) + 1))
        rows = max(1, BLOCK // num_users)
        for start in range(0, len(key), rows):
            end = min(start + rows, len(key))
            at = first[start:end]
            query = Query(person[at], time[at], asked.action[at])
            new = self._new_people(query, self.recommender.score_all(query))
            pairs = order[int(bounds[start]) : int(bounds[end])]
            row = which[pairs] - start
            rank[pairs] = _mean_ranks(new.sort(dim=1).values, row, new[row, asked.user[pairs]])
        return rank

    def _new_people(self, query: Query, scores: Tensor) -> Tensor:
        """Scores [B, N] float64 with -inf for the user and everybody met before the query."""
        new = scores.to(torch.float64, copy=True)
        new[torch.arange(len(query)), query.user] = -torch.inf
        new[self._timeline.contacts.before(query.user, self._timeline.tick(query.time))] = -torch.inf
        return new


def _joined(weights: tuple[float, float], forth: Tensor, answer: Tensor, back: Tensor) -> Tensor:
    """The logarithm of the score, [M], from those of its three parts."""
    a, q = weights
    return (torch.logaddexp(q * forth, q * back) - LOG_2) / q + a * answer


def _mean_ranks(ascending: Tensor, row: Tensor, own: Tensor) -> Tensor:
    """Ranks of values [M] in rows [M] of sorted scores [B, K], those who tie at the middle: [M] float64."""
    ends = []
    for tied_too in (False, True):  # how many are below, and how many not above
        low, high = torch.zeros_like(row), torch.full_like(row, ascending.size(1))
        for _ in range(ascending.size(1).bit_length()):
            middle = (low + high) // 2
            value = ascending[row, middle.clamp(max=ascending.size(1) - 1)]
            below = ((value <= own) if tied_too else (value < own)) & (low < high)
            low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
        ends.append(low)
    return ascending.size(1) - (ends[0] + ends[1]).double() / 2 + 0.5


def _dealt_out(scores: Tensor, row: Tensor, person: Tensor, value: Tensor) -> Tensor:
    """The scores [B, N] of each row's people [M], dealt out among them by descending values [M].

    People of one value get one score, the best of theirs.
    """
    old = scores[row, person]
    best = old.argsort(descending=True, stable=True)
    best = best[row[best].argsort(stable=True)]
    new = value.argsort(descending=True, stable=True)
    new = new[row[new].argsort(stable=True)]
    opens = torch.ones_like(row, dtype=torch.bool)
    opens[1:] = (value[new].diff() != 0) | (row.diff() != 0)
    place = torch.where(opens, torch.arange(len(row)), 0).cummax(0).values
    out = scores.clone()
    out[row[new], person[new]] = old[best[place]]
    return out


@dataclass(frozen=True)
class _Candidates:
    """Of B queries: (row [M] ascending, person [M]), what speaks for them [3, M], and where targets are."""

    num_queries: int
    row: Tensor
    person: Tensor
    logs: Tensor
    target: Tensor | None

    def ranks(self, weights: tuple[float, float] | None) -> Tensor:
        """Places of all of them among the candidates, [M] float64; None asks the recommender alone."""
        joined = self.logs[0] if weights is None else _joined(weights, *self.logs)
        order = joined.argsort(descending=True, stable=True)
        order = order[self.row[order].argsort(stable=True)]
        place = torch.arange(len(order)) - torch.searchsorted(self.row, self.row)
        rank = torch.empty(len(order), dtype=torch.float64)
        rank[order] = 1.0 + place.double()
        return rank

    def rank(self, weights: tuple[float, float] | None) -> Tensor:
        """The place of the target of each query, [B] float64; infinite where it is no candidate."""
        assert self.target is not None
        out = torch.full((self.num_queries,), torch.inf, dtype=torch.float64)
        out[self.row[self.target]] = self.ranks(weights)[self.target]
        return out
