"""Edges sorted by owner and time, to look up the edges of an owner before a tick."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from graphrec.temporal.ragged import ragged


class TimedAdjacency:
    """Edges grouped by owner, in order of time: all edges of an owner before a tick are a prefix.

    Args:
        owner: [M] int64, sorted by (owner, tick).
        tick: [M] int64.
        other: [M] int64, the user at the far end.
        num_users: N.
        num_ticks: one more than the largest tick.

    Attributes:
        ptr: [N + 1] int64, position of each owner's first edge, and M.
        other: [M] int64.
    """

    def __init__(self, owner: Tensor, tick: Tensor, other: Tensor, *, num_users: int, num_ticks: int) -> None:
        self._base = num_ticks + 1  # a query's tick may equal num_ticks
        self._key = owner * self._base + tick
        self.ptr = torch.searchsorted(self._key, torch.arange(num_users + 1) * self._base)
        self.other = other

    @cached_property
    def chronological(self) -> tuple[Tensor, Tensor, Tensor]:
        """All edges in order of time: (tick [M] ascending, owner [M], other [M]), int64."""
        tick, order = (self._key % self._base).sort(stable=True)
        return tick, self._key[order] // self._base, self.other[order].long()

    def end(self, user: Tensor, tick: Tensor) -> Tensor:
        """Return the position after each user's last edge before its tick (int64, broadcast shape)."""
        return torch.searchsorted(self._key, (user * self._base + tick).contiguous())

    def count(self, user: Tensor, tick: Tensor) -> Tensor:
        """Count each user's edges before its tick (int64, broadcast shape)."""
        return self.end(user, tick) - self.ptr[user]

    def before(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """List the edges of users [B] before ticks [B].

        Returns:
            (row [M] of the query, ascending; user [M] at the far end) int64, rows in order of time.
        """
        row, position = ragged(self.ptr[user], self.end(user, tick))
        return row, self.other[position].long()
