"""The interface of every recommender, and how a score becomes a list of people."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import (
    check_exclude,
    check_graph,
    check_index,
    check_list_length,
    check_query,
    check_until,
)
from graphrec.data.precision import single_precision
from graphrec.retrieval.topk import stable_topk, tie_order, tie_rank
from graphrec.tokenizer import Tokenizer

MAX_SCORES = 2**23
"""Scores held at once, in numbers: the rows of a batch follow from the number of users."""


RECOMMENDER_CLASSES: dict[str, type[Recommender]] = {}
"""Every class of recommenders by its name, one's own included: what saved models of models refer to."""


class Recommender(ABC):
    """Fitted on a graph up to a time, it scores people for queries at any later time.

    Between `fit` and a query the parameters are frozen, but everything strictly before the query is seen.
    """

    name: str
    dtype = torch.float64
    """Type of the scores."""

    tokenizer: Tokenizer | None = None
    """The fitted tokenizer whose STUs it uses. The recommender moves, saves and loads it."""

    fitted_until: int | None = None
    """Seconds: what was learned comes from events strictly older; None before a fit, or where unknown."""

    _graph: FriendGraph | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        RECOMMENDER_CLASSES[cls.__name__] = cls

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained; none in a rule."""
        return 0

    @property
    def curve(self) -> list[dict[str, float]]:
        """How training went, one row an epoch; empty where nothing is trained."""
        return []

    @abstractmethod
    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Learn from the events strictly before `until` (seconds), and remember the graph."""

    def on(self, graph: FriendGraph) -> Self:
        """The same recommender, with what it has learned, on a graph of more or fewer events or people.

        People are known by their raw ids. A user who is not in the graph is forgotten: the rows of their
        own that were learned (an embedding, an STU) are neither used nor saved any more. A new user is a
        stranger, as at a query before the first event. The original stays on its own graph.
        """
        raise NotImplementedError(f"{self.name} cannot be put on another graph")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what was learned: JSON, and tensors that load with `weights_only=True`; not the graph.

        The folder exists and is empty. Its owner (a `Bundle`) guards its files by their checksums and knows
        which model it holds.
        """
        raise NotImplementedError(f"{self.name} cannot be saved")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """Read what `save` wrote, for the graph it was saved with: the same people, by raw id, and events.

        Nothing in the folder is executed.

        Raises:
            DataError: naming the file that is another's, or damaged.
        """
        raise NotImplementedError(f"{cls.__name__} cannot be loaded")

    @abstractmethod
    def _score_in_order(self, query: Query) -> Tensor:
        """Scores of everyone for B > 0 queries in order of time, [B, N], finite; higher is likelier."""

    @single_precision()
    def score_all(self, query: Query) -> Tensor:
        """Scores of everyone for B queries, [B, N], finite; higher is likelier.

        Raises:
            ValueError: a score is not finite; the model, the query and the user are named.
        """
        num_users = self.graph.num_users
        if not len(query):
            return torch.empty(0, num_users, dtype=self.dtype)
        order = query.time.argsort(stable=True)
        scores = self._score_in_order(query[order])
        if not torch.equal(order, torch.arange(len(order))):
            scores = torch.empty_like(scores).index_copy_(0, order, scores)
        self._check_finite(query, scores)
        return scores

    def _check_finite(self, query: Query, scores: Tensor) -> None:
        """Raise ValueError where a score [B, N] is not finite."""
        # A sum is finite only where its terms are; where it is not, it may have overflown.
        if not torch.isfinite(scores.sum()) and not (finite := torch.isfinite(scores)).all():
            row, user = (~finite).nonzero()[0].tolist()
            raise ValueError(
                f"{self.name} gave the score {scores[row, user].item()} to user index {user} "
                f"for user index {int(query.user[row])} at time {int(query.time[row])}"
            )

    @property
    def graph(self) -> FriendGraph:
        """The graph the recommender was fitted on."""
        self._check_fitted()
        assert self._graph is not None
        return self._graph

    def _check_fitted(self) -> None:
        """Raise RuntimeError before a fit."""
        if self._graph is None:
            raise RuntimeError(f"{self.name} has to be fitted first: call fit(graph, until=time)")

    def score(self, query: Query, candidates: Tensor | None = None) -> Tensor:
        """Scores of candidates, [C] for all queries or [B, C] for each; of all N users by default.

        Returns:
            [B, C], finite.

        Raises:
            TypeError, ValueError: candidates of another kind or shape, a time beyond the year 9999, or a
                score that is not finite.
            IndexError: a user, action or candidate is not one of the graph.
        """
        self._check(query)
        scores = self.score_all(query)
        if candidates is None:
            return scores
        return scores.gather(1, self._candidate_index(query, candidates))

    def score_pairs(self, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """Scores of users [M] for queries `row` [M] (integers both), as `score` has them: [M].

        Raises:
            TypeError, ValueError: rows and users that are no integers, or of unequal lengths.
            IndexError: a row is not one of the queries, or a user or action not one of the graph.
        """
        row, user = self._check_pairs(query, row, user)
        out = torch.empty(len(row), dtype=self.dtype)
        if not len(row):
            return out
        for rows in torch.arange(len(query)).split(max(1, MAX_SCORES // self.graph.num_users)):
            here = ((row >= rows[0]) & (row <= rows[-1])).nonzero().squeeze(1)
            if len(here):
                out[here] = self.score_all(query[rows])[row[here] - rows[0], user[here]]
        return out

    def recommend(
        self,
        query: Query,
        k: int,
        exclude: tuple[Tensor, Tensor] | None = None,
        exclude_users: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best people for each query; never the asking user.

        Args:
            query: B queries.
            k: how many; more than there are gives padding. At most 10,000, or the number of users where that
                is more.
            exclude: (row [M] of the query, user [M]) integers, people not to suggest.
            exclude_users: [M] integers, people not to suggest to anybody, such as those who opted out; it
                costs no more with many queries.

        Returns:
            users [B, k] int64, padded with -1, and scores [B, k], padded with -inf. Ties are broken by a
            fixed shuffle, since the order of indices must carry no information.

        Raises:
            RuntimeError: the recommender has not been fitted.
            TypeError: an argument of another kind.
            ValueError: k is out of range, rows and users are of unequal lengths, a time lies beyond the year
                9999, or a score is not finite.
            IndexError: a user, action or row is not one of the graph or of the queries.
        """
        wanted = self._check_wanted(query, k, exclude, exclude_users)
        num_users = self.graph.num_users
        order = tie_order(num_users)
        users = torch.full((len(query), wanted.k), -1)
        values = torch.full((len(query), wanted.k), -torch.inf, dtype=torch.float64)
        rows = max(1, MAX_SCORES // num_users)
        for start in range(0, len(query), rows):
            part = query[start : start + rows]
            scores = self.score_all(part).to(torch.float64, copy=True)
            scores[torch.arange(len(part)), part.user] = -torch.inf
            scores[wanted.between(start, start + rows)] = -torch.inf
            scores[:, wanted.exclude_users] = -torch.inf
            best, place = stable_topk(scores[:, order], min(wanted.k, num_users))
            block = slice(start, start + len(part)), slice(0, min(wanted.k, num_users))
            users[block] = torch.where(best > -torch.inf, order[place], -1)
            values[block] = best
        return users, values

    def predict_top_k(self, query: Query, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best among given candidates for each query.

        Args:
            query: B queries.
            candidates: [C] integers for all queries, or [B, C] for each; somebody who is there twice is
                listed once. The asking user is left out.
            k: how many; more than there are gives padding. At most as in `recommend`.

        Returns:
            users [B, k] int64, padded with -1, and scores [B, k] float64, padded with -inf. Ties are broken
            by a fixed shuffle.

        Raises:
            TypeError, ValueError: as in `recommend`, or candidates of another shape.
            IndexError: a user, action or candidate is not one of the graph.
        """
        self._check(query)
        k = check_list_length(k, self.graph.num_users)
        people = self._candidate_index(query, candidates)
        scores = self.score_all(query).gather(1, people).double()
        # A fixed shuffle of users, not of columns: the order of the candidates must carry no information.
        order = tie_rank(self.graph.num_users)[people].argsort(dim=1)
        people, scores = people.gather(1, order), scores.gather(1, order)
        scores = scores.masked_fill(people == query.user[:, None], -torch.inf)
        again = people[:, 1:] == people[:, :-1]  # one user's places in that order are side by side
        scores[:, 1:] = scores[:, 1:].masked_fill(again, -torch.inf)
        users = torch.full((len(query), k), -1)
        values = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        if people.numel():
            best, place = stable_topk(scores, min(k, people.size(1)))
            found = torch.where(best > -torch.inf, people.gather(1, place), -1)
            users[:, : found.size(1)], values[:, : found.size(1)] = found, best
        return users, values

    def _check_past(self, graph: FriendGraph, until: int) -> int:
        """The time as an int. Raises ValueError where there is nothing to learn from; see `check_until`."""
        check_graph(graph)
        until, _ = check_until(until)
        if not bool((graph.events().time < until).any()):
            raise ValueError(f"{self.name}: there is no event before until={until} to fit on")
        return until

    def _check_wanted(
        self,
        query: Query,
        k: int,
        exclude: tuple[Tensor, Tensor] | None,
        exclude_users: Tensor | None,
    ) -> Wanted:
        """The checked arguments of `recommend`; raises what `recommend` raises."""
        self._check(query)
        num_users = self.graph.num_users
        k = check_list_length(k, num_users)
        row, user = check_exclude(exclude, len(query), num_users)
        order = row.argsort(stable=True)
        nobody = torch.empty(0, dtype=torch.int64)
        if exclude_users is not None:
            nobody = check_index("exclude_users", exclude_users, num_users).unique()
        return Wanted(k, row[order], user[order], nobody)

    def _check_pairs(self, query: Query, row: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and users as int64; raises what `score_pairs` raises."""
        self._check(query)
        row = check_index("row", row, len(query))
        return row, check_index("user index", user, self.graph.num_users, shape=(len(row),))

    def _candidate_index(self, query: Query, candidates: Tensor) -> Tensor:
        """Candidates of each query, [B, C] int64; raises what `score` raises."""
        both = isinstance(candidates, Tensor) and candidates.dim() == 2
        shape = (len(query), None) if both else (None,)
        index = check_index("candidate", candidates, self.graph.num_users, shape=shape)
        return index.expand(len(query), -1)

    def _check(self, query: Query) -> None:
        """Raise what `check_query` raises where a query asks for what the graph does not have."""
        check_query(self.graph, query)


@dataclass(frozen=True)
class Wanted:
    """The checked arguments of `recommend`.

    Attributes:
        k: how many people.
        row, user: [M] int64, rows ascending, people who may not be suggested to a query.
        exclude_users: [O] int64, distinct, people who may not be suggested to any.
    """

    k: int
    row: Tensor
    user: Tensor
    exclude_users: Tensor

    def between(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """The pairs of queries start..end-1, renumbered from 0."""
        first, last = torch.searchsorted(self.row, torch.tensor([start, end])).tolist()
        return self.row[first:last] - start, self.user[first:last]


def latest(moments: Iterable[int | None]) -> int | None:
    """The latest of those moments that are known; None where none is."""
    return max((moment for moment in moments if moment is not None), default=None)
