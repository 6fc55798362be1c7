"""Descent of the prefix tree, one level at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.decode.exclusions import ExclusionIndex
from graphrec.decode.options import ChildOptions
from graphrec.decode.scorer import Beam, NextCodeScorer, next_code_log_probs
from graphrec.decode.topk import IMPOSSIBLE_LOG_PROB
from graphrec.decode.tree import PrefixTree
from graphrec.nn import segment_logsumexp
from graphrec.temporal import ragged


class Descent:
    """A set of prefixes of several queries, extended by one code at a time.

    Args:
        scorer: the model.
        tree: not empty.
        row: [R] int64, ascending and distinct, the queries to start with.

    Attributes:
        tree: as given.
        beam: the current prefixes.
        dtype: of the scorer's log-probabilities.

    Raises:
        ValueError: the tree is empty.
    """

    def __init__(self, scorer: NextCodeScorer, tree: PrefixTree, row: Tensor) -> None:
        if not len(tree):
            raise ValueError("the prefix tree is empty: no user has an STU, so nobody can be suggested")
        self._scorer, self.tree, self._state = scorer, tree, None
        self.dtype = torch.float32
        at = torch.arange(len(row), device=row.device)
        self.beam = Beam(row, torch.zeros_like(row), row.new_empty(len(row), 0), at)

    def children(self, *, renormalize: bool, temperature: float = 1.0) -> Tensor:
        """Log-probabilities of the children of each prefix: [R, C], -inf for padding.

        Columns are codes (C = K) if most codes exist as children; otherwise column j is a prefix's j-th
        child.

        Args:
            renormalize: make the probabilities of each prefix's existing children sum to 1.
            temperature: divides the scorer's log-probabilities.
        """
        out, listed = self._child_log_probs(temperature)
        if listed is not None:
            at, child = listed
            column, some = self.column(child), out
            out = some.new_full((len(self.beam.row), 1 + int(column.max())), -torch.inf)
            out[at, column] = some
        return out.log_softmax(1) if renormalize else out

    def options(self, *, renormalize: bool) -> ChildOptions:
        """Log-probabilities of the children of each prefix, without padding if few codes exist."""
        out, listed = self._child_log_probs(1.0)
        rows = len(self.beam.row)
        if listed is None:
            out = out.log_softmax(1) if renormalize else out
            return ChildOptions(out, torch.arange(rows, device=out.device), None)
        at, child = listed
        if renormalize:
            out -= segment_logsumexp(out, at, rows)[at]
        return ChildOptions(out[:, None], at, child)

    def next_code_log_probs(self) -> Tensor:
        """The scorer's log-probabilities of the next codes of the prefixes, checked: [R, K]."""
        size = self.tree.codebook_size
        log_probs, self._state = next_code_log_probs(self._scorer, self.beam, self._state, size)
        self.dtype = log_probs.dtype
        return log_probs

    def _child_log_probs(self, temperature: float) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The scorer's log-probabilities: by code [R, K] if most codes exist, otherwise of each child [T].

        Returns:
            them, and for children (position of the prefix [T], node [T]) int64.
        """
        tree, beam = self.tree, self.beam
        log_probs = self.next_code_log_probs()
        if temperature != 1:
            log_probs = log_probs / temperature
        level = beam.codes.size(1)
        absent = tree.child_mask[level]
        self._by_code = absent is not None
        if absent is not None:
            return log_probs.clamp(min=IMPOSSIBLE_LOG_PROB).add_(
                absent[beam.node - tree.level_ptr[level]]
            ), None
        first = tree.child_ptr[beam.node]
        at, child = ragged(first, first + tree.num_children[beam.node])
        return log_probs[at, tree.code[child]].clamp_(min=IMPOSSIBLE_LOG_PROB), (at, child)

    def descend(self, at: Tensor, column: Tensor) -> None:
        """Replace the beam by children, given as they are indexed in the result of `children`.

        Args:
            at: [n] int64, ascending, position in the beam of each child's prefix.
            column: [n] int64, its column.
        """
        node = self.beam.node[at]
        self.step(at, self.tree.child(node, column) if self._by_code else self.tree.child_ptr[node] + column)

    def step(self, at: Tensor, node: Tensor) -> None:
        """Replace the beam by nodes [n], children of the prefixes at positions `at` [n], ascending."""
        codes = torch.cat([self.beam.codes[at], self.tree.code[node][:, None]], 1)
        self.beam = Beam(self.beam.row[at], node, codes, at)

    def column(self, node: Tensor) -> Tensor:
        """The columns of nodes [n] in `children`: [n] int64."""
        if self._by_code:
            return self.tree.code[node]
        return node - self.tree.child_ptr[self.tree.parent[node]]

    def locate(self, row: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        """Find nodes [D] of queries [D] among the prefixes: mask [D] bool, and positions of those found."""
        key = self.beam.row * self.tree.num_nodes + self.beam.node
        asked = row * self.tree.num_nodes + node
        at = torch.searchsorted(key, asked).clamp(max=max(0, len(key) - 1))
        found = key[at] == asked if len(key) else torch.zeros_like(asked, dtype=torch.bool)
        return found, at[found]

    def locate_children(self, row: Tensor, node: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Find nodes [D] of queries [D] among children of the prefixes.

        Returns:
            mask [D] bool, and (position of the prefix, column) int64 of those found.
        """
        found, at = self.locate(row, self.tree.parent[node])
        node = node[found]
        return found, (at, self.column(node))

    def allowed_in_bucket(self, excluded: ExclusionIndex, limit: int | None = None) -> Tensor:
        """At the leaves, mask of the allowed users in each bucket: [R, C] bool.

        With a `limit`, only the first users of a bucket are covered, as many as contain `limit` allowed ones.
        """
        leaf, levels = self.beam.node, self.tree.num_codebooks
        shown = self.tree.size(leaf)
        if limit is not None:
            row, node, count = excluded.nodes(levels)
            found, at = self.locate(row, node)
            hidden = shown - excluded.left(leaf)
            shown = torch.minimum(shown, (hidden + limit).index_add(0, at, count[found]))
        allowed = torch.arange(int(shown.max()), device=leaf.device) < shown[:, None]
        node = self.tree.node_at(levels, excluded.place)
        found, at = self.locate(excluded.row, node)
        column = (excluded.place - self.tree.start[node])[found]
        inside = column < allowed.size(1)
        allowed[at[inside], column[inside]] = False
        if excluded.everywhere is not None:
            place = self.tree.start[leaf][:, None] + torch.arange(allowed.size(1), device=leaf.device)
            allowed &= ~excluded.everywhere[place.clamp(max=len(self.tree) - 1)]
        return allowed
