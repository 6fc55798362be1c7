"""Two-directional timelines of several users as one stream of events."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.data import USER, reverse_of
from graphrec.temporal import Timeline


@dataclass(frozen=True)
class Timelines:
    """Timelines of R users, one after another in a stream of M events, each in order of time.

    Attributes:
        row: [M] int64, the timeline of each event, ascending.
        other: [M] int64, user index of the other side.
        kind: [M] int64, 2 x action + (1 if the timeline's own user acted).
        time: [M] int64 seconds, ascending within a row.
        num_rows: R.
    """

    row: Tensor
    other: Tensor
    kind: Tensor
    time: Tensor
    num_rows: int

    @classmethod
    def of_batch(cls, batch: HeteroData, actions: tuple[str, ...]) -> Timelines:
        """The timelines of the seeds of a `QueryLoader` batch, from its first hop."""
        num_rows = batch.seed_time.numel()
        parts = []
        for code, action in enumerate(actions):
            for own, title in enumerate((action, reverse_of(action))):
                store = batch[USER, title, USER]
                source, row = store.edge_index
                first_hop = row < num_rows
                kind = torch.full_like(row, 2 * code + own)
                columns = (row, batch[USER].n_id[source], kind, store.time, store.event_id)
                parts.append(torch.stack([column[first_hop] for column in columns]))
        row, other, kind, time, event = torch.cat(parts, dim=1)
        order = event.argsort(stable=True)
        order = order[row[order].argsort(stable=True)]
        return cls(row[order], other[order], kind[order], time[order], num_rows)

    @classmethod
    def of_index(cls, timeline: Timeline, user: Tensor, tick: Tensor, k: int) -> Timelines:
        """The last k events of users [R] before ticks [R] (int64 both), from the index."""
        row, half = timeline.last_half_edges(user, tick, k)
        row, half = row.flip(0), half.flip(0)
        order = row.argsort(stable=True)
        row, half = row[order], half[order]
        event = timeline.event_of(half)
        return cls(
            row,
            timeline.other_of(half),
            timeline.kind(half),
            timeline.events.time[event],
            user.numel(),
        )

    def to(self, device: torch.device) -> Timelines:
        """The same events on a device."""
        row, other, kind, time = (x.to(device) for x in (self.row, self.other, self.kind, self.time))
        return Timelines(row, other, kind, time, self.num_rows)

    def __len__(self) -> int:
        return self.row.numel()

    def before(self, row: Tensor, time: Tensor) -> Tensor:
        """The position of each row's last event strictly before each time (s), or -1: [Q] int64."""
        if not len(self):
            return torch.full_like(row, -1)
        # One ascending key for (row, time): times by their rank among all that occur.
        instants = torch.unique(self.time)
        base = instants.numel() + 1
        key = self.row * base + torch.searchsorted(instants, self.time)
        asked = row * base + torch.searchsorted(instants, time.contiguous())
        position = torch.searchsorted(key, asked) - 1
        found = (position >= 0) & (self.row[position.clamp(min=0)] == row)
        return torch.where(found, position, -1)
