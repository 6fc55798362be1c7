"""Beam search down the prefix tree: finds only distinct users who exist and are allowed."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data.checks import check_count, check_counts, check_flags, check_list_length
from graphrec.decode.descent import Descent
from graphrec.decode.exclusions import ExclusionIndex
from graphrec.decode.scorer import Beam, NextCodeScorer, next_code_log_probs
from graphrec.decode.search_kernels import extend_beams, list_users
from graphrec.decode.topk import IMPOSSIBLE_LOG_PROB, hide_impossible, padded_lists, top_positions
from graphrec.decode.tree import PrefixTree


def answerable_queries(excluded: ExclusionIndex, tree: PrefixTree, num_queries: int) -> Tensor:
    """The queries with an allowed user, [n] int64, ascending. Raises ValueError for an empty tree."""
    if not len(tree):
        raise ValueError("the prefix tree is empty: no user has an STU, so nobody can be suggested")
    return (torch.bincount(excluded.row, minlength=num_queries) < excluded.num_left).nonzero().squeeze(1)


@torch.no_grad()
def beam_search(
    scorer: NextCodeScorer,
    tree: PrefixTree,
    num_queries: int,
    k: int,
    *,
    beam_size: int = 50,
    exclude: tuple[Tensor, Tensor] | None = None,
    exclude_users: Tensor | None = None,
    renormalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """Find the k best users for each query by beam search; all allowed users if there are fewer than k.

    Prefixes whose users are all excluded are never kept. Every prefix that is kept leads to an allowed user,
    so a beam finds too few users only if it is narrower than k; it is then widened by the next best prefixes
    until k allowed users are below it. The users of a bucket share its probability equally, and come in its
    order. Of equal scores the lower STU comes first.

    Args:
        scorer: the model, bound to the B queries.
        tree: the STUs of all users.
        num_queries: B.
        k: length of a list; at most 10,000, or the number of users if that is more.
        beam_size: prefixes kept at each level; the search is exact if it is at least the number of leaves.
        exclude: (row [E] of the query, user [E]) integers, users not to list.
        exclude_users: [E] integers, users not to list for any query.
        renormalize: share each prefix's probability among the children that exist, so that `log_probs` are
            those of a distribution over the users in the tree; otherwise they are sums of the scorer's
            values.

    Returns:
        users [B, k] int64, best first, padded with -1; log_probs [B, k], padded with -inf. Users whom
        the scorer gives no probability come last, with -inf.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: the tree is empty, k or beam_size out of range, pairs of unequal lengths, or the scorer
            returned NaN, +inf or a wrong shape.
        IndexError: an excluded row or user is out of range.
    """
    check_counts(beam_size=beam_size)
    check_flags(renormalize=renormalize)
    num_queries = check_count("num_queries", num_queries, minimum=0)
    k = check_list_length(k, tree.num_users)
    excluded = ExclusionIndex(tree, num_queries, exclude, exclude_users)
    descent = Descent(scorer, tree, answerable_queries(excluded, tree, num_queries))
    if not len(descent.beam.row):
        none = torch.empty(0, dtype=torch.int64, device=tree.device)
        return padded_lists(none, none, none, none.float(), (num_queries, k))
    step = extend_on_cpu if tree.device.type == "cpu" else extend
    log_prob = descent.beam.row.new_zeros(len(descent.beam.row), dtype=torch.float32)
    for level in range(1, tree.num_codebooks + 1):
        width = max(beam_size, k)
        prefix, child, log_prob, allowed = step(descent, excluded, log_prob, level, width, renormalize)
        if beam_size < k:
            kept = _widened_beam(descent.beam.row[prefix], log_prob, allowed, beam_size, k)
            prefix, child, log_prob = prefix[kept], child[kept], log_prob[kept]
        descent.step(prefix, child)
    if tree.device.type == "cpu":
        return _lists_on_cpu(descent, excluded, log_prob, (num_queries, k))
    mask = descent.allowed_in_bucket(excluded, limit=k)
    leaf = descent.beam.node
    value = (log_prob - tree.size(leaf).log())[:, None].masked_fill(~mask, -torch.inf)
    flat = top_positions(value, descent.beam.row, k, num_queries)
    at, column = flat // value.size(1), flat % value.size(1)
    value = value.flatten()[flat]
    user = tree.users[tree.start[leaf[at]] + column]
    return padded_lists(descent.beam.row[at], user, value, value, (num_queries, k))


Extension = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of the n children that are kept: positions of their prefixes, and nodes, [n] int64; log-probabilities [n];
and the number of allowed users below them, [n] int64."""


