"""The clusters of users over time, and the activity of cluster members before a query."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features import ACTIVITY_WINDOWS
from graphrec.nn import CLUSTERS_PER_USER
from graphrec.temporal import Timeline, run_starts
from graphrec.temporal.removed import position_of

NUM_CONTACTS = 16
"""Number of latest contacts of the query's user whose clusters are features."""

MAX_HOPS = 16
"""Largest number of steps over contacts from a user known in training to a newcomer who is assigned."""


class ClusterIndex:
    """The clusters of users, since when each user is in them, and the activity of clusters. On the CPU.

    Users known in training are in their clusters from their first event on. A newcomer is assigned once, just
    after the first contact with a user who was assigned strictly earlier, to the clusters of the contacts
    made at that moment. So the state at any moment depends only on strictly older events.

    Args:
        timeline: the index of the users.
        cluster: [N, CLUSTERS_PER_USER] int64, clusters of the users known in training.
        share: [N, CLUSTERS_PER_USER] float32, membership shares; rows sum to 1, a share of 0 is no
            membership.
        known: [N] bool, users known in training.
        num_clusters: C.

    Attributes:
        cluster, share: as given, and filled in for newcomers; shares are 0 for users never assigned.
        since: [N] int64 ticks; a user is in their clusters after this tick; the number of ticks or more if
            never assigned.
        start, users: the members of cluster c are users[start[c]:start[c + 1]].
    """

    def __init__(
        self, timeline: Timeline, cluster: Tensor, share: Tensor, known: Tensor, num_clusters: int
    ) -> None:
        self.num_clusters, self._timeline = num_clusters, timeline
        self._never = timeline.instants.numel() + 1
        self.cluster, self.share = cluster.clone(), torch.where(known[:, None], share, 0.0)
        self.since = torch.where(known, timeline.first_tick, self._never)
        self._assign_newcomers(known)
        inside = (self.share > 0) & (self.since < self._never)[:, None]
        user, slot = inside.nonzero(as_tuple=True)
        group, weight = self.cluster[user, slot], self.share[user, slot]
        order = group.argsort(stable=True)
        self.users, self._slot = user[order], slot[order]
        self.start = torch.searchsorted(group[order], torch.arange(num_clusters + 1))
        self._size = GroupSums(group, self.since[user], torch.ones_like(weight), self._never)
        self._assigned = self.since.sort().values
        events, left = timeline.events, _events_left(timeline)
        self._recent = []
        for side in (events.dst[left], events.src[left]):
            event, slot = inside[side].nonzero(as_tuple=True)
            user = side[event]
            tick = torch.maximum(timeline.tick_of(left[event]), self.since[user])
            sums = GroupSums(self.cluster[user, slot], tick, self.share[user, slot], self._never)
            self._recent.append(sums)

    def members(self, cluster: int) -> tuple[Tensor, Tensor]:
        """The members of a cluster and their membership shares: (user [m] int64, share [m])."""
        at = slice(int(self.start[cluster]), int(self.start[cluster + 1]))
        return self.users[at], self.share[self.users[at], self._slot[at]]

    def num_assigned(self, tick: Tensor) -> Tensor:
        """Count the users assigned to a cluster strictly before each tick: int64, same shape."""
        return torch.searchsorted(self._assigned, tick.contiguous())

    def sizes(self, tick: Tensor) -> Tensor:
        """The number of members of each cluster before ticks [B] int64: [B, C] float32."""
        return self._size.before(self._all_clusters(tick), tick[:, None])

    def features(self, query: Query) -> Tensor:
        """Features of each cluster for a query: [B, C, NUM_CLUSTER_FEATURES] float32.

        They are the membership shares of the user and of contacts, recent events, and the cluster's size.
        """
        timeline = self._timeline
        tick = timeline.tick(query.time)
        moment, at = tick.unique(return_inverse=True)
        every = self._all_clusters(moment)
        seen = timeline.num_events_before(moment)
        activity = []
        for window in ACTIVITY_WINDOWS:
            last = len(timeline.events) - len(timeline.removed) - 1
            since = timeline.tick_of(
                position_of(timeline.removed, (seen - window).clamp(min=0).clamp(max=last))
            )
            since = torch.minimum(since, moment)
            for sums in self._recent:
                old = sums.before(every, since[:, None])
                activity.append((sums.before(every, moment[:, None]) - old).clamp(min=0).log1p())
        size = self.sizes(moment)
        row, half_edge = timeline.last_half_edges(query.user, tick, NUM_CONTACTS)
        contact = timeline.other_of(half_edge)
        queries = torch.arange(len(query))
        return torch.stack(
            [
                self._mean_shares(queries, query.user, tick, len(query)),
                self._mean_shares(row, contact, tick[row], len(query)),
                *(one[at] for one in activity),
                size.log1p()[at],
            ],
            dim=2,
        )

    def _mean_shares(self, row: Tensor, user: Tensor, tick: Tensor, size: int) -> Tensor:
        """The mean shares of the users [M] of each row who are assigned before ticks [M]: [size, C]."""
        there = self.since[user] < tick
        row, user = row[there], user[there]
        out = torch.zeros(size, self.num_clusters)
        for slot in range(CLUSTERS_PER_USER):
            out.index_put_((row, self.cluster[user, slot]), self.share[user, slot], accumulate=True)
        return out / out.sum(1, keepdim=True).clamp(min=1.0)

    def _all_clusters(self, tick: Tensor) -> Tensor:
        return torch.arange(self.num_clusters).expand(len(tick), -1)

    def _assign_newcomers(self, known: Tensor) -> None:
        """Assign newcomers to the clusters of their first contacts, in place."""
        events, left = self._timeline.events, _events_left(self._timeline)
        tick, src, dst = self._timeline.tick_of(left), events.src[left], events.dst[left]
        user, other = torch.cat([dst, src]), torch.cat([src, dst])
        new = ~known[user]
        user, other, tick = user[new], other[new], tick.repeat(2)[new]
        for _ in range(MAX_HOPS):
            meets = self.since[other] < tick
            since = self.since.scatter_reduce(0, user[meets], tick[meets], "amin")
            if torch.equal(since, self.since):
                break
            self.since = since
        host = (self.since[user] == tick) & (self.since[other] < tick)
        user, other = user[host], other[host]
        assigned = known.clone()
        for _ in range(MAX_HOPS):
            waiting = torch.zeros_like(assigned).index_fill_(0, user[~assigned[other]], True)
            now = ~assigned[user] & ~waiting[user]
            if not bool(now.any()):
                break
            self._join(user[now], other[now])
            assigned[user[now]] = True
        self.since = torch.where(assigned, self.since, self._never)

    def _join(self, user: Tensor, other: Tensor) -> None:
        """Assign users [M], who may repeat, to the clusters with the largest shares among the others [M]."""
        key = (user[:, None] * self.num_clusters + self.cluster[other]).flatten()
        key, at = key.unique(return_inverse=True)
        total = torch.zeros(len(key)).index_add_(0, at, self.share[other].flatten())
        key, total = key[total > 0], total[total > 0]
        order = total.argsort(descending=True, stable=True)
        order = order[(key[order] // self.num_clusters).argsort(stable=True)]
        user, cluster = key[order] // self.num_clusters, key[order] % self.num_clusters
        slot = torch.arange(len(order)) - run_starts(user)
        kept = slot < CLUSTERS_PER_USER
        user, cluster, slot, total = user[kept], cluster[kept], slot[kept], total[order][kept]
        self.cluster[user] = cluster[slot == 0][user.unique(return_inverse=True)[1]][:, None]
        self.cluster[user, slot], self.share[user, slot] = cluster, total
        self.share[user] /= self.share[user].sum(1, keepdim=True)


def _events_left(timeline: Timeline) -> Tensor:
    """Positions in the log of all events that were not removed: [E] int64."""
    return position_of(timeline.removed, torch.arange(len(timeline.events) - len(timeline.removed)))


class GroupSums:
    """Sums of amounts by group and time.

    Args:
        group: [M] int64.
        tick: [M] int64, when each amount is added.
        amount: [M] float32.
        base: greater than all ticks.
    """

    def __init__(self, group: Tensor, tick: Tensor, amount: Tensor, base: int) -> None:
        self._base = base + 1
        self._key, order = (group * self._base + tick).sort(stable=True)
        self._total = torch.cat([torch.zeros(1, dtype=torch.float64), amount[order].double().cumsum(0)])

    def before(self, group: Tensor, tick: Tensor) -> Tensor:
        """Sums of the amounts of groups added before ticks (int64, broadcast shape): float32."""
        start, end = (
            torch.searchsorted(self._key, (group * self._base + moment).contiguous()) for moment in (0, tick)
        )
        return (self._total[end] - self._total[start]).float()
