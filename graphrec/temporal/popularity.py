"""Decayed popularity of any user before any time: acts received, each halved every half-life."""

from __future__ import annotations

import math
from copy import copy
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from graphrec.jit import kernel
from graphrec.temporal.growing_lists import GrowingLists
from graphrec.temporal.ragged import ragged, run_starts
from graphrec.temporal.timeline import Timeline

DAY_SECONDS = 86_400
MIN_HALF_LIFE_DAYS = 3.0
HALF_LIVES_IN_TRAINING = 48


def popularity_half_life(first: int, until: int) -> float:
    """Return the half-life (s) of acts received, for training events from `first` to `until` (s)."""
    return max(MIN_HALF_LIFE_DAYS * DAY_SECONDS, (until - first) / HALF_LIVES_IN_TRAINING)


class DecayedColumns(NamedTuple):
    """Arrays of `DecayedSums` for kernels.

    Attributes:
        start: [G] int64, position of each owner's first entry.
        log: [E] float64, of the sum after each act, base 2.
        origin: seconds, from which times count.
        half_life: seconds.
    """

    start: np.ndarray
    log: np.ndarray
    origin: int
    half_life: float


class DecayedSums:
    """Sums of exponentially decaying acts of owners, after each of their acts.

    A sum is kept as the base-2 logarithm of the sum of 2^(time / half-life), which later acts add to and
    time does not change (forward decay; Cormode et al. 2009, https://doi.org/10.1109/ICDE.2009.65): 8 bytes
    an act.

    Args:
        owner: [M] int64, ascending.
        time: [M] int64 seconds, ascending for each owner.
        half_life: seconds.
        num_owners: owners there are.
        origin: seconds, the end of the log; times count from the first act, or from here if there is none.
    """

    def __init__(
        self, owner: Tensor, time: Tensor, half_life: float, *, num_owners: int, origin: int
    ) -> None:
        self._origin = int(time.min()) if len(time) else origin
        self._half_life = half_life
        start = run_starts(owner)
        depth = torch.arange(len(owner)) - start
        log, span = self._halvings(time), 1
        while len(depth) and span <= int(depth.max()):  # log[i] is of the last `span` acts up to i
            far = (depth >= span).nonzero().squeeze(1)
            log[far] = torch.logaddexp2(log[far], log[far - span])
            span *= 2
        self._lists = GrowingLists(torch.bincount(owner, minlength=num_owners).numpy(), (log.numpy(),))
        self._grows = False

    def at(self, owner: Tensor, count: Tensor, time: Tensor) -> Tensor:
        """Return the sums of the first acts of owners, decayed until given times.

        Args:
            owner: int64.
            count: int64, how many acts of each owner.
            time: int64 seconds, not before these acts.

        Returns:
            float64, of the broadcast shape; 0 where there is no act.
        """
        log, start = (torch.from_numpy(x) for x in (self._lists.columns[0], self._lists.start))
        last = start[owner] + count - 1
        if not len(log):
            return torch.zeros(torch.broadcast_shapes(last.shape, time.shape), dtype=torch.float64)
        total = torch.exp2(log[last.clamp(min=0)] - self._halvings(time))
        return torch.where(count > 0, total, 0.0)

    @property
    def columns(self) -> DecayedColumns:
        """The arrays as they are now; an append may put others in their place."""
        lists = self._lists
        return DecayedColumns(lists.start, lists.columns[0], self._origin, float(self._half_life))

    def follow(self, owner: Tensor, time: Tensor, num_owners: int) -> Self:
        """Return the sums with M later acts, in order of time; see the class for the arguments."""
        out = copy(self)
        out._lists, out._grows = self._lists if self._grows else self._lists.copy(), True
        out._lists.reserve(owner.numpy(), num_owners)
        halvings, lists = self._halvings(time).numpy(), out._lists
        add_decayed(owner.contiguous().numpy(), halvings, lists.start, lists.length, *lists.columns)
        return out

    def _halvings(self, time: Tensor) -> Tensor:
        return (time - self._origin).double() / self._half_life


@kernel
def add_decayed(
    owner: np.ndarray, halvings: np.ndarray, start: np.ndarray, length: np.ndarray, log: np.ndarray
) -> None:
    """Add acts of owners to lists of logarithms of decayed sums, which have room for them.

    Args:
        owner: [M] int64, of the acts in order of time.
        halvings: [M] float64, half-lives since the origin.
        start: [G] int64, position of each list's first entry.
        length: [G] int64, changed.
        log: [E] float64, base 2, changed.
    """
    for i in range(len(owner)):
        one = owner[i]
        at = start[one] + length[one]
        log[at] = halvings[i]
        if length[one] > 0:
            low, high = min(log[at], log[at - 1]), max(log[at], log[at - 1])
            log[at] = high + math.log1p(2.0 ** (low - high)) / math.log(2.0)
        length[one] += 1


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
        self.half_life, self._num_events = half_life, len(timeline.events)
        half = _incoming_half_edges(timeline)
        target, time = timeline.events.dst, timeline.events.time
        received = torch.bincount(target[target >= 0], minlength=timeline.num_users)
        self._totals = DecayedSums(
            torch.repeat_interleave(received),
            time[timeline.event_of(half)],
            half_life,
            num_owners=timeline.num_users,
            origin=int(time[-1]) if len(time) else 0,
        )

    def of(self, user: Tensor, num_received: Tensor, time: Tensor) -> Tensor:
        """Return the popularity of users just before given times.

        Args:
            user: int64.
            num_received: int64, acts that the user had received before the time.
            time: int64 seconds.

        Returns:
            float64, of the broadcast shape.
        """
        return self._totals.at(user, num_received, time)

    @property
    def columns(self) -> DecayedColumns:
        """The arrays as they are now, owners being users."""
        return self._totals.columns

    def follow(self, timeline: Timeline) -> Self:
        """Return the popularity on an index that events were appended to."""
        out, new = copy(self), slice(self._num_events, None)
        events, out._num_events = timeline.events, len(timeline.events)
        out._totals = self._totals.follow(events.dst[new], events.time[new], timeline.num_users)
        return out


def _incoming_half_edges(timeline: Timeline) -> Tensor:
    """Positions of the half-edges whose owners were acted on, owner after owner in order of time: [E]."""
    start = timeline.half_edges.start
    _, half_edge = ragged(start, start + torch.from_numpy(timeline.columns.half_edges.length))
    return half_edge[~timeline.is_outgoing(half_edge)]
