"""The first tick of each user, which appends may fill in."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Events
from graphrec.temporal.adjacency import TimedAdjacency
from graphrec.temporal.columns import LAST_TICK


class FirstTicks:
    """The tick of each user's first event, or `LAST_TICK` where there is none.

    Args:
        half_edges: of the index.
    """

    def __init__(self, half_edges: TimedAdjacency) -> None:
        lists = half_edges.lists
        some = torch.from_numpy(lists.length) > 0
        self._tick = torch.full((len(some),), LAST_TICK)
        self._tick[some] = torch.from_numpy(lists.tick)[half_edges.start[some]].long()

    def of(self, num_users: int) -> Tensor:
        """Return the ticks of the first users: [num_users] int64."""
        return self._tick[:num_users]

    def add(self, events: Events, tick: Tensor, num_users: int) -> None:
        """Add appended events [M], at ticks [M], all of `num_users` users."""
        if len(self._tick) < num_users:
            more = self._tick.new_full((num_users + num_users // 2 - len(self._tick),), LAST_TICK)
            self._tick = torch.cat([self._tick, more])
        users = torch.cat([events.src, events.dst])
        self._tick.scatter_reduce_(0, users, tick.long().repeat(2), "amin")
