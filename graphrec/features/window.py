"""Candidates of lists for the coming days, and what is known of each of them at the moment of the list."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.data.growing_column import GrowingColumn
from graphrec.features.window_kernels import count_paths, fill_ranks, list_window_candidates
from graphrec.features.window_pools import PatchedPools, WindowPools
from graphrec.temporal import SpectralEmbeddings, Timeline
from graphrec.temporal.rates import FIRST_RECEIVED, Rates

SCALES = (1.0, 4.0, 16.0)
"""Half-lives of rates, in windows."""

POOL_SCALE = 1
"""Of `SCALES`: the rates by which pools are chosen."""

MAX_TWO_HOP = 100
"""Contacts of contacts with the largest Adamic-Adar, and with its largest decayed form, at most."""

NUM_PERSON_FEATURES = 4 * (len(SCALES) + 1) + 6
NUM_WINDOW_FEATURES = 6 + 2 * NUM_PERSON_FEATURES + 4
"""Of a pair, of both sides, and ranks within the list."""


@dataclass(frozen=True)
class WindowCandidates:
    """The candidates of B queries of one moment.

    Attributes:
        row: [M] int64, ascending, the query of each.
        user: [M] int64.
        x: [M, NUM_WINDOW_FEATURES] float32.
    """

    row: Tensor
    user: Tensor
    x: Tensor


class WindowFeatures:
    """Finds candidates and their features before any tick.

    Args:
        timeline: the index.
        spectral: embeddings of the contact graph.
        window: number of events of a window, the unit of half-lives.
        order: [N] int64, all users: of those with equal values the first comes first.
    """

    def __init__(
        self, timeline: Timeline, spectral: SpectralEmbeddings, window: float, order: Tensor
    ) -> None:
        self._rank_column = GrowingColumn(order.argsort())
        self._timeline, self._spectral = timeline, spectral
        half_lives = tuple(window * scale for scale in SCALES)
        self._rates = Rates(timeline, half_lives)
        self._pools: WindowPools | PatchedPools = WindowPools(
            timeline, self.tie_rank, half_lives[POOL_SCALE], self._rates.clock
        )

    @property
    def tie_rank(self) -> Tensor:
        """Each user's place in the order: [N] int64."""
        return self._rank_column.view

    def follow(self, timeline: Timeline) -> None:
        """Read an index that events were appended to; the work grows with these. Newcomers come last."""
        assert isinstance(self._pools, WindowPools)
        self._rank_column.append(torch.arange(len(self.tie_rank), timeline.num_users))
        self._timeline, self._spectral = timeline, self._spectral.follow(timeline)
        self._rates.follow(timeline)
        self._pools.follow(timeline, self.tie_rank, self._rates.clock)

    def reading(self, timeline: Timeline, changed: Tensor) -> WindowFeatures:
        """Return the features on an index that has lost events; see `Recommender.reading`."""
        assert isinstance(self._pools, WindowPools)
        out = copy(self)
        out._timeline, out._spectral = timeline, self._spectral.reading(timeline)
        out._rates = self._rates.reading(timeline, changed)
        out._pools = PatchedPools(self._pools, timeline, out._rates, POOL_SCALE, changed)
        return out

    def popularity(self, tick: int) -> Tensor:
        """Return every user's rate of first acts received before a tick: [N] float64."""
        return self._pools.popularity(tick)

    def popularity_of(self, user: Tensor, tick: int) -> Tensor:
        """Return the rates of first acts received of users [M] before a tick: [M] float64."""
        return self._rates.gather(user, tick)[self._rates.row_of(FIRST_RECEIVED, POOL_SCALE)].double()

    def candidates(self, user: Tensor, tick: int) -> WindowCandidates:
        """Find the candidates of users [B] int64 before a tick."""
        columns = self._timeline.columns
        now, asking, pool = self._rates.num_before(tick), user.contiguous().numpy(), self._pools.before(tick)
        num_paths = np.empty(len(user), np.int64)
        count_paths(columns.contacts, asking, tick, num_paths)
        room = int(np.minimum(num_paths, 2 * MAX_TWO_HOP).sum()) + len(user) * len(pool)
        row, person = np.empty(room, np.int64), np.empty(room, np.int64)
        pair = np.empty((4, room), np.float32)
        size = list_window_candidates(
            columns.half_edges,
            columns.contacts,
            self._rates.clock,
            self._timeline.removed,
            asking,
            tick,
            pool,
            self.tie_rank.numpy(),
            MAX_TWO_HOP,
            row,
            person,
            pair,
        )
        rows, people = torch.from_numpy(row[:size]), torch.from_numpy(person[:size])
        adamic_adar, decayed, common, contacts = torch.from_numpy(pair[:, :size])
        moment = torch.full((len(user),), tick)
        degree = self._timeline.degree(user, moment).float()
        cosine = self._spectral.query(user, moment).cosine(rows, people)
        own, theirs = self._rates.gather(user, tick), self._rates.gather(people, tick)
        received = theirs[self._rates.row_of(FIRST_RECEIVED, POOL_SCALE)]
        ranked = torch.stack([adamic_adar, decayed, received, cosine])
        ranks = torch.empty_like(ranked)
        fill_ranks(rows.numpy(), ranked.numpy(), ranks.numpy())
        own_degree = degree[rows]
        of_pair = torch.stack(
            [
                adamic_adar.log1p(),
                (decayed + 1e-6).log(),
                common.log1p(),
                common / (own_degree + contacts - common).clamp(min=1.0),
                adamic_adar / (own_degree + contacts).clamp(min=2.0).log(),
                cosine,
            ]
        )
        sides = _person_features(own, degree, now)[:, rows], _person_features(theirs, contacts, now)
        x = torch.cat([of_pair, *sides, ranks.log1p()]).T.contiguous()
        return WindowCandidates(rows, people, x)


def _person_features(raw: Tensor, degree: Tensor, now: int) -> Tensor:
    """Turn rows of `Rates.gather` for M users with degrees [M] into [NUM_PERSON_FEATURES, M] float32."""
    counts = 4 * (len(SCALES) + 1)
    ages = ((raw[counts + 2 :] + 1.0) / max(now, 1)).log()
    return torch.cat([raw[:counts].log1p(), raw[counts : counts + 2], ages, degree.log1p()[None]])
