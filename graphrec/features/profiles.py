"""Users' own features, known apart from their events."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data import USER, FriendGraph
from graphrec.data.draws import hashed
from graphrec.temporal import NEVER, Timeline

UNKNOWN = 2**62
"""The time (int64 s) from which a user without any event and join time is known: never."""

MAX_DEVIATIONS = 8.0
"""Standardized features are clipped to so many standard deviations."""


@dataclass(frozen=True)
class Profiles:
    """Standardized features of users, and since when each user's are known. On the CPU, like the index.

    Attributes:
        x: [N, F + 1] float32; the last column is 1.
        since: [N] int64 seconds; queries strictly later may read them. It is the user's join time; where that
            is missing, the time of their first event; `NEVER`, so always, where the graph has no join times.
    """

    x: Tensor
    since: Tensor

    @classmethod
    def of(cls, graph: FriendGraph, *, until: int) -> Profiles | None:
        """The profiles of a graph's users, or None if it has no `graph["user"].x`.

        Args:
            graph: the whole graph.
            until: seconds; means and deviations are those of the users known before it.

        Raises:
            ValueError: `x` is not [N, F].
        """
        x = graph[USER].get("x")
        if x is None:
            return None
        if x.dim() != 2:
            raise ValueError(f"'x' of users must be [N, F], got {list(x.shape)}")
        x, since = x.float(), torch.full((graph.num_users,), NEVER)
        joined = graph[USER].get("join_time")
        if joined is not None:
            timeline = Timeline.of(graph, follows=True)  # nothing below keeps a part of it
            moments = torch.cat([timeline.instants, torch.tensor([UNKNOWN])])
            since = moments[timeline.first_tick.clamp(max=len(timeline.instants))]
            since = torch.where(joined >= 0, joined, since)
        known = x[since < until].double()
        mean = known.mean(0)
        deviation = (known - mean).square().mean(0).sqrt()
        varies = deviation > 1e-6 * (1.0 + mean.abs())  # constant columns carry nothing
        mean, scale = torch.where(varies, mean, 0.0).float(), torch.where(varies, 1 / deviation, 0.0).float()
        x = ((x - mean) * scale).clamp_(-MAX_DEVIATIONS, MAX_DEVIATIONS)
        return cls(torch.cat([x, torch.ones(len(x), 1)], dim=1), since)

    def known(self, user: Tensor | slice, time: Tensor) -> Tensor:
        """Whether users' features are known to queries at times (s): bool of the broadcast shape."""
        return self.since[user] < time

    @property
    def may_change(self) -> bool:
        """Whether an event of a user who is there already may change the profiles: their first one."""
        return bool((self.since == UNKNOWN).any())

    def key(self, until: int) -> Tensor:
        """A hash of each user's features known before `until`, [N] int64: equal profiles have equal keys."""
        known = self.since < until
        since, x = torch.where(known, self.since, UNKNOWN), torch.where(known[:, None], self.x, 0.0)
        return hashed(since, *x.view(torch.int32).long().unbind(1))
