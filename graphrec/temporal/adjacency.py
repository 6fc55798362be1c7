"""Edges by owner and time, searched for all that came before a tick."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from graphrec.inference import lasting_tensors
from graphrec.temporal.columns import TimedLists
from graphrec.temporal.lookups import ends_before
from graphrec.temporal.ragged import ragged


class TimedAdjacency:
    """Edges grouped by owner, in order of time: all edges of an owner before a tick are a prefix.

    Args:
        lists: the edges of N owners.

    Attributes:
        lists: as given.
        start: [N] int64, position of each owner's first edge.
        other: [M] int32, the user at the far end.
    """

    def __init__(self, lists: TimedLists) -> None:
        self.lists = lists
        self.start = torch.from_numpy(lists.start)
        self.other = torch.from_numpy(lists.other)

    @classmethod
    def of_sorted(cls, owner: Tensor, tick: Tensor, other: Tensor, *, num_users: int) -> TimedAdjacency:
        """Group M edges whose owners and ticks [M] int64 are sorted by (owner, tick); other [M] integers."""
        length = torch.bincount(owner, minlength=num_users)
        start = length.cumsum(0) - length
        columns = (column.to(torch.int32).numpy() for column in (length, other, tick))
        return cls(TimedLists(start.numpy(), *columns))

    @cached_property
    @lasting_tensors()
    def chronological(self) -> tuple[Tensor, Tensor, Tensor]:
        """All edges in order of time: (tick [M] ascending, owner [M], other [M]), int64."""
        owner, place = ragged(self.start, self.start + torch.from_numpy(self.lists.length))
        tick = torch.from_numpy(self.lists.tick)[place]
        order = torch.from_numpy(np.argsort(tick.numpy(), kind="stable"))
        return tick[order].long(), owner[order], self.other[place[order]].long()

    def end(self, user: Tensor, tick: Tensor) -> Tensor:
        """Return the position after each user's last edge before its tick (int64, broadcast shape)."""
        user, tick = torch.broadcast_tensors(user, tick)
        out = torch.empty(user.shape, dtype=torch.int64)
        lists = self.lists
        flat_user, flat_tick = (key.reshape(-1).long().contiguous().numpy() for key in (user, tick))
        ends_before(lists.start, lists.length, lists.tick, flat_user, flat_tick, out.view(-1).numpy())
        return out

    def count(self, user: Tensor, tick: Tensor) -> Tensor:
        """Count each user's edges before its tick (int64, broadcast shape)."""
        return self.end(user, tick) - self.start[user]

    def before(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """List the edges of users [B] before ticks [B].

        Returns:
            (row [M] of the query, ascending; user [M] at the far end) int64, rows in order of time.
        """
        row, position = ragged(self.start[user], self.end(user, tick))
        return row, self.other[position].long()
