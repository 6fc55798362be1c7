"""Ties: the pairs of a graph with at least one event, each at the time of its first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph


@dataclass(frozen=True)
class Ties:
    """P unordered pairs of users with an event, each described by its first event.

    Attributes:
        src, dst: [P] int64, actor and receiver of the first event.
        time: [P] int64 seconds, ascending.
    """

    src: Tensor
    dst: Tensor
    time: Tensor

    @classmethod
    def of(cls, graph: FriendGraph) -> Ties:
        """All ties of a graph."""
        events = graph.events()
        key = pair_key(events.src, events.dst, graph.num_users)
        _, first = np.unique(key.numpy(), return_index=True)
        kept = torch.from_numpy(first).sort().values
        return cls(events.src[kept], events.dst[kept], events.time[kept])

    def __len__(self) -> int:
        return len(self.src)

    def select(self, kept: Tensor) -> Ties:
        """The ties of a mask [P] bool or of positions [n] int64."""
        return Ties(self.src[kept], self.dst[kept], self.time[kept])

    def between(self, start: int | None, end: int | None) -> Tensor:
        """Mask [P] bool of the ties whose first event has `start` <= time < `end`; None is unbounded."""
        out = torch.ones(len(self), dtype=torch.bool)
        if start is not None:
            out &= self.time >= start
        if end is not None:
            out &= self.time < end
        return out


def pair_key(one: Tensor, other: Tensor, num_users: int) -> Tensor:
    """A number for each unordered pair of users [n], equal for equal pairs: [n] int64."""
    return torch.minimum(one, other) * num_users + torch.maximum(one, other)


def shared_prefix_length(codes: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Length of the longest common prefix of the STUs of pairs [n]: [n] int64.

    Args:
        codes: [N, L] int64.
        one: [n] int64, users.
        other: [n] int64, users.
    """
    return (codes[one] == codes[other]).long().cumprod(1).sum(1)
