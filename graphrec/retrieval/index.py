"""What every index of vectors answers, and how near one comes to another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

Exclude = tuple[Tensor, Tensor]


class Index(ABC):
    """Vectors of N users, searched by inner product."""

    num_users = 0
    dim = 0

    @abstractmethod
    def build(self, vectors: Tensor) -> Self:
        """Index vectors [N, D] of users 0..N-1. Raises ValueError where any is not finite."""

    @abstractmethod
    def _search(self, queries: Tensor, k: int, exclude: Exclude) -> tuple[Tensor, Tensor]:
        """As `search`, for B > 0 queries, float32, and k <= N; exclusions sorted by row, distinct."""

    def search(self, queries: Tensor, k: int, exclude: Exclude | None = None) -> tuple[Tensor, Tensor]:
        """The k allowed users whose inner products with each query are largest.

        Args:
            queries: [B, D].
            k: how many; where fewer are allowed there is padding.
            exclude: (row [M] of the query, user [M]) int64, people not to find.

        Returns:
            users [B, k] int64, padded with -1, and inner products [B, k] float32, padded with -inf, largest
            first. Always k distinct, allowed users, or all there are.

        Raises:
            ValueError: queries that are not [B, D] and finite, or k smaller than 1.
            IndexError: a row or user that there is not.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if not self.dim:
            raise RuntimeError("the index has to be built first: call build(vectors)")
        queries = checked("queries", queries, dim=self.dim)
        users = torch.full((len(queries), k), -1)
        scores = torch.full((len(queries), k), -torch.inf)
        if len(queries):
            most = min(k, self.num_users)
            found = self._search(queries, most, self._exclusions(exclude, len(queries)))
            users[:, :most], scores[:, :most] = found
        return users, scores

    def _taken(self, vectors: Tensor) -> Tensor:
        """The vectors of users, checked and counted."""
        vectors = checked("vectors", vectors)
        if not len(vectors):
            raise ValueError("there are no vectors to search")
        self.num_users, self.dim = vectors.shape
        return vectors

    def _exclusions(self, exclude: Exclude | None, num_queries: int) -> Exclude:
        """Sorted by row, each once, and in range."""
        none = torch.empty(0, dtype=torch.int64)
        row, user = (none, none) if exclude is None else exclude
        for what, index, size in (("row", row, num_queries), ("user", user, self.num_users)):
            outside = index[(index < 0) | (index >= size)]
            if len(outside):
                raise IndexError(f"exclude: {what} {int(outside[0])} lies outside 0..{size - 1}")
        key = (row * self.num_users + user).unique()
        return key // self.num_users, key % self.num_users


def checked(what: str, vectors: Tensor, dim: int | None = None) -> Tensor:
    """Vectors as contiguous float32 on the CPU, found to be [n, D] and finite."""
    if vectors.dim() != 2 or not vectors.size(1) or (dim is not None and vectors.size(1) != dim):
        raise ValueError(f"{what} must be [n, {dim or 'D'}], got {list(vectors.shape)}")
    vectors = vectors.detach().to("cpu", torch.float32).contiguous()
    if not bool(torch.isfinite(vectors).all()):
        raise ValueError(f"{what} are not all finite")
    return vectors


def recall(found: Tensor, expected: Tensor) -> Tensor:
    """What share of those expected are found, for each query.

    Args:
        found: [B, k] int64, distinct in a row, padded with -1.
        expected: [B, j] int64, the same, such as what an `ExactIndex` finds.

    Returns:
        [B] float64; NaN-free: 1 where nobody is expected.
    """
    there = ((expected[:, :, None] == found[:, None, :]).any(2) & (expected >= 0)).sum(1)
    wanted = (expected >= 0).sum(1)
    return torch.where(wanted > 0, there.double() / wanted.clamp(min=1), 1.0)
