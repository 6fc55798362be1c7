"""Kernels that list neighbors of queries beside the users of a beam search."""

from __future__ import annotations

import numpy as np

from graphrec.jit import int64, kernel
from graphrec.temporal.bounded_heap import offer


@kernel
def list_without_stu(
    row: np.ndarray,
    user: np.ndarray,
    has: np.ndarray,
    inside: np.ndarray,
    log_none: np.ndarray,
    others: np.ndarray,
    excluded: np.ndarray,
    k: int,
    least: np.float32,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List each query's neighbors without an STU, and k or more of the other users without one.

    Args:
        row: [M] int64, the query of each neighbor, ascending.
        user: [M] int64, ascending in each row.
        has: [M] bool, whether a neighbor has an STU.
        inside: [M] float32, the probability of each neighbor by the components.
        log_none: [B] float32, log-probability of each single user without an STU.
        others: [n] int64, the users without an STU, in the order in which they are listed.
        excluded: [X] int64, queries of excluded users, who may be among them.
        k: number of users wanted who are not excluded.
        least: the least probability.

    Returns:
        row, user [V] int64, log-probability [V] float32.
    """
    taken = np.zeros(len(log_none), np.int64)
    for b in excluded:
        taken[b] += 1
    number = 0
    for m in range(len(row)):
        if not has[m]:
            taken[row[m]] += 1
            number += 1
    for b in range(len(log_none)):
        number += min(len(others), k + taken[b])
    out_row, out_user = np.empty(number, np.int64), np.empty(number, np.int64)
    out, size, first = np.empty(number, np.float32), 0, 0
    for b in range(len(log_none)):
        end = first
        while end < len(row) and row[end] == b:
            if not has[end]:
                p = inside[end] + np.exp(log_none[b])
                out_row[size], out_user[size], out[size] = b, user[end], np.log(max(p, least))
                size += 1
            end += 1
        for i in range(min(len(others), k + taken[b])):
            at = first + int64(np.searchsorted(user[first:end], others[i]))
            if at == end or user[at] != others[i] or has[at]:
                out_row[size], out_user[size], out[size] = b, others[i], log_none[b]
                size += 1
        first = end
    return out_row[:size], out_user[:size], out[:size]


@kernel
def list_likeliest(
    row: np.ndarray, person: np.ndarray, inside: np.ndarray, num_queries: int, k: int
) -> np.ndarray:
    """List the positions of each query's k most probable neighbors with an STU: [V] int64.

    Args:
        row: [V] int64, the query of each neighbor with an STU, ascending.
        person: [V] int64, positions of these among all neighbors.
        inside: [V] float32, their probabilities by the components.
        num_queries: B.
        k: neighbors of a query at most.
    """
    out, size, first = np.empty(min(len(row), num_queries * k), np.int64), 0, 0
    scores, ranks, nothing = np.empty(k), np.empty(k, np.int64), np.zeros(k)
    while first < len(row):
        at, kept = first, 0
        while at < len(row) and row[at] == row[first]:
            kept = offer(scores, nothing, ranks, kept, float(inside[at]), 0.0, person[at])
            at += 1
        for i in range(kept):
            out[size] = ranks[i]
            size += 1
        first = at
    return out[:size]
