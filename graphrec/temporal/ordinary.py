"""The ordinary acts of a graph, apart from those that refuse or end ties, and the contacts that ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph


def ordinary_graph(graph: FriendGraph) -> FriendGraph:
    """Return a graph with only the events of ordinary actions; itself if all are. It is made once."""
    roles, events = graph.roles, graph.events()
    if roles.all_ordinary:
        return graph
    known = graph.__dict__.get("_ordinary")
    if known is None or known[0] != roles or known[1] is not events or known[2].num_users != graph.num_users:
        kept = graph.select_events(roles.wanted[events.action])
        known = graph.__dict__["_ordinary"] = roles, events, kept
    found: FriendGraph = known[2]
    return found


@dataclass(frozen=True)
class ContactChanges:
    """The moments at which contacts end and begin again, on top of first contacts by ordinary acts.

    An end or a block ends the contact of its two users, a later ordinary act restores it; of events of one
    time the end counts last. Each change is listed for both users.

    Attributes:
        owner, other: [C] int64 users.
        time: [C] int64 seconds; the change is known strictly after it.
        sign: [C] float64, -1 where the contact ends, 1 where it begins again.
    """

    owner: Tensor
    other: Tensor
    time: Tensor
    sign: Tensor

    @classmethod
    def of(cls, graph: FriendGraph) -> Self | None:
        """Collect the changes of a graph; None if no action ends ties."""
        roles, events = graph.roles, graph.events()
        if not roles.ends_ties:
            return None
        ends, wanted = (mask[events.action].numpy() for mask in (roles.having("end", "block"), roles.wanted))
        src, dst, time = (column.numpy() for column in (events.src, events.dst, events.time))
        low, high = np.minimum(src, dst), np.maximum(src, dst)
        pair = low * graph.num_users + high
        used = np.flatnonzero((ends | wanted) & np.isin(pair, pair[ends]))
        used = used[np.lexsort((ends[used], time[used], pair[used]))]
        # After each event the two are in contact exactly if it is an ordinary act.
        opens, is_new = wanted[used], np.ones(len(used), dtype=bool)
        is_new[1:] = pair[used[1:]] != pair[used[:-1]]
        was_open = np.zeros(len(used), dtype=bool)
        was_open[1:] = opens[:-1] & ~is_new[1:]
        change = opens != was_open
        begins = np.flatnonzero(is_new)
        number = np.cumsum(change & opens) - np.repeat(
            (np.cumsum(change & opens) - (change & opens))[begins], np.diff(np.append(begins, len(used)))
        )
        kept = change & ~(opens & (number == 1))  # the first contact is in the index
        used, sign = used[kept], np.where(opens[kept], 1.0, -1.0)
        sides = (low[used], high[used]), (high[used], low[used])
        owner, other = (torch.from_numpy(np.concatenate(side)) for side in zip(*sides, strict=True))
        moment, signs = torch.from_numpy(np.tile(time[used], 2)), torch.from_numpy(np.tile(sign, 2))
        return cls(owner, other, moment, signs)

    def degree(self, times: Tensor, num_users: int) -> Tensor:
        """Return what every user's number of contacts differs by at times [B] (s): [B, N] float64."""
        known = self._known(times)
        return torch.zeros(num_users, len(times), dtype=torch.float64).index_add_(0, self.owner, known).T

    def spread(self, amounts: Tensor, times: Tensor) -> Tensor:
        """Return what `dense.ContactGraph.spread` of amounts [N, B] differs by at times [B] (s): [N, B]."""
        moved = amounts[self.other] * self._known(times).to(amounts.dtype)
        return torch.zeros_like(amounts).index_add_(0, self.owner, moved)

    def _known(self, times: Tensor) -> Tensor:
        """The sign of each change where it is known, or else 0: [C, B] float64."""
        return self.sign[:, None] * (times > self.time[:, None])