def extend(
    descent: Descent,
    excluded: ExclusionIndex,
    log_prob: Tensor,
    level: int,
    width: int,
    renormalize: bool,
) -> Extension:
    """Choose the best children of R prefixes with log-probabilities [R], `width` for each query."""
    tree, before = descent.tree, descent.beam
    options = descent.options(renormalize=renormalize)
    value = options.value.add_(log_prob[options.at, None])
    row, node, count = excluded.nodes(level)
    full = count == excluded.left(node)
    found, prefix = descent.locate(row[full], tree.parent[node[full]])
    options.remove(tree, prefix, node[full][found])
    options.remove_nodes(tree, before.node, excluded.emptied(level))
    flat = top_positions(value, before.row[options.at], width, excluded.num_queries)
    prefix, child = options.select(tree, before.node, flat)
    key, asked = before.row[prefix] * tree.num_nodes + child, row * tree.num_nodes + node
    at = torch.searchsorted(key, asked).clamp(max=max(0, len(key) - 1))
    found = key[at] == asked if len(key) else torch.zeros_like(asked, dtype=torch.bool)
    allowed = excluded.left(child).index_add(0, at[found], -count[found])
    return prefix, child, value.flatten()[flat], allowed


def extend_on_cpu(
    descent: Descent,
    excluded: ExclusionIndex,
    log_prob: Tensor,
    level: int,
    width: int,
    renormalize: bool,
) -> Extension:
    """See `extend`; one kernel, in double precision."""
    tree, beam = descent.tree, descent.beam
    log_probs = descent.next_code_log_probs().detach().cpu().contiguous().numpy()
    row, node, value = (x.contiguous().numpy() for x in (beam.row, beam.node, log_prob.double()))
    least, columns = IMPOSSIBLE_LOG_PROB, (tree.columns, excluded.columns)
    out = extend_beams(log_probs, row, node, value, *columns, width, least, renormalize)
    prefix, child, best, allowed = (torch.from_numpy(x) for x in out)
    return prefix, child, best, allowed


def _lists_on_cpu(
    descent: Descent, excluded: ExclusionIndex, log_prob: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The lists of queries whose prefixes are leaves with log-probabilities [R]: as `beam_search` returns."""
    tree, beam = descent.tree, descent.beam
    users = torch.full(shape, -1)
    values = torch.full(shape, -torch.inf, dtype=torch.float64)
    row, leaf, value = (x.contiguous().numpy() for x in (beam.row, beam.node, log_prob.double()))
    list_users(row, leaf, value, tree.columns, excluded.columns, users.numpy(), values.numpy())
    return users, hide_impossible(values.to(descent.dtype))


def _widened_beam(row: Tensor, value: Tensor, allowed: Tensor, beam_size: int, k: int) -> Tensor:
    """Choose the best prefixes of each row, at least until k allowed users are below them.

    Args:
        row: [R] int64, ascending.
        value: [R], scores.
        allowed: [R] int64, number of allowed users below each prefix.
        beam_size: prefixes kept at least.
        k: users wanted below the prefixes kept.

    Returns:
        [n] int64, ascending positions.
    """
    order = value.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    count = torch.bincount(row)
    first = (count.cumsum(0) - count)[row[order]]
    before = allowed[order].cumsum(0) - allowed[order]
    at = torch.arange(len(row), device=row.device)
    kept = (at - first < beam_size) | (before - before[first] < k)
    return order[kept].sort().values


@torch.no_grad()
def validity(scorer: NextCodeScorer, tree: PrefixTree, num_queries: int, *, beam_size: int = 50) -> Tensor:
    """The share of the code sequences in an unconstrained beam that are STUs of users.

    A diagnostic of the model: how often it would generate an existing STU without the tree.

    Args:
        scorer: the model, bound to the B queries.
        tree: the STUs of all users.
        num_queries: B.
        beam_size: sequences kept at each level.

    Returns:
        [B] float32.
    """
    beam_size = check_count("beam_size", beam_size)
    num_queries = check_count("num_queries", num_queries, minimum=0)
    size = tree.codebook_size
    row = torch.arange(num_queries, device=tree.device)
    beam = Beam(row, torch.zeros_like(row), row.new_empty(num_queries, 0), row)
    log_prob, state = torch.zeros(num_queries, device=tree.device), None
    for _ in range(tree.num_codebooks):
        log_probs, state = next_code_log_probs(scorer, beam, state, size)
        value = log_probs.clamp(min=IMPOSSIBLE_LOG_PROB) + log_prob[:, None]
        flat = top_positions(value, beam.row, beam_size, num_queries)
        log_prob, at = value.flatten()[flat], flat // size
        codes = torch.cat([beam.codes[at], flat[:, None] % size], 1)
        beam = Beam(beam.row[at], tree.find(codes), codes, at)
    exists = (beam.node >= 0).float()
    count = torch.bincount(beam.row, minlength=num_queries)
    return exists.new_zeros(num_queries).index_add(0, beam.row, exists) / count
