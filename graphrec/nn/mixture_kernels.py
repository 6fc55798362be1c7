"""Kernels of the neighborhood mixture: likelihoods with their gradients, and probabilities of neighbors."""

from __future__ import annotations

import numpy as np

from graphrec.jit import inlined, int64, kernel, subkernel
from graphrec.temporal.columns import end_before

ABSENT = -1e9
"""The log-score of a neighbor that a component does not cover."""


@subkernel
def normalize(
    scores: np.ndarray, left: np.ndarray, gate: np.ndarray, first: int, end: int, total: np.ndarray
) -> None:
    """Fill the log-normalizers of S components over one query's neighbors, and the log gate weights.

    Args:
        scores: [S, M].
        left: [M] bool, neighbors that are candidates.
        gate: [S + 1] gate logits.
        first: position of the query's first neighbor.
        end: position after its last one.
        total: [2, S + 1], filled: the log-normalizers, 0 for a component without a candidate and for the
            head; the log gate weights, `ABSENT` for a component without a candidate.
    """
    num_components = len(scores)
    for s in range(num_components):
        peak = -np.inf
        for m in range(first, end):
            if left[m] and scores[s, m] > ABSENT and scores[s, m] > peak:
                peak = scores[s, m]
        mass = 0.0
        if peak > -np.inf:
            for m in range(first, end):
                if left[m] and scores[s, m] > ABSENT:
                    mass += np.exp(scores[s, m] - peak)
        total[0, s] = np.log(mass) + peak if mass > 0.0 else 0.0
        total[1, s] = gate[s] if mass > 0.0 else ABSENT
    total[0, num_components], total[1, num_components] = 0.0, gate[num_components]
    peak = total[1, 0]
    for s in range(1, num_components + 1):
        peak = max(peak, total[1, s])
    mass = 0.0
    for s in range(num_components + 1):
        mass += np.exp(total[1, s] - peak)
    mass = np.log(mass) + peak
    for s in range(num_components + 1):
        total[1, s] = total[1, s] - mass if total[1, s] > ABSENT else ABSENT


@inlined
def position(user: np.ndarray, first: int, end: int, wanted: int) -> int:
    """Return the position of a user among ascending users[first:end], or -1."""
    at = end_before(first, end - first, user, wanted)
    if at < end and user[at] == wanted:
        return at
    return -1


@kernel
def fill_flags(
    row: np.ndarray,
    contact: np.ndarray,
    end: np.ndarray,
    recent: np.ndarray,
    flags: np.ndarray,
    is_contact: np.ndarray,
    is_stranger: np.ndarray,
    number: np.ndarray,
) -> None:
    """Fill what the neighbors of queries are, and how many a query has.

    Args:
        row: [M], the query of each neighbor.
        contact: [C], positions of contacts among the neighbors.
        end: [P], positions of the ends of paths.
        recent: [R], positions of recently active users.
        flags: [M, 3] float32, zeros, filled with 1 for contacts, ends of paths, recently active users.
        is_contact: [M] bool, filled.
        is_stranger: [M] bool, filled: the end of a path, and no contact.
        number: [2, B] float32, zeros, filled with the number of contacts and of other neighbors.
    """
    one = np.float32(1)
    for at in contact:
        flags[at, 0] = one
    for at in end:
        flags[at, 1] = one
    for at in recent:
        flags[at, 2] = one
    for m in range(len(row)):
        is_contact[m] = flags[m, 0] > 0
        is_stranger[m] = flags[m, 1] > 0 and not is_contact[m]
        number[0 if is_contact[m] else 1, row[m]] += one


