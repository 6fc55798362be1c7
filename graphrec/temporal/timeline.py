"""The strictly-past index: the state of users and pairs before any moment, for a batch of queries at once.

Every event is in the index twice, as a *half-edge* on the timeline of each of its two users, so that a
history is two-directional. Time is counted in *ticks*, the rank of a moment among the log's distinct times:
an event is visible to a query exactly if its tick is smaller than `Timeline.tick(query time)`. Tied events
therefore see neither each other nor the query that shares their time.
"""

from __future__ import annotations

import os
from copy import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Events, FriendGraph
from graphrec.data.checks import check_count
from graphrec.inference import lasting_tensors
from graphrec.temporal.adjacency import TimedAdjacency
from graphrec.temporal.append import GrowingIndex, grow, growing, headroom
from graphrec.temporal.build import build_index
from graphrec.temporal.columns import LAST_PLACE, IndexColumns, TimedLists
from graphrec.temporal.contacts import NEVER, Contacts, UserActivity
from graphrec.temporal.files import open_index, save_index
from graphrec.temporal.first_ticks import FirstTicks
from graphrec.temporal.growing_index import columns_of, with_events, without_room_for_users
from graphrec.temporal.lookups import (
    count_acts,
    fill_activity,
    fill_met,
    last_ticks,
    link_appearances,
    list_contacts,
    list_recently_seen,
    number_ticks,
)
from graphrec.temporal.new_events import check_new_events
from graphrec.temporal.ragged import ragged
from graphrec.temporal.remove import Removal, positions_of_events, remove_events, restore_events


