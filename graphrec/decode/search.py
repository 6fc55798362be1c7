"""Beam search and exact scoring down the prefix tree: always real, allowed, distinct people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from graphrec.data.checks import (
    MAX_SIZE,
    check_count,
    check_counts,
    check_flags,
    check_index,
    check_list_length,
)
from graphrec.decode.tree import Excluded, PrefixTree
from graphrec.nn import segment_logsumexp
from graphrec.temporal import ragged

CHUNK = 2**24
"""Log-probabilities held at once by `score_all`."""
FLOOR = -1e30
"""What an impossible code counts as in the search, so that people it leads to come last instead of never."""


@dataclass(frozen=True)
class Beam:
    """R prefixes of one length l, of several queries; all that a scorer is told.

    Attributes:
        row: [R] int64, ascending, which of the B queries each belongs to. Queries may be missing.
        node: [R] int64, the prefix's node in the tree, ascending in each row; -1 where nobody has it, which
            only `validity` asks about.
        codes: [R, l] int64, the prefix itself.
        parent: [R] int64, where in the beam before (of l - 1) each one's beginning was; at first 0..R-1.
    """

    row: Tensor
    node: Tensor
    codes: Tensor
    parent: Tensor


class Scorer(Protocol):
    """A model as the search sees it, bound to a batch of B queries.

    Called once a level, it returns log-probabilities [R, K] of each prefix's next code, and whatever it wants
    to be given back at the next level. The first state is None. A tower per level needs none and reads
    `beam.row` and `beam.codes`; a decoder returns its cached keys [R, ...] and begins by reordering those it
    is given: `cache[beam.parent]`. The state must not be changed in place.
    """

    def __call__(self, beam: Beam, state: Any) -> tuple[Tensor, Any]:
        """Log-probabilities [R, K] of the next codes, and the state."""


class Options(NamedTuple):
    """The children of R prefixes.

    Attributes:
        value: [R, K] log-probabilities by code, -inf where there is none; or [T, 1], of each child.
        at: [R] or [T] int64, ascending, the prefix of each row.
        child: [T] int64, the node of each row; None where columns are codes.
    """

    value: Tensor
    at: Tensor
    child: Tensor | None

    def bar(self, tree: PrefixTree, prefix: Tensor, node: Tensor) -> None:
        """Take away children [D] of prefixes [D]."""
        if self.child is None:
            self.value[prefix, tree.code[node]] = -torch.inf
        else:
            place = torch.searchsorted(self.at, prefix) + node - tree.child_ptr[tree.parent[node]]
            self.value[place] = -torch.inf

    def bar_everywhere(self, tree: PrefixTree, parent: Tensor, closed: Tensor) -> None:
        """Take away nodes [D] of a level from all prefixes, of which `parent` [R] are the nodes."""
        if not len(closed):
            return
        if self.child is not None:
            self.value[torch.isin(self.child, closed)] = -torch.inf
            return
        above, at = parent.unique(return_inverse=True)
        place = torch.searchsorted(above, tree.parent[closed]).clamp(max=len(above) - 1)
        known = above[place] == tree.parent[closed]
        barred = torch.zeros(len(above), self.value.size(1), dtype=torch.bool, device=above.device)
        barred[place[known], tree.code[closed[known]]] = True
        self.value.masked_fill_(barred[at], -torch.inf)

    def chosen(self, tree: PrefixTree, parent: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
        """The prefixes and nodes of flattened places, where `parent` [R] are the prefixes' nodes."""
        if self.child is not None:
            return self.at[flat], self.child[flat]
        prefix = flat // self.value.size(1)
        return prefix, tree.child(parent[prefix], flat % self.value.size(1))


