"""Acts of groups of users before any moment, as `Timeline` has them of single users."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from graphrec.jit import int64, kernel
from graphrec.temporal.columns import end_before
from graphrec.temporal.contacts import NEVER
from graphrec.temporal.growing_lists import GrowingLists
from graphrec.temporal.popularity import DecayedColumns, DecayedSums, Popularity
from graphrec.temporal.ragged import ragged
from graphrec.temporal.timeline import Timeline


class GroupColumns(NamedTuple):
    """Arrays of `GroupActivity` for kernels; the first seven are of G groups, then come those of E events.

    Attributes:
        since: int64, the first tick at which each group may be queried.
        moment: int64 seconds, the last moment before it.
        act_before: int64 seconds or `NEVER`, the last act of each group before the events listed.
        received_before: the last act received, alike.
        acts_before: int64, acts until then.
        num_received_before: int64, acts received until then.
        decayed: float64, acts received until then, decayed until `moment`.
        start: [G] int64, the place of each group's first event.
        length: [G] int64, the number of its events.
        tick: [E] int32, ascending in each group.
        acts: [E] int32, acts of the group among its events up to each.
        latest_act: [E] int32, tick of the group's last act up to each event; -1 for none.
        latest_received: [E] int32, of the last act received, alike.
    """

    since: np.ndarray
    moment: np.ndarray
    act_before: np.ndarray
    received_before: np.ndarray
    acts_before: np.ndarray
    num_received_before: np.ndarray
    decayed: np.ndarray
    start: np.ndarray
    length: np.ndarray
    tick: np.ndarray
    acts: np.ndarray
    latest_act: np.ndarray
    latest_received: np.ndarray


class GroupActivity:
    """Counts and latest times of the acts by and on the members of a group, strictly before a tick.

    A user may be in several groups. The members' acts up to `since` are kept as one sum, those between
    `since` and `until` one by one: memory grows with members, and with their events between the two ticks (24
    bytes each).

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
        order = (owner * base + tick).argsort()
        owner, tick, outgoing = owner[order], tick[order], timeline.is_outgoing(half[order])
        length = torch.bincount(owner, minlength=len(since))
        first = (length.cumsum(0) - length)[owner]
        place = torch.arange(len(order))
        acts = outgoing.cumsum(0)
        acts -= (acts - outgoing.long())[first]
        latest = []
        for is_kind in (outgoing, ~outgoing):
            last = torch.where(is_kind, place, -1).cummax(0).values
            latest.append(torch.where(last >= first, tick[last], -1))
        columns = tuple(column.int().numpy() for column in (tick, acts, *latest))
        self._lists, self._grows = GrowingLists(length.numpy(), columns), False
        self._totals = DecayedSums(
            owner[~outgoing],
            instants[tick[~outgoing]],
            popularity.half_life,
            num_owners=len(since),
            origin=int(instants[-1]),
        )
        self._num_events = len(timeline.events)
        self._member, by_user = user.sort(stable=True)
        self._group_of_member = group[by_user]

    def follow(self, timeline: Timeline) -> Self:
        """Return the activity on an index that events were appended to, in work that grows with these.

        Raises:
            ValueError: an event is before a group's `since`, and would have to be in its sum.
        """
        out, size = copy(self), self._num_events
        out._timeline, out._num_events = timeline, len(timeline.events)
        events, tick = timeline.events, timeline.event_tick[size:].long()
        if len(tick) and bool((self._since > tick[0]).any()):
            raise ValueError("an event was appended before the `since` of a group: build the activity anew")
        user = torch.stack([events.src[size:], events.dst[size:]], 1).flatten()
        bounds = (torch.searchsorted(self._member, user, right=right) for right in (False, True))
        half, member = ragged(*bounds)
        group, tick, outgoing = self._group_of_member[member], tick[half >> 1], half % 2 == 0
        out._lists, out._grows = self._lists if self._grows else self._lists.copy(), True
        lists = out._lists
        lists.reserve(group.numpy(), len(self._since))
        arrays = group.numpy(), tick.numpy(), outgoing.numpy(), lists.start, lists.length
        add_group_acts(*arrays, *lists.columns)
        received, time = ~outgoing, timeline.instants[tick]
        out._totals = self._totals.follow(group[received], time[received], len(self._since))
        return out

    @property
    def columns(self) -> GroupColumns:
        """The arrays as they are now; an append may put others in their place."""
        lists, (act_before, received_before, acts_before, num_received_before) = self._lists, self._before
        tick, acts, latest_act, latest_received = lists.columns
        return GroupColumns(
            self._since.numpy(),
            self._moment.numpy(),
            act_before.numpy(),
            received_before.numpy(),
            acts_before.numpy(),
            num_received_before.numpy(),
            self._decayed.numpy(),
            lists.start,
            lists.length,
            tick,
            acts,
            latest_act,
            latest_received,
        )

    @property
    def received(self) -> DecayedColumns:
        """Acts received among the events listed, decayed; owners are groups."""
        return self._totals.columns

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
        lists = self._lists
        listed_tick, acts, latest_act, latest_received = lists.columns
        fill_group_activity(
            act_before,
            received_before,
            acts_before,
            num_received_before,
            lists.start,
            lists.length,
            listed_tick,
            acts,
            latest_act,
            latest_received,
            self._timeline.instants.numpy(),
            group.contiguous().numpy(),
            tick.contiguous().numpy(),
            out.numpy(),
        )
        last_act, last_received, num_acts, num_received, listed = out
        age = (time - self._moment[group]).double() / self._half_life
        popularity = self._decayed[group] * torch.exp2(-age) + self._totals.at(group, listed, time)
        return last_act, last_received, num_acts, num_received, popularity