@kernel
def fill_likelihoods(
    row: np.ndarray,
    user: np.ndarray,
    scores: np.ndarray,
    gate: np.ndarray,
    head_log_p: np.ndarray,
    query: np.ndarray,
    target: np.ndarray,
    excluded_row: np.ndarray,
    excluded_user: np.ndarray,
    left: np.ndarray,
    total: np.ndarray,
    place: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill log-likelihoods of targets under the mixture, and under the head and each component alone.

    Args:
        row: [M], the query of each neighbor, ascending.
        user: [M], ascending in each row.
        scores: [S, M], of the components; `ABSENT` where one does not cover a neighbor.
        gate: [B, S + 1] gate logits.
        head_log_p: [n], log-probabilities of the targets from the head.
        query: [n], the queries.
        target: [n], their targets.
        excluded_row: [K], ascending, queries of users who are not candidates.
        excluded_user: [K], these users.
        left: [M] bool, all true; filled with which neighbors are candidates.
        total: [n, 2, S + 1], filled as `normalize` does.
        place: [n], filled with the position of the target among the neighbors, or -1.
        out: [2, n], filled: under the mixture; the sum under the head and each component that covers it.
    """
    num_components = len(scores)
    for i in range(len(query)):
        first = end_before(int64(0), len(row), row, query[i])
        end = end_before(int64(0), len(row), row, query[i] + 1)
        at = end_before(int64(0), len(excluded_row), excluded_row, query[i])
        while at < len(excluded_row) and excluded_row[at] == query[i]:
            barred = position(user, first, end, excluded_user[at])
            if barred >= 0:
                left[barred] = False
            at += 1
        normalize(scores, left, gate[query[i]], first, end, total[i])
        hit = position(user, first, end, target[i])
        place[i] = hit
        alone, peak = float(head_log_p[i]), total[i, 1, num_components] + head_log_p[i]
        for s in range(num_components):
            if hit >= 0 and scores[s, hit] > ABSENT:
                alone += scores[s, hit] - total[i, 0, s]
                peak = max(peak, total[i, 1, s] + scores[s, hit] - total[i, 0, s])
        mass = np.exp(total[i, 1, num_components] + head_log_p[i] - peak)
        for s in range(num_components):
            if hit >= 0 and scores[s, hit] > ABSENT:
                mass += np.exp(total[i, 1, s] + scores[s, hit] - total[i, 0, s] - peak)
        out[0, i], out[1, i] = np.log(mass) + peak, alone


@kernel
def fill_gradients(
    row: np.ndarray,
    scores: np.ndarray,
    head_log_p: np.ndarray,
    query: np.ndarray,
    left: np.ndarray,
    total: np.ndarray,
    place: np.ndarray,
    out: np.ndarray,
    grad_out: np.ndarray,
    grad_scores: np.ndarray,
    grad_gate: np.ndarray,
    grad_head: np.ndarray,
) -> None:
    """Fill the gradients of `fill_likelihoods`, from its arguments and results.

    Args:
        row: as there, like the next seven.
        scores: as there.
        head_log_p: as there.
        query: as there.
        left: as there.
        total: as there.
        place: as there.
        out: as there.
        grad_out: [2, n], the gradient of `out`.
        grad_scores: [S, M], zeros, filled.
        grad_gate: [B, S + 1], zeros, filled.
        grad_head: [n], filled.
    """
    num_components = len(scores)
    for i in range(len(query)):
        first = end_before(int64(0), len(row), row, query[i])
        end = end_before(int64(0), len(row), row, query[i] + 1)
        hit, b = place[i], query[i]
        share = np.exp(total[i, 1, num_components] + head_log_p[i] - out[0, i])
        grad_head[i] = grad_out[0, i] * share + grad_out[1, i]
        grad_gate[b, num_components] = grad_out[0, i] * share
        for s in range(num_components):
            if hit < 0 or scores[s, hit] <= ABSENT:
                continue
            share = np.exp(total[i, 1, s] + scores[s, hit] - total[i, 0, s] - out[0, i])
            grad_gate[b, s] = grad_out[0, i] * share
            pull = grad_out[0, i] * share + grad_out[1, i]
            if total[i, 1, s] > ABSENT:
                for m in range(first, end):
                    if left[m] and scores[s, m] > ABSENT:
                        grad_scores[s, m] = -pull * np.exp(scores[s, m] - total[i, 0, s])
            grad_scores[s, hit] += pull
        for s in range(num_components + 1):
            grad_gate[b, s] -= grad_out[0, i] * np.exp(total[i, 1, s])


@kernel
def fill_shares(
    row: np.ndarray, scores: np.ndarray, gate: np.ndarray, inside: np.ndarray, beyond: np.ndarray
) -> None:
    """Fill the probabilities of neighbors by the gated components, and the gate weights of the head.

    Args:
        row: [M], the query of each neighbor, ascending.
        scores: [S, M], of the components; `ABSENT` where one does not cover a neighbor.
        gate: [B, S + 1] gate logits.
        inside: [M], zeros, filled.
        beyond: [B], filled.
    """
    num_components, first = len(scores), int64(0)
    left, total = np.ones(len(row), np.bool_), np.empty((2, num_components + 1))
    for b in range(len(gate)):
        end = first
        while end < len(row) and row[end] == b:
            end += 1
        normalize(scores, left, gate[b], first, end, total)
        beyond[b] = np.exp(total[1, num_components])
        for s in range(num_components):
            log_share = total[1, s] - total[0, s]
            for m in range(first, end):
                if scores[s, m] > ABSENT:
                    inside[m] += np.exp(scores[s, m] + log_share)
        first = end