class Descent:
    """Goes down the tree one level at a time, with some prefixes of some queries.

    Args:
        scorer: the model.
        tree: where to go; somebody must be in it.
        row: the queries to start with, [R] int64, ascending and distinct.
    """

    def __init__(self, scorer: Scorer, tree: PrefixTree, row: Tensor) -> None:
        if not len(tree):
            raise ValueError("the prefix tree is empty: no user has an STU, so nobody can be suggested")
        self._scorer, self.tree, self._state = scorer, tree, None
        at = torch.arange(len(row), device=row.device)
        self.beam = Beam(row, torch.zeros_like(row), row.new_empty(len(row), 0), at)

    def children(self, *, renormalise: bool, temperature: float = 1.0) -> Tensor:
        """Log-probabilities of the children of each prefix, [R, C], in order; -inf where there is none.

        Columns are codes where most exist, so that C = K; else they count the children.
        """
        out, listed = self._values(temperature)
        if listed is not None:
            at, child = listed
            column, some = self.column(child), out
            out = some.new_full((len(self.beam.row), 1 + int(column.max())), -torch.inf)
            out[at, column] = some
        return out.log_softmax(1) if renormalise else out

    def options(self, *, renormalise: bool) -> Options:
        """The same with nothing padded: what a search chooses from."""
        out, listed = self._values(1.0)
        rows = len(self.beam.row)
        if listed is None:
            out = out.log_softmax(1) if renormalise else out
            return Options(out, torch.arange(rows, device=out.device), None)
        at, child = listed
        if renormalise:
            out -= segment_logsumexp(out, at, rows)[at]
        return Options(out[:, None], at, child)

    def _values(self, temperature: float) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What the scorer says: by code, [R, K], where most exist; else of each child, [T].

        And for children, of which prefix [T] they are, and which node [T].
        """
        tree, beam = self.tree, self.beam
        log_probs, self._state = ask(self._scorer, beam, self._state, tree.codebook_size)
        if temperature != 1:
            log_probs = log_probs / temperature
        level = beam.codes.size(1)
        absent = tree.absent[level]
        self._by_code = absent is not None
        if absent is not None:
            return log_probs.clamp(min=FLOOR).add_(absent[beam.node - tree.level_ptr[level]]), None
        first = tree.child_ptr[beam.node]
        at, child = ragged(first, first + tree.num_children[beam.node])
        return log_probs[at, tree.code[child]].clamp_(min=FLOOR), (at, child)

    def descend(self, at: Tensor, column: Tensor) -> None:
        """Go on with some children, given by prefix and column, in ascending order."""
        node = self.beam.node[at]
        self.go(at, self.tree.child(node, column) if self._by_code else self.tree.child_ptr[node] + column)

    def go(self, at: Tensor, node: Tensor) -> None:
        """Go on with some children, given by prefix and node, in ascending order."""
        codes = torch.cat([self.beam.codes[at], self.tree.code[node][:, None]], 1)
        self.beam = Beam(self.beam.row[at], node, codes, at)

    def column(self, node: Tensor) -> Tensor:
        """The columns of children [n] among those of their parents, int64."""
        if self._by_code:
            return self.tree.code[node]
        return node - self.tree.child_ptr[self.tree.parent[node]]

    def locate(self, row: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        """Which of (row, node) pairs are among the prefixes [D], bool, and where those are."""
        key = self.beam.row * self.tree.num_nodes + self.beam.node
        asked = row * self.tree.num_nodes + node
        at = torch.searchsorted(key, asked).clamp(max=max(0, len(key) - 1))
        found = key[at] == asked if len(key) else torch.zeros_like(asked, dtype=torch.bool)
        return found, at[found]

    def locate_children(self, row: Tensor, node: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Which of (row, node) pairs are children of the prefixes [D], and those children's (at, column)."""
        found, at = self.locate(row, self.tree.parent[node])
        node = node[found]
        return found, (at, self.column(node))

    def bucket(self, excluded: Excluded, limit: int | None = None) -> Tensor:
        """At the leaves: who of each bucket is allowed, [R, C] bool.

        With a limit, only so many people of a bucket are looked at that as many allowed ones are among them.
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


def ask(scorer: Scorer, beam: Beam, state: Any, codebook_size: int) -> tuple[Tensor, Any]:
    """A scorer's answer, checked, in single precision at least."""
    log_probs, state = scorer(beam, state)
    expected, level = (len(beam.row), codebook_size), beam.codes.size(1)
    if log_probs.shape != expected:
        raise ValueError(
            f"the scorer must return {list(expected)} at level {level}, {list(log_probs.shape)} came"
        )
    if log_probs.dtype not in (torch.float32, torch.float64):
        log_probs = log_probs.float()
    if not bool(log_probs.max() < torch.inf):
        raise ValueError(f"the scorer returned NaN or +inf at level {level}")
    return log_probs, state