@kernel
def fill_group_activity(
    act_before: np.ndarray,
    received_before: np.ndarray,
    acts_before: np.ndarray,
    num_received_before: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    tick: np.ndarray,
    acts: np.ndarray,
    latest_act: np.ndarray,
    latest_received: np.ndarray,
    instants: np.ndarray,
    group: np.ndarray,
    bound: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill latest times and counts of groups before ticks.

    Args:
        act_before: [G] int64 seconds or `NEVER`, the last act of each group before the events listed.
        received_before: [G], the last act received, alike.
        acts_before: [G] int64, acts until then.
        num_received_before: [G] int64, acts received until then.
        start: [G] int64, the place of each group's first event.
        length: [G] int64, the number of its events.
        tick: [E] int32, of events, ascending in each group.
        acts: [E] int32, acts of the group among its events up to each.
        latest_act: [E] int32, tick of the group's last act up to each event; -1 for none.
        latest_received: [E], of the last act received, alike.
        instants: [T] int64 seconds, the distinct times.
        group: [n] int64.
        bound: [n] int64 ticks.
        out: [5, n] int64, filled: last act, last act received, acts, acts received, and the acts received
            among the events listed.
    """
    for i in range(len(group)):
        g = group[i]
        first = start[g]
        end = end_before(first, length[g], tick, bound[i])
        sent = int64(acts[end - 1]) if end > first else int64(0)
        received = end - first - sent
        out[0, i], out[1, i] = act_before[g], received_before[g]
        out[2, i], out[3, i] = acts_before[g] + sent, num_received_before[g] + received
        out[4, i] = received
        if sent > 0:
            out[0, i] = instants[latest_act[end - 1]]
        if received > 0:
            out[1, i] = instants[latest_received[end - 1]]


@kernel
def add_group_acts(
    group: np.ndarray,
    when: np.ndarray,
    outgoing: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    tick: np.ndarray,
    acts: np.ndarray,
    latest_act: np.ndarray,
    latest_received: np.ndarray,
) -> None:
    """Add acts by and on groups to their lists, which have room for them.

    Args:
        group: [M] int64, of the acts in order of time.
        when: [M] int64 ticks.
        outgoing: [M] bool, whether the group acted.
        start: of `fill_group_activity`, as the next five; changed.
        length: of `fill_group_activity`.
        tick: of `fill_group_activity`.
        acts: of `fill_group_activity`.
        latest_act: of `fill_group_activity`.
        latest_received: of `fill_group_activity`.
    """
    for i in range(len(group)):
        g = group[i]
        at = start[g] + length[g]
        tick[at] = when[i]
        acts[at], latest_act[at], latest_received[at] = 0, -1, -1
        if length[g] > 0:
            acts[at] = acts[at - 1]
            latest_act[at], latest_received[at] = latest_act[at - 1], latest_received[at - 1]
        if outgoing[i]:
            acts[at] += 1
            latest_act[at] = when[i]
        else:
            latest_received[at] = when[i]
        length[g] += 1
