"""Kernels of prefix trees: the best children of each query's prefixes, users below leaves, paths to users."""

from __future__ import annotations

import numpy as np

from graphrec.decode.columns import ExcludedColumns, TreeColumns
from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.bounded_heap import offer, sort_best_first
from graphrec.temporal.sorting import stable_order


@kernel
def extend_beams(
    log_probs: np.ndarray,
    row: np.ndarray,
    node: np.ndarray,
    log_prob: np.ndarray,
    tree: TreeColumns,
    barred: ExcludedColumns,
    width: int,
    least: float,
    renormalize: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Choose the children with the best log-probabilities for each query, among those with an allowed user.

    Args:
        log_probs: [R, K], of the next codes of the prefixes, finite or -inf.
        row: [R] int64, ascending, the query of each prefix.
        node: [R] int64, its node, ascending in each row.
        log_prob: [R] float64, its log-probability.
        tree: the prefix tree.
        barred: excluded users.
        width: children kept for each query.
        least: the lowest log-probability of a next code; lower ones are raised to it.
        renormalize: make the probabilities of each prefix's children sum to 1.

    Returns:
        of the n children that are kept, ascending: positions of their prefixes, and nodes, int64; their
        log-probabilities, float64; and the number of allowed users below them, int64.
    """
    code, parent, child_ptr, start, end = tree.code, tree.parent, tree.child_ptr, tree.start, tree.end
    hidden_before, first_excluded, excluded = barred.hidden_before, barred.first, barred.place
    total = 0
    for r in range(len(row)):
        total += child_ptr[node[r] + 1] - child_ptr[node[r]]
    kept_prefix, kept_child, kept_allowed = np.empty((3, total), np.int64)
    kept_value = np.empty(total)
    scores, ranks = np.empty(min(width, total)), np.empty(min(width, total), np.int64)
    seconds = np.zeros(len(scores))
    number = first = 0
    while first < len(row):
        b, after = row[first], first
        at, stop, size = first_excluded[b], first_excluded[b + 1], int64(0)
        while after < len(row) and row[after] == b:
            begin, finish = child_ptr[node[after]], child_ptr[node[after] + 1]
            base = log_prob[after]
            if renormalize:
                base -= log_sum(log_probs[after], code[begin:finish], least)
            for child in range(begin, finish):
                value = base + max(float(log_probs[after, code[child]]), least)
                if value > -np.inf and (size < len(scores) or value > scores[0]):
                    left, at = count_allowed(child, start, end, hidden_before, excluded, at, stop)
                    if left > 0:
                        size = offer(scores, seconds, ranks, size, value, 0.0, child)
            after += 1
        # Children are chosen by rank, which is their number: they are written in this order.
        order = stable_order(ranks[:size])
        at, r = first_excluded[b], first
        for i in range(size):
            child = ranks[order[i]]
            while node[r] != parent[child]:
                r += 1
            left, at = count_allowed(child, start, end, hidden_before, excluded, at, stop)
            kept_prefix[number], kept_child[number], kept_allowed[number] = r, child, left
            kept_value[number] = scores[order[i]]
            number += 1
        first = after
    return kept_prefix[:number], kept_child[:number], kept_value[:number], kept_allowed[:number]


@inlined
def log_sum(log_probs: np.ndarray, code: np.ndarray, least: float) -> float:
    """Return the log of the summed probabilities of some codes, whose logs are raised to `least`."""
    peak = least
    for i in range(len(code)):
        peak = max(peak, float(log_probs[code[i]]))
    total = 0.0
    for i in range(len(code)):
        total += np.exp(max(float(log_probs[code[i]]), least) - peak)
    out: float = np.log(total) + peak
    return out


@subkernel
def count_allowed(
    node: int,
    start: np.ndarray,
    end: np.ndarray,
    hidden_before: np.ndarray,
    excluded: np.ndarray,
    at: int,
    stop: int,
) -> tuple[int, int]:
    """Count the users below a node who are not excluded.

    Args:
        node: at or after the nodes asked about before, of one level.
        start: of `TreeColumns`.
        end: of `TreeColumns`.
        hidden_before: of `ExcludedColumns`.
        excluded: `place` of `ExcludedColumns`.
        at: an excluded place that is not after the node's first one.
        stop: the position after the query's last excluded place.

    Returns:
        (the number, the position of the first excluded place after those below the node).
    """
    left = end[node] - start[node]
    if len(hidden_before):
        left -= hidden_before[end[node]] - hidden_before[start[node]]
    while at < stop and excluded[at] < start[node]:
        at += 1
    while at < stop and excluded[at] < end[node]:
        left, at = left - 1, at + 1
    return left, at


@kernel
def list_users(
    row: np.ndarray,
    leaf: np.ndarray,
    log_prob: np.ndarray,
    tree: TreeColumns,
    barred: ExcludedColumns,
    out_user: np.ndarray,
    out_log_prob: np.ndarray,
) -> None:
    """List the likeliest allowed users below leaves; those of a leaf share its probability equally.

    Args:
        row: [R] int64, ascending, the query of each leaf.
        leaf: [R] int64, ascending in each row.
        log_prob: [R] float64, log-probabilities of the leaves.
        tree: the prefix tree.
        barred: excluded users.
        out_user: [B, k] int64, filled from the left, best first; of equal ones the first in the tree.
        out_log_prob: [B, k] float64, filled alike.
    """
    start, end, users = tree.start, tree.end, tree.users
    hidden_before, first_excluded, excluded = barred.hidden_before, barred.first, barred.place
    k = out_user.shape[1]
    scores, seconds, ranks = np.empty(k), np.zeros(k), np.empty(k, np.int64)
    first = 0
    while first < len(row):
        b, after = row[first], first
        at, stop, size = first_excluded[b], first_excluded[b + 1], int64(0)
        while after < len(row) and row[after] == b:
            begin, finish = start[leaf[after]], end[leaf[after]]
            value, found = log_prob[after] - np.log(float(finish - begin)), 0
            for place in range(begin, finish):
                if found == k:
                    break
                while at < stop and excluded[at] < place:
                    at += 1
                left_out = at < stop and excluded[at] == place
                if len(hidden_before) and hidden_before[place + 1] > hidden_before[place]:
                    left_out = True
                if not left_out:
                    found += 1
                    if value > -np.inf:
                        size = offer(scores, seconds, ranks, size, value, 0.0, place)
            after += 1
        sort_best_first(scores, seconds, ranks, size)
        for i in range(size):
            out_user[b, i], out_log_prob[b, i] = users[ranks[i]], scores[i]
        first = after


@kernel
def find_paths(
    place: np.ndarray,
    tree: np.ndarray,
    root: np.ndarray,
    child_ptr: np.ndarray,
    num_children: np.ndarray,
    start: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the nodes from root to leaf above users.

    Args:
        place: [n] int64, the users' places in their trees, or -1.
        tree: [n] int64.
        root: [S] int64, of `Forest`.
        child_ptr: [num_nodes] int64, the first child of each node.
        num_children: [num_nodes] int64.
        start: [num_nodes] int64, of `Forest`.
        out: [n, L + 1] int64, filled; -1 for users without an STU.
    """
    for i in range(len(place)):
        wanted, node = place[i], root[tree[i]]
        for level in range(out.shape[1]):
            out[i, level] = node if wanted >= 0 else -1
            if wanted >= 0 and level + 1 < out.shape[1]:
                low, high = child_ptr[node], child_ptr[node] + num_children[node]
                while high - low > 1:  # the last child that does not start after the user
                    middle = (low + high) >> 1
                    if start[middle] <= wanted:
                        low = middle
                    else:
                        high = middle
                node = low
