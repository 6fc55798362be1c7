"""Exact search: all inner products, a chunk of users at a time."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from graphrec.retrieval.index import Exclude, Index
from graphrec.retrieval.topk import stable_topk, tie_order

MAX_INNER_PRODUCTS = 2**22
"""Number of inner products held at once."""

QUERY_BATCH_SIZE = 256
"""Queries searched at once."""


class ExactIndex(Index):
    """Exact search, with equal inner products listed in `tie_order`.

    Users unknown in training share one vector, so their products are equal. `tie_order` is a fixed shuffle,
    so that their order does not depend on the user index.
    """

    _order: Tensor
    _place: Tensor
    _vectors: Tensor

    def build(self, vectors: Tensor) -> Self:
        """Store the vectors [N, D] in `tie_order`. Returns this index."""
        vectors = self._check_and_count(vectors)
        self._order = tie_order(self.num_users)
        self._place = self._order.argsort()
        self._vectors = vectors[self._order]
        return self

    def _search(
        self, queries: Tensor, k: int, exclude: Exclude, exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        excluded_everywhere = exclude_users[self._order]
        users, scores = [], []
        for start in range(0, len(queries), QUERY_BATCH_SIZE):
            first, last = torch.searchsorted(
                exclude[0], torch.tensor([start, start + QUERY_BATCH_SIZE])
            ).tolist()
            excluded = exclude[0][first:last] - start, self._place[exclude[1][first:last]]
            best, place = self._best(
                queries[start : start + QUERY_BATCH_SIZE], k, excluded, excluded_everywhere
            )
            users.append(torch.where(best > -torch.inf, self._order[place], -1))
            scores.append(best)
        return torch.cat(users), torch.cat(scores)

    def _best(
        self, queries: Tensor, k: int, excluded: Exclude, excluded_everywhere: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The k largest allowed inner products of each query.

        Args:
            queries: [B, D].
            k: length of a list, at most N.
            excluded: (row [M] ascending, position in `tie_order` [M]) int64.
            excluded_everywhere: [N] bool, by position in `tie_order`.

        Returns:
            inner products [B, k], descending, and positions in `tie_order` [B, k] int64; of equal ones the
            first.
        """
        order = excluded[1].argsort()
        row, column = excluded[0][order], excluded[1][order]
        best, place = queries.new_empty(len(queries), 0), row.new_empty(len(queries), 0)
        size = max(k, MAX_INNER_PRODUCTS // len(queries))
        for start in range(0, self.num_users, size):
            scores = queries @ self._vectors[start : start + size].T
            first, last = torch.searchsorted(column, torch.tensor([start, start + size])).tolist()
            scores[row[first:last], column[first:last] - start] = -torch.inf
            scores[:, excluded_everywhere[start : start + size]] = -torch.inf
            more, at = stable_topk(scores, min(k, scores.size(1)))
            # The sort is stable, so earlier positions stay ahead of equal ones.
            best, order = torch.cat([best, more], 1).sort(dim=1, descending=True, stable=True)
            best, place = best[:, :k], torch.cat([place, at + start], 1).gather(1, order[:, :k])
        return best, place
