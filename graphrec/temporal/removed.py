"""Positions in a log from which events were removed: the events that are left, counted and found."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.jit import subkernel


@subkernel
def num_left(removed: np.ndarray, end: int) -> int:
    """Count the events before position `end` that are left.

    Args:
        removed: [R] int64, ascending positions.
        end: a position.
    """
    low, high = 0, len(removed)
    while low < high:
        middle = (low + high) >> 1
        if removed[middle] < end:
            low = middle + 1
        else:
            high = middle
    return end - low


@subkernel
def look_back(removed: np.ndarray, end: int, count: int) -> int:
    """Return the position of the `count`-th event left before position `end`, counted back.

    Where fewer are left, it is the first of them; there must be one.
    """
    if not len(removed):
        return max(end - count, 0)
    number = max(num_left(removed, end) - count, 0)
    low, high = 0, len(removed)
    while low < high:  # the removed events before it, of which each lies at its own number among the left
        middle = (low + high) >> 1
        if removed[middle] - middle <= number:
            low = middle + 1
        else:
            high = middle
    return number + low


def position_of(removed: np.ndarray, number: Tensor) -> Tensor:
    """Return the positions in the log of events that are counted from 0 without the removed ones (int64)."""
    before = torch.from_numpy(removed - np.arange(len(removed)))
    return number + torch.searchsorted(before, number, right=True)
