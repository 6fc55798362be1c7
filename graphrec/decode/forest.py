"""Prefix trees at several moments, in joint flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from graphrec.data.growing_column import widened
from graphrec.decode.columns import ChildColumns
from graphrec.decode.search_kernels import find_paths
from graphrec.decode.tree import PrefixTree
from graphrec.temporal import ragged


class Forest:
    """Prefix trees of the same users and depth, with consecutive node numbers from tree to tree.

    Args:
        trees: S trees, on the CPU.

    Attributes:
        trees: as given.
        num_codebooks: L.
        num_nodes: number of nodes of all trees.
        root: [S] int64, the first node of each tree.
        size: [num_nodes] int64, number of users below each node.
        code: [num_nodes] int64, the last code of each node's prefix; 0 of a root.
        first_user: [num_nodes] int64, the first user below each node.
        level: [num_nodes] int64, length of each node's prefix.
        place: [S, N] int64, the position of each user of each tree in `users`, or -1.
        users: [M] int64, the users with an STU, tree after tree.
        start: [num_nodes] int64, the position in `users` of the first user below each node.
    """

    def __init__(self, trees: Sequence[PrefixTree]) -> None:
        self.trees = list(trees)
        self.num_codebooks = trees[0].num_codebooks
        sizes = torch.tensor([tree.num_nodes for tree in trees])
        people = torch.tensor([len(tree) for tree in trees])
        self.root, base = sizes.cumsum(0) - sizes, people.cumsum(0) - people
        self.num_nodes = int(sizes.sum())
        self.size = torch.cat([tree.end - tree.start for tree in trees])
        self.code = torch.cat([tree.code for tree in trees])
        self.users = torch.cat([tree.users for tree in trees])
        self.start = torch.cat([tree.start + first for tree, first in zip(trees, base, strict=True)])
        self.first_user = self.users[self.start.clamp(max=max(0, len(self.users) - 1))]
        inner = [tree.num_children for tree in trees]
        leaves = [tree.num_children.new_zeros(tree.num_nodes - len(tree.num_children)) for tree in trees]
        self._num_children = torch.cat([part for both in zip(inner, leaves, strict=True) for part in both])
        first = [
            torch.cat([tree.child_ptr[:-1] + root, none])
            for tree, root, none in zip(trees, self.root, leaves, strict=True)
        ]
        self._child_ptr = torch.cat(first)
        self.place = torch.stack(
            [torch.where(tree.place >= 0, tree.place + at, -1) for tree, at in zip(trees, base, strict=True)]
        )
        self._wide: tuple[Tensor, Tensor] | None = None
        borders = torch.tensor([tree.level_ptr for tree in trees])  # [S, L + 2]
        self.level = torch.zeros(self.num_nodes, dtype=torch.int64)
        for tree, border in zip(self.root.tolist(), borders.tolist(), strict=True):
            for level, (begin, end) in enumerate(pairwise(border)):
                self.level[tree + begin : tree + end] = level

    def follow(self, num_users: int) -> Forest:
        """The forest where there are more users, without an STU, at a constant cost for each on average."""
        out = copy(self)
        if num_users > self.place.size(1):
            places = self._wide or (self.place, torch.stack([tree.place for tree in self.trees]))
            joint, single = (widened(place, num_users) for place in places)
            out._wide = joint, single
            out.place = joint[:, :num_users]
            out.trees = [
                tree.among(place) for tree, place in zip(self.trees, single[:, :num_users], strict=True)
            ]
        return out

    def path(self, tree: Tensor, user: Tensor) -> Tensor:
        """The nodes from root to leaf above users [n] in trees [n]: [n, L + 1] int64; -1 without an STU."""
        out = torch.empty(len(user), self.num_codebooks + 1, dtype=torch.int64)
        place, first, number = self.place[tree, user], self._child_ptr, self._num_children
        arrays = place.contiguous(), tree.contiguous(), self.root, first, number, self.start, out
        find_paths(*(x.numpy() for x in arrays))
        return out

    def children(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """The children of nodes [R]: (row [T], child [T]) int64, in order of their codes."""
        return ragged(self._child_ptr[node], self._child_ptr[node] + self._num_children[node])

    @cached_property
    def child_columns(self) -> ChildColumns:
        """The children of nodes for kernels."""
        return ChildColumns(*(x.numpy() for x in (self._child_ptr, self._num_children, self.code)))

    def num_children(self, node: Tensor) -> Tensor:
        """Number of children of nodes (int64, same shape)."""
        return self._num_children[node]

    def first_child(self, node: Tensor) -> Tensor:
        """The first child of inner nodes (int64, same shape)."""
        return self._child_ptr[node]

    def means(self, tree: int, values: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """The mean of values [N, D] over the users below each node of a level: (node [n], mean [n, D])."""
        one = self.trees[tree]
        node = torch.arange(*one.level_ptr[level : level + 2])
        total = torch.zeros(len(one) + 1, values.size(1), dtype=torch.float64)
        total[1:] = values[one.users].double().cumsum(0)
        mean = (total[one.end[node]] - total[one.start[node]]) / one.size(node)[:, None]
        return node + self.root[tree], mean.to(values.dtype)
