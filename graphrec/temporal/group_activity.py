"""Acts of groups of users before any moment, as `Timeline` has them of single users."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.temporal.contacts import NEVER
from graphrec.temporal.popularity import DecayedPopularity, DecayedSums
from graphrec.temporal.ragged import ragged
from graphrec.temporal.timeline import Timeline


class GroupActivity:
    """Counts and latest times of the acts by and on the members of a group, strictly before a tick.

    A user may be in several groups. The members' acts up to `since` are kept as one sum, those between
    `since` and `until` one by one: memory grows with members, and with their events between the two ticks.

    Args:
        timeline: the index of the users.
        group: [M] int64, below the number of groups.
        user: [M] int64, a member of it.
        since, until: [num_groups] int64, the first and the last tick at which a group may be queried.
        popularity: decayed popularity of single users; groups have the same half-life.
    """

    def __init__(
        self,
        timeline: Timeline,
        group: Tensor,
        user: Tensor,
        since: Tensor,
        until: Tensor,
        popularity: DecayedPopularity,
    ) -> None:
        self._timeline, self._base, self._since = timeline, timeline.instants.numel() + 1, since
        before = timeline.activity(user, since[group])
        self._before = tuple(
            torch.full_like(since, nothing).scatter_reduce_(0, group, known, how)
            for known, nothing, how in (
                (before.last_act, NEVER, "amax"),
                (before.last_received, NEVER, "amax"),
                (before.num_acts, 0, "sum"),
                (before.num_received, 0, "sum"),
            )
        )
        # Popularity up to `since`, as it was at the last moment before it.
        instants = timeline.instants if len(timeline.instants) else since.new_zeros(1)
        self._moment, self._half_life = instants[(since - 1).clamp(min=0)], popularity.half_life
        decayed = popularity.of(user, before.num_received, self._moment[group])
        self._decayed = torch.zeros(len(since), dtype=torch.float64).index_add_(0, group, decayed)

        start, end = (timeline.half_edges.end(user, tick[group]) for tick in (since, until))
        member, half = ragged(start, end)
        owner, tick = group[member], timeline.tick_of(timeline.event_of(half))
        self._key, order = (owner * self._base + tick).sort()
        outgoing = timeline.is_outgoing(half[order])
        self._tick = tick[order].int()
        self._acts = torch.cat([torch.zeros(1, dtype=torch.int64), outgoing.cumsum(0)])
        place = torch.arange(len(order))
        self._latest_act = torch.where(outgoing, place, -1).cummax(0).values
        self._latest_received = torch.where(outgoing, -1, place).cummax(0).values
        received = order[~outgoing]
        self._totals = DecayedSums(owner[received], instants[tick[received]], popularity.half_life)

    def activity(self, group: Tensor, tick: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """Return the activity of groups [n] int64 before times [n] (int64 seconds), with ticks [n] int64.

        Returns:
            (last_act, last_received, num_acts, num_received, popularity), [n] each: int64 seconds or `NEVER`
            twice, int64 twice, and float64 decayed acts received.

        Raises:
            ValueError: a tick is before its group's `since`; acts in between would leak into the past.
        """
        if bool((tick < self._since[group]).any()):
            raise ValueError("a group cannot be queried at a tick before its `since`")
        start = torch.searchsorted(self._key, (group * self._base).contiguous())
        end = torch.searchsorted(self._key, (group * self._base + tick).contiguous())
        acts = self._acts[end] - self._acts[start]
        received = end - start - acts
        before = [known[group] for known in self._before]
        last_act, last_received = (
            self._last(latest, start, end, earlier)
            for latest, earlier in zip((self._latest_act, self._latest_received), before[:2], strict=True)
        )
        last = end - self._acts[end] - 1
        age = (time - self._moment[group]).double() / self._half_life
        popularity = self._decayed[group] * torch.exp2(-age) + self._totals.at(last, time, received > 0)
        return last_act, last_received, before[2] + acts, before[3] + received, popularity

    def _last(self, latest: Tensor, start: Tensor, end: Tensor, earlier: Tensor) -> Tensor:
        if not len(latest):
            return earlier
        at = latest[(end - 1).clamp(min=0)]
        happened = (end > start) & (at >= start)
        time = self._timeline.instants[self._tick[at.clamp(min=0)].long()]
        return torch.where(happened, time, earlier)
