"""The strictly-past index: the state of users and pairs before any moment, for a batch of queries at once.

Every event is in the index twice, as a *half-edge* on the timeline of each of its two users, so that a
history is two-directional. Time is counted in *ticks*, the rank of a moment among the log's distinct times:
an event is visible to a query exactly if its tick is smaller than `Timeline.tick(query time)`. Tied events
therefore see neither each other nor the query that shares their time.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from graphrec.data import Events, FriendGraph
from graphrec.temporal.adjacency import TimedAdjacency
from graphrec.temporal.contacts import NEVER, Contacts, UserActivity
from graphrec.temporal.half_edges import HalfEdges
from graphrec.temporal.ragged import ragged, run_starts
from graphrec.threads import one_intra_op_thread


class Timeline:
    """The index of a graph's events; memory and build time grow with the number of events.

    Half-edges are sorted by (owner, tick) and, at equal times, by the past of the other user and of the pair,
    never by row order or user index: shuffling rows of equal time or permuting ids leaves the index as it
    was, except that users with identical histories may trade places.

    Methods take users (int64 indices) and ticks (int64) of one broadcast shape, and return that shape, unless
    their docstrings say otherwise.

    Attributes:
        num_users: N.
        events: the log, in order of time.
        instants: [T] int64, the distinct times, ascending.
        event_tick: [E] int64, tick of each event.
        half_edges: all 2E half-edges (`TimedAdjacency`).
        contacts: for each user the distinct contacts, at the first event either way.
        acted_on: for each user the distinct users acted on, at the first act.
        event: [2E] int32, position in the log of each half-edge.
        outgoing: [2E] bool, whether the owner acted.
    """

    @one_intra_op_thread()
    def __init__(self, graph: FriendGraph) -> None:
        self.num_users = graph.num_users
        self.events: Events = graph.events()
        self.instants, self.event_tick = torch.unique_consecutive(self.events.time, return_inverse=True)
        num_ticks = self.instants.numel()

        sizes = {"num_users": self.num_users, "num_ticks": num_ticks}
        half = HalfEdges.of(self.events, self.event_tick, num_actions=len(graph.actions), **sizes)
        self.outgoing, self.event = half.outgoing, half.event
        self._num_out, self._last_out = half.num_out, half.last_out
        self._num_in, self._last_in = half.num_in, half.last_in
        self._next_tick, self._first_tick = half.next_tick, half.first_tick
        self.half_edges = TimedAdjacency(half.owner, half.tick, half.other.int(), **sizes)
        first = half.opens
        self.contacts = TimedAdjacency(half.owner[first], half.tick[first], half.other[first].int(), **sizes)
        first = half.outgoing & (half.num_out == 1)
        self.acted_on = TimedAdjacency(half.owner[first], half.tick[first], half.other[first].int(), **sizes)

        # Running totals over all half-edges, from which any prefix of a timeline is a difference.
        position, zero = torch.arange(len(half.event)), torch.zeros(1, dtype=torch.int64)
        self._acts = torch.cat([zero, self.outgoing.cumsum(0)])
        self._met = torch.cat([zero, half.opens.cumsum(0)])
        self._latest_act = torch.where(self.outgoing, position, -1).cummax(0).values.int()
        self._latest_received = torch.where(self.outgoing, -1, position).cummax(0).values.int()

    @classmethod
    def of(cls, graph: FriendGraph) -> Timeline:
        """Return a graph's index; it is built once while the graph keeps its users and event tensors."""
        index: Timeline | None = graph.__dict__.get("_timeline")
        if index is None or index.events is not graph.events() or index.num_users != graph.num_users:
            index = graph.__dict__["_timeline"] = cls(graph)
        return index

    @cached_property
    def first_tick(self) -> Tensor:
        """The tick of each user's first event, or the number of ticks where there is none: [N] int64."""
        start, end = self.half_edges.ptr[:-1], self.half_edges.ptr[1:]
        out = torch.full_like(start, self.instants.numel())
        out[end > start] = self.event_tick[self.event[start[end > start]].long()]
        return out

    def first_event_time(self, user: Tensor, tick: Tensor) -> Tensor:
        """Return the time of each user's first event before its tick: int64 seconds, or `NEVER`."""
        first = self.first_tick[user]
        return self._moment(torch.where(first < tick, first, -1))

    def first_contact_time(self, half_edge: Tensor) -> Tensor:
        """Return the time of the first event between the two users of half-edges: int64 seconds."""
        return self._moment(self._first_tick[half_edge])

    def tick(self, time: Tensor) -> Tensor:
        """Count the distinct times strictly before each time (int64, same shape)."""
        return torch.searchsorted(self.instants, time.contiguous())

    def counts(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """Count the acts by and on each user before its tick (int64 each, broadcast shape)."""
        start, end = self.half_edges.ptr[user], self.half_edges.end(user, tick)
        acts = self._acts[end] - self._acts[start]
        return acts, end - start - acts

    def num_acts(self, user: Tensor, tick: Tensor) -> Tensor:
        """Count the acts by each user before its tick (int64, broadcast shape)."""
        return self.counts(user, tick)[0]

    def num_received(self, user: Tensor, tick: Tensor) -> Tensor:
        """Count the acts on each user before its tick (int64, broadcast shape)."""
        return self.counts(user, tick)[1]

    def last_act(self, user: Tensor, tick: Tensor) -> Tensor:
        """Return the time of each user's last act before its tick: int64 seconds, or `NEVER`."""
        return self._last(self._latest_act, user, tick)

    def last_received(self, user: Tensor, tick: Tensor) -> Tensor:
        """Return the time of the last act on each user before its tick: int64 seconds, or `NEVER`."""
        return self._last(self._latest_received, user, tick)

    def degree(self, user: Tensor, tick: Tensor) -> Tensor:
        """Count each user's distinct contacts before its tick (int64, broadcast shape)."""
        return self.contacts.count(user, tick)

    def activity(self, user: Tensor, tick: Tensor) -> UserActivity:
        """Return counts and latest times of users before their ticks, from one search for each."""
        start, end = self.half_edges.ptr[user], self.half_edges.end(user, tick)
        acts = self._acts[end] - self._acts[start]
        return UserActivity(
            num_acts=acts,
            num_received=end - start - acts,
            degree=self._met[end] - self._met[start],
            last_act=self._last_before(self._latest_act, start, end),
            last_received=self._last_before(self._latest_received, start, end),
        )

    @cached_property
    def _first_contacts(self) -> tuple[Tensor, Tensor]:
        """Pairs with any contact, owner * N + other, ascending, and their first ticks: [2P] int64 each."""
        tick, owner, other = self.contacts.chronological
        key, order = (owner * self.num_users + other).sort()
        return key, tick[order]

    def had_contact(self, one: Tensor, other: Tensor, tick: Tensor) -> Tensor:
        """Tell which pairs of users [M] had contact, either way, before ticks [M]: [M] bool."""
        key, first = self._first_contacts
        pair = one * self.num_users + other
        place = torch.searchsorted(key, pair).clamp(max=len(key) - 1)
        return (key[place] == pair) & (first[place] < tick)

    def common_contacts(self, one: Tensor, other: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """List the common contacts of M pairs before their ticks: (row [K] ascending, user [K]) int64."""
        fewer = self.degree(one, tick) <= self.degree(other, tick)
        few, many = torch.where(fewer, one, other), torch.where(fewer, other, one)
        row, person = self.contacts.before(few, tick)
        both = self.had_contact(many[row], person, tick[row])
        return row[both], person[both]

    def num_common_contacts(self, one: Tensor, other: Tensor, tick: Tensor) -> Tensor:
        """Count the common contacts of M pairs before their ticks: [M] int64."""
        return torch.bincount(self.common_contacts(one, other, tick)[0], minlength=len(one))

    def kind(self, half_edge: Tensor) -> Tensor:
        """Return 2 x action + (1 if the owner acted) of half-edges (int64, same shape)."""
        return 2 * self.events.action[self.event[half_edge].long()] + self.outgoing[half_edge].long()

    def last_half_edges(self, user: Tensor, tick: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """List the last k half-edges of users [B] before ticks [B], latest first.

        Returns:
            (row [M], half-edge [M]) int64, rows ascending.
        """
        end = self.half_edges.end(user, tick)
        length = (end - self.half_edges.ptr[user]).clamp(max=k)
        row, back = ragged(torch.zeros_like(end), length)
        return row, end[row] - 1 - back

    def half_edges_before(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """List the half-edges of users [B] before ticks [B], oldest first.

        Returns:
            (row [M], half-edge [M]) int64, rows ascending.
        """
        return ragged(self.half_edges.ptr[user], self.half_edges.end(user, tick))

    @cached_property
    def _next_position(self) -> Tensor:
        """For both ends of each event, in order of time, the position of the same user's next: [2E] int32."""
        end = torch.stack([self.events.src, self.events.dst], dim=1).flatten()
        user, order = end.sort(stable=True)
        again = torch.full_like(order, 2 * len(self.events))
        again[order[:-1]] = torch.where(user[1:] == user[:-1], order[1:], 2 * len(self.events))
        return again.int()

    def recently_seen(self, tick: Tensor, *, k: int, window: int) -> tuple[Tensor, Tensor]:
        """List the distinct users last active in the network before each of B ticks, in either role.

        Args:
            tick: [B] int64.
            k: users a row, or more where a tie crosses it: those with fewer than k users strictly later.
            window: half-edges of the network looked back on; a tie that reaches beyond is left out.

        Returns:
            (row [M], user [M]) int64, latest first.
        """
        if not len(self.events):
            return tick[:0], tick[:0]
        size = 2 * torch.searchsorted(self.event_tick, tick.contiguous())
        place = size[:, None] - 1 - torch.arange(window)  # [B, W]
        when = self.event_tick[place.clamp(min=0) >> 1]
        border = self.event_tick[(size - 1 - window).clamp(min=0) >> 1]
        inside = (place >= 0) & ((when > border[:, None]) | (size <= window)[:, None])
        latest = inside & (self._next_position[place.clamp(min=0)] >= size[:, None])
        row, column = latest.nonzero(as_tuple=True)
        rank = run_starts(row, when[row, column]) - run_starts(row)
        row, column = row[rank < k], column[rank < k]
        place = place[row, column]
        return row, torch.where(place % 2 == 0, self.events.src[place >> 1], self.events.dst[place >> 1])

    def distinct_contacts(
        self, user: Tensor, tick: Tensor, *, k: int | None = None, window: int | None = None
    ) -> Contacts:
        """Return each user's distinct contacts before its tick, latest first, with the state of the pair.

        Args:
            user: [B] int64.
            tick: [B] int64.
            k: the largest number of contacts a row; all by default.
            window: half-edges of a row looked back on; all by default.
        """
        longest = 2 * len(self.events)
        row, half = self.last_half_edges(user, tick, longest if window is None else window)
        latest = self._next_tick[half] >= tick[row]
        row, half = row[latest], half[latest]
        start = run_starts(row)
        rank = run_starts(row, self.event_tick[self.event[half].long()]) - start
        if k is not None:
            kept = torch.arange(row.numel()) - start < k
            row, half, rank = row[kept], half[kept], rank[kept]
        return Contacts(
            row=row,
            user=self.half_edges.other[half].long(),
            last_out=self._moment(self._last_out[half]),
            last_in=self._moment(self._last_in[half]),
            num_out=self._num_out[half].long(),
            num_in=self._num_in[half].long(),
            rank=rank,
            half_edge=half,
        )

    def _last(self, latest: Tensor, user: Tensor, tick: Tensor) -> Tensor:
        return self._last_before(latest, self.half_edges.ptr[user], self.half_edges.end(user, tick))

    def _last_before(self, latest: Tensor, start: Tensor, end: Tensor) -> Tensor:
        if not len(latest):
            return torch.full_like(end, NEVER)
        half = latest[(end - 1).clamp(min=0)].long()
        happened = (end > 0) & (half >= start)
        time = self.events.time[self.event[half.clamp(min=0)].long()]
        return torch.where(happened, time, NEVER)

    def _moment(self, tick: Tensor) -> Tensor:
        if not len(self.instants):
            return torch.full_like(tick, NEVER, dtype=torch.int64)
        return torch.where(tick >= 0, self.instants[tick.clamp(min=0).long()], NEVER)
