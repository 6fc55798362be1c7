"""Where people stand in the network: spectral embeddings of the contact graph, each of a strict past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array
from torch import Tensor

from graphrec.data.checks import check_counts
from graphrec.temporal.timeline import Timeline

NUM_CONTACTS = 16
"""People last in touch who stand for a user without a place."""


def moments(timeline: Timeline, every: int) -> Tensor:
    """Ticks just after each `every`-th event, and 0: [S] int64, ascending.

    Never at the next event: when that comes is the future of queries in between.
    """
    after = timeline.event_tick[torch.arange(every - 1, len(timeline.events), every)].unique() + 1
    return torch.cat([torch.zeros(1, dtype=torch.int64), after])


class Structure:
    """Embeddings of the contact graph at a series of moments; a query reads the latest that is not after it.

    At a moment T, the weight of a pair is log1p of its contacts before T, each halved every `half_life` of
    the history, and S the matrix of weights normalised by degrees to which the mean degree was added
    (regularised spectral clustering; Qin & Rohe 2013, https://arxiv.org/abs/1309.4111). The embedding of a
    user is their row of S U, normalised, where U is the leading subspace of S + I, found by orthogonal
    iteration from the snapshot before. Users without contact before T have the zero vector.

    Args:
        timeline: the index.
        start: [N, dim] float32, where the first iteration starts.
        every: events between snapshots, at least 1.
        since: a tick; of the snapshots that are not after it only the last is made.
        half_life: as a share of the events before T.
        iterations: of each snapshot; the first takes four times as many.

    Attributes:
        tick: [S] int64, ascending; snapshot s knows what is older than tick[s].
        embedding: [S, N, dim] float32.
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
    ) -> None:
        check_counts(every=every, iterations=iterations)
        if not half_life > 0:  # infinite: nothing fades
            raise ValueError(f"half_life must be above 0, got {half_life}")
        if start.dim() != 2 or len(start) != timeline.num_users or not start.size(1):
            raise ValueError(f"start must be [{timeline.num_users}, dim], got {list(start.shape)}")
        self._timeline = timeline
        num_users = timeline.num_users
        ticks = moments(timeline, every)
        first = int(torch.searchsorted(ticks, since, right=True)) - 1
        self.tick = torch.cat([ticks[:1], ticks[max(1, first) :]])
        basis = _orthonormal(start[:, :num_users].numpy().astype(np.float64))
        self.embedding = torch.zeros(len(self.tick), *basis.shape, dtype=torch.float32)
        for number, tick in enumerate(self.tick.tolist()):
            if number:
                matrix = _affinity(timeline, tick, half_life)
                for _ in range(iterations if number > 1 else 4 * iterations):
                    basis = _orthonormal(matrix @ basis + basis)
                rows = torch.from_numpy(matrix @ basis)
                self.embedding[number] = F.normalize(rows, dim=1).float()

    def place(self, user: Tensor, tick: Tensor) -> Standing:
        """Where users [B] stood before ticks [B]."""
        snapshot = torch.searchsorted(self.tick, tick.contiguous(), right=True) - 1
        own = self.embedding[snapshot, user]
        row, half_edge = self._timeline.last_contacts(user, tick, NUM_CONTACTS)
        other = self.embedding[snapshot[row], self._timeline.halves.other[half_edge].long()]
        circle = torch.zeros_like(own).index_add_(0, row, other)
        place = torch.where(own.any(1, keepdim=True), own, F.normalize(circle, dim=1))
        return Standing(self.embedding, snapshot, place)


@dataclass(frozen=True)
class Standing:
    """Where B users stood, each before a moment of their own.

    Attributes:
        embedding: [S, N, dim] float32, of a `Structure`.
        snapshot: [B] int64, the latest that knows nothing at or after the moment.
        place: [B, dim], the user's own there, or where there is none the normalised sum of those of the
            people last in touch with them.
    """

    embedding: Tensor
    snapshot: Tensor
    place: Tensor

    def __getitem__(self, rows: Tensor) -> Standing:
        return Standing(self.embedding, self.snapshot[rows], self.place[rows])

    def cosine(self, row: Tensor, other: Tensor) -> Tensor:
        """With people [M] of rows [M]: [M] float32; 0 where one has no place."""
        return (self.place[row] * self.embedding[self.snapshot[row], other]).sum(1)

    def cosines(self, others: Tensor | slice = slice(None)) -> Tensor:
        """With the same people [C] for all, by default everyone: [B, C]."""
        out = torch.empty(len(self.place), self.embedding[0, others].size(0))
        for number in self.snapshot.unique().tolist():
            rows = (self.snapshot == number).nonzero().squeeze(1)
            out[rows] = self.place[rows] @ self.embedding[number, others].T
        return out


def _orthonormal(basis: np.ndarray) -> np.ndarray:
    """The same subspace by Cholesky QR: on tall matrices, far faster than by reflections."""
    try:
        triangle = np.linalg.cholesky(basis.T @ basis)
    except np.linalg.LinAlgError:  # columns that depend on each other, as where few people have a place
        return np.linalg.qr(basis)[0]
    out: np.ndarray = solve_triangular(triangle, basis.T, lower=True).T
    return out


def _affinity(timeline: Timeline, tick: int, half_life: float) -> csr_array:
    """The normalised log of decayed contacts older than a tick, [N, N] float64."""
    size = int(torch.searchsorted(timeline.event_tick, tick))
    events, num_users = timeline.events, timeline.num_users
    src, dst = events.src[:size].numpy(), events.dst[:size].numpy()
    # Age in ticks of the log, so that tied events weigh the same and pace does not matter.
    age = (tick - timeline.event_tick[:size].numpy()) / (half_life * tick)
    weight = csr_array((np.exp2(-age), (src, dst)), shape=(num_users, num_users))
    weight = (weight + weight.T).tocsr()
    weight.data = np.log1p(weight.data)
    degree = np.asarray(weight.sum(axis=1)).ravel()
    scale = np.sqrt(degree + degree[degree > 0].mean())
    weight.data /= np.repeat(scale, np.diff(weight.indptr)) * scale[weight.indices]
    return weight
