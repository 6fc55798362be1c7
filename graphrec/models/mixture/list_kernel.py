"""Lists of the users found for each query, by a kernel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.jit import int64, kernel, subkernel
from graphrec.retrieval.topk import tie_capacity, tie_rank, tie_shuffle
from graphrec.temporal.bounded_heap import offer, sort_best_first
from graphrec.temporal.columns import end_before

Pairs = tuple[Tensor, Tensor]
"""(row [M] of the query, user [M]) int64."""


def best_found(
    name: str,
    query: Query,
    found: Pairs,
    score: Tensor,
    *,
    k: int,
    num_users: int,
    exclude: Pairs,
    exclude_users: Tensor,
    log_factors: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """List the k best of the users found for each of B queries.

    Args:
        name: of the recommender, for the error.
        query: B queries.
        found: M pairs, distinct.
        score: [M] float64, on the CPU, which may be changed.
        k: length of a list.
        num_users: N.
        exclude: pairs that are not listed.
        exclude_users: [O] int64, users who are not listed for any query.
        log_factors: pairs [C] int64, ascending, each b * N + u, and what their scores gain [C] float64.

    Returns:
        users [B, k] int64, padded with -1; scores [B, k] float64, padded with -inf.

    Raises:
        ValueError: a score is not finite; the recommender, the query and the user are named.
    """
    row, user = found
    contact, log_factor = log_factors or (torch.empty(0, dtype=torch.int64), score[:0])
    shape = len(query), k
    users, scores = torch.full(shape, -1), torch.full(shape, -torch.inf, dtype=torch.float64)
    wrong = list_pairs(
        row.contiguous().numpy(),
        user.contiguous().numpy(),
        score.numpy(),
        (exclude[0] * num_users + exclude[1]).sort().values.numpy(),
        exclude_users.sort().values.numpy(),
        contact.numpy(),
        log_factor.numpy(),
        num_users,
        tie_rank(num_users).numpy(),
        tie_shuffle(tie_capacity(num_users)).numpy(),
        users.numpy(),
        scores.numpy(),
    )
    if wrong >= 0:
        asking, time = int(query.user[row[wrong]]), int(query.time[row[wrong]])
        raise ValueError(
            f"{name} gave the score {score[wrong].item()} to user index {int(user[wrong])} "
            f"for user index {asking} at time {time}"
        )
    return users, scores


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
