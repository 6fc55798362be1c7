"""The arrays of a prefix tree and of excluded users, on the CPU, as kernels read them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class TreeColumns(NamedTuple):
    """Arrays of a `PrefixTree`, all int64: see there.

    Attributes:
        code: [num_nodes].
        parent: [num_nodes].
        child_ptr: [number of inner nodes + 1].
        start: [num_nodes].
        end: [num_nodes].
        users: [M].
    """

    code: np.ndarray
    parent: np.ndarray
    child_ptr: np.ndarray
    start: np.ndarray
    end: np.ndarray
    users: np.ndarray


class ExcludedColumns(NamedTuple):
    """Arrays of an `ExclusionIndex`, all int64.

    Attributes:
        hidden_before: [M + 1], users at the places before each one who are excluded from all queries; empty
            if there are none.
        first: [B + 1], the part of `place` of each query.
        place: [X], ascending for each query, places of the users who are excluded from it.
    """

    hidden_before: np.ndarray
    first: np.ndarray
    place: np.ndarray


class ChildColumns(NamedTuple):
    """Arrays of a `Forest`, [num_nodes] int64 each.

    Attributes:
        first: the first child of each inner node.
        number: number of children.
        code: the last code of each node's prefix.
    """

    first: np.ndarray
    number: np.ndarray
    code: np.ndarray
