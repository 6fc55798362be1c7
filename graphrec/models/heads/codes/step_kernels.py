"""Kernels of one step down the tree of STUs: children and votes, and how both become probabilities."""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel


@kernel
def find_children(
    row: np.ndarray,
    node: np.ndarray,
    child_ptr: np.ndarray,
    num_children: np.ndarray,
    voter_row: np.ndarray,
    path: np.ndarray,
    level: int,
    weight: np.ndarray,
    least: np.float32,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """List the children of prefixes, and the voters below them.

    Args:
        row: [R] int64, ascending, the query of each prefix.
        node: [R] int64, its node, ascending in each row.
        child_ptr: [num_nodes] int64, the first child of each node.
        num_children: [num_nodes] int64.
        voter_row: [V] int64, the query of each voter.
        path: [V, L + 1] int64, the nodes of their STUs from root to leaf.
        level: length of the prefixes.
        weight: [V] float32, of the votes; empty if they have none.
        least: added to weights, so that their logarithms are finite.

    Returns:
        (position of the prefix [T], node [T]) int64 of each child; the first child of each prefix, [R] int64;
        of the n voters below prefixes their position, the position of the prefix, and that of the child that
        they vote for, [3, n] int64; the weight of the voters below each prefix, [R] float32; and, of their
        number n and weight w, log1p(n) / 4 and log(w + least) / 8, [R, 2] float32.
    """
    first, total = np.empty(len(row), np.int64), 0
    for r in range(len(row)):
        first[r], total = total, total + num_children[node[r]]
    at, child = np.empty(total, np.int64), np.empty(total, np.int64)
    for r in range(len(row)):
        for i in range(num_children[node[r]]):
            at[first[r] + i], child[first[r] + i] = r, child_ptr[node[r]] + i
    votes, number = np.empty((3, len(voter_row)), np.int64), 0
    sums, logs = np.zeros(len(row), np.float32), np.zeros((len(row), 2), np.float32)
    for v in range(len(voter_row)):
        wanted, low, high = path[v, level], 0, len(row)
        while low < high:
            middle = (low + high) >> 1
            if row[middle] < voter_row[v] or (row[middle] == voter_row[v] and node[middle] < wanted):
                low = middle + 1
            else:
                high = middle
        if low < len(row) and row[low] == voter_row[v] and node[low] == wanted:
            votes[0, number], votes[1, number] = v, low
            votes[2, number] = first[low] + path[v, level + 1] - child_ptr[wanted]
            number += 1
            logs[low, 0] += np.float32(1)
            if len(weight):
                sums[low] += weight[v]
    for r in range(len(row)):
        logs[r, 0], logs[r, 1] = np.log1p(logs[r, 0]) / 4, np.log(sums[r] + least) / 8
    return at, child, first, votes[:, :number], sums, logs


@kernel
def fill_log_probs(
    logits: np.ndarray,
    score: np.ndarray,
    first: np.ndarray,
    child: np.ndarray,
    code: np.ndarray,
    votes: np.ndarray,
    weight: np.ndarray,
    mixes: bool,
    total: np.ndarray,
    trust: np.ndarray,
    least: np.float32,
    out: np.ndarray,
) -> None:
    """Fill the log-probabilities of children: a softmax of each prefix, interpolated with votes.

    Args:
        logits: [R, K] float32, of the next codes of prefixes.
        score: [T] float32, added to the logits of children.
        first: [R] int64, the first child of each prefix.
        child: [T] int64, nodes.
        code: [num_nodes] int64, the last code of each node.
        votes: of `find_children`.
        weight: [V] float32, of the votes.
        mixes: whether votes are interpolated.
        total: [R] float32, the weight of the votes below each prefix.
        trust: [R] float32, the logit of the share of the votes.
        least: added to weights and probabilities, so that their logarithms are finite.
        out: [T] float32, filled.
    """
    count = np.zeros(len(child), np.float32)
    if mixes:
        for v in range(votes.shape[1]):
            count[votes[2, v]] += weight[votes[0, v]]
    for r in range(len(first)):
        begin = first[r]
        end = first[r + 1] if r + 1 < len(first) else len(child)
        peak = np.float32(-np.inf)
        for i in range(begin, end):
            out[i] = logits[r, code[child[i]]] + score[i]
            peak = max(peak, out[i])
        mass = np.float32(0)
        for i in range(begin, end):
            mass += np.exp(out[i] - peak)
        peak += np.log(mass)
        for i in range(begin, end):
            out[i] -= peak
        if mixes:
            own = np.float32(1) / (np.float32(1) + np.exp(-trust[r])) if total[r] > 0 else np.float32(0)
            scale = own / (total[r] + least)
            for i in range(begin, end):
                out[i] = np.log(scale * count[i] + (np.float32(1) - own) * np.exp(out[i]) + least)


@kernel
def spread_mass(
    at: np.ndarray,
    child: np.ndarray,
    log_p: np.ndarray,
    code: np.ndarray,
    generated: np.ndarray,
    voter: np.ndarray,
    voted: np.ndarray,
    inside: np.ndarray,
    least: np.float32,
    out: np.ndarray,
    kept: np.ndarray,
) -> None:
    """Fill the log-probabilities of next codes in the mixture, and the decoder's share of each.

    Args:
        at: [T] int64, position of the prefix of each child.
        child: [T] int64, nodes.
        log_p: [T] float32, of the children, by the decoder.
        code: [num_nodes] int64, the last code of each node.
        generated: [R] float32, the decoder's share of the probability of each prefix.
        voter: [n] int64, position of each voter below a prefix.
        voted: [n] int64, position of the child that each votes for.
        inside: [V] float32, the probability of each voter by the components; empty if there are none.
        least: the least probability of a child.
        out: [R, K] float32, -inf, filled where a child has the code.
        kept: [R, K] float32, zeros, filled alike with the decoder's share.
    """
    mass, total = np.empty(len(child), np.float32), np.zeros(len(generated), np.float32)
    for i in range(len(child)):
        mass[i] = generated[at[i]] * np.exp(log_p[i])
        kept[at[i], code[child[i]]] = mass[i]
    if len(inside):
        for v in range(len(voter)):
            mass[voted[v]] += inside[voter[v]]
    for i in range(len(child)):
        mass[i] = max(mass[i], least)
        total[at[i]] += mass[i]
    for i in range(len(child)):
        out[at[i], code[child[i]]] = np.log(mass[i] / total[at[i]])
