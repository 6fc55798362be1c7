"""Candidates of lists for the coming days, and what is known of each of them at the moment of the list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.features.window_kernels import count_paths, fill_ranks, list_window_candidates
from graphrec.temporal import SpectralEmbeddings, Timeline
from graphrec.temporal.rates import (
    ACTED,
    FIRST_ACTED,
    FIRST_RECEIVED,
    RECEIVED,
    RateColumns,
    Rates,
    gather_rates,
)

SCALES = (1.0, 4.0, 16.0)
"""Half-lives of rates, in windows."""

POOL_SCALE = 1
"""Of `SCALES`: the rates by which pools are chosen."""

POOLS = ((FIRST_RECEIVED, 50), (RECEIVED, 30), (FIRST_ACTED, 50))
"""Kinds of rates, and how many users with the highest rates are candidates for every query."""

NUM_LAST_ACTIVE = 30
"""How many of the users who acted last are candidates for every query."""

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
        tie_rank: [N] int64, distinct: of users with equal values the smaller rank comes first.
    """

    def __init__(
        self, timeline: Timeline, spectral: SpectralEmbeddings, window: float, tie_rank: Tensor
    ) -> None:
        self.tie_rank = tie_rank
        self._timeline, self._spectral = timeline, spectral
        self._rates = Rates(timeline, tuple(window * scale for scale in SCALES))
        self._first_event = timeline.end_of_log(torch.arange(len(timeline.instants))).numpy()

    def popularity(self, tick: int) -> Tensor:
        """Return every user's rate of first acts received before a tick: [N] float64."""
        return torch.from_numpy(self._pool_rate(*self._rates.before(tick), FIRST_RECEIVED))

    def candidates(self, user: Tensor, tick: int) -> WindowCandidates:
        """Find the candidates of users [B] int64 before a tick."""
        columns = self._timeline.columns
        now, rates = self._rates.before(tick)
        asking, pool = user.contiguous().numpy(), self._pool(now, rates)
        num_paths = np.empty(len(user), np.int64)
        count_paths(columns.contacts, asking, tick, num_paths)
        room = int(np.minimum(num_paths, 2 * MAX_TWO_HOP).sum()) + len(user) * len(pool)
        row, person = np.empty(room, np.int64), np.empty(room, np.int64)
        pair = np.empty((4, room), np.float32)
        size = list_window_candidates(
            columns.half_edges,
            columns.contacts,
            self._first_event,
            asking,
            tick,
            now,
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
        own, theirs = self._gather(user, now, rates), self._gather(people, now, rates)
        received = theirs[FIRST_RECEIVED * (len(SCALES) + 1) + POOL_SCALE]
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

    def _gather(self, user: Tensor, now: int, rates: RateColumns) -> Tensor:
        """What is known of users [M] after `now` events; see `gather_rates`."""
        out = np.empty((4 * (len(SCALES) + 1) + 5, len(user)), np.float32)
        gather_rates(user.contiguous().numpy(), now, self._rates.half_lives, rates, out)
        return torch.from_numpy(out)

    def _pool_rate(self, now: int, rates: RateColumns, kind: int) -> np.ndarray:
        """Every user's rate of one kind after `now` events: [N] float64."""
        factor = np.exp2(-(now - rates.updated_at) / self._rates.half_lives[POOL_SCALE])
        rate: np.ndarray = rates.decayed[:, kind, POOL_SCALE] * factor
        return rate

    def _pool(self, now: int, rates: RateColumns) -> np.ndarray:
        """The users who are candidates for every query after `now` events: [P] int64, ascending."""
        values = [(self._pool_rate(now, rates, kind), size) for kind, size in POOLS]
        values.append((rates.last[:, ACTED] + 1.0, NUM_LAST_ACTIVE))
        tie_rank = self.tie_rank.numpy()
        return np.unique(np.concatenate([_largest(value, size, tie_rank) for value, size in values]))


def _person_features(raw: Tensor, degree: Tensor, now: int) -> Tensor:
    """Turn what `gather_rates` filled for M users with degrees [M] into [NUM_PERSON_FEATURES, M] float32."""
    counts = 4 * (len(SCALES) + 1)
    ages = ((raw[counts + 2 :] + 1.0) / max(now, 1)).log()
    return torch.cat([raw[:counts].log1p(), raw[counts : counts + 2], ages, degree.log1p()[None]])


def _largest(value: np.ndarray, size: int, tie_rank: np.ndarray) -> np.ndarray:
    """The users with the largest values above 0, at most `size` of them; ties by rank."""
    user = np.flatnonzero(value > 0)
    if len(user) > size:
        least = np.partition(value[user], len(user) - size)[len(user) - size]
        user = user[value[user] >= least]
    return user[np.lexsort((tie_rank[user], -value[user]))][:size]