def top(values: Tensor, row: Tensor, width: int, num_rows: int) -> Tensor:
    """The `width` largest of each query's finite values; of equal ones, those that come first.

    Args:
        values: [R, C], -inf where there is nothing.
        row: [R] int64, ascending, the query of each.
        width: how many.
        num_rows: B.

    Returns:
        Where they are in the flattened values, ascending, int64.
    """
    columns = values.size(1)
    count = torch.bincount(row, minlength=num_rows)
    first, most = count.cumsum(0) - count, int(count.max())
    if most * num_rows == len(row):
        dense = values.reshape(num_rows, -1)
    else:
        dense = values.new_full((num_rows, most, columns), -torch.inf)
        dense[row, torch.arange(len(row), device=row.device) - first[row]] = values
        dense = dense.flatten(1)
    best, at = _largest(dense, min(width + 1, dense.size(1)))
    if best.size(1) > width:
        tied = (best[:, width - 1] == best[:, width]) & (best[:, width] > -torch.inf)
        if bool(tied.any()):
            at[tied] = dense[tied].sort(dim=1, descending=True, stable=True).indices[:, : width + 1]
        best, at = best[:, :width], at[:, :width]
    flat = first[:, None] * columns + at
    return flat[best > -torch.inf].sort().values


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row [B, n], descending, and where: as `topk`, faster where n is far above k.

    Whatever is among them is in one of the k of n / c groups of c values whose largest are the largest.
    """
    group = math.isqrt(values.size(1) // k)
    if group < 2:
        return values.topk(k)
    groups = values.size(1) // group
    whole = group * groups
    among = values[:, :whole].unflatten(1, (group, groups))  # strided, so that its maximum is one pass
    chosen = among.amax(1).topk(k, sorted=False).indices
    few = among.gather(2, chosen[:, None].expand(-1, group, -1)).flatten(1)
    best, at = torch.cat([few, values[:, whole:]], dim=1).topk(k)
    place, number = at % k, at // k
    inside = at < k * group
    return best, torch.where(inside, chosen.gather(1, place) + groups * number, at - k * group + whole)


def table(
    row: Tensor, user: Tensor, order_by: Tensor, log_prob: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Lists [B, k] of users and log-probabilities, largest `order_by` first, padded with -1 and -inf."""
    order = order_by.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row = row[order]
    count = torch.bincount(row, minlength=shape[0])
    place = row, torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    users = user.new_full(shape, -1).index_put(place, user[order])
    log_probs = log_prob.new_full(shape, -torch.inf).index_put(place, log_prob[order])
    return users, log_probs.masked_fill(log_probs <= FLOOR / 2, -torch.inf)


def asking(excluded: Excluded, tree: PrefixTree, num_queries: int) -> Tensor:
    """The queries to which anybody may be suggested, ascending."""
    if not len(tree):
        raise ValueError("the prefix tree is empty: no user has an STU, so nobody can be suggested")
    return (torch.bincount(excluded.row, minlength=num_queries) < excluded.num_left).nonzero().squeeze(1)


