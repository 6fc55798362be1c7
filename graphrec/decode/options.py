"""The children of prefixes, from which a search chooses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.decode.tree import PrefixTree


class ChildOptions(NamedTuple):
    """The children of R prefixes.

    Attributes:
        value: log-probabilities: [R, K] by code, -inf for codes that do not follow; or [T, 1], one row a
            child.
        at: [R] or [T] int64, ascending, the position in the beam of each row's prefix.
        child: [T] int64, the node of each row; None if columns are codes.
    """

    value: Tensor
    at: Tensor
    child: Tensor | None

    def remove(self, tree: PrefixTree, prefix: Tensor, node: Tensor) -> None:
        """Remove children [D] int64 (nodes) of prefixes [D] int64 (positions in the beam)."""
        if self.child is None:
            self.value[prefix, tree.code[node]] = -torch.inf
        else:
            place = torch.searchsorted(self.at, prefix) + node - tree.child_ptr[tree.parent[node]]
            self.value[place] = -torch.inf

    def remove_nodes(self, tree: PrefixTree, parent: Tensor, closed: Tensor) -> None:
        """Remove nodes [D] int64 of a level from all prefixes, whose nodes are `parent` [R] int64."""
        if not len(closed):
            return
        if self.child is not None:
            self.value[torch.isin(self.child, closed)] = -torch.inf
            return
        above, at = parent.unique(return_inverse=True)
        place = torch.searchsorted(above, tree.parent[closed]).clamp(max=len(above) - 1)
        known = above[place] == tree.parent[closed]
        removed = torch.zeros(len(above), self.value.size(1), dtype=torch.bool, device=above.device)
        removed[place[known], tree.code[closed[known]]] = True
        self.value.masked_fill_(removed[at], -torch.inf)

    def select(self, tree: PrefixTree, parent: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        """The children at flattened positions of `value`: (position of the prefix [n], node [n]) int64.

        Args:
            tree: the prefix tree.
            parent: [R] int64, nodes of the prefixes.
            flat: [n] int64.
        """
        if self.child is not None:
            return self.at[flat], self.child[flat]
        prefix = flat // self.value.size(1)
        return prefix, tree.child(parent[prefix], flat % self.value.size(1))
