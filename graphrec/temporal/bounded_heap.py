"""Kernels that keep the best entries of a stream: a heap of limited size, its worst entry first.

An entry is (score, second score, tie rank). A higher score is better, then a higher second score, then a
lower rank. The size of the heap is at most the length of its three arrays.
"""

from __future__ import annotations

import numpy as np

from graphrec.jit import int64, subkernel


@subkernel
def is_better(score: float, second: float, rank: int, score2: float, second2: float, rank2: int) -> bool:
    """Tell whether the first entry ranks above the second: by score, then second score, then tie rank."""
    if score != score2:
        return score > score2
    if second != second2:
        return second > second2
    return rank < rank2


@subkernel
def sift_down(scores: np.ndarray, seconds: np.ndarray, ranks: np.ndarray, size: int, i: int) -> None:
    """Move entry i of a heap of a given size down to its place."""
    score, second, rank = scores[i], seconds[i], ranks[i]
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        other = child + 1
        if other < size and is_better(
            scores[child], seconds[child], ranks[child], scores[other], seconds[other], ranks[other]
        ):
            child = other
        if not is_better(score, second, rank, scores[child], seconds[child], ranks[child]):
            break
        scores[i], seconds[i], ranks[i] = scores[child], seconds[child], ranks[child]
        i = child
    scores[i], seconds[i], ranks[i] = score, second, rank


@subkernel
def offer(
    scores: np.ndarray,
    seconds: np.ndarray,
    ranks: np.ndarray,
    size: int,
    score: float,
    second: float,
    rank: int,
) -> int:
    """Add an entry, in place of the worst if the heap is full and it is better; return the new size."""
    if size == len(scores):
        if size and is_better(score, second, rank, scores[0], seconds[0], ranks[0]):
            scores[0], seconds[0], ranks[0] = score, second, rank
            sift_down(scores, seconds, ranks, size, int64(0))
        return size
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if not is_better(scores[parent], seconds[parent], ranks[parent], score, second, rank):
            break
        scores[i], seconds[i], ranks[i] = scores[parent], seconds[parent], ranks[parent]
        i = parent
    scores[i], seconds[i], ranks[i] = score, second, rank
    return size + 1


@subkernel
def sort_best_first(scores: np.ndarray, seconds: np.ndarray, ranks: np.ndarray, size: int) -> None:
    """Sort the entries of a heap of a given size, best first; it is no heap any more."""
    for last in range(size - 1, 0, -1):
        score, second, rank = scores[last], seconds[last], ranks[last]
        scores[last], seconds[last], ranks[last] = scores[0], seconds[0], ranks[0]
        scores[0], seconds[0], ranks[0] = score, second, rank
        sift_down(scores, seconds, ranks, last, int64(0))
