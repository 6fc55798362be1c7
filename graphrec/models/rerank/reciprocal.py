"""A reranker that orders the best new people of any recommender by how likely both sides want the tie."""

from __future__ import annotations

import os
from copy import copy
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_count, check_list_length, check_number, check_time
from graphrec.data.precision import single_precision
from graphrec.data.saved import (
    load_errors_as_data_error,
    make_folder,
    read_manifest,
    write_manifest,
)
from graphrec.evaluate import Initiations
from graphrec.evaluate.protocol import sample_rows
from graphrec.models.appending import reads_graph
from graphrec.models.manifest import load_submodels, save_submodels
from graphrec.models.recommender import Recommender, latest
from graphrec.models.rerank.reciprocal_scores import (
    RatedCandidates,
    joined_score,
    mean_ranks,
    redistribute_scores,
)
from graphrec.models.rerank.reply_model import ReplyModel
from graphrec.retrieval.topk import segment_topk
from graphrec.temporal import Timeline

FORMAT, MANIFEST, REPLY_MODEL = "graphrec.ReciprocalReranker/1", "reranker.json", "reply_model"

MAX_SCORES = 2**22
"""Number of scores held at once when the candidates' own ranks are computed."""

GRID = tuple(product((0.0, 0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 1.0, 2.0)))
"""Pairs (a, q) that validation chooses from."""

LIST_LENGTH = 10.0
"""Rank at which a tie counts half in the smooth precision of `choose`."""

MIN_TIES, MAX_TIES = 30, 2000
"""Number of validation ties: with fewer the weights stay; a larger set is sampled."""

NUM_RENEWALS = 200
"""Number of renewals of the candidates' own ranks in training; later at the same rate per event."""

MIN_PROBABILITY = 1e-9


