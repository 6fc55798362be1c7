"""Two-directional timelines of several users as one stream of events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.data import USER, reverse_of
from graphrec.jit import kernel
from graphrec.temporal import Timeline
from graphrec.temporal.columns import HalfEdges, end_before


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
    def of_index(cls, timeline: Timeline, user: Tensor, tick: Tensor, k: int) -> tuple[Timelines, Tensor]:
        """The last k events of users [R] before ticks [R] (int64 both), from the index.

        Returns:
            the timelines; the position of each user's last event in them, or -1: [R] int64.
        """
        lists = timeline.columns.half_edges
        out, position = torch.empty(4, len(user) * k, dtype=torch.int64), torch.empty_like(user)
        size = list_last_events(
            lists,
            timeline.instants.numpy(),
            timeline.events.action.numpy(),
            user.contiguous().numpy(),
            tick.contiguous().numpy(),
            k,
            out.numpy(),
            position.numpy(),
        )
        row, other, kind, time = out[:, :size].unbind()
        return cls(row, other, kind, time, len(user)), position

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


@kernel
def list_last_events(
    half: HalfEdges,
    instants: np.ndarray,
    action: np.ndarray,
    user: np.ndarray,
    bound: np.ndarray,
    k: int,
    out: np.ndarray,
    position: np.ndarray,
) -> int:
    """Fill the last events of users before ticks, in order of time, and return how many there are.

    Args:
        half: the timelines.
        instants: [T] int64 seconds, the distinct times.
        action: [E] int64, of the events.
        user: [R].
        bound: [R] ticks.
        k: events of a user at most.
        out: [4, R k] int64, filled with row, other user, kind and time of each event; see `Timelines`.
        position: [R] int64, filled with the position of each user's last event, or -1.
    """
    start, length, other, half_tick, code = half.start, half.length, half.other, half.tick, half.code
    size = 0
    for r in range(len(user)):
        begin = start[user[r]]
        end = end_before(begin, length[user[r]], half_tick, bound[r])
        for at in range(max(begin, end - k), end):
            out[0, size], out[1, size], out[3, size] = r, other[at], instants[half_tick[at]]
            out[2, size] = 2 * action[code[at] >> 1] + (code[at] & 1)
            size += 1
        position[r] = size - 1 if end > begin else -1
    return size
