"""The kernels of `balanced_topk`."""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel


@kernel
def choose_in_turn(
    people: np.ndarray,
    value: np.ndarray,
    scale: np.ndarray,
    turn: np.ndarray,
    k: int,
    price: float,
    chosen: np.ndarray,
    count: np.ndarray,
) -> int:
    """Let each user choose again, in turn, while all others keep their lists; return how many places change.

    A user takes the k candidates of the highest value x scale - price x number of other lists that have the
    person; of equal ones, the first. So the sum of value x scale over all lists, minus the price times the
    number of pairs of lists that have a person in common, never falls: where nobody changes, it is at a local
    maximum.

    Args:
        people: [B, C] int32, padded with -1.
        value: [B, C] float32.
        scale: [B] float64, for the values of each user.
        turn: [B] int64, the order of the users.
        k: the length of a list, at most C.
        price: for each other list with the same person.
        chosen: [B, C] bool, the lists; changed.
        count: [S] int64, the number of lists that each person is on; changed.
    """
    num_candidates = people.shape[1]
    net = np.empty(num_candidates, np.float64)
    changed = 0
    for u in turn:
        for j in range(num_candidates):
            person = people[u, j]
            if person < 0:
                net[j] = -np.inf
            else:
                net[j] = scale[u] * value[u, j] - price * (count[person] - chosen[u, j])
        least = np.partition(net, num_candidates - k)[num_candidates - k]
        left = k  # places for candidates that are worth exactly the least
        for j in range(num_candidates):
            left -= net[j] > least
        for j in range(num_candidates):
            taken = net[j] > least
            if net[j] == least and left > 0:
                taken, left = True, left - 1
            taken = taken and people[u, j] >= 0
            if taken and not chosen[u, j]:
                count[people[u, j]] += 1
                changed += 1
            elif chosen[u, j] and not taken:
                count[people[u, j]] -= 1
            chosen[u, j] = taken
    return changed


@kernel
def sum_listed(value: np.ndarray, chosen: np.ndarray, out: np.ndarray) -> None:
    """Fill the value of each list: value [B, C] float32, chosen [B, C] bool, out [B] float64."""
    for u in range(len(value)):
        out[u] = 0.0
        for j in range(value.shape[1]):
            if chosen[u, j]:
                out[u] += value[u, j]
