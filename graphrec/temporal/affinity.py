"""The matrix of weights between contacts before a moment, and its product with tall matrices."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from graphrec.jit import kernel
from graphrec.temporal.columns import end_before
from graphrec.temporal.timeline import Timeline


class Affinity(NamedTuple):
    """A symmetric matrix [N, N] in compressed rows.

    Attributes:
        start: [N + 1] int64, position of each row's first entry.
        other: [P] int32, column of each entry.
        weight: [P], float32 or float64.
    """

    start: np.ndarray
    other: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls, timeline: Timeline, tick: int, half_life: float, *, regularized: bool, dtype: np.dtype
    ) -> Affinity:
        """The normalized log weights of decayed contacts before a tick.

        Args:
            timeline: the index.
            tick: only earlier events count.
            half_life: as a share of the tick; see `SpectralEmbeddings`.
            regularized: whether the mean degree is added to degrees.
            dtype: of the weights.
        """
        half, num_users = timeline.columns.half_edges, timeline.num_users
        start, last = np.zeros(num_users + 1, np.int64), np.full(num_users, -1, np.int32)
        count_others(half.start, half.length, half.other, half.tick, tick, last, start)
        np.cumsum(start, out=start)
        size = int(start[-1])
        other, weight, degree = np.empty(size, np.int32), np.empty(size), np.empty(num_users)
        # Age in ticks of the log, so that tied events weigh the same and pace does not matter.
        rate = math.log(2.0) / (half_life * tick)
        fill_weights(
            half.start, half.length, half.other, half.tick, tick, rate, last, start, other, weight, degree
        )
        has = degree > 0
        scale = np.sqrt(degree + degree[has].mean() if regularized else np.maximum(degree, 1e-300))
        weight /= np.repeat(scale, np.diff(start))
        weight /= scale[other]
        return cls(start, other, weight.astype(dtype, copy=False))

    def multiply(
        self, basis: np.ndarray, out: np.ndarray, *, times: float = 1.0, plus: float = 0.0, keep: float = 0.0
    ) -> np.ndarray:
        """Set `out` to times A B + plus B + keep out, and return it.

        Args:
            basis: B, [N, D], contiguous, of the weights' type.
            out: [N, D], alike, another array; finite.
            times: factor of the product.
            plus: factor of `basis`.
            keep: factor of what was in `out`.
        """
        number = basis.dtype.type  # or the kernel would calculate in double precision
        factors = number(times), number(plus), number(keep)
        multiply_rows_of(self.start, self.other, self.weight, basis, *factors, out)
        return out


@kernel
def count_others(
    start: np.ndarray,
    length: np.ndarray,
    other: np.ndarray,
    tick: np.ndarray,
    bound: int,
    last: np.ndarray,
    count: np.ndarray,
) -> None:
    """Count the distinct other users of each user's half-edges before a tick.

    Args:
        start: of `HalfEdges`, as the next three.
        length: of `HalfEdges`.
        other: of `HalfEdges`.
        tick: of `HalfEdges`.
        bound: the tick.
        last: [N] int32, all -1; changed.
        count: [N + 1] int64, filled from position 1 on.
    """
    for user in range(len(length)):
        first = start[user]
        for at in range(first, end_before(first, length[user], tick, bound)):
            if last[other[at]] != user:
                last[other[at]] = user
                count[user + 1] += 1


@kernel
def fill_weights(
    start: np.ndarray,
    length: np.ndarray,
    other: np.ndarray,
    tick: np.ndarray,
    bound: int,
    rate: float,
    place: np.ndarray,
    begin: np.ndarray,
    column: np.ndarray,
    weight: np.ndarray,
    degree: np.ndarray,
) -> None:
    """Fill the log1p of the decayed contacts of each pair, in order of its first event, and their sums.

    Args:
        start: of `HalfEdges`, as the next three.
        length: of `HalfEdges`.
        other: of `HalfEdges`.
        tick: of `HalfEdges`.
        bound: a tick; only earlier half-edges count.
        rate: of decay, for each tick of age.
        place: [N] int32, changed.
        begin: [N + 1] int64, of `Affinity`.
        column: [P] int32, of `Affinity`, filled.
        weight: [P] float64, filled.
        degree: [N] float64, filled.
    """
    place[:] = -1
    for user in range(len(length)):
        first, low, size = start[user], begin[user], 0
        for at in range(first, end_before(first, length[user], tick, bound)):
            one = other[at]
            entry = place[one]
            if entry < low or entry >= low + size or column[entry] != one:
                entry = low + size
                place[one], column[entry], weight[entry] = entry, one, 0.0
                size += 1
            weight[entry] += math.exp(-rate * (bound - tick[at]))
        degree[user] = 0.0
        for entry in range(low, low + size):
            weight[entry] = math.log1p(weight[entry])
            degree[user] += weight[entry]


@kernel
def multiply_rows_of(
    start: np.ndarray,
    other: np.ndarray,
    weight: np.ndarray,
    basis: np.ndarray,
    times: float,
    plus: float,
    keep: float,
    out: np.ndarray,
) -> None:
    """Set `out` to times A B + plus B + keep out; see `Affinity.multiply`.

    Args:
        start: [N + 1], of `Affinity`, as the next two.
        other: [P], of `Affinity`.
        weight: [P], of `Affinity`.
        basis: [N, D].
        times: a factor.
        plus: a factor.
        keep: a factor.
        out: [N, D], changed.
    """
    total = np.empty(basis.shape[1], basis.dtype)
    for i in range(basis.shape[0]):
        total[:] = 0
        for at in range(start[i], start[i + 1]):
            x, j = weight[at], other[at]
            for d in range(len(total)):
                total[d] += x * basis[j, d]
        for d in range(len(total)):
            out[i, d] = times * total[d] + plus * basis[i, d] + keep * out[i, d]
