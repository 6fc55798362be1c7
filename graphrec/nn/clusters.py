"""Who is in which cluster by when, and what clusters had done before a moment."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.nn.cluster_net import SLOTS
from graphrec.nn.features import LATELY
from graphrec.temporal import Timeline, run_starts

NUM_CONTACTS = 16
HOPS = 16
"""A newcomer is placed by people at most so many acquaintances away from those known in training."""


class Clusters:
    """Who is in which clusters and since when, and what these had done by any time. On the CPU.

    People known in training are in their clusters from their first event on. A newcomer is placed, once and
    for all, just after the first contact with somebody who was placed strictly before: in the clusters of
    whom they met at that moment. So whatever is told of a moment follows from what is strictly older.

    Args:
        timeline: the index of the users.
        cluster: [N, SLOTS] int64, of those known.
        share: [N, SLOTS] float32.
        known: [N] bool.
        num_clusters: C.

    Attributes:
        cluster, share: the same with newcomers.
        since: [N] int64 ticks, from the next one on somebody is in their clusters; beyond all where never.
        start, users: the members of c are users[start[c]:start[c + 1]].
    """

    def __init__(
        self, timeline: Timeline, cluster: Tensor, share: Tensor, known: Tensor, num_clusters: int
    ) -> None:
        self.num_clusters, self._timeline = num_clusters, timeline
        self._never = timeline.instants.numel() + 1
        self.cluster, self.share = cluster.clone(), torch.where(known[:, None], share, 0.0)
        self.since = torch.where(known, timeline.first_tick, self._never)
        self._welcome(known)
        inside = (self.share > 0) & (self.since < self._never)[:, None]
        user, slot = inside.nonzero(as_tuple=True)
        group, weight = self.cluster[user, slot], self.share[user, slot]
        order = group.argsort(stable=True)
        self.users, self._slot = user[order], slot[order]
        self.start = torch.searchsorted(group[order], torch.arange(num_clusters + 1))
        self._size = _Counts(group, self.since[user], torch.ones_like(weight), self._never)
        self._placed = self.since.sort().values
        events = timeline.events
        self._lately = []
        for side in (events.dst, events.src):
            event, slot = inside[side].nonzero(as_tuple=True)
            user = side[event]
            tick = torch.maximum(timeline.event_tick[event], self.since[user])
            counts = _Counts(self.cluster[user, slot], tick, self.share[user, slot], self._never)
            self._lately.append(counts)

    def members(self, cluster: int) -> tuple[Tensor, Tensor]:
        """Who is in a cluster, and by what share: (user [m] int64, share [m])."""
        at = slice(int(self.start[cluster]), int(self.start[cluster + 1]))
        return self.users[at], self.share[self.users[at], self._slot[at]]

    def num_placed(self, tick: Tensor) -> Tensor:
        """How many people are in a cluster before ticks (int64, same shape)."""
        return torch.searchsorted(self._placed, tick.contiguous())

    def sizes(self, tick: Tensor) -> Tensor:
        """How many people are in each cluster before ticks [B]: [B, C] float32."""
        return self._size.before(self._everywhere(tick), tick[:, None])

    def features(self, query: Query) -> Tensor:
        """The user's own share and that of recent contacts, recent acts, size: [B, C, F] float32."""
        timeline = self._timeline
        tick = timeline.tick(query.time)
        moment, at = tick.unique(return_inverse=True)
        every = self._everywhere(moment)
        seen = torch.searchsorted(timeline.event_tick, moment)
        busy = []
        for lately in LATELY:
            since = timeline.event_tick[(seen - lately).clamp(min=0).clamp(max=len(timeline.events) - 1)]
            since = torch.minimum(since, moment)
            for counts in self._lately:
                old = counts.before(every, since[:, None])
                busy.append((counts.before(every, moment[:, None]) - old).clamp(min=0).log1p())
        size = self.sizes(moment)
        row, half_edge = timeline.last_half_edges(query.user, tick, NUM_CONTACTS)
        contact = timeline.half_edges.other[half_edge].long()
        everyone = torch.arange(len(query))
        return torch.stack(
            [
                self._spread(everyone, query.user, tick, len(query)),
                self._spread(row, contact, tick[row], len(query)),
                *(one[at] for one in busy),
                size.log1p()[at],
            ],
            dim=2,
        )

    def _spread(self, row: Tensor, user: Tensor, tick: Tensor, size: int) -> Tensor:
        """The mean memberships of the people [M] of each row who are placed before ticks [M]: [size, C]."""
        there = self.since[user] < tick
        row, user = row[there], user[there]
        out = torch.zeros(size, self.num_clusters)
        for slot in range(SLOTS):
            out.index_put_((row, self.cluster[user, slot]), self.share[user, slot], accumulate=True)
        return out / out.sum(1, keepdim=True).clamp(min=1.0)

    def _everywhere(self, tick: Tensor) -> Tensor:
        return torch.arange(self.num_clusters).expand(len(tick), -1)

    def _welcome(self, known: Tensor) -> None:
        """Place newcomers by those they met."""
        events, tick = self._timeline.events, self._timeline.event_tick
        user, other = torch.cat([events.dst, events.src]), torch.cat([events.src, events.dst])
        new = ~known[user]
        user, other, tick = user[new], other[new], tick.repeat(2)[new]
        for _ in range(HOPS):
            meets = self.since[other] < tick
            since = self.since.scatter_reduce(0, user[meets], tick[meets], "amin")
            if torch.equal(since, self.since):
                break
            self.since = since
        host = (self.since[user] == tick) & (self.since[other] < tick)
        user, other = user[host], other[host]
        placed = known.clone()
        for _ in range(HOPS):
            waits = torch.zeros_like(placed).index_fill_(0, user[~placed[other]], True)
            now = ~placed[user] & ~waits[user]
            if not bool(now.any()):
                break
            self._join(user[now], other[now])
            placed[user[now]] = True
        self.since = torch.where(placed, self.since, self._never)

    def _join(self, user: Tensor, other: Tensor) -> None:
        """Users [M] come into the clusters that most of the others [M] are in."""
        key = (user[:, None] * self.num_clusters + self.cluster[other]).flatten()
        key, at = key.unique(return_inverse=True)
        total = torch.zeros(len(key)).index_add_(0, at, self.share[other].flatten())
        key, total = key[total > 0], total[total > 0]
        order = total.argsort(descending=True, stable=True)
        order = order[(key[order] // self.num_clusters).argsort(stable=True)]
        user, cluster = key[order] // self.num_clusters, key[order] % self.num_clusters
        slot = torch.arange(len(order)) - run_starts(user)
        kept = slot < SLOTS
        user, cluster, slot, total = user[kept], cluster[kept], slot[kept], total[order][kept]
        self.cluster[user] = cluster[slot == 0][user.unique(return_inverse=True)[1]][:, None]
        self.cluster[user, slot], self.share[user, slot] = cluster, total
        self.share[user] /= self.share[user].sum(1, keepdim=True)


class _Counts:
    """Sums of amounts of groups before ticks.

    Args:
        group, tick: [M] int64.
        amount: [M] float32.
        base: above all ticks.
    """

    def __init__(self, group: Tensor, tick: Tensor, amount: Tensor, base: int) -> None:
        self._base = base + 1
        self._key, order = (group * self._base + tick).sort(stable=True)
        self._total = torch.cat([torch.zeros(1, dtype=torch.float64), amount[order].double().cumsum(0)])

    def before(self, group: Tensor, tick: Tensor) -> Tensor:
        """Of groups before ticks (broadcast shape), float32."""
        start, end = (
            torch.searchsorted(self._key, (group * self._base + moment).contiguous()) for moment in (0, tick)
        )
        return (self._total[end] - self._total[start]).float()