class Timeline:
    """The index of a graph's events; memory and build time grow with the number of events.

    Half-edges are sorted by (owner, tick) and, at equal times, by the past of the other user and of the pair,
    never by row order or user index: shuffling rows of equal time or permuting ids leaves the index as it
    was, except that users with identical histories may trade places.

    Methods take users (int64 indices) and ticks (int64) of one broadcast shape, and return that shape, unless
    their docstrings say otherwise.

    Attributes:
        num_users: N.
        events: the log, in order of time; where events were removed, `src` and `dst` are -1.
        columns: the arrays of the index, for kernels.
        removed: [R] int64, ascending positions in the log of removed events.
        instants: [T] int64, the distinct times, ascending.
        event_tick: [E] int32, tick of each event.
        half_edges: all 2E half-edges (`TimedAdjacency`).
        contacts: for each user the distinct contacts, at the first event either way.
        acted_on: for each user the distinct users acted on, at the first act.
        is_lent: whether `of` gave it to somebody who does not follow appends.
    """

    def __init__(self, graph: FriendGraph) -> None:
        self.num_users = graph.num_users
        self.events: Events = graph.events()
        time = self.events.time.numpy()
        self.event_tick = torch.empty(len(time), dtype=torch.int32)
        num_ticks = number_ticks(time, self.event_tick.numpy())
        self.instants = self.events.time[torch.searchsorted(self.event_tick, torch.arange(num_ticks).int())]
        self.columns: IndexColumns = build_index(
            self.events.src.numpy(),
            self.events.dst.numpy(),
            self.events.action.numpy(),
            self.event_tick.numpy(),
            num_users=self.num_users,
            num_actions=len(graph.actions),
        )
        self._num_actions = len(graph.actions)
        self._growing: GrowingIndex | None = None
        self._folder: Path | None = None
        self._first: FirstTicks | None = None
        self.is_lent = False
        self.removed = np.empty(0, np.int64)
        self._read_columns()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Timeline:
        """Map an index that `save` wrote: nothing is read but what is asked for.

        Appending to it leaves the files as they are.

        Raises:
            DataError: the folder holds no index, one of another version, or damaged files.
        """
        out = cls.__new__(cls)
        index, out._num_actions = open_index(Path(folder))
        out._first, out.is_lent = None, False
        out._use(index, len(index.columns.half_edges.start))
        out._folder = Path(folder)
        return out

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index to a folder, as files that `open` maps.

        Raises:
            FileExistsError: the folder holds an index already.
        """
        events = self._headroom(0)
        index = without_room_for_users(self._index(), self.num_users)
        save_index(Path(folder), index, events=events, num_actions=self._num_actions)

    def _index(self) -> GrowingIndex:
        """The arrays of the index, with the room that they have."""
        if self._growing is not None:
            return self._growing
        ticks = self.event_tick.numpy(), self.instants.numpy()
        return growing(self.columns, self.events, *ticks, self.following)

    def _use(self, index: GrowingIndex, num_users: int) -> None:
        """Read everything from these arrays from now on."""
        self._growing, self.num_users, self._folder = index, num_users, None
        self.columns, self.removed = columns_of(index, num_users), index.removed
        num_events, num_ticks = index.used[:2].tolist()
        self.events = Events(
            *(torch.from_numpy(x[:num_events]) for x in (index.src, index.dst, index.time, index.action))
        )
        self.event_tick = torch.from_numpy(index.event_tick[:num_events])
        self.instants = torch.from_numpy(index.instants[:num_ticks])
        self._read_columns()
        self.__dict__.pop("_code", None)
        self.following = index.following[:num_events].reshape(-1)

    def _read_columns(self) -> None:
        half = self.columns.half_edges
        self.half_edges = TimedAdjacency(TimedLists(half.start, half.length, half.other, half.tick))
        self.contacts = TimedAdjacency(self.columns.contacts)
        self.acted_on = TimedAdjacency(self.columns.acted_on)

    def append(self, events: Events, *, num_users: int | None = None) -> None:
        """Add events to the index in place; it then is what an index of all events would be.

        The graph that was indexed is left as it is. The first append, and one after very many, copies the
        index to make room; positions of half-edges are valid until the next append. `events` [M] are in order
        of time, none before the last event of the index; `num_users` there are now, if more than before.

        Raises:
            ValueError: an event is older than one before it, has an unknown user or action, or joins a user
                with themselves; then nothing is appended.
        """
        num_users = check_count("num_users", num_users or self.num_users, minimum=self.num_users)
        check_new_events(events, self.events.time[-1:], num_users=num_users, num_actions=self._num_actions)
        index, size = self._index(), len(self.events)
        room, has_room = self._headroom(len(events)), self._growing is not None
        index = with_events(index, events, num_users, self._num_actions, room=room, has_room=has_room)
        self._use(index, num_users)
        if self._first is not None:
            self._first.add(events, self.event_tick[size:], num_users)

    def remove(self, events: Tensor) -> Removal:
        """Remove events from the index in place, in work that grows with the timelines of their users.

        It then is what an index of the other events would be, but the log keeps its positions, and ticks
        their numbers, also where no event is left. `events` are [R] integers, distinct positions in the log;
        `restore` takes what is returned, and puts them back.

        Raises:
            IndexError: a position is not in the log.
            ValueError: an event is named twice, or was removed before; then nothing is removed.
        """
        gone, index = positions_of_events(events, self.events.src), self._index()
        if self._growing is None:  # the arrays are the graph's
            index = grow(index, events=0, num_users=self.num_users)
        index, removal = remove_events(index, gone, self._num_actions)
        self._use(index, self.num_users)
        self._first = None
        return removal

    def restore(self, removal: Removal) -> None:
        """Undo the last `remove` that was not undone; nothing may have been appended since."""
        self._use(restore_events(self._index(), removal), self.num_users)
        self._first = None

    def copy(self, *, appends: bool = False) -> Timeline:
        """Copy the index, with room for `appends`; one mapped, and not changed since, is mapped again."""
        if self._folder is not None:
            return Timeline.open(self._folder)
        out, events = copy(self), self._headroom(0) if appends else 0
        out._use(grow(self._index(), events=events, num_users=self.num_users), self.num_users)
        out._first, out.is_lent = None, False
        return out

    def _headroom(self, wanted: int) -> int:
        return max(wanted, headroom(len(self.events)))

    @classmethod
    def of(cls, graph: FriendGraph, *, follows: bool = False) -> Timeline:
        """Return a graph's index; it is built once while the graph keeps its users and event tensors.

        A caller who `follows` appends, or keeps nothing of the index, says so: for others, appends are made
        to a copy.
        """
        index: Timeline | None = graph.__dict__.get("_timeline")
        if index is None or index.events is not graph.events() or index.num_users != graph.num_users:
            index = graph.__dict__["_timeline"] = cls(graph)
        index.is_lent |= not follows
        return index

    @property
    def first_tick(self) -> Tensor:
        """The tick of each user's first event, or `LAST_TICK` where there is none: [N] int64."""
        if self._first is None:
            with lasting_tensors():
                self._first = FirstTicks(self.half_edges)
        return self._first.of(self.num_users)

    def first_event_time(self, user: Tensor, tick: Tensor) -> Tensor:
        """Return the time of each user's first event before its tick: int64 seconds, or `NEVER`."""
        first = self.first_tick[user]
        return self._moment(torch.where(first < tick, first, -1))

    def num_events_before(self, tick: Tensor | int) -> Tensor:
        """Count the events of the network before each tick (int64, same shape)."""
        end = self.end_of_log(tick)
        return end - torch.searchsorted(torch.from_numpy(self.removed), end)

    def end_of_log(self, tick: Tensor | int) -> Tensor:
        """Return the position in the log after the last event before each tick (int64, same shape)."""
        return torch.searchsorted(self.event_tick, torch.as_tensor(tick, dtype=torch.int32).contiguous())

    def tick_of(self, event: Tensor) -> Tensor:
        """Return the ticks of events, given by their positions in the log (int64, same shape)."""
        return self.event_tick[event].long()

    def tick(self, time: Tensor) -> Tensor:
        """Count the distinct times strictly before each time (int64, same shape)."""
        return torch.searchsorted(self.instants, time.contiguous())

    def counts(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
        """Count the acts by and on each user before its tick (int64 each, broadcast shape)."""
        shape, keys = self._queries(user, tick)
        out = torch.empty(2, *shape, dtype=torch.int64)
        count_acts(self.columns.half_edges, *keys, out.view(2, -1).numpy())
        acts, received = out
        return acts, received

    def num_acts(self, user: Tensor, tick: Tensor) -> Tensor:
        """Count the acts by each user before its tick (int64, broadcast shape)."""
        return self.counts(user, tick)[0]

    def num_received(self, user: Tensor, tick: Tensor) -> Tensor:
        """Count the acts on each user before its tick (int64, broadcast shape)."""
        return self.counts(user, tick)[1]

    def last_act(self, user: Tensor, tick: Tensor) -> Tensor:
        """Return the time of each user's last act before its tick: int64 seconds, or `NEVER`."""
        return self._last(user, tick)[0]

    def last_received(self, user: Tensor, tick: Tensor) -> Tensor:
        """Return the time of the last act on each user before its tick: int64 seconds, or `NEVER`."""
        return self._last(user, tick)[1]

    def degree(self, user: Tensor, tick: Tensor) -> Tensor:
        """Count each user's distinct contacts before its tick (int64, broadcast shape)."""
        return self.contacts.count(user, tick)

    def activity(self, user: Tensor, tick: Tensor) -> UserActivity:
        """Return counts and latest times of users before their ticks, from one search for each."""
        shape, keys = self._queries(user, tick)
        out = torch.empty(5, *shape, dtype=torch.int64)
        columns, instants = self.columns, self.instants.numpy()
        fill_activity(columns.half_edges, columns.contacts, *keys, instants, out.view(5, -1).numpy())
        return UserActivity(*out)

    def had_contact(self, one: Tensor, other: Tensor, tick: Tensor) -> Tensor:
        """Tell which pairs of users [M] had contact, either way, before ticks [M]: [M] bool."""
        out = torch.empty(one.shape, dtype=torch.bool)
        users, others, ticks = (key.long().contiguous().numpy() for key in (one, other, tick))
        fill_met(self.columns.contacts, users, others, ticks, out.numpy())
        return out

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

    def event_of(self, half_edge: Tensor) -> Tensor:
        """Return the positions in the log of the events of half-edges (int64, same shape)."""
        return self._code[half_edge].long() >> 1

    def is_outgoing(self, half_edge: Tensor) -> Tensor:
        """Tell of which half-edges the owner acted (bool, same shape)."""
        return (self._code[half_edge] & 1).bool()

    def other_of(self, half_edge: Tensor) -> Tensor:
        """Return the other users of half-edges (int64, same shape)."""
        return self.half_edges.other[half_edge].long()

    def kind(self, half_edge: Tensor) -> Tensor:
        """Return 2 x action + (1 if the owner acted) of half-edges (int64, same shape)."""
        code = self._code[half_edge].long()
        return 2 * self.events.action[code >> 1] + (code & 1)

    def last_half_edges(self, user: Tensor, tick: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """List the last k half-edges of users [B] before ticks [B], latest first.

        Returns:
            (row [M], half-edge [M]) int64, rows ascending.
        """
        end = self.half_edges.end(user, tick)
        length = (end - self.half_edges.start[user]).clamp(max=k)
        row, back = ragged(torch.zeros_like(end), length)
        return row, end[row] - 1 - back

    def recently_seen(self, tick: Tensor, *, k: int, window: int) -> tuple[Tensor, Tensor]:
        """List the distinct users last active in the network before each of B ticks, in either role.

        Args:
            tick: [B] int64.
            k: users a row, or more where a tie crosses it: those with fewer than k users strictly later.
            window: half-edges of the network looked back on; a tie that reaches beyond is left out.

        Returns:
            (row [M], user [M]) int64, latest first.
        """
        num_before = self.end_of_log(tick)
        out = torch.empty(2, int((2 * num_before).clamp(max=window).sum()), dtype=torch.int64)
        src, dst, event_tick = (x.numpy() for x in (self.events.src, self.events.dst, self.event_tick))
        size = list_recently_seen(
            src, dst, event_tick, self.following, self.removed, num_before.numpy(), k, window, out.numpy()
        )
        row, user = out[:, :size]
        return row, user

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
        k, window = longest if k is None else k, longest if window is None else window
        most = self.half_edges.count(user, tick).clamp(max=min(k, window))
        out = torch.empty(8, int(most.sum()), dtype=torch.int64)
        _, keys = self._queries(user, tick)
        columns, instants = self.columns, self.instants.numpy()
        nobody = np.full(len(keys[0]), -1)
        size = list_contacts(
            columns.half_edges, columns.pair, instants, *keys, nobody, k, window, out.numpy()
        )
        return Contacts(*out[:, :size])

    @cached_property
    @lasting_tensors()
    def _code(self) -> Tensor:
        return torch.from_numpy(self.columns.half_edges.code)

    @cached_property
    def following(self) -> np.ndarray:
        """For both users of each event, the place of the same user's next, see `link_appearances`: [2E]."""
        src, dst = self.events.src.numpy(), self.events.dst.numpy()
        out = np.empty(2 * len(src), np.int32)
        link_appearances(src, dst, 0, np.full(self.num_users, LAST_PLACE, np.int64), out)
        return out

    def _queries(self, user: Tensor, tick: Tensor) -> tuple[torch.Size, tuple[np.ndarray, np.ndarray]]:
        """The broadcast shape of users and ticks, and both flat for kernels."""
        user, tick = torch.broadcast_tensors(user, tick)
        flat_user, flat_tick = (key.reshape(-1).long().contiguous().numpy() for key in (user, tick))
        return user.shape, (flat_user, flat_tick)

    def _last(self, user: Tensor, tick: Tensor) -> Tensor:
        """Times of last acts by users, and on users, before ticks: [2, *shape] int64 seconds or `NEVER`."""
        shape, keys = self._queries(user, tick)
        out = torch.empty(2, *shape, dtype=torch.int64)
        last_ticks(self.columns.half_edges, *keys, self.instants.numpy(), out.view(2, -1).numpy())
        return out

    def _moment(self, tick: Tensor) -> Tensor:
        if not len(self.instants):
            return torch.full_like(tick, NEVER, dtype=torch.int64)
        return torch.where(tick >= 0, self.instants[tick.clamp(min=0).long()], NEVER)
