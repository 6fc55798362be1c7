"""Users who are candidates for every list: those with the highest rates, and those who acted last."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.features.window_kernels import list_last_actors
from graphrec.temporal import NEVER, Timeline
from graphrec.temporal.act_lists import ActLists
from graphrec.temporal.order_kernels import fill_popularity
from graphrec.temporal.rates import FIRST_ACTED, FIRST_RECEIVED, RECEIVED, Rates
from graphrec.temporal.user_order import UserOrder

POOLS = ((FIRST_RECEIVED, 50), (RECEIVED, 30), (FIRST_ACTED, 50))
"""Kinds of rates, and how many users with the highest rates are candidates for every query."""

NUM_LAST_ACTIVE = 30
"""How many of the users who acted last are candidates for every query."""

NUM_NEXT = 50
"""Users with the next highest rates, who may come into a pool where events are removed."""

MAX_EVENTS_BACK = 4096
"""Latest events among which the users who acted last are looked for first."""


class WindowPools:
    """Finds the users with the highest rates before any tick without a look at all users.

    Rates fade by one factor for all, so that only users with events change places (see `UserOrder`). The
    users are those that rates of all users give; of rates that differ by less than 1e-12 of themselves either
    may be higher.

    Args:
        timeline: the index.
        tie_rank: [N] int64, distinct: of users with equal rates the smaller rank comes first.
        half_life: events of the log after which an event counts half.
        clock: [T + 1] int64, events of the log before each tick.

    Attributes:
        tie_rank: as given.
    """

    def __init__(self, timeline: Timeline, tie_rank: Tensor, half_life: float, clock: np.ndarray) -> None:
        self._half_life = half_life
        self._pool = -1, np.empty(0, np.int64)
        self._timeline, self.tie_rank, self._clock = timeline, tie_rank, clock
        self._acts = {
            kind: ActLists(
                timeline,
                "src" if kind == FIRST_ACTED else "dst",
                half_life,
                first_only=kind != RECEIVED,
                clock=clock,
            )
            for kind, _ in POOLS
        }
        self._orders = {
            kind: UserOrder(
                timeline,
                tie_rank,
                received=acts.lists,
                half_life=half_life,
                roles=1 if kind == FIRST_ACTED else 2,
                clock=clock,
            )
            for kind, acts in self._acts.items()
        }

    def follow(self, timeline: Timeline, tie_rank: Tensor, clock: np.ndarray) -> None:
        """Read an index that events were appended to."""
        self._timeline, self.tie_rank, self._clock = timeline, tie_rank, clock
        self._pool = -1, np.empty(0, np.int64)
        for kind, acts in self._acts.items():
            acts.follow(timeline, clock)
            self._orders[kind].follow(timeline, tie_rank, acts.lists, None, clock)

    def before(self, tick: int) -> np.ndarray:
        """Return the users who are candidates for every query before a tick: [P] int64, ascending."""
        end = int(self._timeline.end_of_log(tick))
        known, pool = self._pool
        if known != end:
            listed = [self.first(kind, size, tick) for kind, size in POOLS]
            listed.append(last_actors(self._timeline, self.tie_rank, tick))
            pool = np.unique(np.concatenate(listed))
            self._pool = end, pool  # one assignment: other threads see the old pair or the new one
        return pool

    def first(self, kind: int, size: int, tick: int) -> np.ndarray:
        """Return the at most `size` users with the highest rates of a kind of `POOLS`, best first: int64."""
        return self._orders[kind].first(tick, size).astype(np.int64)

    def popularity(self, tick: int) -> Tensor:
        """Return every user's rate of first acts received before a tick: [N] float64."""
        out = np.empty((1, self._timeline.num_users))
        clock = self._clock
        bound, now = np.array([tick]), clock[tick : tick + 1]
        fill_popularity(self._half_life, clock, *self._acts[FIRST_RECEIVED].lists[:4], bound, now, out)
        return torch.from_numpy(out[0])


class PatchedPools:
    """The pools on an index that has lost events (see `Timeline.remove`).

    The rates decide among the users of these events, and the pools of all events with `NUM_NEXT` users more:
    of users whose events are all left one passes another only where almost equal.

    Args:
        pools: of all events.
        timeline: the index.
        rates: on the index.
        scale: number of the half-life of the pools among those of the rates.
        changed: [U] int64, users of the removed events.
    """

    def __init__(
        self, pools: WindowPools, timeline: Timeline, rates: Rates, scale: int, changed: Tensor
    ) -> None:
        self._pools, self._timeline, self._rates, self._changed = pools, timeline, rates, changed
        self._scale = scale

    def before(self, tick: int) -> np.ndarray:
        """See `WindowPools.before`."""
        tie_rank = self._pools.tie_rank
        listed = [torch.from_numpy(self._pools.first(kind, size + NUM_NEXT, tick)) for kind, size in POOLS]
        near = [torch.cat([users, self._changed]).unique() for users in listed]
        everybody = torch.cat(near).unique()
        rates, found = self._rates.gather(everybody, tick), [last_actors(self._timeline, tie_rank, tick)]
        for users, (kind, size) in zip(near, POOLS, strict=True):
            rate = rates[self._rates.row_of(kind, self._scale), torch.searchsorted(everybody, users)]
            found.append(users.numpy()[largest(rate.numpy(), size, tie_rank[users].numpy())])
        return np.unique(np.concatenate(found))

    def popularity(self, tick: int) -> Tensor:
        """See `WindowPools.popularity`."""
        users = torch.arange(self._timeline.num_users)
        row = self._rates.row_of(FIRST_RECEIVED, self._scale)
        return self._rates.gather(users, tick)[row].double()


def last_actors(timeline: Timeline, tie_rank: Tensor, tick: int) -> np.ndarray:
    """Return the `NUM_LAST_ACTIVE` users who acted last before a tick: int64, in any order.

    Where they are not among the actors of the latest events, all users are looked at.
    """
    out = np.empty(NUM_LAST_ACTIVE, np.int64)
    src, event_tick, end = timeline.events.src, timeline.event_tick, int(timeline.end_of_log(tick))
    size = list_last_actors(src.numpy(), event_tick.numpy(), tie_rank.numpy(), end, MAX_EVENTS_BACK, out)
    if size >= 0:
        return out[:size]
    moment = torch.full((timeline.num_users,), tick)
    time = timeline.last_act(torch.arange(timeline.num_users), moment).numpy()
    return largest(time, NUM_LAST_ACTIVE, tie_rank.numpy(), above=NEVER)


def largest(value: np.ndarray, size: int, tie_rank: np.ndarray, *, above: float = 0) -> np.ndarray:
    """Return the places of the largest values above a bound, at most `size` of them: int64.

    Args:
        value: [M].
        size: number of places.
        tie_rank: [M]; of equal values the smaller rank comes first.
        above: the bound.
    """
    place = np.flatnonzero(value > above)
    if len(place) > size:
        least = np.partition(value[place], len(place) - size)[len(place) - size]
        place = place[value[place] >= least]
    return place[np.lexsort((tie_rank[place], -value[place]))][:size]
