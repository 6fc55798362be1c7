"""Kernels of timeline encoders: gaps between events, masks of local attention, events at equal times."""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel


@kernel
def fill_gaps(row: np.ndarray, time: np.ndarray, out: np.ndarray) -> None:
    """Fill the seconds since the last strictly earlier event of the row, and whether there is one.

    Args:
        row: [M] int64, ascending.
        time: [M] int64 seconds, ascending in each row.
        out: [2, M] float32, filled; 0 seconds where there is none.
    """
    last = -1
    for i in range(len(row)):
        if i == 0 or row[i] != row[i - 1]:
            last = -1
        elif time[i] != time[i - 1]:
            last = i - 1
        out[0, i] = time[i] - time[last] if last >= 0 else 0
        out[1, i] = last >= 0


@kernel
def fill_mask(row: np.ndarray, time: np.ndarray, out: np.ndarray) -> None:
    """Fill which events each event attends to: itself, and strictly older ones of its row in its window.

    Args:
        row: [M] int64, ascending.
        time: [M] int64 seconds, ascending in each row.
        out: [blocks, W, 2 W] bool, false, filled; see `Blocks.mask`.
    """
    window = out.shape[1]
    for at in range(out.shape[0] * window):
        block, place = at // window, at % window
        out[block, place, window + place] = True
        if at < len(row):
            earlier = at - 1
            while earlier >= 0 and earlier > at - window and row[earlier] == row[at]:
                out[block, place, window + place - (at - earlier)] = time[earlier] < time[at]
                earlier -= 1


@kernel
def list_attended(row: np.ndarray, wanted: np.ndarray, window: int, out: np.ndarray) -> int:
    """Fill the positions of the events in the windows of some, these included; return how many there are.

    Args:
        row: [M] int64, ascending.
        wanted: [W] int64, ascending.
        window: number of latest events that an event attends to, itself included.
        out: [M] int64, filled, ascending.
    """
    number, done = 0, 0
    for at in wanted:
        first = max(done, at - window + 1)
        while row[first] != row[at]:
            first += 1
        for position in range(first, at + 1):
            out[number] = position
            number += 1
        done = at + 1
    return number


@kernel
def find_ties(
    row: np.ndarray, time: np.ndarray, position: np.ndarray, out: np.ndarray, size: np.ndarray, at: np.ndarray
) -> tuple[int, int]:
    """Find the events of the same row and time as those at some positions.

    Args:
        row: [M] int64, ascending.
        time: [M] int64 seconds, ascending in each row.
        position: [B] int64, or -1.
        out: [2, M] int64, filled with the positions of these events, ascending, and the tie of each.
        size: [M] int64, filled with the number of events of each tie.
        at: [B] int64, filled with the tie of each position, 0 for -1.

    Returns:
        (the number of these events, the number of ties).
    """
    tie_of = np.full(len(row), -1)  # of the first event of each tie that is asked for
    for b in range(len(position)):
        first = position[b]
        if first >= 0:
            while first > 0 and row[first - 1] == row[first] and time[first - 1] == time[first]:
                first -= 1
            tie_of[first] = 0
        at[b] = first
    number, tie, is_asked = 0, -1, False
    for i in range(len(row)):
        if i == 0 or row[i] != row[i - 1] or time[i] != time[i - 1]:
            is_asked = tie_of[i] >= 0
            if is_asked:
                tie += 1
                tie_of[i], size[tie] = tie, 0
        if is_asked:
            out[0, number], out[1, number] = i, tie
            size[tie] += 1
            number += 1
    for b in range(len(position)):
        at[b] = tie_of[at[b]] if at[b] >= 0 else 0
    return number, tie + 1
