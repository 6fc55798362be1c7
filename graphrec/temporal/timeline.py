"""The strictly-past index: what was known of users and pairs at any moment, for a batch of queries at once.

Every event stands in the index twice, as a *half-edge* on the timeline of each of its two users, so that a
history is two-directional. Time is counted in *ticks*, the rank of a moment among the log's distinct times:
an event is visible to a query exactly if its tick is smaller than `Timeline.tick(query time)`. Tied events
therefore see neither each other nor the query that shares their time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphrec.data import Events, FriendGraph

NEVER = -(2**62)
"""The time of something that has not happened (int64; gaps to it stay far from overflow)."""


def ragged(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Enumerate B ranges start[b] .. end[b]-1, concatenated: (row [M], position [M]), both int64."""
    length = (end - start).clamp(min=0)
    row = torch.repeat_interleave(length)
    offset = length.cumsum(0) - length
    return row, torch.arange(row.numel(), device=row.device) + (start - offset)[row]


def contains(people: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Which of B ragged lists, (row [M], user [M]), hold their row's target [B]: [B] bool."""
    row, user = people
    return torch.bincount(row[user == target[row]], minlength=len(target)) > 0


def run_starts(*keys: Tensor) -> Tensor:
    """Where the run of equal keys begins that each entry is in: keys [M] each -> [M] int64."""
    opens = torch.ones_like(keys[0], dtype=torch.bool)
    opens[1:] = torch.stack([key[1:] != key[:-1] for key in keys]).any(0)
    return torch.where(opens, torch.arange(len(opens), device=opens.device), 0).cummax(0).values


class TimedAdjacency:
    """Edges grouped by owner, in order of time: whatever an owner had before a tick is a prefix.

    Args:
        owner: [M] int64, sorted by (owner, tick).
        tick: [M] int64.
        other: [M] int64, the user at the far end.
        num_users: N.
        num_ticks: one more than the largest tick.
    """

    def __init__(self, owner: Tensor, tick: Tensor, other: Tensor, *, num_users: int, num_ticks: int) -> None:
        self._base = num_ticks + 1  # a query's tick may equal num_ticks
        self._key = owner * self._base + tick
        self.ptr = torch.searchsorted(self._key, torch.arange(num_users + 1) * self._base)
        self.other = other

    @cached_property
    def chronological(self) -> tuple[Tensor, Tensor, Tensor]:
        """All edges in order of time: (tick [M] ascending, owner [M], other [M]), int64."""
        tick, order = (self._key % self._base).sort(stable=True)
        return tick, self._key[order] // self._base, self.other[order].long()

    def end(self, user: Tensor, tick: Tensor) -> Tensor:
        """Position after the last edge of each user older than its tick, of the broadcast shape."""
        return torch.searchsorted(self._key, (user * self._base + tick).contiguous())

    def count(self, user: Tensor, tick: Tensor) -> Tensor:
        """How many edges each user had before its tick, of the broadcast shape."""
        return self.end(user, tick) - self.ptr[user]

    def before(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """All edges older than the ticks: (row [M] of the query, user [M] at the far end)."""
        row, position = ragged(self.ptr[user], self.end(user, tick))
        return row, self.other[position].long()


@dataclass(frozen=True)
class Contacts:
    """The distinct people of B timelines, each with the state of the pair; rows together, latest first.

    Attributes:
        row: [M] int64, which query.
        user: [M] int64, the other person.
        last_out, last_in: [M] int64 seconds, when the query's user last acted on this one, and was last
            acted on; `NEVER` where it has not happened.
        num_out, num_in: [M] int64, how often.
        rank: [M] int64, how many people of the row were in contact strictly more recently.
        half_edge: [M] int64, position of the latest contact among the index's half-edges.
    """

    row: Tensor
    user: Tensor
    last_out: Tensor
    last_in: Tensor
    num_out: Tensor
    num_in: Tensor
    rank: Tensor
    half_edge: Tensor

    def __len__(self) -> int:
        return self.row.size(0)

    def to(self, device: torch.device) -> Contacts:
        """The same people on a device."""
        return Contacts(**{name: value.to(device) for name, value in vars(self).items()})

    def select(self, kept: Tensor) -> Contacts:
        """Some of them, by a mask or by positions."""
        return Contacts(**{name: value[kept] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Activity:
    """What people had done and met before a tick, each of one broadcast shape.

    Attributes:
        num_acts, num_received: int64, how often they acted and were acted upon.
        degree: int64, how many distinct people they had met.
        last_act, last_received: int64 seconds, or `NEVER`.
    """

    num_acts: Tensor
    num_received: Tensor
    degree: Tensor
    last_act: Tensor
    last_received: Tensor


class Timeline:
    """The index of a graph's events; memory and build time grow with the number of events.

    Half-edges are sorted by (owner, tick) and, inside a tie, by what was known of the other person and the
    pair, never by row order or user index: shuffling tied rows or permuting ids leaves the index as it was,
    up to people whom nothing tells apart.

    Attributes:
        num_users: N.
        events: the log, in order of time.
        instants: [T] int64, the distinct times, ascending.
        event_tick: [E] int64, tick of each event.
        halves: all 2E half-edges (`TimedAdjacency`).
        contacts: for each user the distinct people met, at the first contact either way.
        approached: for each user the distinct people acted upon, at the first act.
        event: [2E] int32, position in the log of each half-edge.
        outgoing: [2E] bool, whether the owner acted.
    """

    def __init__(self, graph: FriendGraph) -> None:
        self.num_users = graph.num_users
        self.events: Events = graph.events()
        self.instants, self.event_tick = torch.unique_consecutive(self.events.time, return_inverse=True)
        num_ticks = self.instants.numel()
        num_events = len(self.events)

        # Half-edges by (owner, other, tick); inside one pair and tick by direction and action.
        owner = torch.cat([self.events.src, self.events.dst])
        other = torch.cat([self.events.dst, self.events.src])
        tick = self.event_tick.repeat(2)
        outgoing = torch.arange(2 * num_events) < num_events
        kind = outgoing * len(graph.actions) + self.events.action.repeat(2)
        order = (tick * (2 * len(graph.actions)) + kind).argsort(stable=True)
        order = order[(owner * self.num_users + other)[order].argsort(stable=True)]
        owner, other, tick, outgoing = owner[order], other[order], tick[order], outgoing[order]
        kind = kind[order]
        event = (order % num_events).int()

        # The state of each pair after each of its half-edges.
        position = torch.arange(2 * num_events)
        start = run_starts(owner, other)
        opens = start == position
        num_out, last_out = _running(outgoing, start, tick)
        num_in, last_in = _running(~outgoing, start, tick)
        first_tick = tick[start]
        next_tick = torch.full_like(tick, num_ticks)
        next_tick[:-1] = torch.where(opens[1:], num_ticks, tick[1:])

        # Half-edges by (owner, tick), ties by content.
        order = _by_owner_and_tick(
            owner, tick, other, kind, num_out, num_in, next_tick, self.num_users, num_ticks
        )
        owner, tick, other = owner[order], tick[order], other[order]
        self.outgoing, self.event = outgoing[order], event[order]
        self._num_out, self._last_out = num_out[order], last_out[order]
        self._num_in, self._last_in = num_in[order], last_in[order]
        self._next_tick, self._first_tick = next_tick[order].int(), first_tick[order].int()
        sizes = {"num_users": self.num_users, "num_ticks": num_ticks}
        self.halves = TimedAdjacency(owner, tick, other.int(), **sizes)
        first = opens[order]
        self.contacts = TimedAdjacency(owner[first], tick[first], other[first].int(), **sizes)
        first = self.outgoing & (self._num_out == 1)
        self.approached = TimedAdjacency(owner[first], tick[first], other[first].int(), **sizes)

        # Running totals over all half-edges, from which any prefix of a timeline is a difference.
        zero = torch.zeros(1, dtype=torch.int64)
        self._acts = torch.cat([zero, self.outgoing.cumsum(0)])
        self._met = torch.cat([zero, opens[order].cumsum(0)])
        self._latest_act = torch.where(self.outgoing, position, -1).cummax(0).values.int()
        self._latest_received = torch.where(self.outgoing, -1, position).cummax(0).values.int()

    @classmethod
    def of(cls, graph: FriendGraph) -> Timeline:
        """The index of a graph, built once while the graph lives with the same users and event tensors."""
        index: Timeline | None = graph.__dict__.get("_timeline")
        if index is None or index.events is not graph.events() or index.num_users != graph.num_users:
            index = graph.__dict__["_timeline"] = cls(graph)
        return index

    @cached_property
    def first_tick(self) -> Tensor:
        """The tick of each user's first event, or the number of ticks where there is none: [N] int64."""
        start, end = self.halves.ptr[:-1], self.halves.ptr[1:]
        out = torch.full_like(start, self.instants.numel())
        out[end > start] = self.event_tick[self.event[start[end > start]].long()]
        return out

    def since(self, user: Tensor, tick: Tensor) -> Tensor:
        """When users' first events were, if before their ticks: seconds, or `NEVER` (int64, same shape)."""
        first = self.first_tick[user]
        return self._moment(torch.where(first < tick, first, -1))

    def met(self, half_edge: Tensor) -> Tensor:
        """When the two people of half-edges first met: seconds (int64, same shape)."""
        return self._moment(self._first_tick[half_edge])

    def tick(self, time: Tensor) -> Tensor:
        """How many distinct times lie strictly before each time (int64, same shape)."""
        return torch.searchsorted(self.instants, time.contiguous())

    def counts(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """How often each user acted and was acted upon before its tick (int64 each, broadcast shape)."""
        start, end = self.halves.ptr[user], self.halves.end(user, tick)
        acts = self._acts[end] - self._acts[start]
        return acts, end - start - acts

    def num_acts(self, user: Tensor, tick: Tensor) -> Tensor:
        """How often each user acted before its tick (int64, broadcast shape)."""
        return self.counts(user, tick)[0]

    def num_received(self, user: Tensor, tick: Tensor) -> Tensor:
        """How often each user was acted upon before its tick (int64, broadcast shape)."""
        return self.counts(user, tick)[1]

    def last_act(self, user: Tensor, tick: Tensor) -> Tensor:
        """When each user last acted before its tick: seconds, or `NEVER` (int64, broadcast shape)."""
        return self._last(self._latest_act, user, tick)

    def last_received(self, user: Tensor, tick: Tensor) -> Tensor:
        """When each user was last acted upon before its tick: seconds, or `NEVER` (int64)."""
        return self._last(self._latest_received, user, tick)

    def degree(self, user: Tensor, tick: Tensor) -> Tensor:
        """How many distinct people each user had met before its tick (int64, broadcast shape)."""
        return self.contacts.count(user, tick)

    def activity(self, user: Tensor, tick: Tensor) -> Activity:
        """All of these at once, from one search for each."""
        start, end = self.halves.ptr[user], self.halves.end(user, tick)
        acts = self._acts[end] - self._acts[start]
        return Activity(
            num_acts=acts,
            num_received=end - start - acts,
            degree=self._met[end] - self._met[start],
            last_act=self._last_before(self._latest_act, start, end),
            last_received=self._last_before(self._latest_received, start, end),
        )

    @cached_property
    def _meetings(self) -> tuple[Tensor, Tensor]:
        """Pairs that ever met, owner * N + other, ascending, and the tick at which they did: [2P] each."""
        tick, owner, other = self.contacts.chronological
        key, order = (owner * self.num_users + other).sort()
        return key, tick[order]

    def have_met(self, one: Tensor, other: Tensor, tick: Tensor) -> Tensor:
        """Whether pairs of people had contact, either way, before their ticks ([M] each): [M] bool."""
        key, met = self._meetings
        pair = one * self.num_users + other
        place = torch.searchsorted(key, pair).clamp(max=len(key) - 1)
        return (key[place] == pair) & (met[place] < tick)

    def common_contacts(self, one: Tensor, other: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """People whom both of M pairs had met before their ticks: (row [K] ascending, user [K]) int64."""
        fewer = self.degree(one, tick) <= self.degree(other, tick)
        few, many = torch.where(fewer, one, other), torch.where(fewer, other, one)
        row, person = self.contacts.before(few, tick)
        both = self.have_met(many[row], person, tick[row])
        return row[both], person[both]

    def num_common(self, one: Tensor, other: Tensor, tick: Tensor) -> Tensor:
        """How many people both of M pairs had met before their ticks: [M] int64."""
        return torch.bincount(self.common_contacts(one, other, tick)[0], minlength=len(one))

    def kind(self, half_edge: Tensor) -> Tensor:
        """2 x action + (1 if the owner acted) of half-edges (int64, same shape)."""
        return 2 * self.events.action[self.event[half_edge].long()] + self.outgoing[half_edge].long()

    def last_contacts(self, user: Tensor, tick: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The last k half-edges of each of B timelines: (row [M], half-edge [M]), latest first."""
        end = self.halves.end(user, tick)
        length = (end - self.halves.ptr[user]).clamp(max=k)
        row, back = ragged(torch.zeros_like(end), length)
        return row, end[row] - 1 - back

    def half_edges_before(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """The half-edges of B timelines before their ticks: (row [M], half-edge [M]), oldest first."""
        return ragged(self.halves.ptr[user], self.halves.end(user, tick))

    @cached_property
    def _seen_again(self) -> Tensor:
        """For both ends of each event, in order of time, the place where the same user comes next: [2E]."""
        end = torch.stack([self.events.src, self.events.dst], dim=1).flatten()
        user, order = end.sort(stable=True)
        again = torch.full_like(order, 2 * len(self.events))
        again[order[:-1]] = torch.where(user[1:] == user[:-1], order[1:], 2 * len(self.events))
        return again.int()

    def recently_seen(self, tick: Tensor, *, k: int, window: int) -> tuple[Tensor, Tensor]:
        """The distinct people last seen in the network before each of B ticks, in either role.

        Args:
            tick: [B] int64.
            k: about so many people a row: those of whom fewer than k were seen strictly later.
            window: look only at so many latest ends of events; a tie that reaches beyond is left out.

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
        latest = inside & (self._seen_again[place.clamp(min=0)] >= size[:, None])
        row, column = latest.nonzero(as_tuple=True)
        rank = run_starts(row, when[row, column]) - run_starts(row)
        row, column = row[rank < k], column[rank < k]
        place = place[row, column]
        return row, torch.where(place % 2 == 0, self.events.src[place >> 1], self.events.dst[place >> 1])

    def distinct_contacts(
        self, user: Tensor, tick: Tensor, *, k: int | None = None, window: int | None = None
    ) -> Contacts:
        """The distinct people each user met before its tick, latest contact first, with the pair's state.

        Args:
            user: [B] int64.
            tick: [B] int64.
            k: at most so many people a row; all by default.
            window: look only at so many latest half-edges of a row; all by default.
        """
        longest = 2 * len(self.events)
        row, half = self.last_contacts(user, tick, longest if window is None else window)
        latest = self._next_tick[half] >= tick[row]
        row, half = row[latest], half[latest]
        start = run_starts(row)
        rank = run_starts(row, self.event_tick[self.event[half].long()]) - start
        if k is not None:
            kept = torch.arange(row.numel()) - start < k
            row, half, rank = row[kept], half[kept], rank[kept]
        return Contacts(
            row=row,
            user=self.halves.other[half].long(),
            last_out=self._moment(self._last_out[half]),
            last_in=self._moment(self._last_in[half]),
            num_out=self._num_out[half].long(),
            num_in=self._num_in[half].long(),
            rank=rank,
            half_edge=half,
        )

    def _last(self, latest: Tensor, user: Tensor, tick: Tensor) -> Tensor:
        return self._last_before(latest, self.halves.ptr[user], self.halves.end(user, tick))

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


def _running(counted: Tensor, start: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
    """For runs beginning at `start`: how many were counted so far, and the tick of the last one or -1."""
    total = counted.cumsum(0)
    number = total - (total - counted.long())[start]
    latest = torch.where(counted, torch.arange(len(counted)), -1).cummax(0).values
    last = torch.where(latest >= start, tick[latest.clamp(min=0)], -1)
    return number.int(), last.int()


def _by_owner_and_tick(
    owner: Tensor,
    tick: Tensor,
    other: Tensor,
    kind: Tensor,
    num_out: Tensor,
    num_in: Tensor,
    next_tick: Tensor,
    num_users: int,
    num_ticks: int,
) -> Tensor:
    """Order by (owner, tick); inside a tie by what the pair did in it, and what was known of pair and person.

    The input is sorted by (owner, other, tick), so half-edges of one pair stay side by side.
    """
    order = (owner * (num_ticks + 1) + tick).argsort(stable=True)
    key = (owner * (num_ticks + 1) + tick)[order]
    same = key[1:] == key[:-1]
    tied = torch.zeros_like(key, dtype=torch.bool)
    tied[1:] |= same
    tied[:-1] |= same
    places = tied.nonzero().squeeze(1)
    if not places.numel():
        return order
    rows = order[places]
    # What a pair's tied half-edges have in common: their kinds, and its state after the last of them.
    closes = torch.where(next_tick > tick, torch.arange(len(tick)), len(tick))
    last = closes.flip(0).cummin(0).values.flip(0)[rows]
    done = torch.zeros_like(tick).index_add_(0, last, _mix(2 * kind[rows] + 1))[last]
    known = torch.searchsorted(key, other[rows] * (num_ticks + 1) + tick[rows])
    seen = known - torch.searchsorted(key, other[rows] * (num_ticks + 1))
    recent = torch.where(seen > 0, key[(known - 1).clamp(min=0)] % (num_ticks + 1), -1)
    content = torch.zeros_like(seen)
    for part in (done, num_out[last].long(), num_in[last].long(), seen, recent):
        content = _mix(content ^ part)
    sub = content.argsort(stable=True)
    sub = sub[key[places][sub].argsort(stable=True)]
    order[places] = rows[sub]
    return order


def _mix(x: Tensor) -> Tensor:
    """A hash of int64: an odd multiplier spreads every bit upwards, the shift brings the high ones down."""
    x = x * 0x9E3779B97F4A7C1
    return x ^ (x >> 29)
