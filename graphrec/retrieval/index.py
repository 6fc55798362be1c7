"""What every index of vectors answers, and how near one comes to another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from graphrec.data.checks import check_exclude, check_index, check_list_length

Exclude = tuple[Tensor, Tensor]


class Index(ABC):
    """Vectors of N users, searched by inner product."""

    num_users = 0
    dim = 0

    @abstractmethod
    def build(self, vectors: Tensor) -> Self:
        """Index vectors [N, D] of users 0..N-1. Raises ValueError where any is not finite."""

    @abstractmethod
    def _search(
        self, queries: Tensor, k: int, exclude: Exclude, exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `search`, for B > 0 queries, float32, and k <= N.

        Exclusions are sorted by row, distinct, and of none of `exclude_users` [N] bool.
        """

    def search(
        self,
        queries: Tensor,
        k: int,
        exclude: Exclude | None = None,
        exclude_users: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k allowed users whose inner products with each query are largest.

        Args:
            queries: [B, D].
            k: how many; where fewer are allowed there is padding. At most 10,000, or the number of users
                where that is more.
            exclude: (row [M] of the query, user [M]) integers, people not to find.
            exclude_users: [M] integers, people whom no query is to find.

        Returns:
            users [B, k] int64, padded with -1, and inner products [B, k] float32, padded with -inf, largest
            first. Always k distinct, allowed users, or all there are.

        Raises:
            RuntimeError: the index has not been built.
            TypeError: an argument of another kind.
            ValueError: queries that are not [B, D] and finite, k out of range, or pairs of unequal lengths.
            IndexError: a row or user that there is not.
        """
        if not self.dim:
            raise RuntimeError("the index has to be built first: call build(vectors)")
        k = check_list_length(k, self.num_users)
        queries = checked("queries", queries, dim=self.dim)
        users = torch.full((len(queries), k), -1)
        scores = torch.full((len(queries), k), -torch.inf)
        nobody = torch.zeros(self.num_users, dtype=torch.bool)
        if exclude_users is not None:
            nobody[check_index("exclude_users", exclude_users, self.num_users)] = True
        pairs = self._exclusions(exclude, len(queries), nobody)
        if len(queries):
            most = min(k, self.num_users)
            found = self._search(queries, most, pairs, nobody)
            users[:, :most], scores[:, :most] = found
        return users, scores

    def _taken(self, vectors: Tensor) -> Tensor:
        """The vectors of users, checked and counted."""
        vectors = checked("vectors", vectors)
        if not len(vectors):
            raise ValueError("there are no vectors to search")
        self.num_users, self.dim = vectors.shape
        return vectors

    def _exclusions(self, exclude: Exclude | None, num_queries: int, nobody: Tensor) -> Exclude:
        """Sorted by row, each once, and in range, without those of `nobody` [N] bool."""
        row, user = check_exclude(exclude, num_queries, self.num_users)
        key = (row * self.num_users + user)[~nobody[user]].unique()
        return key // self.num_users, key % self.num_users


def checked(what: str, vectors: Tensor, dim: int | None = None) -> Tensor:
    """Vectors as contiguous float32 on the CPU, found to be [n, D] and finite."""
    if not isinstance(vectors, Tensor) or vectors.dtype == torch.bool or vectors.is_complex():
        kind = vectors.dtype if isinstance(vectors, Tensor) else f"a {type(vectors).__name__}"
        raise TypeError(f"{what} must be a tensor of numbers, got {kind}")
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
    if found.dim() != 2 or expected.dim() != 2 or len(found) != len(expected):
        shapes = f"{list(found.shape)} and {list(expected.shape)}"
        raise ValueError(f"found and expected must be [B, k] and [B, j], got {shapes}")
    there = ((expected[:, :, None] == found[:, None, :]).any(2) & (expected >= 0)).sum(1)
    wanted = (expected >= 0).sum(1)
    return torch.where(wanted > 0, there.double() / wanted.clamp(min=1), 1.0)
