"""Decayed popularity of any user before any time: acts received, each halved every half-life."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from graphrec.temporal.ragged import ragged, run_starts
from graphrec.temporal.timeline import Timeline

DAY_SECONDS = 86_400
MIN_HALF_LIFE_DAYS = 3.0
HALF_LIVES_IN_TRAINING = 48


def popularity_half_life(first: int, until: int) -> float:
    """Return the half-life (s) of acts received, for training events from `first` to `until` (s)."""
    return max(MIN_HALF_LIFE_DAYS * DAY_SECONDS, (until - first) / HALF_LIVES_IN_TRAINING)


class DecayedSums:
    """Sums of exponentially decaying acts, after each of M acts; owners together, in order of time.

    A sum is kept as the base-2 logarithm of the sum of 2^(time / half-life), which later acts add to and
    time does not change (forward decay; Cormode et al. 2009, https://doi.org/10.1109/ICDE.2009.65): 8 bytes
    an act.

    Args:
        owner: [M] int64, ascending.
        time: [M] int64 seconds, ascending for each owner.
        half_life: seconds.
    """

    def __init__(self, owner: Tensor, time: Tensor, half_life: float) -> None:
        self._origin = time.min() if len(time) else torch.tensor(0)
        self._half_life = half_life
        start = run_starts(owner)
        depth = torch.arange(len(owner)) - start
        log, span = self._halvings(time), 1
        while len(depth) and span <= int(depth.max()):  # log[i] is of the last `span` acts up to i
            far = (depth >= span).nonzero().squeeze(1)
            log[far] = torch.logaddexp2(log[far], log[far - span])
            span *= 2
        self._log = log

    def at(self, last: Tensor, time: Tensor, any_act: Tensor) -> Tensor:
        """Return the sums after given acts, decayed until given times.

        Args:
            last: int64, positions of the last act of each sum.
            time: int64 seconds, not before these acts.
            any_act: bool, False where there is no act at all.

        Returns:
            float64, of the same shape; 0 where there is no act.
        """
        if not len(self._log):
            return torch.zeros(last.shape, dtype=torch.float64)
        total = torch.exp2(self._log[last.clamp(min=0)] - self._halvings(time))
        return torch.where(any_act, total, 0.0)

    def _halvings(self, time: Tensor) -> Tensor:
        return (time - self._origin).double() / self._half_life


class Popularity(Protocol):
    """Decayed popularity of single users; see `DecayedPopularity`."""

    @property
    def half_life(self) -> float:
        """Seconds."""

    def of(self, user: Tensor, num_received: Tensor, time: Tensor) -> Tensor:
        """Return the popularity of users just before given times."""


class DecayedPopularity:
    """Acts that single users had received before a time, each halved every `half_life` seconds.

    For all users at many times, `dense.PopularitySweep` is faster.

    Args:
        timeline: the index.
        half_life: seconds.
    """

    def __init__(self, timeline: Timeline, half_life: float) -> None:
        self.half_life = half_life
        half = _incoming_half_edges(timeline)
        target = timeline.events.dst
        received = torch.bincount(target[target >= 0], minlength=timeline.num_users)
        self._ptr, owner = received.cumsum(0) - received, torch.repeat_interleave(received)
        self._totals = DecayedSums(owner, timeline.events.time[timeline.event_of(half)], half_life)

    def of(self, user: Tensor, num_received: Tensor, time: Tensor) -> Tensor:
        """Return the popularity of users just before given times.

        Args:
            user: int64.
            num_received: int64, acts that the user had received before the time.
            time: int64 seconds.

        Returns:
            float64, of the broadcast shape.
        """
        return self._totals.at(self._ptr[user] + num_received - 1, time, num_received > 0)


def _incoming_half_edges(timeline: Timeline) -> Tensor:
    """Positions of the half-edges whose owners were acted on, owner after owner in order of time: [E]."""
    start = timeline.half_edges.start
    _, half_edge = ragged(start, start + torch.from_numpy(timeline.columns.half_edges.length))
    return half_edge[~timeline.is_outgoing(half_edge)]
