"""What groups of people had done before a moment, as `Timeline` tells of one person."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.sampler.timeline import NEVER, Timeline


class GroupActivity:
    """How often, and when last, anybody of a group acted and was acted upon: strictly before a tick.

    A user may be in several groups. Memory grows with the events of their members.

    Args:
        timeline: the index of the users.
        group: [M] int64, below the number of groups.
        user: [M] int64, a member of it.
        until: [num_groups] int64 ticks; no group is asked for at a later one.
    """

    def __init__(self, timeline: Timeline, group: Tensor, user: Tensor, until: Tensor) -> None:
        self._timeline, self._base = timeline, timeline.instants.numel() + 1
        order = group.argsort(stable=True)
        group, user = group[order], user[order]
        row, half = timeline.half_edges_before(user, until[group])
        owner, tick = group[row], timeline.event_tick[timeline.event[half].long()]
        order = (owner * self._base + tick).argsort()
        self._key = (owner * self._base + tick)[order]
        outgoing = timeline.outgoing[half[order]]
        self._tick = tick[order].int()
        self._acts = torch.cat([torch.zeros(1, dtype=torch.int64), outgoing.cumsum(0)])
        place = torch.arange(len(order))
        self._latest_act = torch.where(outgoing, place, -1).cummax(0).values
        self._latest_received = torch.where(outgoing, -1, place).cummax(0).values

    def activity(self, group: Tensor, tick: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of groups before ticks (int64, one shape).

        Returns:
            last_act, last_received: int64 seconds, or `NEVER`; num_acts, num_received: int64.
        """
        start = torch.searchsorted(self._key, (group * self._base).contiguous())
        end = torch.searchsorted(self._key, (group * self._base + tick).contiguous())
        acts = self._acts[end] - self._acts[start]
        last_act, last_received = (
            self._moment(latest, start, end) for latest in (self._latest_act, self._latest_received)
        )
        return last_act, last_received, acts, end - start - acts

    def _moment(self, latest: Tensor, start: Tensor, end: Tensor) -> Tensor:
        if not len(latest):
            return torch.full_like(start, NEVER)
        at = latest[(end - 1).clamp(min=0)]
        happened = (end > start) & (at >= start)
        time = self._timeline.instants[self._tick[at.clamp(min=0)].long()]
        return torch.where(happened, time, NEVER)