class ReciprocalReranker(Recommender):
    """Reranks the highest-scored users without earlier contact; the scores of all others stay.

    For a user u and one of the `num_candidates` best new people v,

        score = M(P(u -> v), P(v -> u)) P(v replies | u -> v)^a,   M(x, y) = ((x^q + y^q) / 2)^(1 / q)

    where P(u -> v) = 1 / rank of v among the new people of u, and P(v -> u) = 1 / rank of u among those of v.
    Ranks are used because the scores of an arbitrary recommender have no scale. P(v replies | u -> v) is the
    `ReplyModel`'s. M is a power mean, since either side may begin a tie: the smaller q, the more weight the
    less interested side has. By default a = 1 and q = 1/2; `choose` picks the values that do best on
    validation ties.

    The candidates' original scores are then reassigned to them in the new order, so contacts of u, and users
    below the candidates, keep their ranks.

    Ranks for v are computed anew at regular moments, one for each two-hundredth of the training events, and a
    query reads those of the latest moment strictly before it.

    Args:
        recommender: the recommender to rerank; fitted by `fit`.
        reply_model: gives the probability of a reply; fitted by `fit`.
        num_candidates: number of users to rerank; users whose score ties with the first one below are left
            out.
        weights: (a, q).
    """

    def __init__(
        self,
        recommender: Recommender,
        reply_model: ReplyModel,
        *,
        num_candidates: int = 50,
        weights: tuple[float, float] = (1.0, 0.5),
    ) -> None:
        num_candidates = check_count("num_candidates", num_candidates)
        if not isinstance(recommender, Recommender):
            raise TypeError(f"recommender must be a Recommender, got a {type(recommender).__name__}")
        if not isinstance(reply_model, ReplyModel):
            raise TypeError(f"reply_model must be a ReplyModel, got a {type(reply_model).__name__}")
        for name, weight in zip(("weights: a", "weights: q"), weights, strict=True):
            check_number(name, weight, minimum=0.0)
        if not all(0 <= weight < float("inf") for weight in weights) or not weights[1]:
            raise ValueError(f"weights must be finite, a not negative and q positive, got {weights}")
        self.recommender, self.reply_model = recommender, reply_model
        self.num_candidates, self.weights = num_candidates, weights
        self.name = f"{recommender.name}_both"
        self.dtype = recommender.dtype
        self._renewal_events = 1

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of both models together."""
        return self.recommender.num_parameters + self.reply_model.num_parameters

    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Fit both models on the events strictly before `until` (s)."""
        until = self._check_past(graph, until)
        self.recommender.fit(graph, until=until)
        self.reply_model.fit(graph, until=until)
        return self.join(graph, until=until)

    def join(self, graph: FriendGraph, *, until: int) -> Self:
        """Use both models as already fitted on this graph's events before `until` (s)."""
        until = self._check_past(graph, until)
        self._read(graph)
        num_events = int(torch.searchsorted(self._timeline.events.time, until))
        self._renewal_events = max(1, num_events // NUM_RENEWALS)
        return self

    @single_precision()
    def choose(self, *, start: int, end: int, action: str | None = None) -> Self:
        """Choose the weights of `GRID` that do best on the ties formed in [start, end) seconds.

        Two metrics are computed over the candidates, each divided by its value for the recommender alone. The
        first is the mutual MRR of pairs whose first contact and reply fall in the window, ranked just before
        that contact. The second is a smooth precision of the lists made at `start`: the sum of 1 / (1 + (rank
        / 10)^2) over the people with whom a tie was then formed. The smaller of the two is maximized, so that
        neither is traded for the other. With fewer than 30 pairs, or without a tie among the candidates, the
        weights stay as they are.

        Args:
            start: first second of validation.
            end: the second after its last.
            action: the action of the queries at `start`; by default the most common one.
        """
        start, end = check_time("start", start), check_time("end", end)
        if end <= start:
            raise ValueError(f"end must be later than start, got {end} and {start}")
        pairs, num_users = Initiations.of(self.graph), self.graph.num_users
        begun, replied = pairs.initiation_time, pairs.reply_time
        tie = np.flatnonzero((begun >= start) & (replied >= 0) & (replied < end))
        if len(tie) < MIN_TIES:
            return self
        tie = tie[np.lexsort((pairs.initiation_action[tie], pairs.initiation_time[tie]))]
        u, v, time, act = (
            torch.from_numpy(part[tie])
            for part in (pairs.initiator, pairs.recipient, pairs.initiation_time, pairs.initiation_action)
        )
        judged = np.arange(len(tie))
        if len(tie) > MAX_TIES:
            judged = np.sort(np.random.default_rng(0).choice(judged, MAX_TIES, replace=False))
        contact = Query(u, time, act)[torch.from_numpy(judged)]
        other = v[torch.from_numpy(judged)]
        sides = [
            self._rated(contact, other),
            self._rated(Query(other, contact.time, contact.action), contact.user),
        ]
        users = torch.cat([u, v]).unique()
        users = users[self._timeline.first_tick[users] < self._timeline.tick(torch.tensor(start))]
        users = users[torch.from_numpy(np.sort(sample_rows(np.arange(len(users)), num_users)))]
        if not len(users):
            return self
        moment = self._rated(Query.of(self.graph, users, start, action), None)
        formed = torch.cat([u * num_users + v, v * num_users + u])
        goal = torch.isin(users[moment.row] * num_users + moment.person, formed)

        def figures(weights: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
            mutual = torch.minimum(*(1 / side.rank(weights) for side in sides)).mean()
            return mutual, (1 / (1 + (moment.ranks(weights)[goal] / LIST_LENGTH).square())).sum()

        alone = figures(None)
        if min(alone) > 0:
            # Of equal ones the first.
            self.weights = max(GRID, key=lambda weights: min(map(torch.div, figures(weights), alone)))
        return self

    def _rated(self, query: Query, target: Tensor | None) -> RatedCandidates:
        """Compute the candidates of B queries in order of time, with the factors of their scores.

        Args:
            query: B queries.
            target: [B] int64, users to find among the candidates; None for none.
        """
        rows = max(1, MAX_SCORES // self.graph.num_users)
        found = []
        for start in range(0, len(query), rows):
            asked = query[start : start + rows]
            with torch.no_grad():
                row, *parts = self._parts(asked, self.recommender.score_all(asked))
            found.append((row + start, *parts))
        row, person, *logs = (torch.cat(parts) for parts in zip(*found, strict=True))
        at = None if target is None else (person == target[row]).nonzero().squeeze(1)
        return RatedCandidates(len(query), row, person, torch.stack(logs), at)

    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`."""
        other = copy(self)
        other.recommender = self.recommender.on(graph)
        other.reply_model = self.reply_model.on(graph)
        other._read(graph)
        return other

    def follow(self, graph: FriendGraph) -> None:
        """See `Recommender.follow`: both models follow."""
        self.recommender.follow(graph)
        self.reply_model.follow(graph)
        self._read(graph)

    @property
    def _timeline(self) -> Timeline:
        return Timeline.of(self.graph, follows=True)

    def _read(self, graph: FriendGraph) -> None:
        self._graph = graph
        self.tokenizer = self.recommender.tokenizer
        self.fitted_until = latest([self.recommender.fitted_until, self.reply_model.fitted_until])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`; each of the two models in a folder of its own."""
        self._check_fitted()
        folder = make_folder(folder)
        self.reply_model.save(folder / REPLY_MODEL)
        content = {
            "members": save_submodels({"recommender": self.recommender}, folder),
            "num_candidates": self.num_candidates,
            "weights": self.weights,
            "renewal_events": self._renewal_events,
        }
        write_manifest(folder / MANIFEST, FORMAT, content)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        folder = Path(folder)
        with load_errors_as_data_error(cls, folder):
            content = read_manifest(folder / MANIFEST, FORMAT)
            out = cls(
                **load_submodels(content["members"], folder, graph),
                reply_model=ReplyModel.load(folder / REPLY_MODEL, graph),
                num_candidates=content["num_candidates"],
                weights=tuple(content["weights"]),
            )
            out._renewal_events = int(content["renewal_events"])
        out._read(graph)
        return out

    def _score_in_order(self, query: Query) -> Tensor:
        scores = self.recommender.score_all(query)
        row, person, *logs = self._parts(query, scores)
        return redistribute_scores(scores, row, person, joined_score(self.weights, *logs))

    @reads_graph
    @single_precision()
    def ties(self, query: Query, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k best new people of each query, with the values that `exposure_capped_topk` takes.

        Returns:
            people [B, k] int64, padded with -1; their scores [B, k] float64 in (0, 1], 0 for padding; and P(u
            -> v), the probability that u initiates if they are suggested, [B, k] float64.
        """
        self._check(query)
        k = check_list_length(k, self.graph.num_users)
        people = torch.full((len(query), k), -1)
        joined, initiation = (torch.zeros(len(query), k, dtype=torch.float64) for _ in range(2))
        rows = max(1, MAX_SCORES // self.graph.num_users)
        order = query.time.argsort(stable=True)
        for part in order.split(rows) if len(query) else ():
            asked = query[part]
            row, person, *logs = self._parts(asked, self.recommender.score_all(asked))
            score = joined_score(self.weights, *logs)
            best, place = segment_topk(row, person, score, k, self.graph.num_users)
            at = part[row[best]], place
            people[at], joined[at], initiation[at] = person[best], score[best].exp(), logs[0][best].exp()
        return people, joined, initiation

    def _parts(self, query: Query, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Candidates and the logs of the factors of their scores.

        Args:
            query: B queries, in order of time.
            scores: [B, N], of the wrapped recommender.

        Returns:
            (row [M] ascending, person [M]) int64, and log P(u -> v), log P(v replies), log P(v -> u) [M].
        """
        new = self._new_people(query, scores)
        most = min(self.num_candidates + 1, new.size(1))
        best = new.topk(most, dim=1).values
        least = best[:, -1:] if most > self.num_candidates else -torch.inf
        row, person = (new > least).nonzero(as_tuple=True)
        forth = mean_ranks(best.flip(1), row, new[row, person])
        asked = Query(query.user[row], query.time[row], query.action[row])
        reply = self.reply_model.probability(asked, person)
        back = self.reverse_ranks(asked, person)
        return row, person, -forth.log(), reply.clamp(min=MIN_PROBABILITY).log(), -back.log()

    def reverse_ranks(self, asked: Query, person: Tensor) -> Tensor:
        """Ranks of M queries' users among the new people of people [M], as last computed: [M] float64.

        They do not depend on `weights`, so a subclass may cache them.
        """
        num_users, num_actions = self.graph.num_users, len(self.graph.actions)
        events = self._timeline.events.time
        renewed = (
            torch.searchsorted(events, asked.time.contiguous()) // self._renewal_events * self._renewal_events
        )
        time = torch.where(renewed > 0, events[(renewed - 1).clamp(min=0)] + 1, events[0])
        key = (renewed * num_actions + asked.action) * num_users + person
        key, which = key.unique(return_inverse=True)  # in order of time
        first = torch.empty_like(key).scatter_(0, which, torch.arange(len(which)))
        order = which.argsort(stable=True)
        rank = torch.empty(len(which), dtype=torch.float64)
        bounds = torch.searchsorted(which[order], torch.arange(len(key) + 1))
        rows = max(1, MAX_SCORES // num_users)
        for start in range(0, len(key), rows):
            end = min(start + rows, len(key))
            at = first[start:end]
            query = Query(person[at], time[at], asked.action[at])
            new = self._new_people(query, self.recommender.score_all(query))
            pairs = order[int(bounds[start]) : int(bounds[end])]
            row = which[pairs] - start
            rank[pairs] = mean_ranks(new.sort(dim=1).values, row, new[row, asked.user[pairs]])
        return rank

    def _new_people(self, query: Query, scores: Tensor) -> Tensor:
        """Scores [B, N] float64 with -inf for the query's user and for contacts before the query."""
        new = scores.to(torch.float64, copy=True)
        new[torch.arange(len(query)), query.user] = -torch.inf
        new[self._timeline.contacts.before(query.user, self._timeline.tick(query.time))] = -torch.inf
        return new
