"""Sorting and ranking of the few hundred entries of a row, in kernels."""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel, subkernel
from graphrec.temporal.contacts import NEVER


@subkernel
def sort_pairs(key: np.ndarray, item: np.ndarray, other_key: np.ndarray, other_item: np.ndarray) -> None:
    """Sort items by keys, stably, by counting byte after byte.

    Args:
        key: [n] int64, at least 0; sorted ascending.
        item: [n] int64; reordered like the keys.
        other_key: [n] int64, overwritten.
        other_item: [n] int64, overwritten.
    """
    size = len(key)
    count = np.empty(256, np.int64)
    all_bits = np.int64(0)
    for i in range(size):
        all_bits |= key[i]
    shift = 0
    while shift < 64 and all_bits >> shift:
        count[:] = 0
        for i in range(size):
            count[(key[i] >> shift) & 255] += 1
        start = 0
        for value in range(256):
            start, count[value] = start + count[value], start
        for i in range(size):
            value = (key[i] >> shift) & 255
            other_key[count[value]], other_item[count[value]] = key[i], item[i]
            count[value] += 1
        key, other_key = other_key, key
        item, other_item = other_item, item
        shift += 8
    if shift & 8:  # an odd number of passes
        for i in range(size):  # not a copy of slices: numba compiles a message of text for each
            other_key[i], other_item[i] = key[i], item[i]


@kernel
def rank_latest(time: np.ndarray, rank: np.ndarray) -> None:
    """Fill for each entry how many have a later time.

    Args:
        time: [n] int64 seconds or `NEVER`.
        rank: [n] int64, filled.
    """
    size = len(time)
    if not size:
        return
    latest = time[0]
    for i in range(size):
        latest = max(latest, time[i])
    earliest = latest
    for i in range(size):
        if time[i] > NEVER:
            earliest = min(earliest, time[i])
    key, item = np.empty(size, np.int64), np.arange(size)
    for i in range(size):
        key[i] = latest - time[i] if time[i] > NEVER else latest - earliest + 1
    sort_pairs(key, item, np.empty(size, np.int64), np.empty(size, np.int64))
    first = 0
    for i in range(size):
        if key[i] != key[first]:
            first = i
        rank[item[i]] = first


@subkernel
def stable_order(key: np.ndarray) -> np.ndarray:
    """Return the positions of keys [n] int64 in ascending order, equal ones as they stand: [n] int64."""
    size = len(key)
    order, merged = np.arange(size), np.empty(size, np.int64)
    width = 1
    while width < size:
        for low in range(0, size, 2 * width):
            middle, high = min(low + width, size), min(low + 2 * width, size)
            left, right = low, middle
            for at in range(low, high):
                if left < middle and (right >= high or key[order[left]] <= key[order[right]]):
                    merged[at] = order[left]
                    left += 1
                else:
                    merged[at] = order[right]
                    right += 1
        order, merged = merged, order
        width *= 2
    return order


@subkernel
def reorder(column: np.ndarray, first: int, order: np.ndarray) -> None:
    """Put the entries of an int32 column from `first` on into an order [n] int64 of these entries."""
    size = len(order)
    before = np.empty(size, np.int32)
    for i in range(size):
        before[i] = column[first + i]
    for i in range(size):
        column[first + i] = before[order[i]]
