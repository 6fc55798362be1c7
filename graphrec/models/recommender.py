"""What every recommender answers, and how a score becomes a list of people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.sampler import run_starts
from graphrec.tokenizer import Tokenizer

CHUNK = 2**23
"""Scores held at once, in numbers: the rows of a batch follow from the number of users."""


class Recommender(ABC):
    """Fitted on a graph up to a time, it scores people for queries at any later time.

    Between `fit` and a query the parameters are frozen, but everything strictly before the query is seen.
    """

    name: str
    dtype = torch.float64
    """Of the scores."""

    tokenizer: Tokenizer | None = None
    """Whose STUs it writes, once fitted; moved, saved and loaded by the recommender, newcomers welcomed."""

    _graph: FriendGraph | None = None

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

        People are known by their raw ids. Whoever is not in the graph is forgotten: the rows of their own
        that were learned (an embedding, an STU) are neither used nor saved any more. Whoever is new is a
        stranger, as at a query before the first event. The original stays on its own graph.
        """
        raise NotImplementedError(f"{self.name} cannot be put on another graph")

    def save(self, folder: Path) -> None:
        """Write what was learned: JSON, and tensors that load with `weights_only=True`; not the graph.

        The folder exists and is empty. Whoever keeps it (a `Bundle`) guards its files by their checksums and
        knows which model it holds.
        """
        raise NotImplementedError(f"{self.name} cannot be saved")

    @classmethod
    def load(cls, folder: Path, graph: FriendGraph) -> Self:
        """Read what `save` wrote, for the graph it was saved with: the same people, by raw id, and events.

        Nothing in the folder is executed.

        Raises:
            DataError: naming the file that is another's, or damaged.
        """
        raise NotImplementedError(f"{cls.__name__} cannot be loaded")

    @abstractmethod
    def _score_in_order(self, query: Query) -> Tensor:
        """Scores of everyone for B > 0 queries in order of time, [B, N], finite; higher is likelier."""

    def score_all(self, query: Query) -> Tensor:
        """Scores of everyone for B queries, [B, N], finite; higher is likelier."""
        num_users = self.graph.num_users
        if not len(query):
            return torch.empty(0, num_users, dtype=self.dtype)
        order = query.time.argsort(stable=True)
        scores = self._score_in_order(query[order])
        if torch.equal(order, torch.arange(len(order))):
            return scores
        return torch.empty_like(scores).index_copy_(0, order, scores)

    @property
    def graph(self) -> FriendGraph:
        """The graph the recommender was fitted on."""
        if self._graph is None:
            raise RuntimeError(f"{self.name} has to be fitted first: call fit(graph, until=time)")
        return self._graph

    def score(self, query: Query, candidates: Tensor | None = None) -> Tensor:
        """Scores of candidates, [C] for all queries or [B, C] for each; of all N users by default.

        Returns:
            [B, C], finite.

        Raises:
            IndexError: a user, action or candidate is not one of the graph.
        """
        self._check(query)
        scores = self.score_all(query)
        if candidates is None:
            return scores
        check_range("candidate", candidates, self.graph.num_users)
        return scores.gather(1, candidates.expand(len(query), -1))

    def score_pairs(self, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """Scores of users [M] for queries `row` [M] (int64 both), as `score` has them: [M].

        Raises:
            IndexError: a row is not one of the queries, or a user or action not one of the graph.
        """
        self._check(query)
        check_range("row", row, len(query))
        check_range("user index", user, self.graph.num_users)
        out = torch.empty(len(row), dtype=self.dtype)
        for rows in torch.arange(len(query)).split(max(1, CHUNK // self.graph.num_users)):
            here = ((row >= rows[0]) & (row <= rows[-1])).nonzero().squeeze(1)
            if len(here):
                out[here] = self.score_all(query[rows])[row[here] - rows[0], user[here]]
        return out

    def recommend(
        self, query: Query, k: int, exclude: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k best people for each query; never the asking user.

        Args:
            query: B queries.
            k: how many; more than there are gives padding.
            exclude: (row [M] of the query, user [M]) int64, people not to suggest.

        Returns:
            users [B, k] int64, padded with -1, and scores [B, k], padded with -inf. Ties are broken by a
            fixed shuffle, since the order of indices must carry no information.

        Raises:
            ValueError: k is smaller than 1.
            IndexError: a user, action or row is not one of the graph or of the queries.
        """
        self._check_wanted(query, k, exclude)
        num_users = self.graph.num_users
        order = shuffled(num_users)
        users = torch.full((len(query), k), -1)
        values = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        rows = max(1, CHUNK // num_users)
        for start in range(0, len(query), rows):
            part = query[start : start + rows]
            scores = self.score_all(part).to(torch.float64, copy=True)
            scores[torch.arange(len(part)), part.user] = -torch.inf
            if exclude is not None:
                here = (exclude[0] >= start) & (exclude[0] < start + rows)
                scores[exclude[0][here] - start, exclude[1][here]] = -torch.inf
            best, place = _top(scores[:, order], min(k, num_users))
            block = slice(start, start + len(part)), slice(0, min(k, num_users))
            users[block] = torch.where(best > -torch.inf, order[place], -1)
            values[block] = best
        return users, values

    def predict_top_k(self, query: Query, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best among given candidates for each query.

        Args:
            query: B queries.
            candidates: [C] int64 for all queries, or [B, C] for each; distinct. The asking user is left out.
            k: how many; more than there are gives padding.

        Returns:
            users [B, k] int64, padded with -1, and scores [B, k] float64, padded with -inf. Ties are broken
            by a fixed shuffle.

        Raises:
            ValueError: k is smaller than 1.
            IndexError: a user, action or candidate is not one of the graph.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        scores = self.score(query, candidates).double()
        people = candidates.expand(len(query), -1)
        # A fixed shuffle of users, not of columns: the order of the candidates must carry no information.
        order = lots(self.graph.num_users)[people].argsort(dim=1)
        people, scores = people.gather(1, order), scores.gather(1, order)
        scores = scores.masked_fill(people == query.user[:, None], -torch.inf)
        users = torch.full((len(query), k), -1)
        values = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        if people.numel():
            best, place = _top(scores, min(k, people.size(1)))
            found = torch.where(best > -torch.inf, people.gather(1, place), -1)
            users[:, : found.size(1)], values[:, : found.size(1)] = found, best
        return users, values

    def _check_past(self, graph: FriendGraph, until: int) -> None:
        """Raise ValueError where there is nothing to learn from."""
        if not bool((graph.events().time < until).any()):
            raise ValueError(f"{self.name}: there is no event before until={until} to fit on")

    def _check_wanted(self, query: Query, k: int, exclude: tuple[Tensor, Tensor] | None) -> None:
        """Raise what `recommend` raises."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self._check(query)
        if exclude is not None:
            check_range("exclude: row", exclude[0], len(query))
            check_range("exclude: user index", exclude[1], self.graph.num_users)

    def _check(self, query: Query) -> None:
        """Raise IndexError where a query asks for what the graph does not have."""
        check_range("user index", query.user, self.graph.num_users)
        check_range("action index", query.action, len(self.graph.actions))


def listed(
    row: Tensor, user: Tensor, score: Tensor, shape: tuple[int, int], num_users: int
) -> tuple[Tensor, Tensor]:
    """The best k of distinct people [M] for queries [M]: users and scores of a shape [B, k], padded."""
    order, place = best_of(row, user, score, shape[1], num_users)
    users = torch.full(shape, -1).index_put((row[order], place), user[order])
    scores = torch.full(shape, -torch.inf, dtype=score.dtype)
    return users, scores.index_put((row[order], place), score[order])


def best_of(row: Tensor, user: Tensor, score: Tensor, k: int, num_users: int) -> tuple[Tensor, Tensor]:
    """Which of people [M] are the best k of queries [M], and their places 0..k-1, in order of queries.

    Ties are broken by the fixed shuffle.
    """
    order = lots(num_users)[user].argsort()
    order = order[score[order].argsort(descending=True, stable=True)]
    order = order[row[order].argsort(stable=True)]
    place = torch.arange(len(row)) - run_starts(row[order])
    return order[place < k], place[place < k]


def of_rows(row: Tensor, user: Tensor, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The pairs [M] of some queries `rows` [b] of `size`, renumbered 0..b-1."""
    at = torch.full((size,), -1).index_copy(0, rows, torch.arange(len(rows)))[row]
    return at[at >= 0], user[at >= 0]


@lru_cache(maxsize=4)
def shuffled(num_users: int) -> Tensor:
    """The order in which equal scores are listed, [N] int64; not to be written to."""
    return torch.randperm(num_users, generator=torch.Generator().manual_seed(0))


@lru_cache(maxsize=4)
def lots(num_users: int) -> Tensor:
    """Each user's place in that order, [N] int64; not to be written to."""
    return shuffled(num_users).argsort()


def check_range(what: str, index: Tensor, size: int) -> None:
    """Refuse an index that is not one below a size."""
    outside = index[(index < 0) | (index >= size)]
    if outside.numel():
        raise IndexError(f"{what} {int(outside[0])} lies outside 0..{size - 1}")


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, descending, and their columns; of equal ones the first, unlike `topk`."""
    least = scores.topk(k, dim=1).values[:, -1:]
    above, tied = scores > least, scores == least
    kept = above | (tied & (tied.cumsum(1) <= k - above.sum(1, keepdim=True)))
    column = kept.nonzero()[:, 1].view(-1, k)
    best = scores.gather(1, column).sort(dim=1, descending=True, stable=True)
    return best.values, column.gather(1, best.indices)
