"""What every recommender answers, and how a score becomes a list of people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query

CHUNK = 2**23
"""Scores held at once, in numbers: the rows of a batch follow from the number of users."""


class Recommender(ABC):
    """Fitted on a graph up to a time, it scores people for queries at any later time.

    Between `fit` and a query the parameters are frozen, but everything strictly before the query is seen.
    """

    name: str
    _graph: FriendGraph | None = None

    @abstractmethod
    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Learn from the events strictly before `until` (seconds), and remember the graph."""

    @abstractmethod
    def score_all(self, query: Query) -> Tensor:
        """Scores of everyone for B queries, [B, N], finite; higher is likelier."""

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
        """
        scores = self.score_all(query)
        if candidates is None:
            return scores
        return scores.gather(1, candidates.expand(len(query), -1))

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
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        num_users = self.graph.num_users
        shuffled = torch.randperm(num_users, generator=torch.Generator().manual_seed(0))
        users = torch.full((len(query), k), -1)
        values = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        rows = max(1, CHUNK // num_users)
        for start in range(0, len(query), rows):
            part = query[start : start + rows]
            scores = self.score_all(part).double()
            scores[torch.arange(len(part)), part.user] = -torch.inf
            if exclude is not None:
                here = (exclude[0] >= start) & (exclude[0] < start + rows)
                scores[exclude[0][here] - start, exclude[1][here]] = -torch.inf
            best = scores[:, shuffled].topk(min(k, num_users), dim=1)
            found = best.values > -torch.inf
            block = slice(start, start + len(part)), slice(0, min(k, num_users))
            users[block] = torch.where(found, shuffled[best.indices], -1)
            values[block] = best.values
        return users, values