@torch.no_grad()
def beam_search(
    scorer: Scorer,
    tree: PrefixTree,
    num_queries: int,
    k: int,
    *,
    beam_size: int = 50,
    exclude: tuple[Tensor, Tensor] | None = None,
    exclude_users: Tensor | None = None,
    renormalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """The k best people for each query that a beam finds; always k if so many are allowed, or else all.

    A prefix below which everyone is excluded is never kept. Each that is kept leads to somebody, so a beam
    lacks people only where it is narrower than k; there it takes in the next best prefixes until k allowed
    people are below it. A bucket's people share its probability equally, and come in its order. Of equal
    scores the one whose STU is lower comes first.

    Args:
        scorer: the model, bound to the B queries.
        tree: everyone's STUs.
        num_queries: B.
        k: how many people; at most 10,000, or the number of users where that is more.
        beam_size: prefixes kept at each level. As many as there are leaves makes the search exact.
        exclude: (row [E] of the query, user [E]) integers, people not to suggest.
        exclude_users: [E] integers, people not to suggest to any query.
        renormalise: share each prefix's probability among the children that exist, which makes `log_probs`
            those of a distribution over everyone in the tree; else they are the scorer's own sums.

    Returns:
        users [B, k] int64, best first, padded with -1; log_probs [B, k], padded with -inf. Whoever the scorer
        holds impossible comes last, with -inf.

    Raises:
        TypeError: an argument of another kind.
        ValueError: the tree is empty, k or beam_size out of range, pairs of unequal lengths, or the scorer
            returned nonsense.
        IndexError: an excluded row or user that there is not.
    """
    check_counts(beam_size=beam_size)
    check_flags(renormalise=renormalise)
    num_queries = check_count("num_queries", num_queries, minimum=0)
    k = check_list_length(k, tree.num_users)
    excluded = Excluded(tree, num_queries, exclude, exclude_users)
    descent = Descent(scorer, tree, asking(excluded, tree, num_queries))
    if not len(descent.beam.row):
        none = torch.empty(0, dtype=torch.int64, device=tree.device)
        return table(none, none, none, none.float(), (num_queries, k))
    log_prob = descent.beam.row.new_zeros(len(descent.beam.row), dtype=torch.float32)
    for level in range(1, tree.num_codebooks + 1):
        options, before = descent.options(renormalise=renormalise), descent.beam
        value = options.value.add_(log_prob[options.at, None])
        row, node, count = excluded.nodes(level)
        full = count == excluded.left(node)
        found, prefix = descent.locate(row[full], tree.parent[node[full]])
        options.bar(tree, prefix, node[full][found])
        options.bar_everywhere(tree, before.node, excluded.closed(level))
        flat = top(value, before.row[options.at], max(beam_size, k), num_queries)
        log_prob = value.flatten()[flat]
        prefix, child = options.chosen(tree, before.node, flat)
        descent.go(prefix, child)
        if beam_size < k:
            beam = descent.beam
            found, at = descent.locate(row, node)
            allowed = excluded.left(beam.node).index_add(0, at, -count[found])
            kept = _narrow(beam.row, log_prob, allowed, beam_size, k)
            log_prob, descent.beam = log_prob[kept], before
            descent.go(prefix[kept], child[kept])
    allowed = descent.bucket(excluded, limit=k)
    leaf = descent.beam.node
    value = (log_prob - tree.size(leaf).log())[:, None].masked_fill(~allowed, -torch.inf)
    flat = top(value, descent.beam.row, k, num_queries)
    at, column = flat // value.size(1), flat % value.size(1)
    value = value.flatten()[flat]
    user = tree.users[tree.start[leaf[at]] + column]
    return table(descent.beam.row[at], user, value, value, (num_queries, k))


def _narrow(row: Tensor, value: Tensor, allowed: Tensor, beam_size: int, k: int) -> Tensor:
    """The best `beam_size` of each row, and further ones until k allowed people are below: ascending."""
    order = value.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    count = torch.bincount(row)
    first = (count.cumsum(0) - count)[row[order]]
    before = allowed[order].cumsum(0) - allowed[order]
    at = torch.arange(len(row), device=row.device)
    kept = (at - first < beam_size) | (before - before[first] < k)
    return order[kept].sort().values


def walk(descent: Descent, row: Tensor, place: Tensor, *, temperature: float = 1.0, renormalise: bool) -> Any:
    """Go down to given places in `tree.users`, distinct and ascending pairs (row [P], place [P]).

    Yields:
        At each level (value [R, C] of the prefixes' children, at [P] and column [P] of each pair's child).
    """
    tree, at = descent.tree, torch.searchsorted(descent.beam.row, row)
    for level in range(1, tree.num_codebooks + 1):
        value = descent.children(renormalise=renormalise, temperature=temperature)
        column = descent.column(tree.node_at(level, place))
        yield value, at, column
        key, number = (at * value.size(1) + column).unique_consecutive(return_inverse=True)
        descent.descend(key // value.size(1), key % value.size(1))
        at = number


def score_candidates(
    scorer: Scorer, tree: PrefixTree, row: Tensor, user: Tensor, *, renormalise: bool = True
) -> Tensor:
    """The exact log-probability of given users for given queries, as `beam_search` counts it.

    Args:
        scorer: the model, bound to B queries; each prefix is asked about once a query.
        tree: everyone's STUs.
        row: [M] int64, below B.
        user: [M] int64.
        renormalise: see `beam_search`.

    Returns:
        [M]; -inf for users without STU.
    """
    row = check_index("row", row, MAX_SIZE).to(tree.device)
    user = check_index("user", user, tree.num_users, shape=(len(row),)).to(tree.device)
    has = tree.place[user] >= 0
    key, number = (row[has] * max(1, len(tree)) + tree.place[user[has]]).unique(return_inverse=True)
    if not len(key):
        return torch.full(row.shape, -torch.inf, device=tree.device)
    row, place = key // len(tree), key % len(tree)
    descent = Descent(scorer, tree, row.unique_consecutive())
    steps = [value[at, column] for value, at, column in walk(descent, row, place, renormalise=renormalise)]
    log_prob = torch.stack(steps).sum(0) - tree.size(tree.node_at(tree.num_codebooks, place)).log()
    log_prob = log_prob.masked_fill(log_prob <= FLOOR / 2, -torch.inf)
    return log_prob.new_full(has.shape, -torch.inf).masked_scatter(has, log_prob[number])


def score_all(scorer: Scorer, tree: PrefixTree, num_queries: int, *, renormalise: bool = True) -> Tensor:
    """The exact log-probability of everyone for every query: [B, N], -inf for users without STU.

    The scorer is asked about every prefix of every query, so this is for small graphs; a few queries at a
    time, as memory allows.
    """
    num_queries = check_count("num_queries", num_queries, minimum=0)
    widest = tree.codebook_size * (tree.level_ptr[-2] - tree.level_ptr[-3])
    out = []
    for row in torch.arange(num_queries, device=tree.device).split(max(1, CHUNK // max(1, widest))):
        descent = Descent(scorer, tree, row)
        log_prob = torch.zeros(len(row), device=tree.device)
        for _ in range(tree.num_codebooks):
            value = descent.children(renormalise=renormalise) + log_prob[:, None]
            log_prob = value[value > -torch.inf]
            descent.descend(*(value > -torch.inf).nonzero(as_tuple=True))
        log_prob = log_prob - tree.size(descent.beam.node).log()
        log_prob = log_prob.masked_fill(log_prob <= FLOOR / 2, -torch.inf).view(len(row), -1)
        leaf = tree.node_at(tree.num_codebooks, tree.place.clamp(min=0)) - tree.level_ptr[-2]
        out.append(log_prob[:, leaf].masked_fill(tree.place < 0, -torch.inf))
    return torch.cat(out) if out else torch.empty(0, tree.num_users, device=tree.device)


@torch.no_grad()
def validity(scorer: Scorer, tree: PrefixTree, num_queries: int, *, beam_size: int = 50) -> Tensor:
    """The share of the sequences in a beam without constraint that are somebody's STU: [B].

    A diagnostic of the model: how much of what it would write by itself leads to a person.
    """
    beam_size = check_count("beam_size", beam_size)
    num_queries = check_count("num_queries", num_queries, minimum=0)
    size = tree.codebook_size
    row = torch.arange(num_queries, device=tree.device)
    beam = Beam(row, torch.zeros_like(row), row.new_empty(num_queries, 0), row)
    log_prob, state = torch.zeros(num_queries, device=tree.device), None
    for _ in range(tree.num_codebooks):
        log_probs, state = ask(scorer, beam, state, size)
        value = log_probs.clamp(min=FLOOR) + log_prob[:, None]
        flat = top(value, beam.row, beam_size, num_queries)
        log_prob, at = value.flatten()[flat], flat // size
        codes = torch.cat([beam.codes[at], flat[:, None] % size], 1)
        beam = Beam(beam.row[at], tree.find(codes), codes, at)
    exists = (beam.node >= 0).float()
    count = torch.bincount(beam.row, minlength=num_queries)
    return exists.new_zeros(num_queries).index_add(0, beam.row, exists) / count
