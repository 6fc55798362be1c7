"""Candidates of lists for the coming days, and what is known of each of them at the moment of the list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.features.window_kernels import count_paths, fill_ranks, list_window_candidates
from graphrec.temporal import SpectralEmbeddings, Timeline
from graphrec.temporal.rates import ACTED, FIRST_ACTED, FIRST_RECEIVED, RECEIVED, Rates, gather_rates

SCALES = (1.0, 4.0, 16.0)
"""Half-lives of rates, in windows."""

POOL_SCALE = 1
"""Of `SCALES`: the rates by which pools are chosen."""

POOLS = ((FIRST_RECEIVED, 50), (RECEIVED, 30), (FIRST_ACTED, 50))
"""Users of the highest rates who are candidates of all, and how many."""

LAST_ACTIVE = 30
"""Users who acted last, who are candidates of all."""

MAX_TWO_HOP = 100
"""Contacts of contacts by each of two values."""

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
    """

    def __init__(self, timeline: Timeline, spectral: SpectralEmbeddings, window: float) -> None:
        self._timeline, self._spectral = timeline, spectral
        self._rates = Rates(timeline, tuple(window * scale for scale in SCALES))
        ticks = np.arange(len(timeline.instants))
        self._first_event = np.searchsorted(timeline.event_tick.numpy(), ticks)

    def popularity(self, tick: int) -> Tensor:
        """Return every user's rate of first acts received before a tick: [N] float64."""
        return torch.from_numpy(self._pool_rate(*self._rates.before(tick), FIRST_RECEIVED))

    def candidates(self, user: Tensor, tick: int, lot: Tensor) -> WindowCandidates:
        """Find the candidates of users before a tick.

        Args:
            user: [B] int64.
            tick: the moment.
            lot: [N] int64, a place for each user that breaks ties.
        """
        timeline, columns = self._timeline, self._timeline.columns
        now, _ = self._rates.before(tick)
        asking, pool = user.contiguous().numpy(), self._pool(tick, lot)
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
            lot.numpy(),
            MAX_TWO_HOP,
            row,
            person,
            pair,
        )
        rows, people = torch.from_numpy(row[:size]), torch.from_numpy(person[:size])
        paths = torch.from_numpy(pair[:, :size])
        moment = torch.full((len(user),), tick)
        degree = timeline.degree(user, moment).float()
        return WindowCandidates(rows, people, self._features(user, tick, degree, rows, people, paths))

    def _features(
        self, user: Tensor, tick: int, degree: Tensor, row: Tensor, person: Tensor, paths: Tensor
    ) -> Tensor:
        """The features [M, NUM_WINDOW_FEATURES] of candidates [M] of queries [B]."""
        near, decayed, common, contacts = paths
        own_degree = degree[row]
        cosine = self._spectral.query(user, torch.full((len(user),), tick)).cosine(row, person)
        received = torch.from_numpy(self._gather(person, tick))[
            FIRST_RECEIVED * (len(SCALES) + 1) + POOL_SCALE
        ]
        ranked = torch.stack([near, decayed, received, cosine]).contiguous()
        ranks = torch.empty_like(ranked)
        fill_ranks(row.numpy(), ranked.numpy(), ranks.numpy())
        out = torch.cat(
            [
                near.log1p()[None],
                (decayed + 1e-6).log()[None],
                common.log1p()[None],
                (common / (own_degree + contacts - common).clamp(min=1.0))[None],
                (near / (own_degree + contacts).clamp(min=2.0).log())[None],
                cosine[None],
                self._person(user, degree, tick)[:, row],
                self._person(person, contacts, tick),
                ranks.log1p(),
            ]
        )
        return out.T.contiguous()

    def _gather(self, user: Tensor, tick: int) -> np.ndarray:
        now, rates = self._rates.before(tick)
        out = np.empty((4 * (len(SCALES) + 1) + 5, len(user)), np.float32)
        gather_rates(user.contiguous().numpy(), now, self._rates.half_lives, rates, out)
        return out

    def _person(self, user: Tensor, degree: Tensor, tick: int) -> Tensor:
        """What is known of users [M] with degrees [M]: [NUM_PERSON_FEATURES, M] float32."""
        now, _ = self._rates.before(tick)
        raw = torch.from_numpy(self._gather(user, tick))
        counts = 4 * (len(SCALES) + 1)
        ages = ((raw[counts + 2 :] + 1.0) / max(now, 1)).log()
        return torch.cat([raw[:counts].log1p(), raw[counts : counts + 2], ages, degree.log1p()[None]])

    def _pool_rate(self, now: int, rates: tuple[np.ndarray, ...], kind: int) -> np.ndarray:
        """Every user's rate of one kind after `now` events: [N] float64."""
        decayed, moved = rates[0], rates[1]
        factor = np.exp2(-(now - moved) / self._rates.half_lives[POOL_SCALE])
        rate: np.ndarray = decayed[:, kind, POOL_SCALE] * factor
        return rate

    def _pool(self, tick: int, lot: Tensor) -> np.ndarray:
        """The users who are candidates of all before a tick: [P] int64, ascending."""
        now, rates = self._rates.before(tick)
        values = [(self._pool_rate(now, rates, kind), size) for kind, size in POOLS]
        values.append((rates.last[:, ACTED] + 1.0, LAST_ACTIVE))
        return np.unique(np.concatenate([_largest(value, size, lot.numpy()) for value, size in values]))


def _largest(value: np.ndarray, size: int, lot: np.ndarray) -> np.ndarray:
    """The users with the largest values above 0, at most `size` of them; ties by lot."""
    user = np.flatnonzero(value > 0)
    if len(user) > size:
        least = np.partition(value[user], len(user) - size)[len(user) - size]
        user = user[value[user] >= least]
    return user[np.lexsort((lot[user], -value[user]))][:size]
