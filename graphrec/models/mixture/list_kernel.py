"""A kernel that makes lists of the users that a head has found."""

from __future__ import annotations

import numpy as np

from graphrec.jit import int64, kernel, subkernel
from graphrec.temporal.bounded_heap import offer, sort_best_first
from graphrec.temporal.columns import end_before


@kernel
def list_pairs(
    row: np.ndarray,
    user: np.ndarray,
    score: np.ndarray,
    excluded: np.ndarray,
    excluded_users: np.ndarray,
    contact: np.ndarray,
    log_factor: np.ndarray,
    num_users: int,
    tie_rank: np.ndarray,
    tie_shuffle: np.ndarray,
    out_user: np.ndarray,
    out_score: np.ndarray,
) -> int:
    """List the best of the users found for each query, the contact prior added to their scores.

    A pair of a query b and a user u is one number, b * N + u.

    Args:
        row: [M] int64, the query of each user found.
        user: [M] int64, distinct for each query.
        score: [M] float64, changed: the logarithm of a contact's factor is added.
        excluded: [X] int64, ascending, pairs that are not listed.
        excluded_users: [O] int64, ascending, users who are not listed for any query.
        contact: [C] int64, ascending, pairs of contacts.
        log_factor: [C] float64, of these.
        num_users: N.
        tie_rank: [N] int64, each user's place in `tie_shuffle`.
        tie_shuffle: [N or more] int64, the order of users of equal scores.
        out_user: [B, k] int64, -1, filled from the left, best first.
        out_score: [B, k] float64, -inf, filled alike.

    Returns:
        the position of a user found whose score is not finite, or -1.
    """
    size, nothing = np.zeros(len(out_user), np.int64), np.zeros(out_user.shape[1])
    for i in range(len(row)):
        b, key = row[i], row[i] * num_users + user[i]
        if find(excluded, key) >= 0 or find(excluded_users, user[i]) >= 0:
            continue
        at = find(contact, key)
        if at >= 0:
            score[i] += log_factor[at]
        if not np.isfinite(score[i]):
            return i
        size[b] = offer(out_score[b], nothing, out_user[b], size[b], score[i], 0.0, tie_rank[user[i]])
    for b in range(len(out_user)):
        sort_best_first(out_score[b], nothing, out_user[b], size[b])
        for i in range(size[b]):
            out_user[b, i] = tie_shuffle[out_user[b, i]]
    return -1


@subkernel
def find(values: np.ndarray, wanted: int) -> int:
    """Return the position of a number among ascending ones, or -1."""
    at = end_before(int64(0), len(values), values, wanted)
    return at if at < len(values) and values[at] == wanted else -1
