"""Exact search: every inner product, a chunk of users at a time."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from graphrec.retrieval.index import Exclude, Index
from graphrec.retrieval.topk import stable_topk, tie_order, tie_rank

CHUNK = 2**22
"""Inner products held at once, in numbers."""

ROWS = 256
"""Queries answered at once."""


class ExactIndex(Index):
    """All users are looked at, in a fixed shuffled order.

    Equal inner products are listed in this order: people without a vector of their own share one, and their
    indices must carry no information.
    """

    _order: Tensor
    _place: Tensor
    _vectors: Tensor

    def build(self, vectors: Tensor) -> Self:
        """Keep the vectors [N, D], shuffled."""
        vectors = self._taken(vectors)
        self._order, self._place = tie_order(self.num_users), tie_rank(self.num_users)
        self._vectors = vectors[self._order]
        return self

    def _search(
        self, queries: Tensor, k: int, exclude: Exclude, exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        nobody = exclude_users[self._order]
        users, scores = [], []
        for start in range(0, len(queries), ROWS):
            first, last = torch.searchsorted(exclude[0], torch.tensor([start, start + ROWS])).tolist()
            barred = exclude[0][first:last] - start, self._place[exclude[1][first:last]]
            best, place = self._best(queries[start : start + ROWS], k, barred, nobody)
            users.append(torch.where(best > -torch.inf, self._order[place], -1))
            scores.append(best)
        return torch.cat(users), torch.cat(scores)

    def _best(self, queries: Tensor, k: int, barred: Exclude, nobody: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest allowed of each row, descending, and their places; of equal ones those first.

        `barred` and `nobody` [N] bool are by places.
        """
        order = barred[1].argsort()
        row, column = barred[0][order], barred[1][order]
        best, place = queries.new_empty(len(queries), 0), row.new_empty(len(queries), 0)
        size = max(k, CHUNK // len(queries))
        for start in range(0, self.num_users, size):
            scores = queries @ self._vectors[start : start + size].T
            first, last = torch.searchsorted(column, torch.tensor([start, start + size])).tolist()
            scores[row[first:last], column[first:last] - start] = -torch.inf
            scores[:, nobody[start : start + size]] = -torch.inf
            more, at = stable_topk(scores, min(k, scores.size(1)))
            # Those that came before are ahead of equal ones: the sort is stable.
            best, order = torch.cat([best, more], 1).sort(dim=1, descending=True, stable=True)
            best, place = best[:, :k], torch.cat([place, at + start], 1).gather(1, order[:, :k])
        return best, place
