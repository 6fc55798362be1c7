"""Acts of groups of users before any moment, as `Timeline` has them of single users."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.jit import kernel
from graphrec.temporal.columns import end_before
from graphrec.temporal.contacts import NEVER
from graphrec.temporal.popularity import DecayedSums, Popularity
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
        popularity: Popularity,
    ) -> None:
        self._timeline, self._since = timeline, since
        base = timeline.instants.numel() + 1
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
        key, order = (owner * base + tick).sort()
        self._start = torch.searchsorted(key, torch.arange(len(since) + 1) * base)
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
        out = torch.empty(5, len(group), dtype=torch.int64)
        act_before, received_before, acts_before, num_received_before = (x.numpy() for x in self._before)
        fill_group_activity(
            act_before,
            received_before,
            acts_before,
            num_received_before,
            self._start.numpy(),
            self._tick.numpy(),
            self._acts.numpy(),
            self._latest_act.numpy(),
            self._latest_received.numpy(),
            self._timeline.instants.numpy(),
            group.contiguous().numpy(),
            tick.contiguous().numpy(),
            out.numpy(),
        )
        last_act, last_received, num_acts, num_received, last = out
        age = (time - self._moment[group]).double() / self._half_life
        recent = self._totals.at(last, time, last >= 0)
        popularity = self._decayed[group] * torch.exp2(-age) + recent
        return last_act, last_received, num_acts, num_received, popularity


@kernel
def fill_group_activity(
    act_before: np.ndarray,
    received_before: np.ndarray,
    acts_before: np.ndarray,
    num_received_before: np.ndarray,
    start: np.ndarray,
    tick: np.ndarray,
    acts: np.ndarray,
    latest_act: np.ndarray,
    latest_received: np.ndarray,
    instants: np.ndarray,
    group: np.ndarray,
    bound: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill latest times and counts of groups before ticks, and the place of the last act received.

    Args:
        act_before: [G] int64 seconds or `NEVER`, the last act of each group before the events listed.
        received_before: [G], the last act received, alike.
        acts_before: [G] int64, acts until then.
        num_received_before: [G] int64, acts received until then.
        start: [G + 1] int64, the place of each group's first event.
        tick: [E] int32, of events, ascending in each group.
        acts: [E + 1] int64, acts among the events before each place.
        latest_act: [E] int64, place of the last act up to each event, of any group; -1 for none.
        latest_received: [E], of the last act received, alike.
        instants: [T] int64 seconds, the distinct times.
        group: [n] int64.
        bound: [n] int64 ticks.
        out: [5, n] int64, filled: last act, last act received, acts, acts received, and the number of acts
            received by all groups before the group's last one among the events listed; -1 if it has none.
    """
    for i in range(len(group)):
        g = group[i]
        first = start[g]
        end = end_before(first, start[g + 1] - first, tick, bound[i])
        sent = acts[end] - acts[first]
        received = end - first - sent
        out[0, i], out[1, i] = act_before[g], received_before[g]
        out[2, i], out[3, i] = acts_before[g] + sent, num_received_before[g] + received
        out[4, i] = end - acts[end] - 1 if received > 0 else -1
        if sent > 0:
            out[0, i] = instants[tick[latest_act[end - 1]]]
        if received > 0:
            out[1, i] = instants[tick[latest_received[end - 1]]]
