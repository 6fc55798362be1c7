"""Spectral embeddings of the contact graph, each of a strict past."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import solve_triangular
from torch import Tensor

from graphrec.data.checks import check_counts
from graphrec.jit import kernel
from graphrec.temporal.affinity import Affinity
from graphrec.temporal.removed import position_of
from graphrec.temporal.timeline import Timeline

FALLBACK_CONTACTS = 16
"""Latest contacts whose embeddings stand in for that of a user who has none yet."""

MAX_EXACT_USERS = 2**17
"""Users above which subspaces are iterated in single precision, which halves time and memory."""

ROWS_PER_BLOCK = 2**14
"""Rows of tall matrices multiplied at once."""

PRODUCTS_PER_BLOCK = 2**11
"""Pairs of users multiplied at once, few enough for a processor's cache."""


def snapshot_ticks(timeline: Timeline, every: int, *, first: int = 0) -> Tensor:
    """Return 0 and the tick just after each `every`-th event: [S] int64, ascending.

    Never the tick of the next event: when that comes is the future of queries in between.

    Args:
        timeline: the index.
        every: events between two ticks.
        first: events before this position are passed over.
    """
    start = -(-(first + 1) // every) * every - 1
    number = torch.arange(start, max(start, len(timeline.events) - len(timeline.removed)), every)
    after = timeline.tick_of(position_of(timeline.removed, number)).unique() + 1
    return torch.cat([torch.zeros(1, dtype=torch.int64), after])


class SpectralEmbeddings:
    """Embeddings of the contact graph at a series of moments; a query reads the latest not after its own.

    At a moment T, the weight of a pair is log1p of its contacts before T, each halved every `half_life` of
    the history, and S the matrix of weights normalized by degrees to which the mean degree was added
    (regularized spectral clustering; Qin & Rohe 2013, https://arxiv.org/abs/1309.4111). The embedding of a
    user is their row of S U, normalized, where U is the leading subspace of S + I, found by orthogonal
    iteration from the snapshot before. Users without contact before T have the zero vector.

    Args:
        timeline: the index.
        start: [N, dim] float32, the start of the first iteration.
        every: events between snapshots, at least 1.
        since: a tick; of the snapshots that are not after it only the last is computed.
        half_life: half-life of a contact's weight, as a fraction of the events before T.
        iterations: orthogonal iterations a snapshot; the first takes four times as many.
        regularized: whether the mean degree is added to degrees. If not, U is the subspace of the eigenvalues
            largest by magnitude, and the embedding of a user is their row of U |L|^(1/2), normalized, L being
            the eigenvalues: loose parts of the graph stand apart, and users who act on the same others are
            as much alike as users who act on each other.

    Attributes:
        tick: [S] int64, ascending; snapshot s knows only events before tick[s].
    """

    def __init__(
        self,
        timeline: Timeline,
        start: Tensor,
        *,
        every: int,
        since: int = 0,
        half_life: float = 0.35,
        iterations: int = 4,
        regularized: bool = True,
    ) -> None:
        check_counts(every=every, iterations=iterations)
        if not half_life > 0:  # infinite: nothing fades
            raise ValueError(f"half_life must be above 0, got {half_life}")
        if start.dim() != 2 or len(start) != timeline.num_users or not start.size(1):
            raise ValueError(f"start must be [{timeline.num_users}, dim], got {list(start.shape)}")
        self._timeline, self._every = timeline, every
        self._half_life, self._iterations, self._regularized = half_life, iterations, regularized
        num_users = timeline.num_users
        ticks = snapshot_ticks(timeline, every)
        first = int(torch.searchsorted(ticks, since, right=True)) - 1
        self.tick = torch.cat([ticks[:1], ticks[max(1, first) :]])
        exact = num_users <= MAX_EXACT_USERS
        basis = start[:, :num_users].numpy().astype(np.float64 if exact else np.float32)
        self._basis = _orthonormalize(basis)
        self._last_basis = self._basis
        # NumPy's zeros, unlike torch's, take memory only where they are written.
        self._buffer = torch.from_numpy(np.zeros((len(self.tick), *self._basis.shape), np.float32))
        self._first_users, self._num_events = num_users, len(timeline.events)
        for number in range(1, len(self.tick)):
            self._renew(number)

    @property
    def buffer(self) -> Tensor:
        """The embeddings, with room for users who may come: [S, N or more, dim] float32."""
        return self._buffer

    @property
    def embedding(self) -> Tensor:
        """The embeddings: [S, N, dim] float32."""
        return self._buffer[:, : self._timeline.num_users]

    def follow(self, timeline: Timeline) -> Self:
        """Return the embeddings on an index that events were appended to.

        A snapshot is computed for each `every` events. A user who was not there at first joins the iteration
        at the first snapshot that knows a contact of theirs, so that it does not matter how many events were
        appended at once.
        """
        out, size = copy(self), self._num_events
        out._timeline, out._num_events = timeline, len(timeline.events)
        ticks, kept = snapshot_ticks(timeline, self._every, first=size), self.tick
        last = int(timeline.event_tick[size - 1]) if size else -1
        if int(kept[-1]) > max(last, 0) and size < len(timeline.events) and timeline.event_tick[size] == last:
            ticks, kept = torch.cat([kept[-1:], ticks]), kept[:-1]  # its last tie has grown
            out._basis = self._last_basis
        ticks = ticks[ticks > kept[-1]].unique()
        users = self._buffer.size(1)
        if timeline.num_users > users:
            users = timeline.num_users + timeline.num_users // 2
        elif not len(ticks):
            return out
        out.tick = torch.cat([kept, ticks])
        out._buffer = self._buffer.new_zeros(len(out.tick), users, self._buffer.size(2))
        out._buffer[: len(kept), : self._buffer.size(1)] = self._buffer[: len(kept)]
        for number in range(len(kept), len(out.tick)):
            out._renew(number)
        return out

    def _renew(self, number: int) -> None:
        """Compute a snapshot from the one before."""
        timeline, tick, size = self._timeline, int(self.tick[number]), len(self._basis)
        self._last_basis = self._basis
        matrix = Affinity.of(
            timeline, tick, self._half_life, regularized=self._regularized, dtype=self._basis.dtype
        )
        basis = np.zeros((timeline.num_users, self._basis.shape[1]), self._basis.dtype)
        basis[:size] = self._basis
        late = slice(self._first_users, None)
        joins = (timeline.first_tick[late] < tick).numpy() & ~basis[late].any(1)
        generator = torch.Generator().manual_seed(tick)
        start = torch.randn(int(joins.sum()), basis.shape[1], generator=generator).numpy()
        basis[late][joins] = start / max(self._first_users, 1) ** 0.5  # as large as the others' rows
        other = np.zeros_like(basis)
        for _ in range(self._iterations if number > 1 else 4 * self._iterations):
            if self._regularized:
                basis, other = matrix.multiply(basis, other, plus=1.0), basis
            else:
                matrix.multiply(matrix.multiply(basis, other), basis)
            basis = _orthonormalize(basis)
        self._basis, product = basis, matrix.multiply(basis, other)
        turn = None
        if not self._regularized:
            value, vector = np.linalg.eigh(basis.T @ product)
            turn, product = vector * np.sqrt(np.abs(value)), basis
        for block in _blocks(len(product)):
            rows = torch.from_numpy(product[block] if turn is None else product[block] @ turn)
            self._buffer[number, block] = F.normalize(rows, dim=1).float()

    def reading(self, timeline: Timeline) -> SpectralEmbeddings:
        """Return the same embeddings beside another index of the users, such as one that lost events."""
        out = copy(self)
        out._timeline = timeline
        return out

    def query(self, user: Tensor, tick: Tensor) -> SpectralQuery:
        """Look up the embeddings of users [B] int64 before ticks [B] int64."""
        snapshot = torch.searchsorted(self.tick, tick.contiguous(), right=True) - 1
        own = self._buffer[snapshot, user]
        without = (own == 0).all(1).nonzero().squeeze(1)
        if len(without):
            row, half_edge = self._timeline.last_half_edges(user[without], tick[without], FALLBACK_CONTACTS)
            other = self._buffer[snapshot[without[row]], self._timeline.other_of(half_edge)]
            contacts = own.new_zeros(len(without), own.size(1)).index_add_(0, row, other)
            own[without] = F.normalize(contacts, dim=1)
        return self.query_of(snapshot, own)

    def query_of(self, snapshot: Tensor, vector: Tensor) -> SpectralQuery:
        """Return the query of users with vectors [B, dim] in snapshots [B] int64."""
        return SpectralQuery(self._buffer, snapshot, vector, self._timeline.num_users)


@dataclass(frozen=True)
class SpectralQuery:
    """The spectral embeddings of B users, each before a moment of their own.

    Attributes:
        embedding: [S, N or more, dim] float32, of `SpectralEmbeddings`.
        snapshot: [B] int64, the latest snapshot that knows nothing at or after the user's moment.
        vector: [B, dim] float32, the user's embedding in that snapshot; where it is zero, the normalized sum
            of the embeddings of the user's latest contacts.
        num_users: N.
    """

    embedding: Tensor
    snapshot: Tensor
    vector: Tensor
    num_users: int

    def __getitem__(self, rows: Tensor) -> SpectralQuery:
        return replace(self, snapshot=self.snapshot[rows], vector=self.vector[rows])

    def cosine(self, row: Tensor, other: Tensor) -> Tensor:
        """Cosines of the users of rows [M] with others [M]: [M] float32; 0 where an embedding is zero."""
        out = torch.empty(len(row))
        product = torch.empty(min(len(row), PRODUCTS_PER_BLOCK), self.vector.size(1))
        vector, embedding, snapshot = (x.numpy() for x in (self.vector, self.embedding, self.snapshot))
        for begin in range(0, len(row), PRODUCTS_PER_BLOCK):
            block = slice(begin, begin + PRODUCTS_PER_BLOCK)
            rows, others = row[block].contiguous().numpy(), other[block].contiguous().numpy()
            multiply_rows(vector, embedding, snapshot, rows, others, product.numpy())
            torch.sum(product[: len(rows)], 1, out=out[block])
        return out

    def cosines(self, others: Tensor | None = None) -> Tensor:
        """Cosines of every row with the same others [C], by default all N users: [B, C] float32."""
        chosen = slice(self.num_users) if others is None else others
        out = torch.empty(len(self.vector), self.embedding[0, chosen].size(0))
        for number in self.snapshot.unique().tolist():
            rows = (self.snapshot == number).nonzero().squeeze(1)
            out[rows] = self.vector[rows] @ self.embedding[number, chosen].T
        return out


@kernel
def multiply_rows(
    vector: np.ndarray,
    embedding: np.ndarray,
    snapshot: np.ndarray,
    row: np.ndarray,
    other: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the products of the vectors of rows with the embeddings of others, element by element.

    Args:
        vector: [B, dim], of `SpectralQuery`.
        embedding: [S, N, dim], of `SpectralQuery`.
        snapshot: [B], of `SpectralQuery`.
        row: [M].
        other: [M].
        out: [M or more, dim] float32.
    """
    for m in range(len(row)):
        b, number, user = row[m], snapshot[row[m]], other[m]
        for d in range(out.shape[1]):
            out[m, d] = vector[b, d] * embedding[number, user, d]


def _orthonormalize(basis: np.ndarray) -> np.ndarray:
    """Make the columns of a basis [N, dim] orthonormal, by Cholesky QR, which is fast on tall matrices.

    Returns:
        the basis, changed in place; another array where its columns are linearly dependent.
    """
    dim = basis.shape[1]
    gram = np.zeros((dim, dim))
    for block in _blocks(len(basis)):
        gram += basis[block].T @ basis[block].astype(np.float64)
    try:
        triangle = np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:  # linearly dependent columns, as where few users have contacts
        return np.linalg.qr(basis)[0]
    inverse = solve_triangular(triangle, np.eye(dim), lower=True).T.astype(basis.dtype)
    for block in _blocks(len(basis)):
        basis[block] = basis[block] @ inverse
    return basis


def _blocks(size: int) -> list[slice]:
    """Consecutive ranges of rows that cover `size` rows."""
    return [slice(begin, min(begin + ROWS_PER_BLOCK, size)) for begin in range(0, size, ROWS_PER_BLOCK)]
