"""The questions of the newcomers' protocol: whole people held out, asked about with few contacts or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import USER, DataError, EventLog, FriendGraph, commonest_action
from graphrec.data.checks import check_choice, check_count, check_graph, check_number
from graphrec.evaluate.initiations import Initiations
from graphrec.temporal import Timeline, ragged

KNOWN_CONTACTS = (0, 1, 3, 5)
"""How many contacts of a newcomer are known when the question is asked."""

MAX_NEWCOMERS = 3000
"""Newcomers asked about, at most; a fixed random sample of more."""

MIN_MOMENTS = 100
"""With fewer distinct times, times do not tell who came first."""

Order = Literal["time", "drawn"]


@dataclass(frozen=True)
class NewcomerStage:
    """B newcomers, each at a moment before which it has the same number of contacts.

    Attributes:
        user: [B] int64, the newcomers.
        time: [B] int64 seconds, the moments.
        row, other: [M] int64, the contacts that follow: the newcomer's row, and the present user.
    """

    user: Tensor
    time: Tensor
    row: Tensor
    other: Tensor


@dataclass(frozen=True)
class NewcomerQuestions:
    """Newcomers and present users of a graph, and what is asked about them.

    Attributes:
        graph: the graph to fit on, until `until`, and to ask about.
        until: seconds; before it no newcomer has an event.
        present: [P] int64, users with an event before `until`, ascending.
        newcomers: [n] int64, ascending.
        stages: by the number of contacts known.
        action: the action asked about: by which most contacts before `until` began.
    """

    graph: FriendGraph
    until: int
    present: Tensor
    newcomers: Tensor
    stages: dict[int, NewcomerStage]
    action: str

    @classmethod
    def of(
        cls,
        graph: FriendGraph,
        *,
        share: float = 0.1,
        known_contacts: Sequence[int] = KNOWN_CONTACTS,
        order: Order | None = None,
        seed: int = 0,
    ) -> Self:
        """Hold out newcomers.

        In order 'time' they are the last to join (without a join time, to have an event), and are asked
        about at the moments of their own contacts, on the graph as it is. In order 'drawn' they are drawn:
        the graph is built anew from the events between all others, in order of time, or where times do not
        tell who came first in a random order of pairs, one a second; after them come the newcomers' contacts,
        the first ones of all newcomers at one time, then the second ones, and so on. Impressions, untimed
        friendships and join times are left out of it.

        Args:
            graph: the whole graph.
            share: of the users with an event.
            known_contacts: numbers of contacts known.
            order: by default 'time' where there are at least 100 distinct times, else 'drawn'.
            seed: of all draws.

        Raises:
            DataError: no newcomer would be left, or no present user.
        """
        check_graph(graph)
        check_number("share", share, above=0.0, maximum=0.5)
        for number in known_contacts:
            check_count("known_contacts", number, minimum=0)
        if order is None:
            order = "time" if len(Timeline.of(graph).instants) >= MIN_MOMENTS else "drawn"
        check_choice("order", order, ("time", "drawn"))
        generator = torch.Generator().manual_seed(seed)
        if order == "time":
            newcomers, until = _last_to_join(graph, share)
        else:
            graph, newcomers, until = _drawn(graph, share, generator)
        timeline = Timeline.of(graph)
        begun = timeline.first_tick < timeline.tick(torch.tensor(until))
        present = begun.nonzero().squeeze(1)
        if not len(newcomers) or not len(present):
            raise DataError(
                f"of {graph.num_users} users none would be left as newcomer, or as present: a share of "
                f"{share} of the users with an event is held out"
            )
        asked = newcomers
        if len(asked) > MAX_NEWCOMERS:
            asked = asked[torch.randperm(len(asked), generator=generator)[:MAX_NEWCOMERS].sort().values]
        stages = {number: _stage(timeline, asked, begun, number) for number in known_contacts}
        return cls(graph, until, present, newcomers, stages, _opening_action(graph, until))


def _opening_action(graph: FriendGraph, until: int) -> str:
    """The action by which most contacts before a time (s) began; of a draw, the first."""
    pairs = Initiations.of(graph)
    counts = np.bincount(pairs.initiation_action[pairs.initiation_time < until], minlength=len(graph.actions))
    return graph.actions[commonest_action(graph.roles, counts.tolist())]


def _users_with_events(timeline: Timeline) -> Tensor:
    """Users with at least one event: [n] int64, ascending."""
    return (timeline.first_tick < len(timeline.instants)).nonzero().squeeze(1)


def _last_to_join(graph: FriendGraph, share: float) -> tuple[Tensor, int]:
    """The last users to join, [n] int64, and the moment (s) from which on they did."""
    timeline = Timeline.of(graph)
    seen = _users_with_events(timeline)
    joined = timeline.instants[timeline.first_tick[seen]]
    given = graph[USER].get("join_time")
    if given is not None:
        joined = torch.where(given[seen] >= 0, torch.minimum(given[seen], joined), joined)
    ordered = joined.sort().values
    until = int(ordered[len(ordered) - max(1, int(share * len(ordered)))])
    return seen[joined >= until], until


def _drawn(graph: FriendGraph, share: float, generator: torch.Generator) -> tuple[FriendGraph, Tensor, int]:
    """A graph in which drawn users come last: (graph, newcomers [n] int64, when they begin)."""
    timeline, events = Timeline.of(graph), graph.events()
    seen = _users_with_events(timeline)
    drawn = torch.randperm(len(seen), generator=generator)[: max(1, int(share * len(seen)))]
    is_new = torch.zeros(graph.num_users, dtype=torch.bool)
    is_new[seen[drawn]] = True

    # One pair's events stay together: they have the number of the pair, in a random order of pairs.
    low, high = torch.minimum(events.src, events.dst), torch.maximum(events.src, events.dst)
    _, pair = (low * graph.num_users + high).unique(return_inverse=True)
    shuffled = torch.randperm(int(pair.max()) + 1, generator=generator)[pair]
    time = events.time if len(timeline.instants) >= MIN_MOMENTS else shuffled

    old = (~is_new[events.src] & ~is_new[events.dst]).nonzero().squeeze(1)
    mixed = (is_new[events.src] ^ is_new[events.dst]).nonzero().squeeze(1)
    if not len(old) or not len(mixed):
        raise DataError("no event would be left between present users, or between them and newcomers")
    until = int(time[old].max()) + 1
    newcomer = torch.where(is_new[events.src[mixed]], events.src[mixed], events.dst[mixed])
    place = _place_of_pair(newcomer, pair[mixed], time[mixed], shuffled[mixed])
    event = torch.cat([old, mixed])
    times = torch.cat([time[old], until + place])
    by_time = times.argsort(stable=True)
    event, times = event[by_time], times[by_time]
    weight = graph.weights()
    log = EventLog(
        src=events.src[event],
        dst=events.dst[event],
        time=times,
        action=events.action[event],
        actions=graph.actions,
        user_ids=graph.user_ids,
        weight=None if weight is None else weight[event],
    )
    out = type(graph).from_events(log, roles=graph.roles.overrides())
    people = {key: value for key, value in graph[USER].items() if key not in ("raw_id", "join_time")}
    out[USER].update(people)
    if "feature_names" in graph._global_store:
        out.feature_names = graph.feature_names
    return out, is_new.nonzero().squeeze(1), until


def _place_of_pair(newcomer: Tensor, pair: Tensor, time: Tensor, tie_break: Tensor) -> Tensor:
    """Each event's place of its pair among the newcomer's pairs by first event: [M] int64 from 0."""
    order = tie_break.argsort(stable=True)
    order = order[time[order].argsort(stable=True)]
    distinct, at = pair.unique(return_inverse=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    first = torch.full((len(distinct),), len(order)).scatter_reduce(0, at, rank, "amin")
    owner = torch.empty_like(distinct)
    owner[at] = newcomer
    by_owner = first.argsort()
    by_owner = by_owner[owner[by_owner].argsort(stable=True)]
    start = torch.searchsorted(owner[by_owner], owner[by_owner])
    place = torch.empty_like(distinct)
    place[by_owner] = torch.arange(len(distinct)) - start
    return place[at]


def _stage(timeline: Timeline, newcomers: Tensor, is_present: Tensor, num_known: int) -> NewcomerStage:
    """The newcomers at the moment of the contact after `num_known` ones, and the contacts from then on."""
    contacts, after = timeline.contacts, torch.tensor(len(timeline.instants))
    row, place = ragged(contacts.start[newcomers], contacts.end(newcomers, after))  # in order of time
    other, tick = contacts.other[place].long(), torch.from_numpy(contacts.lists.tick)[place].long()
    start = torch.searchsorted(row, torch.arange(len(newcomers)))
    count = torch.bincount(row, minlength=len(newcomers))
    enough = (count > num_known).nonzero().squeeze(1)
    moment = tick[start[enough] + num_known]
    if num_known:  # contacts of one second cannot be parted
        parted = tick[start[enough] + num_known - 1] < moment
        enough, moment = enough[parted], moment[parted]
    at = torch.full_like(newcomers, -1)
    at[enough] = torch.arange(len(enough))
    since = torch.full_like(newcomers, len(timeline.instants))
    since[enough] = moment
    hidden = (at[row] >= 0) & (tick >= since[row]) & is_present[other]
    kept, stage_row = at[row[hidden]].unique(return_inverse=True)
    return NewcomerStage(newcomers[enough[kept]], timeline.instants[moment[kept]], stage_row, other[hidden])
