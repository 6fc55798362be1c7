"""The checked arguments of `Recommender.recommend`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, TypedDict

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.retrieval.topk import select_rows


class Exclusions(TypedDict, total=False):
    """The arguments of `recommend` that exclude users."""

    exclude: tuple[Tensor, Tensor]
    exclude_users: Tensor


@dataclass(frozen=True)
class Wanted:
    """The checked arguments of `recommend`.

    Attributes:
        k: length of a list.
        row, user: [M] int64, rows ascending, users excluded from a query's list.
        exclude_users: [O] int64, distinct, users excluded from all lists.
    """

    k: int
    row: Tensor
    user: Tensor
    exclude_users: Tensor

    def select(self, rows: Tensor, num_queries: int) -> Self:
        """The arguments for some of the queries, `rows` [b] int64 ascending."""
        row, user = select_rows(self.row, self.user, rows, num_queries)
        return replace(self, row=row, user=user)

    def exclusions(self) -> Exclusions:
        """The excluded users as arguments of `recommend`; `exclude_users` only if there are any."""
        pairs: Exclusions = {"exclude": (self.row, self.user)}
        return {**pairs, "exclude_users": self.exclude_users} if len(self.exclude_users) else pairs

    def with_own(self, query: Query) -> tuple[Tensor, Tensor]:
        """The excluded pairs (row, user) [B + M] int64, the B queries' own users first."""
        own = torch.arange(len(query))
        return torch.cat([own, self.row]), torch.cat([query.user, self.user])

    def between(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """The excluded pairs of queries start..end-1, their rows renumbered from 0."""
        first, last = torch.searchsorted(self.row, torch.tensor([start, end])).tolist()
        return self.row[first:last] - start, self.user[first:last]
