"""Users who are excluded from the lists of queries, and the tree nodes above them."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from graphrec.data.checks import check_exclude, check_index
from graphrec.decode.columns import ExcludedColumns
from graphrec.decode.tree import PrefixTree


class ExclusionIndex:
    """Excluded users by their position in the tree, and the number of them below each node.

    Args:
        tree: the STUs of all users.
        num_queries: B.
        exclude: (row [E], user [E]) integers, in any order, also repeated; users without an STU are ignored.
        exclude_users: [E] integers, users excluded from all queries.

    Attributes:
        row, place: [X] int64, query and position in `tree.users` of excluded pairs, distinct and ascending,
            without those of `exclude_users`.
        everywhere: [M] bool, positions of the `exclude_users`; None if there are none.
        num_left: number of users with an STU who are not in `exclude_users`.
        num_queries: B.

    Raises:
        TypeError, ValueError: pairs are not integers, or of unequal lengths.
        IndexError: a row or user is out of range.
    """

    def __init__(
        self,
        tree: PrefixTree,
        num_queries: int,
        exclude: tuple[Tensor, Tensor] | None,
        exclude_users: Tensor | None = None,
    ) -> None:
        row, user = (part.to(tree.device) for part in check_exclude(exclude, num_queries, tree.num_users))
        place = tree.place[user]
        has = place >= 0
        self.everywhere: Tensor | None = None
        self.num_left, self.num_queries = len(tree), num_queries
        self._before = torch.empty(0, dtype=torch.int64, device=tree.device)
        if exclude_users is not None:
            nowhere = check_index("exclude_users", exclude_users, tree.num_users).to(tree.device)
            hidden = tree.place[nowhere]
            hidden = hidden[hidden >= 0]
            if len(hidden):
                self.everywhere = torch.zeros(len(tree), dtype=torch.bool, device=tree.device)
                self.everywhere[hidden] = True
                self.num_left -= int(self.everywhere.sum())
                has &= ~self.everywhere[place]
                total = self.everywhere.cumsum(0)
                self._before = torch.cat([total.new_zeros(1), total])
        base = max(1, len(tree))
        key = (row[has] * base + place[has]).unique()
        self._tree, self.row, self.place = tree, key // base, key % base

    @cached_property
    def columns(self) -> ExcludedColumns:
        """The arrays for kernels; they must be on the CPU."""
        first = torch.searchsorted(self.row, torch.arange(self.num_queries + 1))
        return ExcludedColumns(self._before.numpy(), first.numpy(), self.place.numpy())

    def nodes(self, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """(row [D], node [D], number of excluded pairs below it [D]) int64, distinct and ascending."""
        key = self.row * self._tree.num_nodes + self._tree.node_at(level, self.place)
        key, count = key.unique_consecutive(return_counts=True)
        return key // self._tree.num_nodes, key % self._tree.num_nodes, count

    def left(self, node: Tensor) -> Tensor:
        """Number of users below nodes [n] who are not in `exclude_users`: [n] int64."""
        size = self._tree.size(node)
        if self.everywhere is None:
            return size
        return size - (self._before[self._tree.end[node]] - self._before[self._tree.start[node]])

    def emptied(self, level: int) -> Tensor:
        """The nodes of a level below which all users are in `exclude_users`: [n] int64."""
        node = torch.arange(*self._tree.level_ptr[level : level + 2], device=self._tree.device)
        return node[:0] if self.everywhere is None else node[self.left(node) == 0]
