"""The contract of indexes of vectors, and the recall of one against another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from graphrec.data.checks import check_exclude, check_index, check_list_length

Exclude = tuple[Tensor, Tensor]


class Index(ABC):
    """An index of the vectors of N users, searched by inner product.

    Attributes:
        num_users: N; 0 before `build`.
        dim: D; 0 before `build`.
    """

    num_users = 0
    dim = 0

    @abstractmethod
    def build(self, vectors: Tensor) -> Self:
        """Index vectors [N, D] of users 0..N-1. Raises ValueError if any is not finite.

        Returns:
            this index.
        """

    @abstractmethod
    def _search(
        self, queries: Tensor, k: int, exclude: Exclude, exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Search as `search` does, for B > 0 queries [B, D] float32, and k <= N.

        Exclusions are sorted by row, distinct, and without users of the mask `exclude_users` [N] bool.
        """

    def search(
        self,
        queries: Tensor,
        k: int,
        exclude: Exclude | None = None,
        exclude_users: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Find the k allowed users with the largest inner products with each query.

        Args:
            queries: [B, D].
            k: length of a list, padded if fewer users are allowed. At most 10,000, or the number of users if
                that is more.
            exclude: (row [M] of the query, user [M]) integers, users not to find.
            exclude_users: [M] integers, users not to find for any query.

        Returns:
            users [B, k] int64, padded with -1, and inner products [B, k] float32, padded with -inf, largest
            first. Always k distinct, allowed users, or all there are.

        Raises:
            RuntimeError: the index has not been built.
            TypeError: an argument has a wrong type.
            ValueError: queries that are not [B, D] and finite, k out of range, or pairs of unequal lengths.
            IndexError: a row or user is out of range.
        """
        if not self.dim:
            raise RuntimeError("the index has to be built first: call build(vectors)")
        k = check_list_length(k, self.num_users)
        queries = check_vectors("queries", queries, dim=self.dim)
        users = torch.full((len(queries), k), -1)
        scores = torch.full((len(queries), k), -torch.inf)
        excluded = torch.zeros(self.num_users, dtype=torch.bool)
        if exclude_users is not None:
            excluded[check_index("exclude_users", exclude_users, self.num_users)] = True
        pairs = self._exclusions(exclude, len(queries), excluded)
        if len(queries):
            width = min(k, self.num_users)
            found = self._search(queries, width, pairs, excluded)
            users[:, :width], scores[:, :width] = found
        return users, scores

    def _check_and_count(self, vectors: Tensor) -> Tensor:
        """Check vectors [N, D], set N and D, and return them as float32 on the CPU."""
        vectors = check_vectors("vectors", vectors)
        if not len(vectors):
            raise ValueError("there are no vectors to search")
        self.num_users, self.dim = vectors.shape
        return vectors

    def _exclusions(self, exclude: Exclude | None, num_queries: int, excluded: Tensor) -> Exclude:
        """Exclusions checked, distinct and sorted by row, without users of the mask `excluded` [N] bool."""
        row, user = check_exclude(exclude, num_queries, self.num_users)
        key = (row * self.num_users + user)[~excluded[user]].unique()
        return key // self.num_users, key % self.num_users


def check_vectors(what: str, vectors: Tensor, dim: int | None = None) -> Tensor:
    """Check that vectors are numbers, [n, D] and finite.

    Args:
        what: name for messages.
        vectors: any float or integer type, on any device.
        dim: D, if it is known.

    Returns:
        [n, D] float32, contiguous, on the CPU.
    """
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
    """The share of the expected users that are found, for each query.

    Args:
        found: [B, k] int64, distinct in a row, padded with -1.
        expected: [B, j] int64, as `found`, such as lists of an `ExactIndex`.

    Returns:
        [B] float64; 1 where no user is expected.
    """
    if found.dim() != 2 or expected.dim() != 2 or len(found) != len(expected):
        shapes = f"{list(found.shape)} and {list(expected.shape)}"
        raise ValueError(f"found and expected must be [B, k] and [B, j], got {shapes}")
    there = ((expected[:, :, None] == found[:, None, :]).any(2) & (expected >= 0)).sum(1)
    wanted = (expected >= 0).sum(1)
    return torch.where(wanted > 0, there.double() / wanted.clamp(min=1), 1.0)
