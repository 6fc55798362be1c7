"""Exact log-probabilities of given users, or of all users."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphrec.data.checks import MAX_SIZE, check_count, check_index
from graphrec.decode.descent import Descent
from graphrec.decode.scorer import NextCodeScorer
from graphrec.decode.topk import hide_impossible
from graphrec.decode.tree import PrefixTree

MAX_LOG_PROBS = 2**24
"""Log-probabilities held at once by `score_all`."""


def follow_paths(
    descent: Descent, row: Tensor, place: Tensor, *, temperature: float = 1.0, renormalize: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Descend along the paths to given users.

    Args:
        descent: at the root.
        row: [P] int64, query of each user.
        place: [P] int64, position of each user in `tree.users`; pairs (row, place) are distinct and
            ascending.
        temperature: divides the scorer's log-probabilities.
        renormalize: see `Descent.children`.

    Yields:
        at each level, log-probabilities [R, C] of the prefixes' children, and (position of the prefix [P],
        column [P]) int64 of the child on each path.
    """
    tree, at = descent.tree, torch.searchsorted(descent.beam.row, row)
    for level in range(1, tree.num_codebooks + 1):
        value = descent.children(renormalize=renormalize, temperature=temperature)
        column = descent.column(tree.node_at(level, place))
        yield value, at, column
        key, number = (at * value.size(1) + column).unique_consecutive(return_inverse=True)
        descent.descend(key // value.size(1), key % value.size(1))
        at = number


def score_candidates(
    scorer: NextCodeScorer, tree: PrefixTree, row: Tensor, user: Tensor, *, renormalize: bool = True
) -> Tensor:
    """Exact log-probabilities of given users for given queries, as `beam_search` defines them.

    Args:
        scorer: the model, bound to B queries; called once a level.
        tree: the STUs of all users.
        row: [M] int64, below B.
        user: [M] int64.
        renormalize: see `beam_search`.

    Returns:
        [M]; -inf for users without an STU.
    """
    row = check_index("row", row, MAX_SIZE).to(tree.device)
    user = check_index("user", user, tree.num_users, shape=(len(row),)).to(tree.device)
    has = tree.place[user] >= 0
    key, number = (row[has] * max(1, len(tree)) + tree.place[user[has]]).unique(return_inverse=True)
    if not len(key):
        return torch.full(row.shape, -torch.inf, device=tree.device)
    row, place = key // len(tree), key % len(tree)
    descent = Descent(scorer, tree, row.unique_consecutive())
    steps = [
        value[at, column] for value, at, column in follow_paths(descent, row, place, renormalize=renormalize)
    ]
    log_prob = torch.stack(steps).sum(0) - tree.size(tree.node_at(tree.num_codebooks, place)).log()
    log_prob = hide_impossible(log_prob)
    return log_prob.new_full(has.shape, -torch.inf).masked_scatter(has, log_prob[number])


def score_all(
    scorer: NextCodeScorer, tree: PrefixTree, num_queries: int, *, renormalize: bool = True
) -> Tensor:
    """Exact log-probabilities of all users for all queries.

    The scorer computes every prefix of every query, a few queries at a time, so this is for small graphs.

    Args:
        scorer: the model, bound to B queries.
        tree: the STUs of all N users.
        num_queries: B.
        renormalize: see `beam_search`.

    Returns:
        [B, N]; -inf for users without an STU.
    """
    num_queries = check_count("num_queries", num_queries, minimum=0)
    widest = tree.codebook_size * (tree.level_ptr[-2] - tree.level_ptr[-3])
    out = []
    for row in torch.arange(num_queries, device=tree.device).split(max(1, MAX_LOG_PROBS // max(1, widest))):
        descent = Descent(scorer, tree, row)
        log_prob = torch.zeros(len(row), device=tree.device)
        for _ in range(tree.num_codebooks):
            value = descent.children(renormalize=renormalize) + log_prob[:, None]
            log_prob = value[value > -torch.inf]
            descent.descend(*(value > -torch.inf).nonzero(as_tuple=True))
        log_prob = log_prob - tree.size(descent.beam.node).log()
        log_prob = hide_impossible(log_prob).view(len(row), -1)
        leaf = tree.node_at(tree.num_codebooks, tree.place.clamp(min=0)) - tree.level_ptr[-2]
        out.append(log_prob[:, leaf].masked_fill(tree.place < 0, -torch.inf))
    return torch.cat(out) if out else torch.empty(0, tree.num_users, device=tree.device)
