"""Derived data of an index that has lost events: as it was, but for the users who lost them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphrec.temporal.contacts import NEVER
from graphrec.temporal.dense import PopularitySweep
from graphrec.temporal.group_activity import GroupActivity
from graphrec.temporal.popularity import Popularity
from graphrec.temporal.ragged import ragged
from graphrec.temporal.timeline import Timeline


@dataclass(frozen=True)
class PatchedPopularity:
    """Decayed popularity that adds up the acts on some users one by one; see `DecayedPopularity`.

    Attributes:
        base: popularity of all users, with all events.
        timeline: the index without some events.
        changed: [U] int64, ascending, the users of these events.
    """

    base: Popularity
    timeline: Timeline
    changed: Tensor

    @property
    def half_life(self) -> float:
        """Seconds."""
        return self.base.half_life

    def of(self, user: Tensor, num_received: Tensor, time: Tensor) -> Tensor:
        """See `DecayedPopularity.of`; `num_received` is counted without the events."""
        out = self.base.of(user, num_received, time)
        hit = torch.isin(user, self.changed).expand(out.shape)
        if bool(hit.any()):
            user, time = (x.expand(out.shape)[hit] for x in (user, time))
            out[hit] = popularity_of(self.timeline, user, time, self.half_life)
        return out


@dataclass(frozen=True)
class PatchedSweep:
    """The popularity of all users that adds up the acts on some users one by one; see `PopularitySweep`.

    Attributes:
        base: popularity with all events.
        timeline: the index without some events.
        changed: [U] int64, the users of these events.
        half_life: seconds.
    """

    base: PopularitySweep
    timeline: Timeline
    changed: Tensor
    half_life: float

    def at(self, times: Tensor) -> Tensor:
        """See `PopularitySweep.at`."""
        out, user = self.base.at(times), self.changed.repeat(len(times))
        time = times.repeat_interleave(len(self.changed))
        anew = popularity_of(self.timeline, user, time, self.half_life)
        return out.index_copy_(1, self.changed, anew.view(len(times), -1))


def popularity_of(timeline: Timeline, user: Tensor, time: Tensor, half_life: float) -> Tensor:
    """Add up the acts on users [M] before times [M] (s), each halved every half-life: [M] float64."""
    half = timeline.half_edges
    row, half_edge = ragged(half.start[user], half.end(user, timeline.tick(time)))
    received = ~timeline.is_outgoing(half_edge)
    row, half_edge = row[received], half_edge[received]
    age = time[row] - timeline.instants[torch.from_numpy(half.lists.tick)[half_edge].long()]
    amount = torch.exp2(-age.double() / half_life)
    return torch.zeros(len(user), dtype=torch.float64).index_add_(0, row, amount)


@dataclass(frozen=True)
class GroupMembers:
    """The members of groups.

    Attributes:
        group: [M] int64, ascending.
        user: [M] int64, a member of it.
    """

    group: Tensor
    user: Tensor

    @cached_property
    def _by_user(self) -> tuple[Tensor, Tensor]:
        user, order = self.user.sort(stable=True)
        return user, self.group[order]

    def groups_of(self, users: Tensor) -> Tensor:
        """The groups with at least one of some users [U] int64: [n] int64, ascending."""
        user, group = self._by_user
        bounds = (torch.searchsorted(user, users, right=right) for right in (False, True))
        out: Tensor = group[ragged(*bounds)[1]].unique()
        return out

    def of(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """The members of groups [n] int64: (row [m] ascending, user [m]) int64."""
        bounds = (torch.searchsorted(self.group, groups, right=right) for right in (False, True))
        row, member = ragged(*bounds)
        return row, self.user[member]


@dataclass(frozen=True)
class PatchedGroups:
    """The activity of groups that adds up some of them member by member; see `GroupActivity`.

    Attributes:
        base: activity of all groups, with all events.
        members: of the groups.
        timeline: the index without some events.
        changed: [n] int64, ascending, the groups of the users of these events.
        popularity: of users, without these events.
    """

    base: GroupActivity
    members: GroupMembers
    timeline: Timeline
    changed: Tensor
    popularity: Popularity

    def activity(self, group: Tensor, tick: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """See `GroupActivity.activity`."""
        out = self.base.activity(group, tick, time)
        hit = torch.isin(group, self.changed).nonzero().squeeze(1)
        if len(hit):
            row, user = self.members.of(group[hit])
            now = self.timeline.activity(user, tick[hit[row]])
            popularity = self.popularity.of(user, now.num_received, time[hit[row]])
            parts = now.last_act, now.last_received, now.num_acts, now.num_received, popularity
            for number, (all_groups, part) in enumerate(zip(out, parts, strict=True)):
                nothing = torch.full((len(hit),), NEVER if number < 2 else 0, dtype=part.dtype)
                how = "amax" if number < 2 else "sum"
                all_groups[hit] = nothing.scatter_reduce_(0, row, part, how)
        return out
